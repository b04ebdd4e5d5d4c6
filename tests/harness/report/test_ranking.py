"""The ranking of patterns: ranks as intervals, whether it depends on the strategy, what is recommended and what not."""

import numpy as np

from harness.report import render
from harness.report.ranking import ranking
from harness.report.tables import tables
from harness.results.records import Record


def study(means, *, seeds=6, spread=0.05, levels=(0.9,), **changes):
    """Records whose pruned cells have these means by strategy and pattern; seeds share what is theirs."""
    draw = np.random.default_rng(7)
    common = draw.normal(0, 3, seeds)
    records = []
    for level in levels:
        for strategy, patterns in means.items():
            for pattern, mean in patterns.items():
                noise = draw.normal(0, spread, seeds)
                for seed in range(seeds):
                    fields = {
                        "cell": f"{strategy} {pattern} {level} {seed}", "task": "lm", "backend": "torch",
                        "pattern": pattern, "pattern_name": pattern, "strategy": strategy, "scope": ("lstm",),
                        "target_sparsity": level, "sparsity": level, "model_sparsity": level, "seed": seed,
                        "metric": "perplexity", "status": "ok", "value": mean + common[seed] + noise[seed],
                    }  # fmt: skip
                    records.append(Record(**(fields | changes)))
    return records


def told(records, margin=0.5, doubts=()):
    [table] = tables(records, margin)
    [section] = ranking(table, margin, doubts)
    return section


def cells(section):
    return [tuple(cell.text for cell in row) for row in section.grid.rows]


ALIKE = {"gradual": {"unstructured": 10.0, "banks": 10.1, "block": 20.0}}
TURNED = {"gradual": {"unstructured": 10.0, "banks": 12.0}, "rewinding": {"unstructured": 12.0, "banks": 10.0}}
SIZED = {"gradual": {"unstructured": 10.0, "banks": 12.0}, "rewinding": {"unstructured": 10.0, "banks": 15.0}}


def test_patterns_that_are_equivalent_share_a_rank_and_a_letter():
    section = told(study(ALIKE))

    ranks = {row[2]: row[-3:] for row in cells(section)}
    assert ranks == {"unstructured": ("1–2", "3", "a"), "banks": ("1–2", "3", "a"), "block": ("3", "3", "b")}
    assert "share a letter are not told apart" in section.grid.caption[0] and "within 0.5" in section.grid.caption[0]


def test_a_ranking_that_turns_with_the_strategy_is_told_with_both_sides():
    [sentence] = [line for line in told(study(TURNED)).sentences if line.startswith("At 90 %")]

    assert "depend on the strategy, and the ranking with them" in sentence
    assert "unstructured is the better one under gradual and banks is the better one under rewinding" in sentence
    assert "F = " in sentence and "Holm over 1" in sentence


def test_a_difference_that_changes_its_size_only_is_no_change_of_the_ranking():
    [sentence] = [line for line in told(study(SIZED)).sentences if line.startswith("At 90 %")]

    assert "in size; that the ranking changes is not shown" in sentence


def test_without_an_interaction_there_is_no_evidence_of_one():
    same = {"gradual": ALIKE["gradual"], "rewinding": ALIKE["gradual"]}

    [sentence] = [line for line in told(study(same)).sentences if line.startswith("At 90 %")]
    assert "no evidence that the differences between patterns depend on the strategy" in sentence


def test_a_pattern_is_recommended_up_to_the_sparsity_at_which_it_still_costs_nothing():
    low = study(ALIKE, levels=(0.5, 0.7))
    high = study({"gradual": {"unstructured": 10.0, "banks": 14.0, "block": 20.0}}, levels=(0.9,))

    [sentence] = [line for line in told([*low, *high]).sentences if line.startswith("Recommendation")]

    assert "under gradual banks up to 70 % (equivalent at every sparsity tried)" in sentence
    assert "block" not in sentence
    assert "6 seeds and an equivalence margin of 0.5" in sentence and "lm" in sentence


def test_a_recommendation_tells_the_seeds_that_were_compared_and_not_the_most_there_are():
    low = [record for record in study(ALIKE, levels=(0.5,)) if record.pattern != "banks" or record.seed < 3]
    fewer = told(low).sentences
    both = told([*low, *study(ALIKE, levels=(0.7,))]).sentences

    assert any(line.startswith("Recommendation") and ", 3 seeds and an equivalence" in line for line in fewer)
    assert any(line.startswith("Recommendation") and ", 3 to 6 seeds and an equivalence" in line for line in both)


def test_two_seeds_may_prove_an_equivalence():
    found = told(study(ALIKE, seeds=2, spread=1e-3)).sentences

    assert any(line.startswith("Recommendation") and ", 2 seeds and" in line for line in found)


def test_the_backend_has_a_column_where_there_are_two():
    one = study(ALIKE)
    other = [record.model_copy(update={"backend": "keras_tfmot", "cell": f"{record.cell} k"}) for record in one]

    assert "backend" not in [column.header for column in told(one).grid.columns]
    both = told([*one, *other])
    assert both.grid.columns[0].header == "backend"
    assert {row[0] for row in cells(both)} == {"torch", "keras_tfmot"}


def test_nothing_is_recommended_without_evidence_margin_or_trust():
    worse = {"gradual": {"unstructured": 10.0, "banks": 14.0}}

    assert not any("ecommendation" in line for line in told(study(worse)).sentences)
    assert not any("ecommendation" in line for line in told(study(ALIKE), margin=None).sentences)
    [sentence] = [line for line in told(study(ALIKE), doubts=("SPN002",)).sentences if "ecommendation" in line]
    assert sentence.startswith("No recommendation") and "SPN002" in sentence


def test_a_recommendation_stops_at_kept_weights_that_differ():
    records = [
        r.model_copy(update={"sparsity": 0.88}) if r.pattern == "banks" else r for r in study(ALIKE)
    ]  # fmt: skip

    assert not any("ecommendation" in line for line in told(records).sentences)


def test_an_open_verdict_is_told_with_the_seeds_that_would_settle_it():
    offsets = (0.1, 1.4, -0.2)
    records = [
        r.model_copy(update={"value": 10.0 + r.seed + offsets[r.seed] * (r.pattern == "banks")})
        for r in study({"gradual": {"unstructured": 10.0, "banks": 10.0}}, seeds=3)
    ]

    [line] = [line for line in told(records).sentences if line.startswith("Seeds that would")]
    assert "banks under gradual at 90 %: " in line and "80 % power" in line


def test_one_pattern_or_one_seed_has_no_ranking():
    for records in (study({"gradual": {"banks": 10.0}}), study(ALIKE, seeds=1)):
        [table] = tables(records, 0.5)
        assert ranking(table, 0.5) == []


def test_the_ranking_stands_in_every_long_report():
    records = study(TURNED)

    for format in ("rich", "md"):
        text = render(records, format=format, margin=0.5, width=150)
        assert "Ranking of patterns: lm" in text and "depend on the strategy" in " ".join(text.split())
