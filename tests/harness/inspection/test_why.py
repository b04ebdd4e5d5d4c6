"""Why a cell runs: the first stage that differs, and what in its key is not what it was."""

from dataclasses import replace

import pytest
import toy
from harness_plugins.hardware.cycle_simulator import CycleSimulator
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.unstructured import Unstructured
from numpy_plugins import NumpyBackend, ToyProblem, ToyTask
from toy import FineTuning, experiment

from harness.api import EmptySelectionError, Gradient, Magnitude
from harness.inspection.why import NOTHING_LIKE_IT, bill, differences, place_of, stage_reasons, why
from harness.planning import code_digest
from harness.planning.plan import make_plan
from harness.planning.stages import Masking, Stage, Step, stage_templates
from harness.report import rich
from harness.report.plan_table import plan_document
from harness.store import Store

MAGNITUDE = Magnitude()


def fill(folder, grid=None):
    """Write every stage of a plan's, as if it had been run; states are not kept."""
    plan = make_plan(grid or experiment(), store=folder)
    toy.fill(Store(folder), plan)
    return plan


def lines(folder, grid=None, cell=-1, **options):
    plan = make_plan(grid or experiment(), store=folder, **options)
    return why(plan, plan.cells[cell].cell.id)


def reasons(found):
    return [(line.place, line.reason) for line in found if line.status == "run"]


def test_nothing_like_it_was_run_in_an_empty_store(tmp_path):
    found = lines(tmp_path)

    assert {line.status for line in found} == {"run"}
    assert reasons(found)[:2] == [("initial weights", NOTHING_LIKE_IT), ("epoch 1", "because of initial weights")]
    assert [line.place for line in found][-3:] == ["epoch 5", "epoch 6", "test score"]


def test_what_is_there_needs_no_reason(tmp_path):
    fill(tmp_path)

    assert {(line.status, line.reason) for line in lines(tmp_path)} == {("cached", "")}


def test_a_score_in_fixed_point_is_new_and_no_changed_score_of_the_framework(tmp_path):
    fill(tmp_path)
    plan = make_plan(replace(experiment(), hardware=(CycleSimulator(),)), store=tmp_path)

    new = [key for key, stage in plan.stages.items() if "number_format" in stage.inputs]
    assert new and {stage_reasons(plan)[key] for key in new} == {"not run yet"}


def test_a_changed_rate_is_named_with_its_epoch(tmp_path):
    fill(tmp_path)
    found = lines(tmp_path, experiment(task=ToyTask(learning_rate=0.25)))

    assert reasons(found)[:2] == [
        ("initial weights", "metrics cached, state missing"),
        ("epoch 1", "strategy rates changed: epoch 1 lr 0.5 -> 0.25"),
    ]
    assert {reason for _, reason in reasons(found)[2:]} == {"because of epoch 1"}


def test_a_longer_retraining_runs_what_is_longer(tmp_path):
    fill(tmp_path)
    found = lines(tmp_path, experiment((FineTuning(epochs=4),)))

    assert ("prune", "metrics cached, state missing") in reasons(found)
    assert reasons(found)[-3:] == [
        ("epoch 7", NOTHING_LIKE_IT),
        ("epoch 8", "because of epoch 7"),
        ("test score", "because of epoch 7"),
    ]


def test_another_sparsity_is_told(tmp_path):
    fill(tmp_path)
    found = lines(tmp_path, experiment(sparsities=(0.75,)))

    assert ("prune", "strategy mask updates changed: sparsity 0.5 -> 0.75") in reasons(found)


def test_a_changed_parameter_of_a_pattern_is_told(tmp_path):
    fill(tmp_path, experiment(patterns=(BankBalanced(banks=5),)))
    found = lines(tmp_path, experiment(patterns=(BankBalanced(banks=2),)))

    assert "pattern banks 5 -> 2" in dict(reasons(found))["prune"]


