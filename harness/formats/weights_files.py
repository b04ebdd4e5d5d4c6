"""A workload from a file of masks or weights: no training, no framework, nothing but the matrices.

What is not zero is kept. PyTorch's `weight_ih_l*` and `weight_hh_l*`, the harness's own `kernel` and
`recurrent_kernel`, and the matrices of an ONNX LSTM make LSTM layers; an array of four axes is a convolution if the
size of its output is given; embeddings are look-ups; every other matrix is a matrix-vector product.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from harness.api import LSTM, Axis, Conv2D, Dense, Embedding, Layer, Network, Role, Tensor, Workload
from harness.api.errors import DataError, SpecError
from harness.api.values import Array, Mask
from harness.formats import array_files, onnx_file, packing, storage
from harness.formats.array_files import MOST_WEIGHTS, Found, Orientation

Layout = Literal["auto", "rows_out", "rows_in"]
"""How matrices lie: (outputs, inputs), or (inputs, outputs) as Keras has them; auto asks the file first."""

SUFFIXES = (".npz", ".safetensors", ".mtx", ".smtx", ".onnx")

_PYTORCH = re.compile(r"(?P<stem>.*?)weight_(?P<part>ih|hh)(?P<rest>(_l\d+)?(_reverse)?)")
_LOOKUP = re.compile(r"embed|\.table$", re.IGNORECASE)
_KERNELS = re.compile(r"(?P<stem>.+)[./](?P<part>recurrent_)?kernel(:0)?")


@dataclass(frozen=True)
class WeightsFile:
    """What was read from a file.

    Args:
        workload: its matrices; tensors are named as in the file.
        notes: what was taken for granted, as sentences.
        skipped: arrays that are no matrices, with their shapes: biases and the like.
    """

    workload: Workload
    notes: tuple[str, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Read:
    """Arrays in the order of the file, and what the file itself says of them."""

    arrays: Sequence[Found]
    banks: Mapping[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Made:
    """One layer: its tensors, their masks (rows, cols), itself, and what was taken for granted."""

    name: str
    tensors: tuple[Tensor, ...]
    masks: tuple[Mask, ...]
    layer: Layer
    pixels: int | None = None
    is_guessed: bool = False
    notes: tuple[str, ...] = ()


def read_workload(
    path: Path | str,
    *,
    layout: Layout = "auto",
    banks: int | Mapping[str, int] | None = None,
    output_sizes: Mapping[str, tuple[int, int]] | None = None,
    most_weights: int = MOST_WEIGHTS,
) -> Workload:
    """The workload in a file: `read_weights` without its notes."""
    return read_weights(path, layout=layout, banks=banks, output_sizes=output_sizes, most_weights=most_weights).workload


def read_weights(
    path: Path | str,
    *,
    layout: Layout = "auto",
    banks: int | Mapping[str, int] | None = None,
    output_sizes: Mapping[str, tuple[int, int]] | None = None,
    most_weights: int = MOST_WEIGHTS,
) -> WeightsFile:
    """The workload in a file of masks or weights.

    Args:
        path: `.npz` (arrays, a sparse matrix of SciPy, or a packed export), `.safetensors`, `.mtx`, `.smtx`, `.onnx`.
        layout: how a matrix lies where the file does not say.
        banks: equally filled banks per row, of every pruned matrix or by tensor name; where a mask does not have them,
            a note says so and none are taken.
        output_sizes: height and width of the output of convolutions, by layer or tensor name.
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
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise SpecError(f"expected a file that ends in {', '.join(SUFFIXES)}, got {path.name!r}; convert or rename it")
    found = read(path, most_weights)
    empty = [f"{array.name} {array.kept.shape}" for array in found.arrays if array.kept.size == 0]
    if empty:
        raise DataError(f"{path}: expected matrices with rows and columns, got {', '.join(empty)}; leave them out")
    if not found.arrays:
        names = ", ".join(found.skipped) or "no array"
        raise DataError(f"{path}: expected a matrix of masks or weights, got {names}; name another file")
    made = _Layers(layout, dict(output_sizes or {})).of(_with_masks(found.arrays))
    _check_names(path, made, {"output sizes": output_sizes, "banks": banks if isinstance(banks, Mapping) else None})
    return _assembled(made, found, banks)


