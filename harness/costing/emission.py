"""Circuits from weights: one layer of a workload, its integers, and a folder of Verilog that is there whole or not."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness._text import listed
from harness.api import (
    LSTM,
    BenchRun,
    Circuit,
    HardwareModel,
    Network,
    NumberFormat,
    Operands,
    SpecError,
    Tensor,
    Workload,
)
from harness.arrays import Array, Mask
from harness.discovery.asking import circuit_of, simulated_by
from harness.fixed_point.integers import PLACE_BITS, cell_operands
from harness.fixed_point.network import PER_UNIT
from harness.fixed_point.quantise import exponent, quantised
from harness.formats import array_files

_SPARE_BITS = 2
"""Bits that the largest sum of drawn vectors leaves free in the accumulator, its sign among them."""

_READERS = {".npz": array_files.read_npz, ".safetensors": array_files.read_safetensors}


@dataclass(frozen=True)
class Draw:
    """How vectors are drawn where no data is known: so many, from this seed."""

    vectors: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Emitted:
    """A design in its folder.

    Args:
        circuit: its files and what the model says of it.
        folder: where it lies.
        bench: what its bench found; None where no simulator is installed.
    """

    circuit: Circuit
    folder: Path
    bench: BenchRun | None

    @property
    def holds(self) -> bool:
        """Whether nothing is known to be wrong."""
        return self.bench is None or self.bench.holds


# --- layers ---------------------------------------------------------------------------------------------------------


def one_layer(workload: Workload, name: str | None) -> Workload:
    """The workload of one layer.

    Args:
        workload: of a model.
        name: the layer's; None if there is only one.

    Raises:
        SpecError: there is no such layer, or several and none is named.
    """
    layers = list(dict.fromkeys(tensor.layer for tensor in workload.tensors if tensor.role != "embedding"))
    if name is None and len(layers) == 1:
        name = layers[0]
    if name not in layers:
        got = "none named" if name is None else repr(name)
        raise SpecError(
            f"--layer: a design has one layer, expected one of {listed(layers) or 'no layers'}, got {got}; name it"
        )
    tensors = tuple(tensor for tensor in workload.tensors if tensor.layer == name)
    # Of one vector, as the circuit takes them: an item may run the layer at many positions.
    return replace(workload, tensors=tensors, output_pixels={name: 1}, convolutions={})


def recurrent_layer(network: Network, name: str) -> LSTM:
    """The LSTM layer of this name.

    Raises:
        SpecError: it is another layer.
    """
    found = next((layer for layer in network.layers if isinstance(layer, LSTM) and layer.name == name), None)
    if found is None:
        raise SpecError(f"--whole-layer is for LSTM layers, got {name!r}, which is none; leave it out")
    return found


def whole_layer(operands: Operands, rows: NDArray[np.int64], units: int) -> Operands:
    """The same with the element-wise part of an LSTM layer: x and h within (-1, 1), c within (-8, 8).

    Args:
        operands: of its product, with drawn vectors.
        rows: exponents of the rows' steps.
        units: of the layer.
    """
    form = operands.number_format
    vector = 1 - form.activation_bits
    cell = cell_operands(units, form, vector, vector + 3)
    shifts = -(PER_UNIT.bit_length() - 1) - (rows + vector)
    told = (*operands.origin[:2], "States: x and h within (-1, 1), c within (-8, 8); h and c begin at zero.")
    return replace(operands, shifts=shifts, output_bits=PLACE_BITS, cell=cell, origin=told)


def file_operands(
    path: Path, workload: Workload, number_format: NumberFormat, output_bits: int, draw: Draw, *, whole: bool = False
) -> Operands:
    """Integers of a layer of a file: its weights where the file has them, else drawn ones; vectors are drawn.

    Args:
        path: the file of masks or weights.
        workload: of one layer of it, its matrices named as in the file.
        number_format: widths and rules.
        output_bits: of a result.
        draw: how vectors are drawn.
        whole: whether the element-wise part of an LSTM layer belongs to it.

    Raises:
        SpecError: the whole of another layer is asked for.
    """
    layer = workload.tensors[0].layer
    recurrent = recurrent_layer(workload.network, layer) if whole else None
    generator = np.random.default_rng(draw.seed)
    arrays = _arrays(path)
    found = [_values(tensor, workload.masks.get(tensor.name), arrays) for tensor in workload.tensors]
    names = ", ".join(tensor.name for tensor in workload.tensors)
    known = [values for values in found if values is not None]
    if len(known) == len(found):
        integers, rows = quantised(np.concatenate(known, axis=1), number_format)
        origin = f"Weights: {names} of {path.name}, rounded to {number_format.label()}."
    else:
        mask = np.concatenate([_mask(tensor, workload) for tensor in workload.tensors], axis=1)
        top = (1 << (number_format.weight_bits - 1)) - 1
        signs = 1 - 2 * generator.integers(2, size=mask.shape)
        integers = generator.integers(1, top + 1, mask.shape) * signs * mask
        # As if weights were within (-1, 1).
        rows = np.full(len(mask), 1 - number_format.weight_bits)
        origin = f"Weights: drawn with seed {draw.seed} on the masks of {names}, of which {path.name} has no values."
    made = _drawn(layer, integers.astype(np.int64), rows, number_format, output_bits, draw, origin)
    return made if recurrent is None else whole_layer(made, rows, recurrent.units)


def _drawn(
    layer: str,
    weights: NDArray[np.int64],
    rows: NDArray[np.int64],
    number_format: NumberFormat,
    output_bits: int,
    draw: Draw,
    origin: str,
) -> Operands:
    """With vectors that do not overflow the accumulator, and results that fill their bits."""
    generator = np.random.default_rng((draw.seed, 1))
    bits = number_format.activation_bits
    shares = np.clip(generator.normal(size=(draw.vectors, weights.shape[1])) / 3, -1, 1)
    room = 1 << (number_format.accumulator_bits - _SPARE_BITS)
    for width in range(bits, 0, -1):
        vectors = np.floor(shares * ((1 << (width - 1)) - 1) + 0.5).astype(np.int64)
        sums = vectors @ weights.T
        if np.abs(sums).max(initial=0) < room:
            break
    # Rows of different steps meet in one of their own: that of the largest result.
    step = exponent(float(np.abs(np.ldexp(sums.astype(np.float64), rows)).max(initial=0.0)), output_bits)
    told = (
        origin,
        f"Vectors: {draw.vectors} drawn with seed {draw.seed}, of {width} of {bits} bits, so that no sum of theirs "
        "overflows.",
        f"Results: {output_bits} bits; the largest of these vectors fills them.",
    )
    bias = np.zeros(len(weights), dtype=np.int64)
    return Operands(layer, weights, bias, step - rows, output_bits, vectors, number_format, told)


def _arrays(path: Path) -> Mapping[str, Array]:
    if path.suffix.lower() == ".npy":
        return {path.stem: array_files.read_npy(path)}
    reader = _READERS.get(path.suffix.lower())
    return {} if reader is None else reader(path)


def _mask(tensor: Tensor, workload: Workload) -> Mask:
    mask = workload.masks.get(tensor.name)
    return np.ones(tensor.shape, dtype=np.bool_) if mask is None else mask


def _values(tensor: Tensor, mask: Mask | None, arrays: Mapping[str, Array]) -> NDArray[np.float64] | None:
    """The weights of a matrix as (outputs, inputs), pruned ones zero; None where the file has none, or only a mask."""
    array = arrays.get(tensor.name)
    if array is None or array.dtype == np.bool_ or array.ndim < 2:
        return None
    turned = np.moveaxis(array, (-1, -2), (0, 1))
    fits = [
        np.asarray(each.reshape(len(each), -1), dtype=np.float64)
        for each in (array, turned)
        if (len(each), each.size // len(each)) == tensor.shape
    ]
    kept = np.ones(tensor.shape, dtype=np.bool_) if mask is None else mask
    # A square matrix may lie either way: where it is not zero tells which.
    same = [each for each in fits if np.array_equal(each != 0, kept)] or fits
    if not same or set(np.unique(same[0]).tolist()) <= {0.0, 1.0}:
        return None
    return same[0] * kept


# --- folders --------------------------------------------------------------------------------------------------------


def check_folder(folder: Path) -> None:
    """Pass if a design may be put there.

    Raises:
        SpecError: something is there already.
    """
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise SpecError(f"--output: expected a folder that is not there, or an empty one, got {folder}; name another")


def emit(
    model: HardwareModel,
    workload: Workload,
    operands: Operands,
    folder: Path,
    before_bench: Callable[[Circuit], None] | None = None,
) -> Emitted:
    """Make a design, run its bench and put it into a folder: whole, or not at all.

    A design whose bench finds a fault is there, too, so that the fault can be looked for.

    Args:
        model: with its engine.
        workload: of one layer.
        operands: its integers.
        folder: where the design belongs; the folders above it are made.
        before_bench: told of the design before its bench runs, which may take long.

    Raises:
        HarnessError: the model has no circuit for it, the folder cannot be written or the simulator fails.
    """
    check_folder(folder)
    circuit = circuit_of(model, workload, operands)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name[:100]}.") as made:
            inside = Path(made, "design")
            for name, text in circuit.files.items():
                path = inside / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            if before_bench is not None:
                before_bench(circuit)
            bench = simulated_by(model, inside)
            _put(inside, folder)
    except OSError as error:
        raise SpecError(f"--output: {folder} cannot be written ({error.strerror}); name another folder") from None
    return Emitted(circuit, folder, bench)


def _put(made: Path, folder: Path) -> None:
    """Give a finished folder its name."""
    if folder.is_dir():
        folder.rmdir()  # an empty one, or this fails
    made.rename(folder)
