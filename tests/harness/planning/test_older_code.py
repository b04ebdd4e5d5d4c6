"""Stages of older code: found where all but the code is the same, marked, and never run again under their old keys."""

from dataclasses import replace

import pytest
from harness_plugins.patterns.unstructured import Unstructured
from numpy_plugins import ToyTask
from toy import FineTuning, Rewinding, experiment

from harness.execution.run import run
from harness.planning import code_digest
from harness.planning.plan import make_plan
from harness.store import Store


@pytest.fixture
def edited(monkeypatch):
    """Let the code at a place have another digest; None undoes all edits."""
    real = {name: getattr(code_digest, name) for name in ("component", "stages", "masks")}
    digests = {}

    def found(digest):
        return replace(digest, digest=digests.get(digest.place, digest.digest))

    monkeypatch.setattr(code_digest, "component", lambda cls: found(real["component"](cls)))
    monkeypatch.setattr(code_digest, "stages", lambda: found(real["stages"]()))
    monkeypatch.setattr(code_digest, "masks", lambda: found(real["masks"]()))

    def edit(place, digest="another"):
        if place is None:
            digests.clear()
        else:
            digests[place] = digest

    return edit


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    run(experiment(), store=folder, workers=1)
    return folder


def planned(store, grid=None, **options):
    return make_plan(grid or experiment(), store=store, **options)


@pytest.mark.parametrize("place", ["task toy", "backend numpy", "pattern unstructured", "score magnitude"])
def test_edited_code_runs_again_unless_it_is_trusted(store, edited, place):
    edited(place)

    assert planned(store).to_run
    assert not planned(store, trust_code=True).to_run


def test_only_what_rests_on_older_code_is_marked(store, edited):
    edited("pattern unstructured")
    plan = planned(store, trust_code=True)
    dense, pruned = plan.cells

    assert plan.trusted_by(dense) == []
    assert plan.trusted_by(pruned) == [stage.key for stage in pruned.stages if not stage.is_dense]
    assert plan.is_cached(pruned)


def test_present_code_has_nothing_to_trust(store):
    plan = planned(store, trust_code=True)

    assert (plan.trusted, plan.to_run) == (frozenset(), {})


@pytest.mark.parametrize("other", [experiment(seeds=(1,)), experiment(task=ToyTask(learning_rate=0.25))])
def test_what_differs_in_more_than_code_is_not_taken(store, edited, other):
    edited("backend numpy")
    plan = planned(store, other, trust_code=True)

    # Initial weights do not depend on the learning rate; nothing that was trained may be taken.
    assert {plan.stages[key].kind for key in plan.trusted} <= {"init"}


def test_new_stages_on_top_of_older_ones_say_so_in_their_keys(store, edited):
    grid = experiment((FineTuning(epochs=3),))
    edited("backend numpy")
    plan = planned(store, grid, trust_code=True)
    new = [plan.stages[key] for key in plan.to_run]
    edited(None)
    of_old_code = planned(store, grid)
    edited("backend numpy")

    assert {stage.kind for stage in new} == {"train", "test"}
    assert all(stage.inputs["code"]["backend numpy"]["digest"] == "another" for stage in new)
    assert not set(plan.to_run) & set(of_old_code.stages)
    assert not set(plan.to_run) & set(planned(store, grid).stages)


def test_what_was_run_on_top_of_older_stages_is_found_again(store, edited):
    grid = experiment((FineTuning(epochs=3), Rewinding()))
    edited("backend numpy")
    run(grid, store=store, workers=1, trust_code=True)

    assert not planned(store, grid, trust_code=True).to_run


def record_of(stage):
    from harness.store import StageRecord

    return StageRecord(key=stage.key, parent=stage.parent, kind=stage.kind, inputs=dict(stage.inputs))


def test_an_older_stage_without_its_state_is_not_run_under_its_old_key(store, edited):
    plan = planned(store)
    pruned = next(stage for stage in plan.cells[1].chain if stage.kind == "prune")
    Store(store).drop_state(pruned.parent)
    Store(store).drop_state(plan.cells[1].end.key)
    edited("task toy")
    longer = experiment((FineTuning(epochs=3),))
    found = planned(store, longer, trust_code=True)

    assert found.to_run
    assert not set(found.to_run) & set(plan.stages)
    assert not found.trusted & set(found.to_run)


def test_of_several_older_codes_the_longest_chain_is_taken(store, edited):
    first = planned(store)
    edited("backend numpy", "second")
    second = planned(store)
    Store(store).write(record_of(second.cells[0].chain[0]), None)
    edited("backend numpy", "third")
    found = planned(store, trust_code=True)

    assert found.cells[0].chain[0].key == first.cells[0].chain[0].key


def test_a_damaged_older_stage_is_not_taken(store, edited):
    edited("backend numpy")
    old = planned(store, trust_code=True)
    end = old.cells[1].end.key
    path = Store(store).stage_folder(end) / "stage.json"
    path.write_text(path.read_text().replace('"seconds"', '"minutes"'))
    found = planned(store, trust_code=True)

    assert end not in found.trusted
    assert found.to_run
    assert end not in found.damaged


def test_an_unreadable_record_is_passed_over(store, edited):
    edited("backend numpy")
    stray = Store(store).stage_folder("0" * 32)
    stray.mkdir(parents=True)
    (stray / "stage.json").write_text("{")

    assert not planned(store, trust_code=True).to_run


def test_trusted_cells_give_the_same_records(store, edited):
    before = run(experiment(patterns=(Unstructured(),)), store=store, workers=1).records
    edited("pattern unstructured")
    plan = planned(store, trust_code=True)

    assert [planned_cell.end.key for planned_cell in plan.cells] == [record.stage for record in before]
