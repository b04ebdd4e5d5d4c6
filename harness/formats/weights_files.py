"""A workload from a file of masks or weights: no training, no framework, nothing but the matrices.

What is not zero is kept. PyTorch's `weight_ih_l*` and `weight_hh_l*`, the harness's own `kernel` and
`recurrent_kernel`, and the matrices of ONNX make layers of an LSTM or a GRU; an array of three to five axes is a
convolution if the size of its output is given; embeddings are look-ups; every other matrix is a matrix-vector product.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.api import LSTM, Axis, Conv2D, Convolution, Dense, Embedding, Layer, Network, Role, Tensor, Workload
from harness.arrays import Array, Mask
from harness.errors import DataError, SpecError
from harness.fixed_point.quantise import quantised
from harness.formats import array_files, checkpoints, mask_names, onnx_file, other_kinds, packing, sparse_files, storage
from harness.formats.weight_arrays import MOST_WEIGHTS, Orientation, WeightArray

Each = TypeVar("Each", bound=np.generic)

Layout = Literal["auto", "rows_out", "rows_in"]
"""How matrices lie: (outputs, inputs), or (inputs, outputs) as Keras has them; auto asks the file first."""

SUFFIXES = (".npz", ".npy", ".safetensors", array_files.INDEX, ".mtx", ".smtx", ".onnx")

_PYTORCH = re.compile(r"(?P<stem>.*?)weight_(?P<part>ih|hh)(?P<rest>(_l\d+)?(_reverse)?)")
_LOOKUP = re.compile(r"embed|\.table$", re.IGNORECASE)
_KERNELS = re.compile(r"(?P<stem>.+)[./](?P<part>recurrent_)?kernel(:0)?")
_KERAS = re.compile(r"/(\w+_)?kernel(:\d+)?$|:\d+$|/depthwise_weights$")
"""Names of TensorFlow, Keras and Flax, whose matrices are (inputs, outputs)."""
_BESIDE = re.compile(r"(^|_)(bias(es)?|beta|gamma|scales?|scale_inv|zero_points?|zeros|scb|absmax|amax)$")
_DEPTHWISE = re.compile(r"depthwise", re.IGNORECASE)
_WINDOW = re.compile(r"conv|(^|[._/])(weights?|kernel|filters?|w)(:\d+)?$", re.IGNORECASE)
"""What an array of three axes is called if it is the kernel of a convolution, and no table of positions or experts."""


@dataclass(frozen=True)
class WeightsFile:
    """What was read from a file.

    Args:
        workload: its matrices; tensors are named as in the file.
        notes: what was taken for granted, as sentences.
        skipped: arrays that are no matrices, with their shapes: biases and the like.
        unsized: convolutions whose output size nobody told: their product is there once, and not once per position.
    """

    workload: Workload
    notes: tuple[str, ...]
    skipped: tuple[str, ...]
    unsized: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Read:
    """Arrays in the order of the file, and what the file itself says of them."""

    arrays: Sequence[WeightArray]
    banks: Mapping[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Made:
    """One layer: its tensors, their masks and values (rows, cols), itself, and what was taken for granted."""

    name: str
    tensors: tuple[Tensor, ...]
    masks: tuple[Mask, ...]
    layer: Layer
    pixels: int | None = None
    steps: int | None = None
    geometry: Convolution | None = None
    is_guessed: bool = False
    is_unsized: bool = False
    notes: tuple[str, ...] = ()
    values: tuple[Array | None, ...] = ()


def read_workload(
    path: Path | str,
    *,
    layout: Layout = "auto",
    banks: int | Mapping[str, int] | None = None,
    output_sizes: Mapping[str, tuple[int, ...]] | None = None,
    most_weights: int = MOST_WEIGHTS,
) -> Workload:
    """The workload in a file: `read_weights` without its notes."""
    return read_weights(path, layout=layout, banks=banks, output_sizes=output_sizes, most_weights=most_weights).workload


def read_weights(
    path: Path | str,
    *,
    layout: Layout = "auto",
    banks: int | Mapping[str, int] | None = None,
    output_sizes: Mapping[str, tuple[int, ...]] | None = None,
    most_weights: int = MOST_WEIGHTS,
) -> WeightsFile:
    """The workload in a file of masks or weights.

    Args:
        path: `.npz` (arrays, a sparse matrix of SciPy, or a packed export), `.npy`, `.safetensors` or the list of its
            parts (`.safetensors.index.json`), `.mtx`, `.smtx`, `.onnx`.
        layout: how a matrix lies where the file does not say.
        banks: equally filled banks per row, of every pruned matrix or by tensor name; where a mask does not have them,
            a note says so and none are taken.
        output_sizes: extents of the output of convolutions (height and width), by layer or tensor name; `*` stands for
            all convolutions of unknown size.
        most_weights: the most elements that the file may hold.

    Raises:
        SpecError: the file cannot be read, or its kind or an option is unknown.
        DataError: it is damaged, empty, too large, or holds NaN or no matrix.

    Source:
        layouts and gate orders: `torch.nn.LSTM`, `tf.keras.layers.LSTM`, ONNX operator `LSTM` (gates i, o, f, c).
    """
    path = Path(path)
    if layout not in ("auto", "rows_out", "rows_in"):
        raise SpecError(f"`layout` must be auto, rows_out or rows_in, got {layout!r}; choose one of them")
    wrong = {name: size for name, size in (output_sizes or {}).items() if min(size) < 1}
    if wrong:
        raise SpecError(f"output sizes are at least 1 x 1, got {wrong}; give height and width")
    # By the end of the name: `.safetensors.index.json` has suffixes of its own.
    read = next((reader for suffix, reader in _READERS.items() if path.name.lower().endswith(suffix)), None)
    if read is None:
        other_kinds.refuse(path, SUFFIXES)
        raise AssertionError  # it always refuses
    other_kinds.check_kind(path)
    found = read(path, most_weights)
    empty = [f"{array.name} {array.kept.shape}" for array in found.arrays if array.kept.size == 0]
    if empty:
        raise DataError(f"{path}: expected matrices with rows and columns, got {', '.join(empty)}; leave them out")
    if not found.arrays:
        names = ", ".join(found.skipped) or "no array"
        why = "".join(f" ({note})" for note in found.notes[:1])
        raise DataError(f"{path}: expected a matrix of masks or weights, got {names}{why}; name another file")
    made = _Layers(layout, dict(output_sizes or {})).of(found.arrays)
    # Last: layers and their names are only known once orientation and pairs are decided.
    _check_names(path, made, {"output sizes": output_sizes, "banks": banks if isinstance(banks, Mapping) else None})
    return _assembled(made, found, banks)


def _check_names(path: Path, made: Sequence[_Made], options: Mapping[str, Mapping[str, object] | None]) -> None:
    """Pass if options by name are for layers or tensors that are there."""
    known = {tensor.name for layer in made for tensor in layer.tensors} | {layer.name for layer in made}
    for option, given in options.items():
        unknown = sorted(set(given or {}) - known - {"*"})
        if unknown:
            there = ", ".join(sorted(known))
            raise SpecError(
                f"{path}: {option} are given for {', '.join(unknown)}, which are none of {there}; name these"
            )


def _npz(path: Path, most: int) -> _Read:
    arrays = array_files.read_npz(path, most)
    if sparse_files.is_scipy(arrays):
        return _single(path, sparse_files.scipy_mask(path, arrays, most))
    if not packing.is_packed(arrays):
        return _plain(path, arrays, most)
    packed = packing.packed_of(path, arrays)
    stored = {name: packing.stored(item) for name, item in packed.items()}
    known = [WeightArray(name, mask, "rows_out") for name, mask in stored.items() if mask.ndim > 1]
    banks = {name: item.sizes["banks"] for name, item in packed.items() if item.format == "csb"}
    return _Read(known, banks, tuple(f"{name} {mask.shape}" for name, mask in stored.items() if mask.ndim < 2))


def _npy(path: Path, most: int) -> _Read:
    array = array_files.read_npy(path, most)
    return _plain(path, {path.stem: array}, most)


def _single(path: Path, mask: Mask) -> _Read:
    return _Read([WeightArray(path.stem, mask)])


def _safetensors(path: Path, most: int) -> _Read:
    found = _plain(path, array_files.read_safetensors(path, most), most)
    part = re.search(r"-0*(\d+)-of-0*(\d+)$", path.stem)
    if part is None or part[1] == part[2] == "1":
        return found
    note = f"{path.name} is part {part[1]} of {part[2]} of a checkpoint: the layers in the others are not costed"
    return replace(found, notes=(*found.notes, note))


def _plain(path: Path, arrays: Mapping[str, Array], most: int) -> _Read:
    """Arrays by name; those that are neither matrices nor convolutions are skipped."""
    unpacked = checkpoints.decoded(path, arrays, most)
    beside = [name for name, array in unpacked.arrays.items() if array.ndim < 2 or _is_beside(name)]
    # A mask of one axis is handed on too: if it is of a matrix, its shape is wrong.
    offered = {
        name: array
        for name, array in unpacked.arrays.items()
        if (array.ndim > 1 and name not in beside) or (array.ndim == 1 and not _is_beside(name))
    }
    paired = mask_names.paired(path, offered)
    notes = [*unpacked.notes, *paired.notes]
    found = []
    for name, mask in paired.weights.items():
        # Tables of positions and stacks of experts have three axes as well: only names tell them from kernels.
        if mask.ndim > 5 or (mask.ndim == 3 and not _WINDOW.search(mask_names.parts_of(name)[-1])):
            notes.append(f"{name} of shape {mask.shape} is no matrix and no kernel: left out")
        else:
            found.append(_named(name, mask, unpacked.orientation.get(name), paired.values.get(name)))
    skipped = tuple(f"{name} {unpacked.arrays[name].shape}" for name in beside)
    return _Read(found, skipped=skipped, notes=tuple(notes))


def _is_beside(name: str) -> bool:
    """Whether an array is no weights by its name: a bias or a scale, however many axes it has."""
    return bool(_BESIDE.search(mask_names.parts_of(name)[-1]))


def _named(name: str, mask: Mask, orientation: Orientation | None, values: Array | None) -> WeightArray:
    """An array, with what its name says of it."""
    hint: Orientation | None = "rows_in" if orientation is None and _KERAS.search(name) else None
    if hint and mask.ndim > 2 and _DEPTHWISE.search(name):
        # (*window, channels, outputs of each): every channel is a group of its own
        # A depthwise kernel of Keras has the channels second to last: every channel is a group with its own outputs.
        channels, each = mask.shape[-2:]
        turned = np.moveaxis(mask, (-2, -1), (0, 1)).reshape(channels * each, 1, *mask.shape[:-2])
        return WeightArray(name, turned, "rows_out", groups=channels)
    return WeightArray(name, mask, orientation, hint, values=values)


def _onnx(path: Path, most: int) -> _Read:
    found = onnx_file.read_onnx(path, most)
    return _Read(found.arrays, skipped=found.skipped, notes=found.notes)


_READERS: Mapping[str, Callable[[Path, int], _Read]] = {
    ".npz": _npz,
    ".npy": _npy,
    ".safetensors": _safetensors,
    array_files.INDEX: lambda path, most: _plain(path, array_files.read_parts(path, most), most),
    ".mtx": lambda path, most: _single(path, sparse_files.read_mtx(path, most)),
    ".smtx": lambda path, most: _single(path, sparse_files.read_smtx(path, most)),
    ".onnx": _onnx,
}


def _oriented(mask: NDArray[Each], orientation: Orientation) -> NDArray[Each]:
    """A mask, or its weights, as (outputs, inputs).

    Shapes:
        (rows, cols), (cols, rows), (out, in, *window) or (*window, in, out) -> (rows, cols).
    """
    if orientation == "rows_in":
        # The last two axes first, the window behind them, as (out, in, *window).
        mask = np.moveaxis(mask, (-1, -2), (0, 1))
    return np.ascontiguousarray(mask.reshape(len(mask), -1))


def _values(found: WeightArray, orientation: Orientation) -> Array | None:
    return None if found.values is None else _oriented(found.values, orientation)


def _lstm_of(found: WeightArray) -> tuple[str, bool] | None:
    """The LSTM layer that a matrix belongs to by its name, and whether it is the recurrent one."""
    if found.lstm is not None or found.kept.ndim != 2:
        return found.lstm
    if match := _PYTORCH.fullmatch(found.name):
        return match["stem"] + match["rest"].lstrip("_") or "lstm", match["part"] == "hh"
    if match := _KERNELS.fullmatch(found.name):
        return match["stem"], match["part"] is not None
    return None


def _free(name: str, taken: Collection[str]) -> str:
    """A name that no layer has yet."""
    while name in taken:
        name += "_"
    return name


@dataclass(frozen=True)
class _Layers:
    """Turns arrays into layers."""

    layout: Layout
    output_sizes: Mapping[str, tuple[int, ...]]

    def of(self, arrays: Sequence[WeightArray]) -> list[_Made]:
        """The layers, in the order of their first arrays."""
        pairs: dict[str, dict[bool, WeightArray]] = {}
        for found in arrays:
            if (where := _lstm_of(found)) is not None:
                pairs.setdefault(where[0], {})[where[1]] = found
        made: dict[str, _Made] = {}
        done: set[str] = set()
        for found in arrays:
            if found.name in done:
                continue
            layer, _ = _lstm_of(found) or (found.name, False)
            pair = pairs.get(layer, {})
            # Only both matrices make a recurrent layer; one alone is a product.
            projected = (
                any(other.name == _projection(pair[False].name) for other in arrays) if len(pair) == 2 else False
            )
            new = self._recurrent(_free(layer, made), pair[False], pair[True], projected) if len(pair) == 2 else None
            # What a recurrent layer gives goes through its projection before anything else.
            behind = [other for other in arrays if projected and other.name == _projection(pair[False].name)]
            for each in (
                new or self._product(found, made.keys(), recurrent=len(pair) == 2),
                *(self._product(other, {*made, new.name}, recurrent=False) for other in behind if new),
            ):
                made[each.name] = each
                done |= {tensor.name for tensor in each.tensors}
        return list(made.values())

    def _orientations(self, found: WeightArray) -> tuple[Orientation, ...]:
        """The ways an array may lie, the likeliest first."""
        if found.orientation is not None:
            return (found.orientation,)
        if self.layout != "auto":
            return (self.layout,)
        return ("rows_in", "rows_out") if found.hint == "rows_in" else ("rows_out", "rows_in")

    def _recurrent(self, name: str, kernel: WeightArray, recurrent: WeightArray, projected: bool) -> _Made | None:
        """An LSTM layer, its output projected or not, or a GRU, if the shapes are those of one."""
        for orientation in self._orientations(recurrent):
            masks = _oriented(kernel.kept, orientation), _oriented(recurrent.kept, orientation)
            (rows, inputs), (gates, units) = masks[0].shape, masks[1].shape
            # Gates in rows are told by the shapes: so many times as many rows as the recurrent matrix has columns; or
            # more, where what comes back is projected.
            count = 4 if rows == 4 * units or (projected and rows % 4 == 0 and units < rows // 4) else 3
            if rows != gates or (rows != count * units and not (projected and count == 4)):
                continue
            role: Role = "lstm" if count == 4 else "gru"
            tensors = tuple(
                _tensor(found.name, name, role, mask.shape, gates=count)
                for found, mask in zip((kernel, recurrent), masks, strict=True)
            )
            layer: Layer = Dense(name=name, inputs=inputs + units, units=rows, input_label="inputs")
            if rows == 4 * units:
                layer = LSTM(name=name, inputs=inputs, units=units, input_label="inputs")
            values = tuple(_values(found, orientation) for found in (kernel, recurrent))
            notes = _recurrent_notes(name, role)
            return _Made(name, tensors, masks, layer, steps=kernel.steps, notes=notes, values=values)
        return None

    def _product(self, found: WeightArray, taken: Collection[str], *, recurrent: bool) -> _Made:
        """A matrix-vector product, a convolution or a look-up."""
        guessed = found.orientation is None and found.hint is None and self.layout == "auto"
        bare = re.sub(r"[./](weight|kernel|table|mask)(:\d+)?$", "", found.name)
        name = _free(found.name if bare in taken or recurrent else bare, taken)
        # A graph that multiplies by a table knows better than its name.
        named_table = found.kept.ndim == 2 and not found.is_product and _LOOKUP.search(found.name)
        if found.is_lookup or named_table:
            return self._lookup(found, name)
        orientation = self._orientations(found)[0]
        mask, values = _oriented(found.kept, orientation), (_values(found, orientation),)
        rows, cols = mask.shape
        dense = Dense(name=name, inputs=cols, units=rows, input_label=f"{name}.inputs")
        size = self.output_sizes.get(name) or self.output_sizes.get(found.name)
        # `*` is meant for convolutions alone: a matrix has one position.
        if size is None and found.kept.ndim > 2 and found.positions is None:
            size = self.output_sizes.get("*")
        positions = found.positions if size is None else math.prod(size)
        if found.kept.ndim == 2 and positions == 1:
            positions = None
        if positions is None:
            tensors = (_tensor(found.name, name, "dense", mask.shape),)
            return _Made(
                name, tensors, (mask,), dense,
                is_guessed=guessed, is_unsized=found.kept.ndim > 2, notes=_notes(found, mask, recurrent),
                values=values,
            )  # fmt: skip
        layer: Layer = dense
        if found.kept.ndim == 4:
            kernel = found.kept.shape[2:] if self._orientations(found)[0] == "rows_out" else found.kept.shape[:2]
            inputs = cols // (kernel[0] * kernel[1])
            layer = Conv2D(name=name, inputs=inputs, outputs=rows, kernel=kernel, input_label=f"{name}.inputs")
        tensor = _tensor(found.name, name, "conv" if found.kept.ndim > 2 else "dense", mask.shape)
        geometry = _sized(found.geometry, size)
        notes = _grouped(found, mask) if geometry is None else ()
        if found.is_transposed and size is not None:
            shown = "x".join(str(extent) for extent in size)
            notes += (f"{found.name} is a transposed convolution: {shown} is taken as the size of its input",)
        return _Made(
            name, (tensor,), (mask,), layer, positions, None, geometry, is_guessed=guessed, notes=notes, values=values
        )

    def _lookup(self, found: WeightArray, name: str) -> _Made:
        words, features = found.kept.shape
        tensor = _tensor(found.name, name, "embedding", found.kept.shape)
        note = f"{found.name} is taken for an embedding, (words, features): a look-up, not costed"
        return _Made(
            name, (tensor,), (found.kept,), Embedding(name=name, words=words, features=features), notes=(note,)
        )


def _sized(geometry: Convolution | None, size: tuple[int, ...] | None) -> Convolution | None:
    """A geometry with the output size that was given, where one was; of the input then nothing is known."""
    if geometry is None or size is None:
        return geometry
    if len(size) > 2 or (len(size) == 1 and geometry.kernel[0] > 1):
        return None
    return replace(geometry, output=(size[0], size[1]) if len(size) == 2 else (1, size[0]), image=None)


def _projection(kernel: str) -> str:
    """The name of the matrix that projects an LSTM's output, as PyTorch gives it beside W_x; empty beside others."""
    return kernel.replace("weight_ih", "weight_hr") if "weight_ih" in kernel else ""


