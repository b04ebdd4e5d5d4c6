"""What a store tells of a cell: its stages, what they printed, all that is known of it."""

import os
import shutil
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import FineTuning, Rewinding, bytes_below, experiment

from harness.api import SpecError, StoreError
from harness.execution.run import run
from harness.inspection.chain import chain, metric_of
from harness.inspection.experiments import experiment_of
from harness.inspection.logs import Reader, follow, logs, why_no_log
from harness.inspection.lookup import FoundCell, find_cell
from harness.inspection.pages import shown
from harness.planning.plan import make_plan
from harness.results import records
from harness.store import Store


def ran(grid, store, **variables):
    """Run a grid in a store, with variables of the toy backend."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return run(grid, store=store, workers=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A grid whose sixth epoch printed something, and a second run that found all of one cell in the store."""
    store = tmp_path_factory.mktemp("store")
    grid = experiment((FineTuning(), Rewinding()), seeds=(0, 1))
    ran(grid, store, TOY_BREAKS="noisy@5")
    ran(replace(experiment((FineTuning(),)), name="later"), store)
    return grid, store


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A grid whose second epoch failed, which leaves all cells without a result."""
    store = tmp_path_factory.mktemp("store")
    grid = experiment((FineTuning(),))
    ran(grid, store, TOY_BREAKS="error@1")
    return grid, store


def cell(store, text, run="toy"):
    return find_cell(store, text, run)


def changed(found, **values):
    return FoundCell(found.record.model_copy(update=values), found.folder)


# --- stages ---------------------------------------------------------------------------------------------------------


def test_the_chain_of_every_finished_cell_is_the_planned_one(finished):
    grid, store = finished
    plan = make_plan(grid, store=store)

    for planned in plan.cells:
        found = chain(store, cell(store, planned.cell.id))
        assert [place.key for place in found.places] == [stage.key for stage in planned.stages]
        assert {place.state for place in found.places} == {"done"} and not found.unknown


def test_stages_are_named_in_their_order(finished):
    _, store = finished
    names = [place.name for place in chain(store, cell(store, "rewinding seed 1")).places]

    trained = [f"epoch {number}" for number in (1, 2, 3, 4)]
    assert names == ["initial weights", *trained, "prune", "rewind", "epoch 4", "test score"]


def test_metrics_are_those_of_the_record(finished):
    _, store = finished
    found = cell(store, "fine_tuning seed 0")
    stages = chain(store, found)
    by_name = {place.name: metric_of(found, stages).get(place.key) for place in stages.places}

    assert [by_name[f"epoch {number}"] for number in range(1, 7)] == list(found.record.valid_history)
    assert by_name["prune"] == found.record.value_before_retraining
    assert by_name["test score"] == found.record.value
    assert by_name["initial weights"] is None


def test_a_skipped_cell_has_no_stages(finished):
    _, store = finished

    assert chain(store, changed(cell(store, "fine_tuning seed 0"), stage="", status="skipped")).places == ()


def test_without_the_experiments_file_the_stages_that_the_run_names_are_known(failed):
    _, store = failed
    found = chain(store, cell(store, "dense"))

    assert [(place.state, place.key) for place in found.places] == [
        ("failed", cell(store, "dense").record.facts["failed_stage"])
    ]
    assert "expected the experiment file spec.yaml" in found.unknown


def test_a_blocked_cell_has_the_failed_stage_of_another_one(failed):
    _, store = failed
    found = cell(store, "fine_tuning")

    assert found.record.status == "blocked"
    assert [place.state for place in chain(store, found).places] == ["failed"]


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_a_chain_with_a_hole_is_not_told_as_whole(finished, tmp_path, damage):
    _, store = finished
    copy = shutil.copytree(store, tmp_path / "copy")
    middle = chain(store, cell(store, "fine_tuning seed 0")).places[3]
    file = Store(copy).stage_folder(middle.key) / "stage.json"
    if damage == "gone":
        file.unlink()
    else:
        file.write_text("{")

    assert chain(copy, cell(copy, "fine_tuning seed 0")).unknown


def test_a_record_cannot_lead_out_of_the_store(failed):
    _, store = failed
    found = cell(store, "dense")
    facts = {"failed_stage": "../../records"}

    with pytest.raises(StoreError, match="a stage's key has letters and digits only"):
        chain(store, changed(found, facts=facts))
    with pytest.raises(StoreError, match="a stage's key has letters and digits only"):
        chain(store, changed(found, stage="../../records"))


def test_a_run_without_a_copy_of_its_file_cannot_be_planned_again(finished):
    _, store = finished

    with pytest.raises(SpecError, match=r"expected the experiment file spec\.yaml in "):
        experiment_of(cell(store, "dense seed 0").folder)


# --- logs -----------------------------------------------------------------------------------------------------------


def test_a_log_lies_with_the_stage_that_wrote_it(finished):
    _, store = finished
    found = cell(store, "fine_tuning seed 0")
    written = [log for log in logs(store, found, chain(store, found).places) if log.path]

    assert [(log.name, log.run, log.path.read_text()) for log in written] == [
        ("epoch 6", found.folder.name, "about to be noisy\n")
    ]


def test_what_another_run_computed_has_its_log_there(finished):
    grid, store = finished
    found = cell(store, "fine_tuning", run="later")
    written = [log for log in logs(store, found, chain(store, found).places) if log.path]

    assert found.record.status == "cached"
    assert [(log.name, log.run) for log in written] == [("epoch 6", grid.run_id)]


def test_a_link_is_no_log(finished, tmp_path):
    _, store = finished
    copy = shutil.copytree(store, tmp_path / "copy")
    found = cell(copy, "dense seed 0")
    stages = chain(copy, found).places
    secret = tmp_path / "secret"
    secret.write_text("a key\n")
    (found.folder / "logs" / f"{stages[1].key}.log").symlink_to(secret)

    assert [log.path for log in logs(copy, found, stages)] == [None] * len(stages)


def test_a_file_in_which_nothing_stands_is_a_log_only_while_its_stage_runs(finished, tmp_path):
    _, store = finished
    copy = shutil.copytree(store, tmp_path / "copy")
    found = cell(copy, "dense seed 0")
    first, *_ = chain(copy, found).places
    (found.folder / "logs").mkdir(exist_ok=True)
    empty = found.folder / "logs" / f"{first.key}.log"
    empty.touch()

    assert [log.path for log in logs(copy, found, [first])] == [None]
    assert [log.path for log in logs(copy, found, [replace(first, state="running")])] == [empty]


def test_why_there_is_no_log_is_told_by_status(finished):
    grid, store = finished
    own, later = cell(store, "dense seed 0"), cell(store, "dense", run="later")
    skipped = changed(own, status="skipped", reason="n_m cannot reach 0.6")

    assert f"run {grid.run_id} computed it, and nothing was printed; its epochs" in why_no_log(store, later)
    assert "has no log: no framework or plugin printed anything; its epochs" in why_no_log(store, own)
    assert why_no_log(store, own).endswith(f"`harness show {own.record.cell}`")
    assert why_no_log(store, skipped).endswith("it is skipped, as n_m cannot reach 0.6")
    assert "has not begun with it" in why_no_log(store, changed(own, status="planned"))
    assert "nothing so far" in why_no_log(store, changed(own, status="running"))
    assert "no run that is still here" in why_no_log(store, changed(later, stage="gone"))


@given(text=st.text(), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_a_log_is_read_whole_however_it_is_written(tmp_path_factory, text, cuts):
    path = tmp_path_factory.getbasetemp() / "growing.log"
    path.write_bytes(b"")
    content, reader, got, start = text.encode(), Reader(), "", 0
    for end in sorted({min(cut, len(content)) for cut in cuts} | {len(content)}):
        with path.open("ab") as file:
            file.write(content[start:end])
        got, start = got + "".join(reader.more(path)), end

    assert got == text


def test_bytes_that_are_no_text_are_replaced_and_a_missing_log_is_empty(tmp_path):
    (tmp_path / "odd.log").write_bytes(b"ok \xff\xfe end\n")

    assert "".join(Reader().more(tmp_path / "odd.log")) == "ok \ufffd\ufffd end\n"
    assert list(Reader().more(tmp_path / "no.log")) == []


def test_following_a_run_that_is_over_ends_with_what_there_is(finished):
    _, store = finished

    pieces = [(log.name, text) for log, text in follow(store, cell(store, "fine_tuning seed 0"))]

    assert pieces == [("epoch 6", "about to be noisy\n")]


# --- all of a cell --------------------------------------------------------------------------------------------------


def test_everything_about_a_cell_is_told(finished):
    _, store = finished
    found = shown(store, cell(store, "fine_tuning seed 0"))
    stages = {stage["name"]: stage for stage in found["stages"]}

    assert found["record"] == records.dump([cell(store, "fine_tuning seed 0").record])[0]
    assert found["record"]["sparsity"] == 0.5
    assert found["also_in"] == [cell(store, "dense", run="later").folder.name]
    assert {"task toy", "backend numpy", "pattern unstructured", "harness stages"} <= found["code"].keys()
    assert all(os.path.isdir(stage["folder"]) for stage in stages.values())
    assert stages["epoch 6"]["state_kept"] and not stages["epoch 5"]["state_kept"]
    assert stages["epoch 6"]["log"].endswith(".log") and stages["epoch 5"]["log"] is None
    assert all(stage["seconds"] >= 0 and stage["reproduced"] is None for stage in found["stages"])


def test_a_failed_cell_is_told_as_far_as_it_came(failed):
    _, store = failed
    found = shown(store, cell(store, "dense"))

    assert [(stage["state"], stage["seconds"], stage["value"]) for stage in found["stages"]] == [("failed", None, None)]
    assert found["unknown"] and "the toy is broken" in found["record"]["reason"]


def test_a_look_at_a_cell_changes_nothing(finished):
    _, store = finished
    before = bytes_below(store)

    shown(store, cell(store, "rewinding seed 0"))
    list(follow(store, cell(store, "rewinding seed 0")))

    assert bytes_below(store) == before