def test_another_pattern_or_seed_is_another_cell(tmp_path):
    fill(tmp_path)

    assert dict(reasons(lines(tmp_path, experiment(patterns=(BankBalanced(banks=2),)))))["prune"] == NOTHING_LIKE_IT
    assert reasons(lines(tmp_path, experiment(seeds=(1,))))[0] == ("initial weights", NOTHING_LIKE_IT)


def test_the_versions_of_libraries_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(NumpyBackend, "versions", lambda self: {"numpy": "2.4.5"})
    fill(tmp_path)
    monkeypatch.setattr(NumpyBackend, "versions", lambda self: {"numpy": "2.4.6"})

    assert reasons(lines(tmp_path))[0] == ("initial weights", "numpy 2.4.5 -> 2.4.6")


def test_the_precision_is_told(tmp_path):
    fill(tmp_path)
    grid = replace(experiment(), precision="bfloat16")

    assert reasons(lines(tmp_path, grid))[0] == ("initial weights", "precision float32 -> bfloat16")


def test_another_way_of_computing_a_precision_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(NumpyBackend, "arithmetic", lambda *_: "kernels")
    fill(tmp_path)
    monkeypatch.setattr(NumpyBackend, "arithmetic", lambda *_: "rounded")

    assert reasons(lines(tmp_path))[0] == ("initial weights", "arithmetic kernels -> rounded")


