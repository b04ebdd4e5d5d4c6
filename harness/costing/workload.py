"""What is to be costed: a file of masks or weights, or a description of layers by size and density, without masks."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from harness._text import listed
from harness.api import LSTM, Conv2D, Convolution, Dense, Frozen, JsonValue, Layer, Network, Pool2D, SpecError, Workload
from harness.costing.entries import read_description
from harness.formats.weights_files import Layout, WeightsFile, read_weights

if TYPE_CHECKING:
    from harness.spec.source import Problems

DESCRIPTIONS = (".yaml", ".yml")
"""Suffixes of files that describe a workload."""


def _share(value: object) -> object:
    """A share as it is; one that is written as a percentage is refused with how it is written as a fraction."""
    percent = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value) if isinstance(value, str) else None
    number = float(percent[1]) if percent else value
    if isinstance(number, int | float) and (percent or 1 < number <= 100):
        shown = repr(value) if percent else value
        raise ValueError(f"expected a fraction between 0 and 1, got {shown}; write {number / 100:g} for {number:g} %")
    return value


Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)]


MOST_UNITS = 2**24
"""Of inputs, units, outputs or extents of a layer; the largest vocabulary in use is a sixtieth of it."""

MOST_WEIGHTS = 2**32
"""Of a layer, and positions of a convolution's output; a vocabulary of 262,144 by 16,384 has as many."""

Extent = Annotated[int, Field(gt=0, le=MOST_UNITS)]


class _Entry(Frozen):
    """What every described layer has.

    Args:
        name: the layer's.
        density: fraction of weights kept.
        banks: equally filled banks per row; every bank then keeps the same whole number of weights.
        activation_density: fraction of the layer's inputs that are not zero.
    """

    @field_validator("*", mode="after")
    @classmethod
    def _is_within_reason(cls, value: object) -> object:
        """Refuse a size at its field that no layer has."""
        # Once for every size of every layer: extents beyond reason would be computed with for minutes.
        sizes = value if isinstance(value, tuple) else (value,)
        if any(isinstance(size, int) and size > MOST_UNITS for size in sizes):
            raise ValueError(f"expected at most {MOST_UNITS:,}, as no layer has more")
        return value

    name: str = Field(min_length=1)
    density: Share = 1.0
    banks: int | None = Field(default=None, gt=0)
    activation_density: Share = 1.0


class LSTMEntry(_Entry):
    """An LSTM layer; `recurrent_density` is that of W_h where it differs from W_x."""

    type: Literal["lstm"]
    inputs: int = Field(gt=0)
    units: int = Field(gt=0)
    recurrent_density: Share | None = None

    def layer(self) -> Layer:
        """The layer in the vocabulary of networks."""
        return LSTM(name=self.name, inputs=self.inputs, units=self.units, input_label=f"{self.name}.inputs")

    def densities(self) -> tuple[float, ...]:
        """One per matrix."""
        return self.density, self.density if self.recurrent_density is None else self.recurrent_density


class DenseEntry(_Entry):
    """A dense layer: one matrix-vector product."""

    type: Literal["dense"]
    inputs: int = Field(gt=0)
    outputs: int = Field(gt=0)

    def layer(self) -> Layer:
        """The layer in the vocabulary of networks."""
        return Dense(name=self.name, inputs=self.inputs, units=self.outputs, input_label=f"{self.name}.inputs")

    def densities(self) -> tuple[float, ...]:
        """One per matrix."""
        return (self.density,)


class ConvEntry(_Entry):
    """A convolution; `output` is its height and width where the description has no `input_shape`.

    In `groups`, each output sees the inputs of its own group only; as many groups as inputs are a depthwise one.
    """

    type: Literal["conv2d"]
    inputs: int = Field(gt=0)
    outputs: int = Field(gt=0)
    kernel: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
    stride: int = Field(default=1, gt=0)
    padding: int = Field(default=0, ge=0)
    groups: int = Field(default=1, gt=0)
    output: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None

    def layer(self) -> Layer:
        """The layer in the vocabulary of networks."""
        return Conv2D(
            name=self.name,
            inputs=self.inputs // self.groups,
            outputs=self.outputs,
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding,
            input_label=f"{self.name}.inputs",
        )

    def densities(self) -> tuple[float, ...]:
        """One per matrix."""
        return (self.density,)

    def geometry(self, image: tuple[int, int] | None) -> Convolution:
        """Its sizes on an image, or for its own `output`."""
        output = self.output or _places(self, image or (1, 1))
        return Convolution(self.inputs, self.kernel, self.stride, output, None if self.output else image, self.groups)


