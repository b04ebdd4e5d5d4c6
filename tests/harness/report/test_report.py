"""Reports, from hand-made records: what stands in the rows, and the tables as text."""

import csv
import itertools
import json
import re
import subprocess
import sys
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from uncut import WIDTHS, check_uncut

from harness.api import EmptySelectionError, SpecError, StoreError
from harness.report import formats, picture, render
from harness.report.comparison import strategies
from harness.report.document import build
from harness.report.engines import pairs
from harness.report.formats import UNEVEN
from harness.report.rows import HardwareCell
from harness.report.tables import tables
from harness.results.records import NOT_COSTED, Record, write
from harness.results.statistics import interval

FINE, GRADUAL, REWINDING = "fine_tuning(epochs=2)", "gradual", "lr_rewinding"
BANKS = "bank_balanced(banks=4)"

# How far each pattern and strategy of the hand-made language model is from dense, per unit of sparsity.
COST = {("unstructured", FINE): 4.0, ("unstructured", GRADUAL): 3.0, (BANKS, FINE): 4.5, (BANKS, GRADUAL): 3.25}
NOISE = (0.05, -0.04, 0.02)


def noise(pattern, seed):
    """Small, different for every pattern, and over three seeds of equal sum."""
    return NOISE[(seed + len(pattern)) % 3]


def engine(speedup, *, fits=True):
    return {"latency_us": 40 / speedup, "cycles": int(8000 / speedup), "speedup": speedup, "fits": fits}


def language_model(pattern="dense", strategy="dense", sparsity=0.0, seed=0, **changes):
    value = 100.0 + seed + sparsity * COST.get((pattern, strategy), 5.0) + noise(pattern, seed) * bool(sparsity)
    after_dense = strategy in (FINE, REWINDING)
    fields = {
        "run": "grid-1a2b3c",
        "cell": f"{pattern} {strategy} {sparsity} {seed}",
        "task": "lstm_lm",
        "backend": "torch",
        "pattern": pattern,
        "strategy": strategy,
        "scope": ("lstm",),
        "target_sparsity": sparsity,
        "sparsity": max(0.0, sparsity - 0.0004),
        "model_sparsity": round(sparsity / 4, 4),
        "seed": seed,
        "metric": "perplexity",
        "value": value,
        "total_epochs": 6 if after_dense else 4,
        "retrain_epochs": 2 if after_dense else 0,
        "needs_dense_model": after_dense,
        "hyper_parameters": ("epochs", "lr") if after_dense else ("begin", "end", "every") if sparsity else (),
        "best_possible": 61.5,
        "status": "ok",
        "hardware": {
            "fpga_analytic": engine(1 + 8 * sparsity),
            "cycle_simulator(engine=bank)": engine(1 + 6 * sparsity, fits=sparsity > 0),
        },
        "device": "cpu",
        "threads": 1,
        "versions": {"harness": "0.1.0", "torch": "2.9.0"},
        "facts": {"corpus": "synthetic", "train_tokens": 20000},
    }
    return Record(**(fields | changes))


def grid(*, patterns=("unstructured", BANKS), seeds=(0, 1, 2), levels=(0.6, 0.9), by=(FINE, GRADUAL)):
    """Dense first, then every pattern, strategy and sparsity."""
    pruned = [
        language_model(pattern, strategy, level, seed)
        for pattern in patterns
        for strategy in by
        for level in levels
        for seed in seeds
    ]
    return [language_model(seed=seed) for seed in seeds] + pruned


def without_result(record, status, reason=""):
    empty = {"sparsity": None, "model_sparsity": None, "value": None, "hardware": {}}
    return record.model_copy(update={"status": status, "reason": reason, **empty})


def troubled():
    """A grid under way: a failed seed, a row that failed whole, a declared skip, a cost that cannot be had."""
    records = grid(seeds=(0, 1), levels=(0.9,))
    for index, record in enumerate(records):
        if record.pattern == BANKS and record.strategy == FINE and record.seed == 1:
            records[index] = without_result(record, "diverged", "the loss became nan at step 7 of the epoch")
        elif record.pattern == "unstructured" and record.strategy == GRADUAL:
            records[index] = without_result(record, "failed", "RuntimeError: out of luck")
        elif record.pattern == BANKS and record.strategy == GRADUAL and record.seed == 0:
            update = {"status": "cached", "hardware": record.hardware | {"fpga_analytic": {"reason": "no such engine"}}}
            records[index] = record.model_copy(update=update)
        elif record.pattern == BANKS and record.strategy == GRADUAL:
            records[index] = without_result(record, "planned")
    skipped = language_model("n_m", FINE, 0.9, 0, backend="keras_tfmot")
    return [*records, without_result(skipped, "skipped", "n_m: 2:4 reaches a sparsity of 0.5, not 0.9")]


def images(pattern="dense", sparsity=0.0, seed=0, drop=0.0):
    return Record(
        cell=f"images {pattern} {seed}",
        task="lenet",
        backend="torch",
        pattern=pattern,
        strategy="one_shot" if sparsity else "dense",
        target_sparsity=sparsity,
        sparsity=sparsity,
        model_sparsity=sparsity,
        seed=seed,
        metric="accuracy",
        unit="%",
        better="higher",
        digits=1,
        value=97.0 + 0.1 * seed - drop + noise(pattern, seed) * bool(sparsity),
        status="ok",
        value_before_retraining=90.0 if sparsity else None,
    )


