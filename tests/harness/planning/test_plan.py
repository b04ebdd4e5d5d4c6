"""The bill: what is distinct, what is cached, what runs and why."""

from dataclasses import replace

import pytest
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.row_balanced import RowBalanced
from harness_plugins.patterns.unstructured import Unstructured
from numpy_plugins import ManyDevices, NumpyBackend, ToyTask
from toy import FineTuning, Rewinding, experiment

from harness.api import SpecError
from harness.discovery.asking import versions_of
from harness.planning.backends import resolve_device
from harness.planning.plan import make_plan
from harness.planning.workloads import pattern_banks
from harness.store import StageRecord, Store


def bill(grid, store):
    return make_plan(grid, store=store).summary()


def test_sharing_is_counted_against_every_cell_on_its_own(tmp_path):
    grid = experiment((FineTuning(epochs=3),), patterns=(Unstructured(), RowBalanced()), sparsities=(0.5, 0.75))
    found = bill(grid, tmp_path)

    assert found["epochs_without_sharing"] == 4 + 4 * (4 + 3)
    assert found["epochs"] == found["epochs_to_run"] == 4 + 4 * 3
    assert found["sharing_ratio"] == pytest.approx(16 / 32)


def test_an_empty_store_has_nothing_cached(tmp_path):
    found = bill(experiment(), tmp_path / "none")

    assert found["cached"] == 0
    assert found["why"] == {"not run yet": found["stages_to_run"]}


def test_planning_writes_nothing(tmp_path):
    bill(experiment(), tmp_path / "store")

    assert list(tmp_path.iterdir()) == []


def test_every_parent_comes_before_its_children(tmp_path):
    plan = make_plan(experiment((FineTuning(), Rewinding()), seeds=(0, 1)), store=tmp_path)
    place = {key: index for index, key in enumerate(plan.stages)}

    for stage in plan.stages.values():
        for source in (stage.parent, stage.source):
            assert source is None or place[source] < place[stage.key]


def test_seeds_share_nothing(tmp_path):
    one, two = bill(experiment(seeds=(0,)), tmp_path), bill(experiment(seeds=(0, 1)), tmp_path)

    assert two["stages"] == 2 * one["stages"]


def test_a_longer_recipe_begins_with_the_shorter_one(tmp_path):
    short = make_plan(experiment(task=ToyTask(epochs=4)), store=tmp_path)
    long = make_plan(experiment(task=ToyTask(epochs=6)), store=tmp_path)
    dense = [stage.key for stage in short.cells[0].chain]

    assert [stage.key for stage in long.cells[0].chain][: len(dense)] == dense


def test_a_cell_that_cannot_reach_its_sparsity_is_skipped_with_the_nearest_one(tmp_path):
    plan = make_plan(experiment(patterns=(BankBalanced(banks=5),), sparsities=(0.6,)), store=tmp_path)
    skipped = plan.cells[1]

    assert "nearest reachable sparsity is 0.5" in skipped.skip
    assert skipped.stages == ()
    assert plan.summary()["cells_skipped"] == 1


def test_what_does_not_fit_a_tensor_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(SpecError, match="21"):
        make_plan(experiment(patterns=(BankBalanced(banks=21),)), store=tmp_path)


def test_the_detail_lists_every_cell_with_its_labels(tmp_path):
    detail = bill(experiment(), tmp_path)["cells_detail"]

    assert [(cell["pattern"], cell["status"], cell["reason"]) for cell in detail] == [
        ("dense", "run", "not run yet"),
        ("unstructured", "run", "not run yet"),
    ]


def test_a_device_that_is_named_is_taken_as_it_is():
    assert resolve_device("cuda:3", NumpyBackend()) == "cuda:3"


@pytest.mark.parametrize(
    ("backend", "has_driver", "device"),
    [(ManyDevices(), True, "cuda:1"), (ManyDevices(), False, "cpu"), (NumpyBackend(), True, "cpu")],
)
def test_auto_is_the_best_device_that_the_backend_finds(monkeypatch, backend, has_driver, device):
    monkeypatch.setattr("harness.planning.backends.has_nvidia_driver", lambda: has_driver)

    assert resolve_device("auto", backend) == device