def _recurrent_notes(name: str, role: Role) -> tuple[str, ...]:
    notes = []
    if role == "gru":
        notes.append(
            f"{name} is a GRU: the two sums of its candidate are taken to be kept apart without further cycles"
        )
    if "reverse" in name:
        notes.append(
            f"{name} runs from the end of a sequence: cycles are of one of its steps, and no answer comes before"
        )
    return tuple(notes)


def _notes(found: WeightArray, mask: Mask, recurrent: bool) -> tuple[str, ...]:
    notes = []
    if recurrent:
        notes.append(
            f"{found.name} is of a recurrent layer whose rows are neither 4 nor 3 x units (a plain one): costed as a "
            "product of its own, without element-wise part"
        )
    if found.kept.ndim > 2:
        position = "input" if found.is_transposed else "output"
        notes.append(
            f"{found.name} of shape {found.kept.shape} is a convolution of unknown output size: costed for one "
            f"{position} position"
        )
    return (*notes, *_grouped(found, mask))


def _grouped(found: WeightArray, mask: Mask) -> tuple[str, ...]:
    if found.groups == 1:
        return ()
    return (
        f"{found.name} is a convolution in {found.groups} groups: every output has the {mask.shape[1]} inputs of its "
        "own group, and is costed with these alone, as if an engine could hand every row inputs of its own",
    )


