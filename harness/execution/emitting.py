"""Integers of a finished cell for a circuit: its weights, and the vectors that its validation data makes of a layer."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.api import (
    Network,
    NumberFormat,
    NumPyOperations,
    Operands,
    Problem,
    SpecError,
    State,
    Workload,
    batch_rng,
)
from harness.costing.emission import one_layer, recurrent_layer
from harness.data import data_folder
from harness.discovery.asking import loaded
from harness.execution.export import finished
from harness.fixed_point import calibrated
from harness.fixed_point.integers import Tapped, cell_operands, layer_integers, requantised_as, tapped
from harness.fixed_point.network import Pass, matrices
from harness.inspection.experiments import experiment_of
from harness.inspection.lookup import find_cell
from harness.planning.workloads import output_pixels, pattern_banks
from harness.results.records import Record


@dataclass(frozen=True)
class CellModel:
    """A finished cell with its data.

    Args:
        record: what it is.
        problem: its network and data.
        state: its weights and masks.
        workload: its matrices.
    """

    record: Record
    problem: Problem
    state: State
    workload: Workload


def cell_model(store: Path, text: str, run: str | None, data_dir: Path | None) -> CellModel:
    """A finished cell.

    Args:
        store: the store's folder.
        text: id of a cell, its beginning, or words of its labels.
        run: that it is of; None for the latest.
        data_dir: where the data sets lie; None: where the run had them.

    Raises:
        SpecError: no cell or several fit, or its model is one of the user's own.
        StoreError: it is not finished, or its state is not kept.
        HarnessError: its data is not there.
    """
    found = find_cell(store, text, run)
    record, state = finished(store, found.record.cell)
    experiment = experiment_of(found.folder, only=[record.cell])
    (cell,) = experiment.cells
    problem = loaded(cell.task, data_folder(data_dir or experiment.data_dir))
    network = problem.network
    if not isinstance(network, Network):
        raise SpecError(
            f"emit: cell {record.cell} has a model of its own, whose vectors only its framework knows; export its "
            f"weights (`harness export {record.cell}`) and name that file"
        )
    tensors = tuple(tensor for tensor in network.tensors() if tensor.is_prunable and tensor.role != "embedding")
    # Only what was pruned has banks of a pattern.
    scope = [tensor for tensor in tensors if tensor.name in state.masks]
    workload = Workload(
        network=network,
        tensors=tensors,
        masks={name: mask for name, mask in state.masks.items() if name in {tensor.name for tensor in tensors}},
        banks=pattern_banks(cell.pattern, scope),
        output_pixels=output_pixels(network),
    )
    return CellModel(record, problem, state, workload)


def operands_of_cell(
    model: CellModel, layer: str, number_format: NumberFormat, vectors: int, *, whole: bool = False
) -> Operands:
    """The integers of a layer, and what it is multiplied with on the first validation batch, by the evaluation's rules.

    Args:
        model: the cell.
        layer: its name.
        number_format: widths and rules.
        vectors: how many at most: steps of the first item of a recurrent layer, else items or positions.
        whole: whether the element-wise part of an LSTM layer belongs to it.

    Raises:
        SpecError: the whole of another layer is asked for.
    """
    recurrent = recurrent_layer(model.problem.network, layer) if whole else None
    network, weights, seed = model.problem.network, model.state.weights, model.record.seed
    assert isinstance(network, Network)
    ops = NumPyOperations()
    # Measured as the evaluation does, by the same seed, so that the circuit computes in the same steps.
    exponents = calibrated(model.problem, weights, number_format, ops, seed)
    arithmetic = Tapped(ops, network, weights, number_format, exponents)
    arithmetic.watch(layer)
    embeddings = {
        each.name: ops.array(weights[f"{each.name}.table"]) for each in network.layers if each.type == "embedding"
    }
    # The first batch is enough: the vectors are test data of a circuit, no statistics.
    batch = next(iter(model.problem.batches("valid", 0, batch_rng(seed, 0))))
    Pass(network, embeddings).logits(batch.inputs, arithmetic)
    found, _ = tapped(arithmetic, vectors, exponents[layer])
    integers = layer_integers(network, weights, layer, number_format, exponents)
    after = requantised_as(network, layer, number_format, exponents)
    shifts = np.zeros_like(integers.units) if after.exponent is None else after.exponent - integers.units
    told = (
        f"Weights: {', '.join(matrices(network)[layer])} and the bias of cell {model.record.cell} "
        f"({model.record.pattern}, sparsity {model.record.sparsity}), rounded to {number_format.label()}.",
        f"Vectors: {len(found)} of its validation data as the evaluation at this format makes them; their step is "
        f"2^{exponents[layer]}.",
        *(() if whole else (f"Results: {after.what}.",)),
    )
    bits = after.bits or number_format.accumulator_bits
    made = Operands(layer, integers.weights, integers.bias, shifts, bits, found, number_format, told)
    if recurrent is None:
        return made
    steps = exponents[layer], exponents[f"{layer}.state"]
    return replace(made, cell=cell_operands(recurrent.units, number_format, *steps))


def layer_of(model: CellModel, name: str | None) -> Workload:
    """The workload of one layer of a cell; raises as `one_layer`."""
    return one_layer(model.workload, name)