def accuracies():
    drops = {"unstructured": 0.05, "block": 8.0}
    pruned = [images(pattern, 0.5, seed, drop) for pattern, drop in drops.items() for seed in range(3)]
    return [images(seed=seed) for seed in range(3)] + pruned


def row(records, pattern, strategy, level=0.9, margin=None):
    """The only row of these labels."""
    [found] = [
        found
        for table in tables(records, margin)
        for found in table.rows
        if (found.setting.pattern, found.setting.strategy, found.setting.target_sparsity) == (pattern, strategy, level)
    ]
    return found


# --- the answer -----------------------------------------------------------------------------------------------------


def opened(records, width=80, **options):
    where = [("report", "runs/study/report.md"), ("all tables", "harness report --full")]
    return render(records, title="study", full=False, width=width, where=where, **options)


def test_the_answer_of_a_grid(golden):
    golden("report_answer_80", opened(grid(), margin=1.0))


@pytest.mark.parametrize("name", ["grid", "one seed", "troubled", "two tasks", "many", "dense", "no reference"])
def test_a_report_opens_with_an_answer_on_one_screen(name):
    patterns = ("unstructured", *(f"bank_balanced(banks={place})" for place in range(20)))
    records = {
        "grid": grid(),
        "one seed": grid(seeds=(0,)),
        "troubled": troubled(),
        "two tasks": [*grid(levels=(0.6,)), *accuracies()],
        "many": grid(patterns=patterns, seeds=(0, 1), levels=(0.5, 0.7, 0.9)),
        "dense": [language_model(seed=seed) for seed in (0, 1)],
        "no reference": grid(patterns=(BANKS,)),
    }[name]

    lines = opened(records, margin=1.0).splitlines()

    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert lines[0].startswith("study: ") and "harness report --full" in lines[-1]
    assert f"{sum(r.is_done for r in records)} of {len(records)} cells" in lines[0]
    assert ("Best mean of 20 patterns" in "\n".join(lines)) is (name == "many")


def test_of_more_patterns_than_a_screen_holds_each_strategy_tells_its_best():
    patterns = ("unstructured", *(f"bank_balanced(banks={place})" for place in range(20)))
    records = grid(patterns=patterns, seeds=(0, 1), levels=(0.7, 0.9))

    text = opened(records, width=200)

    by_strategy = {record.strategy: record for record in records if not record.is_dense}
    for strategy in by_strategy:
        line = next(line for line in text.splitlines() if line.startswith(strategy.partition("(")[0] + " "))
        for level in (0.7, 0.9):
            means = [row(records, pattern, strategy, level).to_reference.difference.mean for pattern in patterns[1:]]
            best = patterns[1 + means.index(min(means))]  # perplexity: lower is better
            assert f"{best} {min(means):+.2f}" in line
    assert f"all {20 * len(by_strategy)} rows: harness report --full." in " ".join(text.split())


def of_tasks(*tasks, patterns, **options):
    """One grid for each task."""
    return [
        record.model_copy(update={"task": task, "cell": f"{task} {record.cell}"})
        for task in tasks
        for record in grid(patterns=patterns, seeds=(0, 1), **options)
    ]


@pytest.mark.parametrize("tasks", [("small", "large"), ("a", "b", "c")])
def test_of_several_tasks_that_a_screen_does_not_hold_each_has_its_answer(tasks):
    patterns = ("unstructured", *(f"bank_balanced(banks={place})" for place in range(9)))
    labels = [f"lstm_lm(size={task}, epochs=12)" for task in tasks]
    records = of_tasks(*labels, patterns=patterns, levels=(0.7, 0.9))

    text = opened(records, margin=1.0)
    lines = text.splitlines()

    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert f"{len(tasks)} tasks" in lines[0]
    for label in labels:
        own = [record for record in records if record.task == label]
        means = {
            pattern: row(own, pattern, FINE, 0.9, margin=1.0).to_reference.difference.mean for pattern in patterns[1:]
        }
        best = min(means, key=means.get)
        after = lines[lines.index(label) + 1]
        assert after.startswith("fine_tuning") and after.endswith(f"{best} {means[best]:+.2f} ?")
    assert text.count("? not enough evidence") == 1  # what is true of all of them is told once
    assert f"all {9 * 2} rows: harness report --full." in " ".join(lines)
    assert "without intervals" in text and "±" not in text and " table" not in lines[-3]


def test_tasks_of_different_metrics_say_so_beside_their_names():
    patterns = ("unstructured", *(f"bank_balanced(banks={place})" for place in range(9)))
    records = of_tasks("lstm_lm", patterns=patterns, levels=(0.7, 0.9))
    records += [
        record.model_copy(update={"task": "lenet", "cell": f"i {record.cell}", "metric": "accuracy", "unit": "%",
                                  "better": "higher", "value": 200 - record.value})
        for record in grid(patterns=("unstructured", *(f"n_m(n={place})" for place in range(9))), seeds=(0,),
                           levels=(0.7, 0.9))
    ]  # fmt: skip

    lines = opened(records, margin=1.0).splitlines()

    assert len(lines) <= 24
    assert "lstm_lm against unstructured: perplexity, lower is better" in lines
    assert "lenet against unstructured: accuracy in %, higher is better" in lines
    assert any(line.startswith("lenet: No verdict: one seed") for line in lines)


