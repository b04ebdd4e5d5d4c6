"""From stages to records: the parts that need no run."""

from dataclasses import replace

import pytest
from harness_plugins.hardware.cycle_simulator import CycleSimulator
from harness_plugins.hardware.engines.column_fifo import ColumnFifo
from harness_plugins.patterns.block import Block
from numpy_plugins import NumpyBackend
from toy import FineTuning, experiment

from harness.api import Conv2D, Dense, Flatten, Network, Pool2D
from harness.execution.collect import Collector
from harness.execution.run import run
from harness.formats.storage import best, sizes
from harness.planning.plan import make_plan
from harness.planning.workloads import output_pixels
from harness.store import Store


def test_output_pixels_follow_padding_stride_and_pooling():
    network = Network(
        layers=(
            Conv2D(name="one", inputs=1, outputs=6, kernel=(5, 5), padding=2, input_label="image.channels"),
            Pool2D(size=2),
            Conv2D(name="two", inputs=6, outputs=16, kernel=(5, 3), stride=2, input_label="one.channels"),
            Flatten(),
            Dense(name="out", inputs=16 * 5 * 6, units=10, input_label="two.channels", input_repeat=30),
        ),
        input_shape=(1, 28, 28),
    )

    assert output_pixels(network) == {"one": 28 * 28, "two": 5 * 6}


def test_a_network_without_images_has_no_pixels():
    network = Network(layers=(Dense(name="out", inputs=4, units=2, input_label="features"),), input_shape=(4,))

    assert output_pixels(network) == {}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Dense and pruned cells of two seeds, and the records of their stages; they hold no densities."""
    store = tmp_path_factory.mktemp("store")
    grid = replace(experiment(seeds=(0, 1)), hardware=(CycleSimulator(engine=ColumnFifo(pes=2, groups=1)),))
    run(grid, store=store, workers=1)
    plan = make_plan(grid, store=store)
    return plan, {key: Store(store).read(key) for key in plan.stages}


def records_with(trained, densities):
    """The cells' records if the test of each had found this density at its one layer."""
    plan, finished = trained
    finished = dict(finished)
    for planned, density in zip(plan.cells, densities, strict=True):
        record = finished[planned.test.key]
        test = record.test.model_copy(update={"activation_density": density})
        finished[record.key] = record.model_copy(update={"test": test})
    return Collector(plan, finished).records()


def cycles(record):
    (cost,) = record.hardware.values()
    return cost["cycles"]


def test_an_engine_that_skips_needs_fewer_cycles_where_inputs_are_zero(trained):
    everything = records_with(trained, [{}] * 4)
    half = records_with(trained, [{"output": 0.5}] * 4)

    assert all(cycles(fewer) < cycles(all_) for fewer, all_ in zip(half, everything, strict=True))


def test_dense_cells_of_two_seeds_are_costed_each_with_its_own_density(trained):
    one, other, *_ = records_with(trained, [{"output": 0.9}, {"output": 0.2}, {}, {}])

    assert one.is_dense and other.is_dense
    assert cycles(other) < cycles(one)


def test_stages_without_densities_cost_what_a_density_of_one_costs(trained):
    unknown, full = records_with(trained, [{}] * 4), records_with(trained, [{"output": 1.0}] * 4)

    assert [cycles(record) for record in unknown] == [cycles(record) for record in full]
    assert all("activation_density" not in record.facts for record in unknown)


def test_the_record_tells_the_density_in_short(trained):
    record, *_ = records_with(trained, [{"output": 1 / 3}] * 4)

    assert record.facts["activation_density"] == {"output": 0.333}


@pytest.mark.parametrize(("way", "told"), [("rounded", {"rounded"}), ("", {None})])
def test_records_of_every_cell_tell_how_a_precision_was_computed(tmp_path, monkeypatch, way, told):
    monkeypatch.setattr(NumpyBackend, "arithmetic", lambda *_: way)
    plan = make_plan(experiment(sparsities=(0.5, 0.999)), store=tmp_path)
    records = Collector(plan, {}).records()

    assert {record.status for record in records} == {"planned", "skipped"}
    assert {record.facts.get("arithmetic") for record in records} == told


class Early(FineTuning):
    """A strategy that prunes half of what it is asked for."""

    name = "early"

    def program(self, recipe, sparsity):
        return super().program(recipe, sparsity / 2)


def finished(plan):
    """The records of all stages of a plan that was run."""
    return {key: plan.store.read(key) for key in plan.stages}


def test_a_finished_cell_whose_masks_miss_the_tolerance_fails_with_what_was_counted(tmp_path):
    ragged = experiment(patterns=(Block(height=2, width=8),))
    run(ragged, store=tmp_path, workers=1)
    plan = make_plan(ragged, store=tmp_path)
    (pruned,) = [record for record in Collector(plan, finished(plan)).records() if not record.is_dense]
    strict = make_plan(replace(ragged, tolerance=abs(pruned.sparsity - 0.5) - 0.001), store=tmp_path)

    *_, failed = Collector(strict, finished(strict)).records()

    assert pruned.status == "cached" and abs(pruned.sparsity - 0.5) > 0.001
    assert failed.status == "failed" and failed.value is None
    assert "output.kernel" in failed.reason and "where 0.5 was asked for" in failed.reason
    assert failed.sparsity == pruned.sparsity