def test_other_data_are_told(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr(ToyProblem, "fingerprint", "other")

    assert reasons(lines(tmp_path))[0] == ("initial weights", "data fingerprint changed")


@pytest.fixture
def edited(monkeypatch):
    real = code_digest.component

    def edit(place, **values):
        def found(cls):
            digest = real(cls)
            return replace(digest, **values) if digest.place == place else digest

        monkeypatch.setattr(code_digest, "component", found)

    return edit


def test_another_version_of_a_plugins_code_is_told(tmp_path, edited):
    edited("pattern unstructured", distribution="acme", version="0.3", digest="one")
    fill(tmp_path)
    edited("pattern unstructured", distribution="acme", version="0.4", digest="two")

    found = dict(reasons(lines(tmp_path)))
    assert found["prune"] == "pattern unstructured digest changed: acme 0.3 -> acme 0.4"


def test_code_edited_under_one_version_is_told(tmp_path, edited):
    fill(tmp_path)
    edited("backend numpy", digest="two", distribution="acme", version="1.0")
    fill(tmp_path)
    edited("backend numpy", digest="three", distribution="acme", version="1.0")

    assert reasons(lines(tmp_path))[0] == ("initial weights", "backend numpy digest changed: acme 1.0, edited")


def test_trusted_stages_say_what_differs(tmp_path, edited):
    fill(tmp_path)
    edited("pattern unstructured", digest="two")
    found = lines(tmp_path, trust_code=True)

    assert [line.status for line in found if line.place in ("epoch 4", "prune")] == ["cached", "trusted"]
    assert next(line.reason for line in found if line.place == "prune").startswith(
        "pattern unstructured digest changed"
    )


def test_a_damaged_stage_is_run_again(tmp_path):
    plan = fill(tmp_path)
    path = Store(tmp_path).stage_folder(plan.cells[1].test.key) / "stage.json"
    path.write_text(path.read_text().replace('"seconds"', '"minutes"'))

    assert reasons(lines(tmp_path))[-1] == ("test score", "damaged: run again")


def test_a_skipped_cell_tells_its_reason(tmp_path):
    (line,) = lines(tmp_path, experiment(patterns=(BankBalanced(banks=5),), sparsities=(0.6,)))

    assert line.status == "skipped"
    assert "nearest reachable" in line.reason


def test_the_beginning_of_an_id_is_enough_where_it_is_clear(tmp_path):
    plan = make_plan(experiment(), store=tmp_path)
    first, second = (planned.cell.id for planned in plan.cells)
    assert first[0] != second[0], "the ids of this grid differ from the first digit on"

    assert why(plan, first[:4]) == why(plan, first)


@pytest.mark.parametrize("cell", ["", "nothing"])
def test_an_id_that_fits_no_cell_is_refused(tmp_path, cell):
    with pytest.raises(EmptySelectionError, match="expected the id of one cell of toy"):
        why(make_plan(experiment(), store=tmp_path), cell)


def inputs(step, pattern=None, allocation="uniform", target=0.5):
    return stage_templates([step], Masking(pattern or Unstructured(), allocation, ("softmax",), target))[0].inputs


def test_every_kind_of_change_has_words():
    from harness.api import Epoch, MaskUpdate

    def trained(*rates):
        return inputs(Step("train", epoch=Epoch(rates=rates)))

    def pruned(sparsity, score=MAGNITUDE, **values):
        return inputs(Step("prune", update=MaskUpdate(step=0, sparsity=sparsity, score=score)), **values)

    assert differences(trained(1.0, 1.0), trained(1.0, 0.5), 10) == [
        "strategy rates changed: epoch 11 lr from step 1 on 1.0 -> 0.5"
    ]
    assert "strategy mask updates changed: score magnitude -> gradient(batches=4)" in differences(
        pruned(0.5), pruned(0.5, Gradient())
    )
    assert differences(pruned(0.5), pruned(0.5, allocation="global")) == ["allocation uniform -> global"]
    assert differences({"updates": [[0, 0.5, {}]]}, {"updates": []}) == [
        "strategy mask updates changed: 1 -> 0 updates"
    ]
    assert differences({"threads": 1, "clip_norm": None}, {"threads": 2, "clip_norm": 5.0}) == [
        "clip norm none -> 5.0",
        "threads 1 -> 2",
    ]
    assert differences({"network": {"a": 1, "b": 1}}, {"network": {"a": 2, "b": 2}}) == ["network changed"]


def test_equal_inputs_have_no_difference():
    stage = Stage(key="a", parent=None, kind="init", inputs={"seed": 1, "code": {"task toy": {"digest": "x"}}})

    assert differences(stage.inputs, dict(stage.inputs)) == []


def test_places_are_named():
    assert [place_of(kind, 2) for kind in ("init", "train", "prune", "rewind", "test")] == [
        "initial weights",
        "epoch 3",
        "prune",
        "rewind",
        "test score",
    ]


CHANGED = "strategy rates changed: epoch 1 lr 0.5 -> 0.25"


def test_a_bill_counts_and_tells_what_changed(tmp_path):
    fill(tmp_path)
    plan = make_plan(experiment(task=ToyTask(learning_rate=0.25), seeds=(0, 1)), store=tmp_path)

    summary, run = bill(plan)

    # The cells of the new seed are not changed but new; the other's initial weights are there without a state.
    said = {(cell["seed"], cell["reason"]) for cell in summary["cells_detail"]}
    assert said == {(0, CHANGED), (1, "not run yet")}
    assert summary["why"] == {"metrics cached, state missing": 1, "not run yet": 10, CHANGED: 9}
    assert sum(summary["why"].values()) == summary["stages_to_run"]
    assert [each["reason"] for each in run] == [stage_reasons(plan)[each["stage"]] for each in run]
    empty = make_plan(experiment(), store=tmp_path / "empty")
    assert set(stage_reasons(empty).values()) == {"not run yet"} and stage_reasons(empty).keys() == empty.to_run.keys()


@pytest.mark.parametrize("changes", [1, 6, 9])
def test_the_commonest_reasons_stand_in_the_bill_and_the_others_are_counted(changes):
    why = {f"reason {number}": 10 * number for number in range(1, changes + 1)}
    counts = dict.fromkeys(("cells", "stages", "cached", "epochs", "epochs_to_run", "epochs_without_sharing"), 1)
    summary = counts | {"cells_detail": [], "stages_to_run": sum(why.values()), "why": why, "sharing_ratio": 1.0}

    lines = rich.text(plan_document(summary, title="t"), 100).splitlines()

    told = [line for line in lines if line.startswith("  ")]
    assert told[0] == f"  {10 * changes}: reason {changes}"
    assert len(told) == min(changes, 7)
    if changes == 9:
        assert told[-1] == "  60: 3 other reasons (`harness plan --json` has all)"