def test_a_task_that_finds_no_room_is_counted():
    labels = [f"lstm_lm(size={place})" for place in range(30)]

    lines = opened(of_tasks(*labels, patterns=("unstructured", BANKS), levels=(0.9,)), margin=1.0).splitlines()

    shown = [label for label in labels if label in lines]
    left = next(line for line in lines if line.startswith("more: "))
    assert len(lines) <= 24 and len(shown) > 2
    assert left.startswith(f"more: {30 - len(shown)} tables")


@pytest.mark.parametrize("form", ["md", "html", "latex"])
def test_a_page_has_a_table_with_all_rows_for_every_task(form):
    patterns = ("unstructured", *(f"bank_balanced(banks={place})" for place in range(9)))
    text = render(of_tasks("small", "large", patterns=patterns), format=form, title="study", margin=1.0)

    assert all(f"{task} against unstructured: perplexity" in text for task in ("small", "large"))
    assert all(text.count(f"banks={place})") >= 4 for place in range(9))


def test_the_answer_has_the_difference_the_verdict_and_the_cycles_of_every_comparison():
    found = row(grid(), BANKS, FINE, margin=1.0)
    text = opened(grid(), margin=1.0, width=200)

    line = next(line for line in text.splitlines() if line.startswith("fine_tuning ") and "×" in line)
    assert f"{found.to_reference.difference.mean:+.2f} ± {found.to_reference.difference.half:.2f} ≈ 1.00×" in line
    assert "Answer, against unstructured: bank_balanced equivalent under fine_tuning at 60, 90 %" in text
    assert "≈ equivalent within 1 (p < 0.05, Holm over 12)" in text


def test_where_a_row_would_be_broken_names_lose_only_the_settings_that_tell_nothing_apart():
    twice = (FINE, "fine_tuning(epochs=9)")
    text = opened(
        grid(patterns=("unstructured", BANKS), by=(*twice, "gradual(begin_epoch=3, end_epoch=10)")), margin=1.0
    )
    short = opened(grid(levels=(0.9,), by=(FINE,)), margin=1.0)

    assert all(f"\n{strategy}  bank_balanced " in text for strategy in twice)
    assert "begin_epoch" not in text and "\ngradual " in text
    assert f"\n{FINE}  {BANKS} " in short


def test_without_the_reference_pattern_the_answer_is_against_dense_with_its_cycles():
    text = opened(grid(patterns=(BANKS,)), margin=1.0, width=200)

    line = next(line for line in text.splitlines() if line.startswith("fine_tuning"))
    assert "against dense" in text and "▼ 5.80×" in line and "▼ 8.21×" in line


def test_a_comparison_of_different_kept_weights_is_marked_and_the_mark_explained():
    records = [r.model_copy(update={"sparsity": 0.88}) if r.pattern == BANKS else r for r in grid(levels=(0.9,))]

    assert opened(grid(levels=(0.9,)), margin=1.0).count(UNEVEN) == 0
    text = opened(records, margin=1.0, width=200)
    assert all(UNEVEN in line for line in text.splitlines() if BANKS in line and "×" in line)
    assert f"{UNEVEN}: kept weights differ" in text


def test_one_seed_has_no_verdict_and_no_marks():
    text = opened(grid(seeds=(0,)), margin=1.0)

    assert "No verdict: one seed gives no interval" in text
    assert not any(mark in text for mark in "▲▼≈±")


def test_failures_and_unfinished_cells_are_warned_of_at_the_top_worst_first():
    text = opened(troubled(), margin=1.0)

    warnings = [line for line in text.splitlines() if line.startswith("! ")]
    assert warnings[0] == "! SPN017 PARTIAL: 1 of 11 cells has not finished."
    assert warnings[1] == "! SPN018 3 cells failed: 2 failed, 1 diverged."
    assert len(warnings) <= 3


def test_the_markdown_report_opens_with_the_answer():
    text = render(grid(), format="md", title="study", margin=1.0)

    assert text.index("Answer, against unstructured") < text.index("## What ran") < text.index("## Results")


# --- golden tables --------------------------------------------------------------------------------------------------


def test_a_whole_grid_in_a_terminal(golden):
    golden("report_grid_120", render(grid(), title="grid", margin=1.0, width=120))


def test_one_seed_in_a_narrow_terminal_gives_two_tables(golden):
    golden("report_one_seed_80", render(grid(seeds=(0,)), title="one seed", width=80))


def test_a_whole_grid_in_markdown(golden):
    golden("report_grid_md", render(grid(), format="md", title="grid", margin=1.0))


def test_a_run_under_way_with_failures_in_a_terminal(golden):
    golden("report_troubled_110", render(troubled(), title="troubled", width=110))


def test_a_run_under_way_with_failures_in_markdown(golden):
    golden("report_troubled_md", render(troubled(), format="md", title="troubled"))


def test_two_tasks_with_different_metrics_give_two_tables(golden):
    golden("report_two_tasks_110", render([*grid(seeds=(0,), levels=(0.9,)), *accuracies()], margin=0.5, width=110))