def _tensor(name: str, layer: str, role: Role, shape: tuple[int, ...], gates: int = 1) -> Tensor:
    rows = Axis(label=f"{layer}.units", size=shape[0], repeat=gates)
    return Tensor(name=name, layer=layer, role=role, rows=rows, cols=Axis(label=f"{name}.inputs", size=shape[1]))


def _assembled(made: Sequence[_Made], read: _Read, banks: int | Mapping[str, int] | None) -> WeightsFile:
    tensors = tuple(tensor for layer in made for tensor in layer.tensors)
    masks = {tensor.name: mask for layer in made for tensor, mask in zip(layer.tensors, layer.masks, strict=True)}
    # A tensor that keeps everything needs no mask: engines know it as dense.
    pruned = {tensor.name: masks[tensor.name] for tensor in tensors if not masks[tensor.name].all()}
    matrices = (tensor.name for tensor in tensors if tensor.role != "embedding" and tensor.name in pruned)
    asked = dict.fromkeys(matrices, banks) if isinstance(banks, int) else banks or {}
    notes = [*read.notes, *(note for layer in made for note in layer.notes)]
    guessed = [tensor.name for layer in made if layer.is_guessed for tensor in layer.tensors]
    if guessed:
        notes.append(f"taken as (outputs, inputs): {', '.join(guessed)}; if they are not, say layout rows_in")
    even: dict[str, int] = {name: count for name, count in read.banks.items() if name in pruned}
    for name, count in asked.items():
        # Banks that were promised and are not equal would make an engine's count wrong: it is told and not used.
        where = storage.uneven(masks[name], count)
        if where is None:
            even[name] = count
        else:
            notes.append(f"{name} does not fill {count} banks per row equally: {where}")
    workload = Workload(
        network=Network(layers=tuple(layer.layer for layer in made)),
        tensors=tensors,
        masks=pruned,
        banks=even,
        output_pixels={layer.name: layer.pixels for layer in made if layer.pixels is not None},
        steps={layer.name: layer.steps for layer in made if layer.steps is not None},
        convolutions={layer.name: layer.geometry for layer in made if layer.geometry is not None},
        weights={
            tensor.name: values.astype(np.float64)
            for layer in made
            for tensor, values in zip(layer.tensors, layer.values, strict=False)
            if values is not None
        },
        quantise=quantised,
    )
    return WeightsFile(workload, tuple(notes), read.skipped, tuple(layer.name for layer in made if layer.is_unsized))