def _places(entry: ConvEntry, image: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the output for an image."""
    high, wide = (
        (size + 2 * entry.padding - taps) // entry.stride + 1 for size, taps in zip(image, entry.kernel, strict=True)
    )
    return high, wide


class PoolEntry(Frozen):
    """A pooling layer: nothing to cost, but it shrinks what comes after it."""

    type: Literal["pool2d"]
    size: Extent


_LAYERS: Mapping[str, type[Frozen]] = {
    "lstm": LSTMEntry, "dense": DenseEntry, "conv2d": ConvEntry, "pool2d": PoolEntry,
}  # fmt: skip
_Entries = Annotated[LSTMEntry | DenseEntry | ConvEntry | PoolEntry, Field(discriminator="type")]


class Description(Frozen):
    """A workload without masks: layers by size and density, in the order in which they run.

    Args:
        version: of this form.
        layers: what runs, one after another.
        input_shape: channels, height and width of an image, from which the outputs of convolutions follow.
    """

    version: Literal[1] = 1
    layers: Annotated[tuple[_Entries, ...], Field(min_length=1)]
    input_shape: tuple[Extent, Extent, Extent] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Description":
        named = [entry for entry in self.layers if isinstance(entry, _Entry)]
        names = [entry.name for entry in named]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise ValueError(f"expected every layer to have a name of its own, got {double!r} twice; rename one")
        if not named:
            raise ValueError("expected a layer with weights, got only pooling; add one")
        for entry in named:
            # Before anything is allocated: sizes that are each sensible may multiply to none.
            most = _most(entry, self.input_shape)
            if most > MOST_WEIGHTS:
                raise ValueError(
                    f"expected at most {MOST_WEIGHTS:.1e} weights or positions of a layer, got {most:.1e} in "
                    f"{entry.name!r}; check its sizes"
                )
            if isinstance(entry, ConvEntry) and (entry.inputs % entry.groups or entry.outputs % entry.groups):
                raise ValueError(
                    f"expected inputs and outputs of layer {entry.name!r} to be multiples of its {entry.groups} "
                    f"groups, got {entry.inputs} and {entry.outputs}; correct one"
                )
            if isinstance(entry, ConvEntry) and entry.output is None and self.input_shape is None:
                raise ValueError(
                    f"expected the `output` (height and width) of layer {entry.name!r}, or an `input_shape` of the "
                    "file, got neither; add one"
                )
        return self


def _most(entry: _Entry, image: tuple[int, int, int] | None) -> int:
    """Weights of a layer, or places of its output where those are more."""
    if isinstance(entry, LSTMEntry):
        return 4 * entry.units * max(entry.inputs, entry.units)
    if isinstance(entry, DenseEntry):
        return entry.inputs * entry.outputs
    assert isinstance(entry, ConvEntry)
    # Without an `output`, about as many places as the image has.
    places = math.prod(entry.output or (image or (1, 1, 1))[1:])
    return max(places, entry.inputs // entry.groups * entry.outputs * math.prod(entry.kernel))


@dataclass(frozen=True)
class Given:
    """A workload, and what was taken for granted when it was read.

    Args:
        workload: the matrices.
        notes: sentences for the reader.
        skipped: arrays of the file that are no matrices.
    """

    workload: Workload
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def told(self) -> tuple[str, ...]:
        """The notes, and what was left out."""
        left = (f"no matrices, left out: {', '.join(self.skipped)}",) if self.skipped else ()
        return (*self.notes, *left)


def read_given(
    path: Path,
    *,
    layout: Layout = "auto",
    banks: int | None = None,
    output_sizes: Mapping[str, tuple[int, ...]] | None = None,
    activation_density: Mapping[str, float] | None = None,
) -> Given:
    """Read a file of masks or weights, or a description (`.yaml`).

    Args:
        path: the file.
        layout: how matrices lie where the file does not say.
        banks: equally filled banks per row of every pruned matrix.
        output_sizes: extents of the outputs of convolutions (height and width), by layer; of a matrix, its positions.
        activation_density: fraction of inputs that are not zero, by layer; the key "" stands for all others.

    Raises:
        SpecError: the file cannot be read or an option does not fit it.
        DataError: the file is damaged or holds no matrix.
    """
    if path.suffix.lower() in DESCRIPTIONS:
        if layout != "auto" or banks is not None or output_sizes:
            raise SpecError(
                f"{path} describes layers by size: expected their banks and outputs inside it, got them (or a layout) "
                "as options; write them into the file"
            )
        given = described(path)
    else:
        found = read_weights(path, layout=layout, banks=banks, output_sizes=output_sizes)
        _check_sizes(path, found)
        given = Given(found.workload, found.notes, found.skipped)
    return _with_activations(given, activation_density or {})


def _check_sizes(path: Path, found: WeightsFile) -> None:
    """Pass if cycles of layers may be added up: a convolution of unknown size would count as one position of many.

    Raises:
        SpecError: it holds such a convolution beside other layers.
    """
    layers = {tensor.layer for tensor in found.workload.tensors if tensor.role != "embedding"}
    # A single layer is costed per position; only a sum over layers needs to know how many there are.
    if not found.unsized or len(layers) < 2:
        return
    shown = [*found.unsized[:3], *([f"{len(found.unsized) - 3} more"] if len(found.unsized) > 3 else [])]
    named = listed(shown)
    raise SpecError(
        f"{path}: cycles of {len(layers)} layers are added up, and the output size of {named} is not known; give it, "
        f"such as --output-size {found.unsized[0]}=32x32 (`*=1x1` for one position of every such convolution), or give "
        "an ONNX graph, which has the sizes"
    )


def described(path: Path) -> Given:
    """The workload that a description stands for.

    Raises:
        SpecError: it cannot be read; one line per mistake, with its place in the file.
    """
    value, problems = read_description(path, "a workload")
    for place, truth in _truths(value):
        problems.add(place, f"expected a number or a text, got {str(truth).lower()}")
    problems.finish()
    try:
        description = Description.model_validate(value)
    except ValidationError as error:
        from harness.spec.document import explain

        explain(error, problems, (), value, lambda path: _keys(path, value))
        problems.finish()
        raise  # not reached: `finish` raises
    return _workload(description, problems)


def _truths(value: JsonValue, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], bool]]:
    """Every true and false of a description, with its place: to Python `true` is a 1, and nothing here is one."""
    if isinstance(value, bool):
        yield place, value
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inside:
        yield from _truths(child, (*place, key))


def _keys(path: tuple[str | int, ...], value: JsonValue) -> list[str]:
    """The keys that a mapping of the file may have; those of a layer depend on its type."""
    if not path:
        return list(Description.model_fields)
    for part in path:
        value = value[part]  # type: ignore[index]  # a path of this very value
    model = _LAYERS.get(str(value.get("type"))) if isinstance(value, dict) else None
    return list(model.model_fields) if model is not None else []


def _workload(description: Description, problems: "Problems") -> Given:
    from harness.spec.source import got

    layers: list[Layer] = []
    kept: dict[str, int] = {}
    banks: dict[str, int] = {}
    pixels: dict[str, int] = {}
    density: dict[str, float] = {}
    convolutions: dict[str, Convolution] = {}
    image = description.input_shape and description.input_shape[1:]
    for index, entry in enumerate(description.layers):
        if isinstance(entry, PoolEntry):
            layers.append(Pool2D(size=entry.size))
            image = image and (image[0] // entry.size, image[1] // entry.size)
            continue
        layer = entry.layer()
        layers.append(layer)
        matrices = [tensor for tensor in layer.tensors() if tensor.is_prunable]
        for tensor, share in zip(matrices, entry.densities(), strict=True):
            rows, cols = tensor.shape
            if entry.banks is not None and entry.banks > cols:
                problems.add(("layers", index, "banks"), f"expected at most {cols} banks, got {got(entry.banks)}")
                continue
            if share < 1:
                # A dense matrix has no count: its density is 1 by what it is, not by rounding.
                kept[tensor.name] = _kept(rows, cols, share, entry.banks)
            if entry.banks is not None:
                banks[tensor.name] = entry.banks
        density[layer.name] = entry.activation_density  # type: ignore[union-attr]  # only pooling has no name
        if isinstance(entry, ConvEntry):
            geometry = convolutions[entry.name] = entry.geometry(image)
            if min(geometry.output) < 1:
                problems.add(("layers", index), f"its window is larger than the {image[0]} x {image[1]} that it gets")  # type: ignore[index]  # an output of its own is positive
            if entry.output is not None:
                pixels[entry.name] = geometry.positions
            image = image and geometry.output
    problems.finish()
    network = Network(layers=tuple(layers), input_shape=description.input_shape or ())
    tensors = tuple(tensor for tensor in network.tensors() if tensor.is_prunable)
    return Given(Workload(network, tensors, {}, banks, pixels, kept, density, convolutions))


def _kept(rows: int, cols: int, density: float, banks: int | None) -> int:
    """Weights kept, half up, as exact decimals; with banks a whole number in each."""
    # By its decimal spelling: 0.29 of 100 is 29, while the float just below gives 28.
    share = Decimal(repr(density))
    exact = share * rows * cols if banks is None else share * cols / banks
    count = int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))
    return count if banks is None else count * rows * banks


def _with_activations(given: Given, densities: Mapping[str, float]) -> Given:
    """The same with other activation densities.

    Raises:
        SpecError: a layer is not there, or a density is no fraction.
    """
    workload = given.workload
    layers = list(dict.fromkeys(tensor.layer for tensor in workload.tensors))
    for name, value in densities.items():
        if name and name not in layers:
            raise SpecError(
                f"--activation-density: expected one of the layers {', '.join(layers)}, got {name!r}; name one of them"
            )
        if not 0 <= value <= 1 or not np.isfinite(value):
            raise SpecError(
                f"--activation-density: expected a fraction between 0 and 1, got {value}; 1 is no zero among the inputs"
            )
    # The empty name stands for all layers; one that is named wins over it.
    everywhere = {layer: densities[""] for layer in layers} if "" in densities else {}
    named = {layer: value for layer, value in densities.items() if layer}
    merged = {**workload.activation_density, **everywhere, **named}
    return replace(given, workload=replace(workload, activation_density=merged))