def test_rows_in_csv(golden):
    golden("report_troubled_csv", render(troubled(), format="csv"))


# --- rows -----------------------------------------------------------------------------------------------------------


def test_dense_comes_first_and_the_rest_in_the_order_of_the_plan():
    records = grid(levels=(0.9, 0.6))

    [table] = tables([*records[3:], *records[:3]])

    assert table.rows[0].setting.is_dense
    found = [(r.setting.pattern, r.setting.strategy, r.setting.target_sparsity) for r in table.rows[1:]]
    assert found == [(p, s, level) for p in ("unstructured", BANKS) for s in (FINE, GRADUAL) for level in (0.6, 0.9)]


def test_differences_are_paired_by_seed():
    found = row(grid(), BANKS, FINE)

    # Seeds differ by whole points, the paired differences only by the noise.
    assert found.value.half > 2
    assert found.to_dense.difference.half < 0.2
    assert found.to_dense.difference.mean == pytest.approx(0.9 * 4.5 + sum(NOISE) / 3)
    assert found.to_reference.difference.mean == pytest.approx(0.9 * 0.5)


def test_a_pattern_is_compared_with_unstructured_of_its_own_strategy_only():
    records = [r for r in grid() if (r.pattern, r.strategy) != ("unstructured", GRADUAL)]

    assert row(records, BANKS, FINE).to_reference is not None
    missing = row(records, BANKS, GRADUAL)
    assert missing.to_reference is None
    assert missing.why_no_reference == "the row to compare with is not part of this run"


def test_baselines_are_not_compared_with_themselves():
    [table] = tables(grid())

    assert table.rows[0].to_dense is None
    assert all(r.to_reference is None for r in table.rows if r.setting.pattern == "unstructured")


def test_each_backend_has_its_own_dense_baseline():
    keras = [r.model_copy(update={"backend": "keras_tfmot", "value": r.value + 50}) for r in grid(levels=(0.9,))]

    [table] = tables([*grid(levels=(0.9,)), *keras])

    assert table.backends == ("torch", "keras_tfmot")
    assert [r.setting.is_dense for r in table.rows] == [True, *[False] * 4] * 2
    means = [r.to_dense.difference.mean for r in table.rows if not r.setting.is_dense]
    assert means[:4] == pytest.approx(means[4:])


def test_without_a_dense_baseline_there_is_no_difference_but_a_reason():
    found = row([r for r in grid() if not r.is_dense], BANKS, FINE)

    assert found.value is not None
    assert found.to_dense is None
    assert found.why_no_dense == "the row to compare with is not part of this run"


def test_a_failed_seed_marks_its_row_and_is_named():
    found = row(troubled(), BANKS, FINE)

    assert (found.done, found.planned, found.is_complete) == (1, 2, False)
    assert found.why_no_value == "seed 1 diverged: the loss became nan at step 7 of the epoch"


@pytest.mark.parametrize("options", [{"format": "md"}, {"width": 200}], ids=["md", "terminal"])
def test_a_difference_over_fewer_seeds_than_its_row_says_so(options):
    records = [without_result(r, "failed", "no") if r.is_dense and r.seed == 2 else r for r in grid()]

    found = row(records, BANKS, FINE)

    assert (found.value.n, found.to_dense.difference.n, found.to_reference.difference.n) == (3, 2, 3)
    note = "over the 2 seeds that both have"
    assert note in " ".join(render(records, **options).split())
    assert note not in " ".join(render(grid(), **options).split())


def test_a_row_that_failed_whole_has_no_numbers():
    found = row(troubled(), "unstructured", GRADUAL)

    assert found.value is None
    assert found.sparsity is None
    assert found.to_dense is None
    assert found.why_no_value == "failed: RuntimeError: out of luck"


def test_an_infinite_value_is_missing_with_its_reason():
    records = grid(seeds=(0,))
    records[-1] = records[-1].model_copy(update={"value": float("inf")})

    found = row(records, BANKS, GRADUAL)

    assert found.value is None
    assert found.why_no_value == "the test value is not finite"


def test_hardware_is_averaged_over_seeds_and_fits_only_if_all_do():
    records = grid(patterns=("unstructured",), by=(FINE,), levels=(0.9,))
    records[-1] = records[-1].model_copy(update={"hardware": {"fpga_analytic": engine(2.0, fits=False)}})

    cell = row(records, "unstructured", FINE).hardware["fpga_analytic"]

    assert cell.speedup == pytest.approx((8.2 + 8.2 + 2.0) / 3)
    assert cell.fits is False


def test_a_margin_brings_verdicts_corrected_for_the_whole_table():
    [table] = tables(grid(), margin=1.0)

    assert table.comparisons == 12
    assert row(grid(), BANKS, FINE, margin=1.0).dense_verdict == "worse"
    assert row(grid(), BANKS, GRADUAL, 0.6).dense_verdict is None


def test_higher_is_better_turns_the_verdicts():
    found = row(accuracies(), "block", "one_shot", 0.5, margin=0.5)

    assert found.to_dense.difference.mean < 0
    assert found.dense_verdict == "worse"