def _check_names(path: Path, made: Sequence[_Made], options: Mapping[str, Mapping[str, object] | None]) -> None:
    """Pass if options by name are for layers or tensors that are there."""
    known = {tensor.name for layer in made for tensor in layer.tensors} | {layer.name for layer in made}
    for option, given in options.items():
        unknown = sorted(set(given or {}) - known)
        if unknown:
            there = ", ".join(sorted(known))
            raise SpecError(
                f"{path}: {option} are given for {', '.join(unknown)}, which are none of {there}; name these"
            )


def _npz(path: Path, most: int) -> _Read:
    arrays = array_files.read_npz(path, most)
    if array_files.is_scipy(arrays):
        return _Read([Found(path.stem, array_files.scipy_mask(path, arrays, most))])
    if not packing.is_packed(arrays):
        return _plain(path, arrays)
    packed = packing.packed_of(path, arrays)
    read = _plain(path, {name: packing.stored(item) for name, item in packed.items()})
    known = [replace(found, orientation="rows_out") for found in read.arrays]
    banks = {name: item.sizes["banks"] for name, item in packed.items() if item.format == "csb"}
    return _Read(known, banks, read.skipped)


def _plain(path: Path, arrays: Mapping[str, Array]) -> _Read:
    """Arrays by name; those that are neither matrices nor convolutions are skipped."""
    found = [Found(name, array_files.kept(path, name, array)) for name, array in arrays.items() if array.ndim in (2, 4)]
    skipped = tuple(f"{name} {array.shape}" for name, array in arrays.items() if array.ndim not in (2, 4))
    return _Read(found, skipped=skipped)


def _onnx(path: Path, most: int) -> _Read:
    found, skipped = onnx_file.read_onnx(path, most)
    return _Read(found, skipped=tuple(skipped))


_READERS: Mapping[str, Callable[[Path, int], _Read]] = {
    ".npz": _npz,
    ".safetensors": lambda path, most: _plain(path, array_files.read_safetensors(path, most)),
    ".mtx": lambda path, most: _Read([Found(path.stem, array_files.read_mtx(path, most))]),
    ".smtx": lambda path, most: _Read([Found(path.stem, array_files.read_smtx(path, most))]),
    ".onnx": _onnx,
}


def _with_masks(arrays: Sequence[Found]) -> list[Found]:
    """Weights with the masks beside them: `X.mask` of the harness, `X_mask` and `X_orig` of torch.nn.utils.prune.

    A kept weight may happen to be zero, so a mask knows better than its weights.
    """
    named = {found.name: found for found in arrays}
    merged = []
    for found in arrays:
        bare = re.sub(r"[._]mask$", "", found.name)
        if bare != found.name and named.keys() & {bare, f"{bare}_orig"}:
            continue
        weights = found.name.removesuffix("_orig")
        mask = named.get(f"{weights}.mask") or named.get(f"{weights}_mask")
        if mask is None:
            merged.append(found)
        else:
            merged.append(replace(found, name=weights, kept=mask.kept))
    return merged


def _oriented(mask: Mask, orientation: Orientation) -> Mask:
    """A mask as (outputs, inputs).

    Shapes:
        (rows, cols), (cols, rows), (out, in, height, width) or (height, width, in, out) -> (rows, cols).
    """
    if mask.ndim == 4:
        mask = mask if orientation == "rows_out" else mask.transpose(3, 2, 0, 1)
        return np.ascontiguousarray(mask.reshape(len(mask), -1))
    return np.ascontiguousarray(mask if orientation == "rows_out" else mask.T)


