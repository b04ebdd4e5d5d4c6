"""Who is the best so far: by validation, at each sparsity, told only when it is news."""

from hypothesis import given
from hypothesis import strategies as st
from records_at_random import every_fate, runs

from harness.execution.standing import Standing


@given(runs(), st.booleans())
def test_the_best_is_no_worse_than_any_finished_cell_of_its_sparsity(records, higher):
    records = [record.model_copy(update={"better": "higher" if higher else "lower"}) for record in records]

    standing = Standing()
    news = [standing.add(record) for record in records]
    found = standing.best()

    assert any(news) == bool(found)
    pruned = [r for r in records if r.is_done and not r.is_dense and r.valid_value is not None]
    levels = sorted({record.target_sparsity for record in pruned}, reverse=True)
    assert [at for at, _, _ in found] == [f"{100 * level:g} %" for level in levels]
    for level, (_, label, outcome) in zip(levels, found, strict=True):
        values = [record.valid_value for record in pruned if record.target_sparsity == level]
        best = max(values) if higher else min(values)
        assert outcome == f"valid perplexity {best:.2f}"
        names = [(r.backend, r.pattern, r.strategy, f"seed {r.seed}") for r in pruned if r.valid_value == best]
        assert tuple(label.split(" · ")) in names


def test_only_who_is_better_is_news():
    standing = Standing()
    one = every_fate()[3]

    assert standing.add(one) and not standing.add(one.model_copy(update={"cell": "another"}))
    assert not standing.add(one.model_copy(update={"status": "failed", "valid_value": 1.0}))
    assert standing.add(one.model_copy(update={"valid_value": 1.0, "seed": 7}))
    [(at, label, outcome)] = standing.best()
    assert (at, outcome) == ("90 %", "valid perplexity 1.00") and label.endswith("seed 7")
