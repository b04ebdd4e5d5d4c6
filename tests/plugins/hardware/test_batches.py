"""Batches on the bank and the N:M engine: the closed forms against arrays that tick, and what a batch takes."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from harness_plugins.hardware.engines.bank import Bank
from harness_plugins.hardware.engines.n_m import NM
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.api import Conditions, Conv2D, EngineShape, Network, SpecError, Workload
from harness.discovery.finding import discover
from harness.testing import check_engine

REGISTRY = discover()
CONDITIONS = Conditions()


def shared_words(mask, vectors, pes, lanes):
    """An array whose PEs take every word of weights once per vector: clock cycles, words read, and the outputs.

    Shapes:
        mask (rows, cols), integers; vectors (batch, cols) -> cycles, words, (batch, rows).
    """
    rows, cols = mask.shape
    starts = np.array([cols * lane // lanes for lane in range(lanes + 1)])
    queues = [[] for _ in range(pes)]
    for row in range(rows):
        banks = [
            [column for column in range(starts[lane], starts[lane + 1]) if mask[row, column]] for lane in range(lanes)
        ]
        for step in range(max(1, *map(len, banks))):
            queues[row % pes].append((row, [bank[step] for bank in banks if step < len(bank)]))
    outputs = np.zeros((len(vectors), rows), dtype=np.int64)
    clock = words = 0
    held = [(0, None)] * pes  # how many vectors are left for the word in hand, and the word
    while any(queues) or any(left for left, _ in held):
        clock += 1
        for pe in range(pes):
            left, word = held[pe]
            if not left and queues[pe]:
                left, word, words = len(vectors), queues[pe].pop(0), words + 1
            if left:
                row, columns = word
                vector = len(vectors) - left
                outputs[vector, row] += sum(int(mask[row, column] * vectors[vector, column]) for column in columns)
                left -= 1
            held[pe] = left, word
    return clock, words, outputs


@settings(max_examples=25)
@given(
    seed=st.integers(0, 999), rows=st.integers(1, 7), lanes=st.integers(1, 4), pes=st.integers(1, 4),
    batch=st.integers(1, 4),
)  # fmt: skip
def test_a_word_that_serves_a_whole_batch_takes_as_long_as_an_array_that_ticks(seed, rows, lanes, pes, batch):
    rng = np.random.default_rng(seed)
    weights = rng.integers(-3, 4, (rows, 3 * lanes)) * (rng.random((rows, 3 * lanes)) < 0.5)
    vectors = rng.integers(-3, 4, (batch, 3 * lanes))
    clock, words, outputs = shared_words(weights, vectors, pes, lanes)
    part = make_part(weights != 0)
    shape = EngineShape((("pes", pes), ("lanes", lanes)), pes * lanes)
    run = Bank(batch=batch, banks=lanes).simulate(part, shape, CONDITIONS)

    np.testing.assert_array_equal(outputs, vectors @ weights.T)
    assert run.issue_cycles == clock
    assert run.stored_words == words * lanes  # each is stored, and read, once


def make_part(mask):
    from harness.api import Part, Product

    return Product("layer", (Part("weight", *mask.shape, mask, int(mask.sum())),))


def rounds_in_turn(layers, inputs, units, each, rounds=60):
    """Cycles of a round where whole products take turns: an array and element-wise units, job by job.

    Args:
        layers: issue cycles of a product, and cycles from its last issue until its output can be read.
    """
    array = cell = Fraction(0)
    ready = [Fraction(0)] * inputs
    ends = []
    for _ in range(rounds):
        for issue, tail in layers:
            for one in range(inputs):
                start = max(array, ready[one])
                array = start + issue
                # Units come out while the product runs and are worked off one input after another.
                cell = max(cell, start) + -(-units // each)
                ready[one] = max(array + tail, cell)
        ends.append(array)
    return (ends[-1] - ends[-21]) / 20


@pytest.mark.parametrize(("hidden", "layers", "inputs"), [(40, 1, 2), (40, 1, 5), (80, 2, 3), (120, 2, 2), (24, 1, 3)])
def test_products_that_take_turns_hide_each_others_tails_as_in_an_array_that_runs_them(make, hidden, layers, inputs):
    rng = np.random.default_rng(hidden)
    workload = make.lstm_workload(hidden, lambda r, c: make.bank_balanced_mask(rng, r, c // 8, 8, 1), layers=layers)

    def cost(batch):
        engine = {"name": "bank", "pes": 40, "lanes": 4, "batch": batch, "batch_order": "in_turn"}
        entry = {"name": "cycle_simulator", "engine": engine, "elementwise_units": 4}
        return REGISTRY.create("hardware", entry).cost(workload)

    single, found = cost(1), cost(inputs)
    alone = [
        (Fraction(layer["issue_cycles"]), Fraction(layer["cycles"] - layer["issue_cycles"]))
        for layer in single.details["layers"].values()
    ]
    ticked = rounds_in_turn(alone, inputs, hidden, 4)

    # One layer exactly; of several the model adds up what each waits for, and may be a little above.
    assert ticked <= found.cycles <= ticked * (1 if layers == 1 else 1.1) + 1
    assert found.cycles < inputs * single.cycles
    assert found.streams == inputs and found.steps_per_s > single.steps_per_s


@pytest.mark.parametrize("engine", ["bank", "n_m"])
@pytest.mark.parametrize("order", ["shared", "in_turn"])
def test_a_batch_takes_longer_in_all_and_less_for_each_and_needs_ram_for_its_vectors(make, engine, order):
    rng = np.random.default_rng(0)
    workload = make.lstm_workload(200, lambda r, c: make.bank_balanced_mask(rng, r, c // 4, 4, 1))

    def cost(batch):
        sizes = {"name": engine, "pes": 32, "lanes": 8, "batch": batch, "batch_order": order}
        return REGISTRY.create("hardware", {"name": "cycle_simulator", "engine": sizes}).cost(workload)

    def ram(found):  # of every kind, distributed RAM too
        return sum(sum(purposes.values()) for purposes in found.details["ram"].values())

    costs = [cost(batch) for batch in (1, 2, 4, 16)]
    for before, after in pairwise(costs):
        assert after.latency_us > before.latency_us
        assert after.steps_per_s >= before.steps_per_s
        assert ram(after) >= ram(before)
    assert costs[-1].steps_per_s > costs[0].steps_per_s and ram(costs[-1]) > ram(costs[0])
    assert costs[-1].utilisation <= 1


@pytest.mark.parametrize("engine", ["bank", "n_m"])
def test_weights_that_are_streamed_are_read_once_for_a_batch_that_shares_them(make, engine):
    rng = np.random.default_rng(1)
    workload = make.matrix_workload(make.bank_balanced_mask(rng, 400, 200, 4, 1))

    def cost(batch, order="shared"):
        sizes = {"name": engine, "pes": 16, "lanes": 8, "batch": batch, "batch_order": order}
        entry = {"name": "cycle_simulator", "device": "pynq_z2", "ram_blocks": 40, "bandwidth_gbytes_per_s": 0.05}
        return REGISTRY.create("hardware", {**entry, "engine": sizes}).cost(workload)

    def read(found):
        return found.details["memory_system"]["weight_bytes"]

    single, shared, turns = cost(1), cost(4), cost(4, "in_turn")
    assert single.bound_by == "memory"
    assert read(shared) < 1.5 * read(single)  # their vectors take room from the weights
    assert read(turns) >= 4 * read(single) * (1 - 1e-6)
    assert shared.steps_per_s > 2 * single.steps_per_s > 1.9 * turns.steps_per_s


@pytest.mark.parametrize("order", ["shared", "in_turn"])
def test_engines_of_batches_keep_the_contract(make, order):
    product = make.product_of(make.bank_balanced_mask(np.random.default_rng(0), 24, 6, 4, 1))

    for engine in (Bank(batch=3, batch_order=order), NM(batch=3, batch_order=order)):
        check_engine(engine, [product], [40])


def test_what_a_batch_cannot_be_is_refused():
    with pytest.raises(ValidationError, match="set `batch_order` to shared or in_turn"):
        Bank(batch_order="side_by_side")
    layer = Conv2D(name="conv", inputs=4, outputs=4, kernel=(3, 3), padding=1, input_label="pixels")
    tensor = layer.tensors()[0]
    mask = np.ones(tensor.shape, dtype=np.bool_)
    workload = Workload(Network(layers=(layer,), input_shape=(4, 5, 5)), (tensor,), {tensor.name: mask})
    for engine in ("bank", "n_m"):
        model = REGISTRY.create("hardware", {"name": "cycle_simulator", "engine": {"name": engine, "batch": 2}})
        with pytest.raises(SpecError, match="leave `batch` at 1"):
            model.cost(workload)