def test_two_scopes_of_a_task_are_two_tables_with_the_same_dense_rows():
    wider = [r.model_copy(update={"scope": ("lstm", "softmax")}) for r in grid() if not r.is_dense]

    found = tables([*grid(), *wider])

    assert [table.scope for table in found] == [("lstm",), ("lstm", "softmax")]
    assert found[0].rows[0].values == found[1].rows[0].values


def test_a_table_of_dense_cells_alone_is_a_table():
    [table] = tables([language_model(seed=seed) for seed in (0, 1)])

    assert [r.setting.is_dense for r in table.rows] == [True]
    assert "Strategies compared" not in render([language_model()])


def test_two_runs_mixed_are_refused():
    with pytest.raises(StoreError, match="one run at a time"):
        render(grid() + grid())


def test_no_records_are_an_empty_selection():
    with pytest.raises(EmptySelectionError, match="run a spec first"):
        render([])


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
def test_an_impossible_margin_is_refused(margin):
    with pytest.raises(SpecError, match="expected an equivalence margin above 0"):
        render(grid(), margin=margin)


# --- strategies -----------------------------------------------------------------------------------------------------


def test_strategies_are_compared_over_the_cells_that_all_of_them_finished():
    records = [r for r in grid(levels=(0.9,)) if (r.pattern, r.strategy, r.seed) != (BANKS, GRADUAL, 2)]

    fine, gradual = strategies(tables(records)[0])

    assert fine.accuracy[0.9].cells == gradual.accuracy[0.9].cells == 5
    common = [4.0 * 0.9 + noise("unstructured", seed) for seed in (0, 1, 2)]
    common += [4.5 * 0.9 + noise(BANKS, seed) for seed in (0, 1)]
    assert fine.accuracy[0.9].mean == pytest.approx(sum(common) / 5)


def test_a_dense_model_at_hand_saves_epochs_only_where_the_strategy_starts_from_it():
    fine, gradual = strategies(tables(grid())[0])

    assert (fine.epochs, fine.epochs_with_dense) == ((6, 6), (2, 2))
    assert (gradual.epochs, gradual.epochs_with_dense) == ((4, 4), (4, 4))


def test_a_strategy_that_finished_nothing_hides_no_other():
    records = grid(by=(FINE, GRADUAL), levels=(0.9,))
    records = [without_result(r, "failed", "no") if r.strategy == GRADUAL else r for r in records]

    fine, gradual = strategies(tables(records)[0])

    assert fine.accuracy[0.9].cells == 6
    assert gradual.accuracy[0.9] is None
    assert (gradual.done, gradual.planned) == (0, 6)


# --- renderings -----------------------------------------------------------------------------------------------------


def test_json_is_a_list_with_one_object_per_planned_cell():
    records = troubled()

    found = json.loads(render(records, format="json"))

    assert [entry["cell"] for entry in found] == [record.cell for record in records]
    wanted = "task backend pattern strategy pattern_params strategy_params scope allocation target_sparsity sparsity"
    wanted += " model_sparsity seed metric value split total_epochs retrain_epochs status reason hardware"
    assert all(set(wanted.split()) <= set(entry) for entry in found)
    assert found[0]["hardware"]["fpga_analytic"]["cycles"] == 8000


def test_csv_has_unrounded_numbers_and_empty_fields_for_missing_ones():
    lines = list(csv.DictReader(StringIO(render(troubled(), format="csv"))))

    by_label = {(line["backend"], line["pattern"], line["strategy"]): line for line in lines}
    finished = by_label["torch", "unstructured", FINE]
    assert float(finished["value"]) == pytest.approx(row(troubled(), "unstructured", FINE).value.mean, abs=0)
    failed = by_label["torch", "unstructured", GRADUAL]
    assert (failed["value"], failed["sparsity"], failed["n"]) == ("", "", "0")
    assert failed["reason"] == "failed: RuntimeError: out of luck"


@pytest.mark.parametrize("format", ["rich", "md", "csv"])
def test_nothing_planned_drops_out_of_a_report(format):
    text = render(troubled(), format=format, width=200)

    for label in ("dense", "unstructured", "bank_balanced", "n_m", "diverged", "failed", "skipped", "planned"):
        assert label in text


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["grid", "one seed", "troubled", "two tasks"])
def test_every_number_of_a_report_stands_in_it_at_every_width(name, width):
    records = {
        "grid": grid(),
        "one seed": grid(seeds=(0,)),
        "troubled": troubled(),
        "two tasks": [*grid(levels=(0.6,)), *accuracies()],
    }[name]

    check_uncut(build(records, title=name, margin=1.0, medium="terminal"), width)


@pytest.mark.parametrize("width", [80, 100, 110, 120, 160])
def test_no_line_is_wider_than_the_terminal(width):
    for records in (grid(), grid(seeds=(0,)), troubled()):
        assert max(len(line) for line in render(records, margin=1.0, width=width).splitlines()) <= width


def test_one_seed_and_two_engines_fit_one_table_of_100_columns():
    text = render(grid(seeds=(0,)), width=100)

    assert any("asked" in line and line.count("speed-") == 2 for line in text.splitlines())


def test_a_console_gets_the_text_that_is_returned():
    console = Console(file=StringIO(), width=100)

    text = render(grid(), console=console)

    printed = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert printed == text.splitlines()