def test_two_ways_of_computing_a_precision_share_no_stage_and_what_has_one_way_keeps_its_keys(tmp_path, monkeypatch):
    found = {}
    for precision in ("float32", "bfloat16"):
        for way in ("", "kernels", "rounded"):
            monkeypatch.setattr(
                NumpyBackend, "arithmetic", lambda _, settings, way=way: "" if settings.precision == "float32" else way
            )
            plan = make_plan(replace(experiment(), precision=precision), store=tmp_path)
            found[precision, way] = set(plan.stages)
            assert plan.settings(plan.cells[0].cell).arithmetic == ("" if precision == "float32" else way)

    assert found["float32", ""] == found["float32", "kernels"] == found["float32", "rounded"]
    assert not found["bfloat16", "kernels"] & found["bfloat16", "rounded"]
    assert not found["bfloat16", ""] & found["bfloat16", "rounded"]


def test_a_missing_framework_has_no_version_but_can_be_planned_with():
    class Missing(NumpyBackend):
        def versions(self):
            from importlib.metadata import version

            return {"nowhere": version("a-package-that-does-not-exist")}

    assert versions_of(Missing()) == {"a-package-that-does-not-exist": "not installed"}


def test_banks_are_told_for_patterns_that_have_them():
    tensors = ToyTask().load(None).tensors()[:1]

    assert pattern_banks(BankBalanced(banks=5), tensors) == {"output.kernel": 5}
    assert pattern_banks(Unstructured(), tensors) == {}
    assert pattern_banks(None, tensors) == {}


def test_the_run_list_names_every_stage_that_runs_after_what_it_starts_from(tmp_path):
    plan = make_plan(experiment(patterns=(Unstructured(), RowBalanced())), store=tmp_path)
    listed = plan.run_list()
    place = {entry["stage"]: index for index, entry in enumerate(listed)}

    assert list(place) == list(plan.to_run)
    assert all(entry["parent"] is None or place[entry["parent"]] < place[entry["stage"]] for entry in listed)
    assert [(entry["kind"], entry["epoch"], entry["cells"]) for entry in listed[:2]] == [
        ("init", 0, 3),
        ("train", 1, 3),
    ]
    assert {entry["cells"] for entry in listed if entry["kind"] == "prune"} == {1}


def test_cells_share_the_stages_they_have_in_common_as_objects(tmp_path):
    plan = make_plan(experiment((FineTuning(epochs=1), FineTuning(epochs=3))), store=tmp_path)
    chains = [planned.chain for planned in plan.cells]

    for chain in chains:
        assert all(stage is plan.stages[stage.key] for stage in chain)
    assert chains[1] == chains[2][: len(chains[1])]


def test_equal_components_that_are_not_the_same_object_plan_alike(tmp_path):
    grid = experiment((FineTuning(), Rewinding()), patterns=(Unstructured(), RowBalanced()), seeds=(0, 1))
    copies = [
        replace(cell, task=cell.task.model_copy(), backend=cell.backend.model_copy())
        if cell.is_dense
        else replace(cell, pattern=cell.pattern.model_copy(), strategy=cell.strategy.model_copy())
        for cell in grid.cells
    ]
    other = replace(grid, cells=tuple(copies))

    assert list(make_plan(other, store=tmp_path).stages) == list(make_plan(grid, store=tmp_path).stages)


def test_what_is_there_is_found_among_other_stages(tmp_path):
    plan = make_plan(experiment(), store=tmp_path)
    for key in (plan.cells[0].chain[0].key, "0" * 32):
        stage = plan.stages.get(key, plan.cells[0].chain[0])
        Store(tmp_path).write(StageRecord(key=key, parent=None, kind="init", inputs=dict(stage.inputs)), None)
    again = make_plan(experiment(), store=tmp_path)

    assert list(again.cached) == [plan.cells[0].chain[0].key]
    assert again.to_run[plan.cells[0].chain[0].key] == "metrics cached, state missing"