def _lstm_of(found: Found) -> tuple[str, bool] | None:
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
    output_sizes: Mapping[str, tuple[int, int]]

    def of(self, arrays: Sequence[Found]) -> list[_Made]:
        """The layers, in the order of their first arrays."""
        pairs: dict[str, dict[bool, Found]] = {}
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
            new = self._lstm(_free(layer, made), pair[False], pair[True]) if len(pair) == 2 else None
            new = new or self._product(found, made.keys(), recurrent=len(pair) == 2)
            made[new.name] = new
            done |= {tensor.name for tensor in new.tensors}
        return list(made.values())

    def _orientations(self, found: Found) -> tuple[Orientation, ...]:
        """The ways an array may lie, the likeliest first."""
        if found.orientation is not None:
            return (found.orientation,)
        return ("rows_out", "rows_in") if self.layout == "auto" else (self.layout,)

    def _lstm(self, name: str, kernel: Found, recurrent: Found) -> _Made | None:
        """An LSTM layer, if the shapes are those of one."""
        for orientation in self._orientations(recurrent):
            masks = _oriented(kernel.kept, orientation), _oriented(recurrent.kept, orientation)
            (rows, inputs), (gates, units) = masks[0].shape, masks[1].shape
            if rows == gates == 4 * units:
                tensors = tuple(
                    _tensor(found.name, name, "lstm", mask.shape, gates=4)
                    for found, mask in zip((kernel, recurrent), masks, strict=True)
                )
                return _Made(name, tensors, masks, LSTM(name=name, inputs=inputs, units=units, input_label="inputs"))
        return None

    def _product(self, found: Found, taken: Collection[str], *, recurrent: bool) -> _Made:
        """A matrix-vector product, a convolution or a look-up."""
        guessed = found.orientation is None and self.layout == "auto"
        bare = re.sub(r"[./](weight|kernel|table|mask)(:0)?$", "", found.name)
        name = _free(found.name if bare in taken or recurrent else bare, taken)
        if found.is_lookup or (found.kept.ndim == 2 and _LOOKUP.search(found.name)):
            return self._lookup(found, name)
        mask = _oriented(found.kept, self._orientations(found)[0])
        rows, cols = mask.shape
        dense = Dense(name=name, inputs=cols, units=rows, input_label=f"{name}.inputs")
        size = self.output_sizes.get(name) or self.output_sizes.get(found.name)
        if size is None:
            tensors = (_tensor(found.name, name, "dense", mask.shape),)
            return _Made(name, tensors, (mask,), dense, is_guessed=guessed, notes=_notes(found, recurrent))
        layer: Layer = dense
        if found.kept.ndim == 4:
            kernel = found.kept.shape[2:] if self._orientations(found)[0] == "rows_out" else found.kept.shape[:2]
            inputs = cols // (kernel[0] * kernel[1])
            layer = Conv2D(name=name, inputs=inputs, outputs=rows, kernel=kernel, input_label=f"{name}.inputs")
        tensor = _tensor(found.name, name, "conv", mask.shape)
        return _Made(name, (tensor,), (mask,), layer, pixels=size[0] * size[1], is_guessed=guessed)

    def _lookup(self, found: Found, name: str) -> _Made:
        words, features = found.kept.shape
        tensor = _tensor(found.name, name, "embedding", found.kept.shape)
        note = f"{found.name} is taken for an embedding, (words, features): a look-up, not costed"
        return _Made(
            name, (tensor,), (found.kept,), Embedding(name=name, words=words, features=features), notes=(note,)
        )


def _notes(found: Found, recurrent: bool) -> tuple[str, ...]:
    notes = []
    if recurrent:
        notes.append(
            f"{found.name} is of a recurrent layer whose rows are not 4 x units (GRU, plain or projected): costed as a "
            "product of its own, without element-wise part"
        )
    if found.kept.ndim == 4:
        notes.append(
            f"{found.name} of shape {found.kept.shape} is a convolution of unknown output size: costed for one output "
            "position"
        )
    return tuple(notes)


def _tensor(name: str, layer: str, role: Role, shape: tuple[int, ...], gates: int = 1) -> Tensor:
    rows = Axis(label=f"{layer}.units", size=shape[0], repeat=gates)
    return Tensor(name=name, layer=layer, role=role, rows=rows, cols=Axis(label=f"{name}.inputs", size=shape[1]))


def _assembled(made: Sequence[_Made], read: _Read, banks: int | Mapping[str, int] | None) -> WeightsFile:
    tensors = tuple(tensor for layer in made for tensor in layer.tensors)
    masks = {tensor.name: mask for layer in made for tensor, mask in zip(layer.tensors, layer.masks, strict=True)}
    pruned = {tensor.name: masks[tensor.name] for tensor in tensors if not masks[tensor.name].all()}
    matrices = (tensor.name for tensor in tensors if tensor.role != "embedding" and tensor.name in pruned)
    asked = dict.fromkeys(matrices, banks) if isinstance(banks, int) else banks or {}
    notes = [note for layer in made for note in layer.notes]
    guessed = [tensor.name for layer in made if layer.is_guessed for tensor in layer.tensors]
    if guessed:
        notes.append(f"taken as (outputs, inputs): {', '.join(guessed)}; if they are not, say layout rows_in")
    even: dict[str, int] = {name: count for name, count in read.banks.items() if name in pruned}
    for name, count in asked.items():
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
    )
    return WeightsFile(workload, tuple(notes), read.skipped)