def test_colour_is_the_consoles_and_never_in_the_returned_text():
    console = Console(file=StringIO(), width=100, force_terminal=True, color_system="truecolor")

    text = render(grid(), console=console)

    assert "\x1b[" in console.file.getvalue()
    assert "\x1b" not in text


def test_labels_and_reasons_are_never_read_as_markup():
    odd = language_model("[bold]x|y", FINE, 0.9, status="failed", reason="expected [red] | *blue*\nor `none`")

    assert "[bold]x|y" in render([odd], width=160)
    assert r"[bold]x\|y" in render([odd], format="md")
    assert r"expected [red] \| \*blue\* or `none`" in render([odd], format="md")


def test_only_a_run_under_way_is_called_partial():
    assert "PARTIAL: 1 of 11 planned cells has not finished" in render(troubled())
    assert "PARTIAL" not in render(grid())


def test_a_result_that_was_not_reproduced_is_said_at_the_top():
    doubtful = language_model(facts={"not_reproduced": ["1a2b"]})

    assert "NOT REPRODUCED: in 1 cells a stage" in render([doubtful], width=160)
    assert "NOT REPRODUCED" not in render(grid())


def test_too_few_seeds_for_a_test_without_assumptions_are_said_so():
    assert "n too small" in render(grid(), margin=1.0)
    assert "n too small: one seed" in render(grid(seeds=(0,)), margin=1.0, width=200)
    assert "n too small" not in render(grid(seeds=range(6)), margin=1.0)


# --- pictures -------------------------------------------------------------------------------------------------------


def test_equal_records_draw_equal_bytes(tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        "from harness.results.records import read; from harness.report import picture\n"
        "for name in sys.argv[2:]: picture(read(Path(sys.argv[1])), Path(name))"
    )
    write(tmp_path / "records.json", [*grid(), *accuracies()])
    names = [tmp_path / name for name in ("records.json", "a.svg", "b.svg")]
    subprocess.run([sys.executable, "-c", script, *names], check=True)

    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text()
    assert all(text in drawn for text in ("perplexity (test)", "accuracy, % (test)", "target sparsity, %", BANKS))


def test_a_picture_of_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"expected a file ending in \.svg, \.png, \.pdf, got 'a\.txt'"):
        picture(grid(), tmp_path / "a.txt")


