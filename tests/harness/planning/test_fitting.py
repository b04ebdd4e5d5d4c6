"""What fits instead of what does not."""

import pytest
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.block import Block
from harness_plugins.patterns.n_m import NM
from harness_plugins.patterns.unstructured import Unstructured
from harness_plugins.strategies.fine_tuning import FineTuning as InRounds
from harness_plugins.strategies.gradual import Gradual
from toy import FineTuning, experiment

from harness.api import Axis, Tensor
from harness.masks.beforehand import why_skipped
from harness.planning.fitting import nearest_fit
from harness.planning.plan import make_plan, outlook

MATRIX = Tensor(
    name="lstm_0.kernel",
    layer="lstm_0",
    role="lstm",
    rows=Axis(label="rows", size=160),
    cols=Axis(label="cols", size=40),
)


@pytest.mark.parametrize(
    ("pattern", "sparsity", "told"),
    [
        (BankBalanced(banks=10), 0.9, "banks=4 or sparsity 0.75"),
        (BankBalanced(bank_size=4), 0.9, "bank_size=10"),
        (NM(), 0.9, "sparsity"),
        (Block(height=160, width=40), 0.5, "width=20"),
    ],
    ids=str,
)
def test_the_nearest_values_that_fit_are_named_and_do_fit(pattern, sparsity, told):
    assert why_skipped(pattern, "uniform", (MATRIX,), sparsity)

    instead = nearest_fit(pattern, "uniform", (MATRIX,), sparsity, 0.02)

    assert told in instead
    for part in instead.split(" or "):
        if part.startswith("sparsity "):
            assert why_skipped(pattern, "uniform", (MATRIX,), float(part.split()[1])) is None
        else:
            name, value = part.split("=")
            changed = pattern.model_copy(update={name: int(value)})
            assert why_skipped(changed, "uniform", (MATRIX,), sparsity) is None


def test_without_anything_near_nothing_is_said():
    assert nearest_fit(Unstructured(), "uniform", (MATRIX,), 0.99999, 0.0000001) in ("", "sparsity 0.9998")


def test_validate_and_plan_agree_on_what_cannot_run(tmp_path):
    grid = experiment(patterns=(BankBalanced(banks=10), Unstructured()), sparsities=(0.5, 0.9))
    plan = make_plan(grid, store=tmp_path)

    beforehand = outlook(grid, plan.problems, {})

    assert [cell.skip for cell in beforehand.cells] == [cell.skip for cell in plan.cells]
    (reason,) = {cell.skip for cell in beforehand.cells if cell.skip}
    assert "what fits: banks=" in reason


def test_mask_updates_are_counted_and_a_schedule_of_few_is_told(tmp_path):
    rarely = Gradual(begin_epoch=1, end_epoch=2, every=10**6)
    plan = make_plan(experiment((FineTuning(), Gradual(), rarely)), store=tmp_path)

    dense, once, often, seldom = plan.cells

    assert [dense.mask_updates, once.mask_updates, seldom.mask_updates] == [0, 1, 2]
    assert often.mask_updates >= 5 and not often.warning and not once.warning
    assert "makes 2 mask updates" in seldom.warning
    assert plan.summary()["warnings"] == [seldom.warning]


def test_every_pruning_has_its_place_and_sparsity_and_a_hundred_stand_for_many(tmp_path):
    strategies = (InRounds(epochs=2), InRounds(epochs=2, rounds=2), Gradual(), Gradual(every=1))
    plan = make_plan(experiment(strategies, sparsities=(0.75,)), store=tmp_path)

    dense, once, twice, often, always = plan.cells

    epochs = dense.total_epochs
    assert dense.prunings == () and once.prunings == ((float(epochs), 0.75),)
    assert [sparsity for _, sparsity in twice.prunings] == [pytest.approx(0.5), pytest.approx(0.75)]
    assert [place for place, _ in twice.prunings] == [epochs, epochs + twice.retrain_epochs / 2]
    for cell in (often, always):
        assert len(cell.prunings) == min(cell.mask_updates, 100)
        assert list(cell.prunings) == sorted(cell.prunings) and cell.prunings[-1][1] == 0.75
        assert 0 <= cell.prunings[0][0] < cell.prunings[-1][0] <= cell.total_epochs