def test_a_strategy_that_ends_elsewhere_has_failed_before_it_trains(tmp_path):
    plan = make_plan(experiment((Early(),)), store=tmp_path)

    (dense, pruned) = Collector(plan, {}).records()

    assert dense.status == "planned" and pruned.status == "failed"
    assert "the target to be reached at the end, got 0.25" in pruned.reason
    assert all(stage.is_dense for stage in plan.stages.values())


def test_finished_models_are_scored_in_the_numbers_of_the_hardware_too(trained):
    plan, finished = trained

    for record in Collector(plan, dict(finished)).records():
        (scored,) = record.fixed_point.values()
        assert scored["format"] == "w16 a16"
        assert scored["value"] == pytest.approx(record.value, rel=1e-2)
        assert scored["wrapped"] == 0
        assert "folded" not in scored


def test_a_score_in_fixed_point_tells_which_norms_were_parts_of_layers(trained):
    plan, finished = trained
    key = plan.cells[0].fixed[0].key
    test = finished[key].test.model_copy(update={"folded": {"conv": "norm"}, "in_float": ("last",)})
    told = dict(finished) | {key: finished[key].model_copy(update={"test": test})}

    (scored,) = Collector(plan, told).records()[0].fixed_point.values()

    assert scored["folded"] == {"conv": "norm"} and scored["in_float"] == ["last"]


def test_a_score_in_fixed_point_that_failed_is_a_reason_and_the_cell_keeps_its_metric(trained):
    plan, finished = trained
    fixed = plan.cells[0].fixed[0].key
    left = {key: record for key, record in finished.items() if key != fixed}

    failed = Collector(plan, left, failures={fixed: ("diverged", "perplexity is inf")}).records()[0]
    waiting = Collector(plan, left).records()[0]

    assert failed.is_done and failed.value is not None
    assert failed.fixed_point["cycle_simulator"]["reason"] == "perplexity is inf"
    assert waiting.status == "planned"


def test_another_number_format_trains_nothing(trained):
    plan, _ = trained
    narrow = CycleSimulator(engine=ColumnFifo(pes=2, groups=1), weight_bits=4)
    grid = replace(plan.experiment, hardware=(*plan.experiment.hardware, narrow))
    silent = replace(grid, hardware=(CycleSimulator(engine=ColumnFifo(pes=2, groups=1), evaluated=False),))

    more = make_plan(grid, store=plan.store.folder)
    none = make_plan(silent, store=plan.store.folder)

    assert {more.stages[key].kind for key in more.to_run} == {"test"}
    assert len(more.to_run) == len(more.cells)
    assert not none.to_run and all(not planned.fixed for planned in none.cells)


def test_storage_is_counted_on_the_masks_with_weights_of_the_entry(trained):
    plan, finished = trained
    store = plan.store

    for planned, record in zip(plan.cells, records_with(trained, [{}] * 4), strict=True):
        assert list(record.storage) == ["16"]
        stored = record.storage["16"]
        masks = store.masks(finished[planned.end.key])
        size = sum(tensor.size for tensor in planned.scope)
        assert stored.dense_bits == 16 * size
        if record.is_dense:
            assert stored.bits == 16 * size and stored.formats == ("dense",)
        else:
            smallest = {name: best(sizes(mask, weight_bits=16)) for name, mask in masks.items()}
            assert {name: (each.format, each.bits) for name, each in stored.tensors.items()} == {
                name: (size.name, size.bits) for name, size in smallest.items()
            }
            assert stored.bits == sum(size.bits for size in smallest.values()) < stored.dense_bits


def test_without_hardware_weights_are_stored_as_they_are_trained(trained):
    plan, finished = trained
    plain = replace(plan, experiment=replace(plan.experiment, hardware=()))

    assert {tuple(record.storage) for record in Collector(plain, finished).records()} == {("32",)}


def test_two_entries_of_different_widths_are_counted_both_and_equal_ones_once(trained):
    plan, finished = trained
    engine = ColumnFifo(pes=2, groups=1)
    hardware = tuple(
        CycleSimulator(engine=engine, weight_bits=bits, clock_mhz=mhz) for bits, mhz in ((8, 100), (8, 200), (16, 100))
    )
    several = replace(plan, experiment=replace(plan.experiment, hardware=hardware))

    for record in Collector(several, finished).records():
        assert list(record.storage) == ["8", "16"]
        assert record.storage["8"].bits < record.storage["16"].bits


def test_what_is_left_to_cost_is_told_model_by_model_and_nothing_is_left(trained):
    plan, finished = trained
    models = tuple(CycleSimulator(engine=ColumnFifo(pes=pes, groups=1)) for pes in (3, 5))
    several = replace(plan, experiment=replace(plan.experiment, hardware=models))
    collector, told = Collector(several, finished), []
    before = collector.records(0.0)
    collector.cost(told.append)
    after = collector.records(0.0)

    assert all("reason" in cost for record in before for cost in record.hardware.values())
    assert all("cycles" in cost for record in after for cost in record.hardware.values())
    assert [(each.cell, each.number) for each in told] == [(cell, model) for cell in (1, 2, 3, 4) for model in (1, 2)]
    assert {(each.cells, each.models) for each in told} == {(4, 2)}
    assert {each.model for each in told} == {model.label() for model in models}
    assert told[0].label.endswith(" · dense · seed 0")