def test_a_report_loads_neither_scipy_stats_nor_matplotlib_nor_a_framework():
    script = (
        "import sys, harness.report\n"
        "print([name for name in ('scipy', 'matplotlib', 'pandas', 'torch', 'tensorflow') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert done.stdout.strip() == "[]"


def test_the_device_its_assumed_clock_and_the_warnings_of_a_hardware_model_are_told():
    records = grid(patterns=("unstructured",), by=(FINE,), levels=(0.9,), seeds=(0,))
    details = {"device": {"id": "arria10_gx1150"}, "clock": {"value": 200.0, "origin": "assumed"}}
    cost = engine(2.0) | {"details": details, "notes": ["compare cycles"]}
    records[-1] = records[-1].model_copy(update={"hardware": {"fpga_analytic": cost}})
    text = render(records, format="md", title="t")

    assert "fpga_analytic: arria10_gx1150 at 200.0 MHz (assumed); compare cycles (1 of 2 costs)." in text
    assert "cycle_simulator(engine=bank):" not in text


def test_the_reference_pattern_is_found_under_a_label_of_its_own():
    records = [
        record.model_copy(update={"pattern": "magnitude anywhere", "pattern_name": "unstructured"})
        if record.pattern == "unstructured"
        else record
        for record in grid()
    ]

    [table] = tables(records)

    assert table.reference == "magnitude anywhere"
    assert row(records, BANKS, FINE).to_reference == row(grid(), BANKS, FINE).to_reference
    assert row(records, "magnitude anywhere", FINE).to_reference is None


def at_sparsities(reached):
    """Unstructured masks and banks that reached different sparsities."""
    return [record.model_copy(update={"sparsity": reached.get(record.pattern, 0.0)}) for record in grid(levels=(0.9,))]


def test_patterns_whose_kept_weights_differ_are_marked_wherever_they_are_compared(tmp_path):
    records = at_sparsities({"unstructured": 0.9, BANKS: 0.92})
    fine = row(records, BANKS, FINE)

    assert "20 % fewer than unstructured" in fine.uneven and fine.uneven_reference
    for format in ("rich", "md"):
        text = render(records, format=format, margin=1.0)
        assert "20 % fewer than unstructured" in text
        line = next(line for line in text.splitlines() if "92.0≠" in line)
        assert line.count("≠") == 2  # the verdict on the pair as well
        strategies_of = text.partition("Strategies compared")[2]
        assert "≠" in strategies_of
    # The answer's sentence, too: a verdict at other kept weights is not one at this sparsity.
    answer = " ".join(opened(records, margin=1.0).split())
    assert "at 90≠ %" in answer
    many = [
        r.model_copy(update={} if r.is_dense else {"strategy": f"s{place}", "cell": f"{r.cell} {place}"})
        for place in range(6)
        for r in at_sparsities({"unstructured": 0.9, BANKS: 0.92})
        if r.strategy == FINE or (r.is_dense and place == 0)
    ]
    counted = " ".join(opened(many, margin=1.0).split())
    assert "Answer: of 6 comparisons with unstructured: 6 not enough evidence; 6 of them ≠." in counted
    picture(records, tmp_path / "picture.svg")
    assert "≠" in (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert "20 % fewer" in render(records, format="csv")


@pytest.mark.parametrize("reached", [{"unstructured": 0.9, BANKS: 0.901}, {"unstructured": 0.5, BANKS: 0.505}])
def test_kept_weights_within_two_percent_are_one_sparsity(reached):
    assert "≠" not in render(at_sparsities(reached), margin=1.0)


@given(st.lists(st.floats(0.85, 0.93), min_size=2, max_size=5))
def test_of_two_rows_that_differ_one_at_least_is_marked(reached):
    records = [
        language_model(f"p{place}", FINE, 0.9, 0).model_copy(update={"sparsity": each})
        for place, each in enumerate(reached)
    ]
    found = [row for table in tables(records) for row in table.rows]

    for one, other in itertools.combinations(found, 2):
        kept, others = 1 - one.sparsity, 1 - other.sparsity
        if max(kept, others) / min(kept, others) > 1.0205:
            assert one.uneven or other.uneven


def test_csv_says_of_every_value_which_split_it_is_of():
    [first, *_] = csv.DictReader(StringIO(render(grid(), format="csv")))

    splits = {name: first[name] for name in first if name.endswith("_split")}

    assert splits == {
        "value_split": "test",
        "value_before_retraining_split": "valid",
        "to_dense_split": "test",
        "to_unstructured_split": "test",
    }


def test_markdown_tells_the_sparsity_of_every_tensor():
    tensors = {"lstm_0.kernel": 0.95, "lstm_0.recurrent_kernel": 0.85}
    records = [
        record.model_copy(update={"tensor_sparsity": tensors}) if not record.is_dense else record for record in grid()
    ]

    assert "lstm_0.kernel 95.0, lstm_0.recurrent_kernel 85.0" in render(records, format="md")


def test_skipped_cells_have_no_epochs_and_not_zero():
    records = grid(levels=(0.9,))
    records[-1] = without_result(records[-1], "skipped", "it does not fit").model_copy(update={"total_epochs": 0})

    assert [found.epochs for found in strategies(tables(records)[0])] == [(6, 6), (4, 4)]


def test_a_value_that_is_not_finite_is_counted_out_with_a_mark():
    records = grid(levels=(0.9,))
    records[-1] = records[-1].model_copy(update={"value": None})

    assert (row(records, BANKS, GRADUAL).done, row(records, BANKS, GRADUAL).planned) == (2, 3)
    assert "2/3" in render(records) and "not finite" in render(records)


def test_the_correction_counts_comparisons_that_have_a_p_only():
    records = [r for r in grid(levels=(0.9,)) if not (r.pattern == BANKS and r.strategy == GRADUAL and r.seed > 0)]
    [table] = tables(records, margin=1.0)

    assert table.comparisons == 4


def test_before_any_value_nothing_is_said_of_seeds():
    records = [without_result(record, "planned") for record in grid()]

    text = render(records)

    assert "one seed" not in text and "No cell has a value yet" in text


def both(cycles, speedup, **changes):
    cost = {"cycles": cycles, "speedup": speedup, "latency_us": 1.0, "fits": True, "model": "sim"} | changes
    return {"sim[bank]": cost, "sim[dense_mvm]": cost}


def test_engine_tables_keep_allocations_apart_and_factors_with_their_cycles():
    records = [language_model(hardware=both(100, 1.0))]
    records += [
        language_model("block", FINE, 0.5, 0, allocation=allocation, hardware=both(cycles, 100 / cycles))
        for allocation, cycles in (("uniform", 50), ("global", 100))
    ]
    found = {pair.pattern: pair.cycles for pair in pairs(tables(records)[0], ("sim[bank]",))}

    assert found == {"dense": 100, "block, uniform": 50, "block, global": 100}
    one = [r.model_copy(update={"allocation": "uniform", "seed": seed}) for seed, r in enumerate(records[1:])]
    assert "1.33×" in render([records[0], *one], width=200)  # 200 dense cycles over 150
    assert "75" in render([records[0], *one], width=200)


def test_layers_on_engines_of_their_own_stand_beside_one_engine_for_all_where_they_were_costed():
    def piped(rate):
        return {"pipelined": {"steps_per_s": rate, "latency_us": 12.5, "fits": True}}

    records = [language_model(hardware=both(100, 1.0, details={"pipelined": {"reason": "there is one layer"}}))]
    records += [
        language_model("block", FINE, 0.5, seed, hardware=both(50, 2.0, details=piped(rate)))
        for seed, rate in enumerate((40_000.0, 60_000.0))
    ]

    text = render(records, format="md")

    assert "own engines steps/s" in text and "50,000" in text and "12.5" in text
    assert "own engines" not in render([language_model(hardware=both(100, 1.0))], format="md")


def test_what_is_not_costed_yet_is_no_engine_that_refuses():
    waiting = {"model": "sim", "reason": "not costed yet; the run goes on or was interrupted"}
    records = [language_model(hardware={"sim[bank]": both(100, 1.0)["sim[bank]"], "sim[dense_mvm]": waiting})]

    text = render(records)

    assert "Cannot run" not in text and "Not costed yet: 1 of 2" in text


def test_engines_far_behind_are_named_with_the_sparsity_of_each_of_their_cycles():
    slow = {"sim[bank]": both(100, 1.0)["sim[bank]"], "sim[stream]": both(9000, 0.01)["sim[bank]"]}
    records = [language_model("block", FINE, sparsity, 0, hardware=slow) for sparsity in (0.5, 0.9)]

    told = " ".join(render(records).split())

    assert "left out above: stream: block at 50 % 9,000, block at 90 % 9,000." in told


# --- what is under way ----------------------------------------------------------------------------------------------


def test_while_an_engine_is_not_costed_yet_no_other_is_called_the_fastest():
    cost = engine(2.0) | {"model": "sim"}
    waiting = {"model": "sim", "reason": f"{NOT_COSTED}; the run goes on or was interrupted"}
    refusing = {"model": "sim", "reason": "no blocks"}

    def fastest(**costs):
        found = row([language_model(BANKS, FINE, 0.9, hardware=costs)], BANKS, FINE)
        return found.fastest(list(costs))

    assert fastest(a=cost, b=waiting, c=refusing) == HardwareCell(reason=waiting["reason"])
    assert fastest(a=cost, c=refusing).latency_us == cost["latency_us"]


# --- what development costs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"format": "md"}, {"width": 80}, {"width": 160}], ids=["md", "80", "160"])
def test_epochs_from_dense_say_which_checkpoints_they_need(options):
    records = [
        record.model_copy(update={"rewinds_to": (4,)}) if record.strategy == FINE else record for record in grid()
    ]
    text = " ".join(render(records, **options).split())

    assert "2¹" in text
    assert "¹ if weights and optimiser state of the dense training are at hand from epoch 4, too" in text
    assert "optimiser state" not in render(grid(), **options)


def test_a_value_before_retraining_that_overflowed_is_marked():
    records = [
        record.model_copy(update={"value_before_retraining": None if record.seed else 150.0, "facts": facts})
        for record in grid(seeds=(0, 1))
        for facts in [{"not_finite": {"abc": "prune"}} if record.seed and not record.is_dense else {}]
    ]
    text = render(records, format="md")

    assert "| 150.00¹ |" in text and "¹ not finite right after pruning with seed 1" in text


# --- intervals of no width ------------------------------------------------------------------------------------------


def apart(difference, spread=0.0, seeds=3):
    """A study in which a pattern is as far from the reference, and from dense, with every seed but for a spread."""
    rows = [language_model(seed=seed, value=100.0) for seed in range(seeds)]
    for pattern, shift in (("unstructured", 1.0), (BANKS, 1.0 + difference)):
        for seed in range(seeds):
            rows.append(
                language_model(pattern, FINE, 0.9, seed, value=100.0 + shift + spread * seed * (pattern == BANKS))
            )
    return rows


@pytest.mark.parametrize("render_as", [{"full": False}, {"width": 200}, {"format": "md"}], ids=["answer", "rich", "md"])
@pytest.mark.parametrize("margin", [None, 1.0, 5.0])
@pytest.mark.parametrize("difference", [0.0, 2.0, -0.1])
@pytest.mark.parametrize("seeds", [2, 3, 9])
def test_equal_differences_are_said_in_words_and_never_as_an_interval_of_no_width(render_as, margin, difference, seeds):
    text = render(apart(difference, seeds=seeds), margin=margin, **render_as)

    assert "± 0.00" not in text
    assert re.search(rf"{abs(difference):.2f}\s*\(all\s+{seeds}\s+equal\)", text)
    assert "(all n equal): no spread among n seeds" in " ".join(text.split())
    if seeds < 9:  # no sign-flip test of so few pairs reaches 5 %
        assert not re.search(r"equal\) [▲▼≈?]", text)
    elif margin is not None:
        assert re.search(r"equal\) [▲▼≈]", text)


@pytest.mark.parametrize("render_as", [{"full": False}, {"width": 200}, {"format": "md"}], ids=["answer", "rich", "md"])
def test_an_interval_too_narrow_for_its_digits_is_said_to_be_below_them(render_as):
    text = render(apart(2.0, spread=0.0004), margin=1.0, **render_as)

    assert "± 0.00" not in text
    assert re.search(r"\+2\.00 ±\s?\\?<0\.01 ▼", text)


@given(
    values=st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 4)), min_size=1, max_size=6),
    digits=st.integers(0, 4),
)
def test_no_value_is_ever_printed_with_an_interval_of_zero(values, digits):
    shown = formats.value(interval(values), digits)

    assert not re.search(r"± 0(\.0*)?( |$)", shown)
    assert ("±" in shown or "equal" in shown) == (len(values) > 1)


def test_what_a_score_in_fixed_point_folds_and_leaves_in_float32_is_noted():
    scored = {"format": "w8 a8", "value": 101.0, "folded": {"stem": "norm", "conv": "norm2"}, "in_float": ["last"]}
    records = [record.model_copy(update={"fixed_point": {"fpga": scored}}) for record in grid(seeds=(0,))]

    text = render(records, title="study", format="md", full=True)

    assert "batch norm folded into the layer before it: norm, norm2; in float32 between the others: last" in text
