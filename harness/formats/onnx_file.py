"""Weights of an ONNX model, oriented as its graph reads them; needs the package `onnx`."""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from harness.api import Convolution
from harness.arrays import Array
from harness.errors import DataError, SpecError
from harness.formats.array_files import open_weights
from harness.formats.onnx_constants import Constant, attribute, evaluated
from harness.formats.onnx_products import LOOK_UPS, NO_PRODUCTS, PRODUCTS, Operand, named
from harness.formats.onnx_shapes import Shapes, geometry_of, shapes_of
from harness.formats.onnx_tensors import Tensors
from harness.formats.weight_arrays import WeightArray, kept, tells_values

_MOST_BYTES = 1 << 31
"""The largest message of Protocol Buffers."""

_STANDARD = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training")
_MOST_TOLD = 6


@dataclass(frozen=True)
class OnnxWeights:
    """What was found in a model.

    Args:
        arrays: weights, in the order in which the graph uses them.
        skipped: tensors that are no weights, with their shapes.
        notes: what a reader should know, as sentences.
    """

    arrays: tuple[WeightArray, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]


def read_onnx(path: Path, most: int) -> OnnxWeights:
    """The weights of a model: initialisers and constants, dense or sparse, of the graph and of the graphs inside it.

    Raises:
        SpecError: the package `onnx` is missing, or the file cannot be read.
        DataError: it is no ONNX model, keeps weights outside its folder, or holds NaN or too large an array.
    """
    onnx = _package(path)
    with open_weights(path, most) as file:
        begin = file.read(1)
        # Every message begins with the number and type of a field, and a model has no field 0.
        content = begin + file.read(_MOST_BYTES) if begin != b"\0" else b""
    try:
        model = onnx.ModelProto.FromString(content)
        if not content or len(content) > _MOST_BYTES or not model.HasField("graph"):
            raise ValueError("it has no graph")
    except (ValueError, import_module("google.protobuf.message").DecodeError) as error:
        raise DataError(f"{path}: expected an ONNX model, got a damaged one ({error}); export it again") from None
    _check_names(path, model)
    whole = _inlined(model)
    reader = _Reader(onnx, path, most, _opsets(model), shapes_of(onnx, whole))
    reader.graph(whole.graph, {}, {}, "")
    return reader.result()


def _package(path: Path) -> ModuleType:
    try:
        import_module("onnx.numpy_helper")
        return import_module("onnx")
    except ImportError:
        raise SpecError(
            f"{path}: ONNX models are read with the package `onnx`, which is not installed; "
            "install sparsity-harness[onnx], or save the weights as .safetensors or .npz"
        ) from None


def _check_names(path: Path, model: Any) -> None:
    """Pass if all names are text: Protocol Buffers hands damaged ones on as bytes."""
    if not all(isinstance(name, str) for graph in (model.graph, *model.functions) for name in _texts(graph)):
        raise DataError(f"{path}: expected names that are text, got others; export it again")


def _texts(graph: Any) -> Iterator[object]:
    """The names in a graph or a function, and in the graphs inside it."""
    yield graph.name
    # Attributes may hold whole graphs: the branches of an If, the body of a Loop.
    for node in graph.node:
        yield from (node.op_type, node.name, node.domain, *node.input, *node.output)
        for found in node.attribute:
            yield found.name
            for inner in (*([found.g] if found.HasField("g") else []), *found.graphs):
                yield from _texts(inner)
    for name in ("initializer", "value_info"):
        yield from (one.name for one in getattr(graph, name, ()))
    yield from (sparse.values.name for sparse in getattr(graph, "sparse_initializer", ()))


def _opsets(model: Any) -> tuple[Any, ...]:
    return tuple(one for one in model.opset_import if one.domain in ("", "ai.onnx"))


def _inlined(model: Any) -> Any:
    """The model with the functions that it defines written out; as it is, where that cannot be done."""
    if not model.functions:
        return model
    try:
        return import_module("onnx.inliner").inline_local_functions(model)
    except Exception:  # the package raises errors of C++ that have no class of their own
        return model


@dataclass
class _Entry:
    """Weights that were found, a digest of their numbers as (outputs, inputs), and how often they are used."""

    array: WeightArray
    digest: bytes = b""
    uses: int = 1


@dataclass
class _Reader:
    """Goes through the nodes of a graph once, in their order, and keeps what they multiply by."""

    onnx: ModuleType
    path: Path
    most: int
    opsets: tuple[Any, ...]
    shapes: Shapes = field(default_factory=Shapes)
    entries: dict[str, list[_Entry]] = field(default_factory=dict)  # by source
    constants: dict[str, Constant] = field(default_factory=dict)  # of the file, in its order
    used: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    unfound: list[str] = field(default_factory=list)
    unsized: list[str] = field(default_factory=list)  # constants of products at as many positions as nobody knows
    small: set[str] = field(default_factory=set)  # shapes, axes and the like, which nobody takes for weights

    def graph(self, graph: Any, known: dict[str, Constant], lost: dict[str, str], place: str) -> None:
        """Read a graph.

        Args:
            graph: the graph.
            known: constants of the graphs around it, by name; not changed.
            lost: names that come from constants through an operator that is not followed, with that operator.
            place: which graph inside a node it is, for notes; empty for the model's own.
        """
        # Copies: what a branch defines is known in it and not behind it.
        known, lost = dict(known), dict(lost)
        tensors = Tensors(self.onnx, self.path, self.most)
        for tensor in graph.initializer:
            self._keep(known, str(tensor.name), tensors.array(tensor))
        for sparse in graph.sparse_initializer:
            self._keep(known, str(sparse.values.name), tensors.dense(sparse))
        for node in graph.node:
            if node.op_type == "Constant" and node.output:
                name, array = str(node.output[0]), _constant(tensors, node)
                self._keep(known, name, array)
                if array is not None and array.ndim < 2:
                    # A scalar is nobody's matrix: it is not told among what was left out.
                    self.small.add(known[name].source)
            else:
                self._node(node, known, lost, place)

    def _keep(self, known: dict[str, Constant], name: str, array: Array | None) -> None:
        if array is None:
            return
        source = name
        while source in self.constants:  # another graph has a tensor of the same name
            source += "_"
        known[name] = self.constants[source] = Constant(source, array, nonzero=int((array != 0).sum()))

    def _node(self, node: Any, known: dict[str, Constant], lost: dict[str, str], place: str) -> None:
        for found in node.attribute:
            for inner in (*([found.g] if found.HasField("g") else []), *found.graphs):
                self.graph(inner, known, lost, f"{found.name} of {node.op_type} {_name(node)}".strip())
        names = [str(name) for name in node.input]
        given = [known.get(name) for name in names]
        # An empty name is an input that was left out.
        is_fixed = any(names) and all(one is not None or not name for one, name in zip(given, names, strict=True))
        if is_fixed and self._follow(node, [one for one in given], known):
            return
        # Behind something that cannot be followed all is lost: the product that needs it is told with the culprit.
        if any(names) and all(name in known or name in lost or not name for name in names):
            through = next((lost[name] for name in names if name in lost), node.op_type)
            lost.update({str(name): through for name in node.output})
        if node.op_type in PRODUCTS:
            self._product(node, names, known, lost, place)
        else:
            self._other(node, names, known)

    def _follow(self, node: Any, given: list[Constant | None], known: dict[str, Constant]) -> bool:
        """Compute what a node makes of constants, if that can be done."""
        arrays = [None if one is None else one.array for one in given]
        try:
            results = evaluated(self.onnx, node, arrays, self.opsets, self.most)
        # The reference implementation raises whatever NumPy raises: models of all sorts come by.
        except Exception:  # a node that cannot be computed is one that is not followed
            results = None
        if results is None:
            return False
        # Named after its weights, not after a scale, nor after a mask of the same size.
        largest = max(
            (one for one in given if one is not None), key=lambda one: (one.array.size, not _is_mask(one.array))
        )
        self.used |= {one.source for one in given if one is not None and one is not largest}
        for name, array in zip(node.output, results, strict=True):
            known[str(name)] = replace(largest, array=array, operators=(*largest.operators, str(node.op_type)))
        return True

    def _product(
        self, node: Any, names: list[str], known: dict[str, Constant], lost: dict[str, str], place: str
    ) -> None:
        """Keep the weights of a product; one without any is told."""

        def take(index: int) -> Array | None:
            one = known.get(names[index]) if index < len(names) else None
            return None if one is None else one.array

        operands = list(PRODUCTS[node.op_type](node, take))
        for operand in operands:
            constant = known[names[operand.place]]
            # A transposed convolution runs once for every position of its input.
            at = names[0] if operand.is_transposed else str(next(iter(node.output), ""))
            extents = self.shapes.extents(at) if operand.is_kernel else None
            positions, geometry = None if extents is None else math.prod(extents), None
            if operand.is_kernel and not operand.is_transposed:
                image = self.shapes.extents(names[0])
                geometry = geometry_of(node, operand.array.shape, operand.groups, image, extents)
            elif operand.layer and operand.lstm is None:
                # A plain recurrence is two products, in every step.
                positions = self.shapes.steps(node)
            elif not operand.layer and not operand.is_kernel:
                positions = self.shapes.positions(node, operand, known)
                if positions is None and self.shapes.is_open(node, known):
                    self.unsized.append(named(constant.source, node))
            self._add(node, constant, operand, place, positions, geometry)
        self.used |= {known[name].source for name in names if name in known}
        if not operands:
            through = next((lost[name] for name in names if name in lost), None)
            why = f"its weights come through {through}, which is not followed" if through else "no input is a constant"
            why = "its constant is packed in another way" if any(_is_matrix(known.get(name)) for name in names) else why
            self.unfound.append(f"{node.op_type} {_name(node)} ({why})".replace("  ", " "))

    def _add(
        self,
        node: Any,
        constant: Constant,
        operand: Operand,
        place: str,
        positions: int | None,
        geometry: Convolution | None,
    ) -> None:
        name = (operand.layer or named(constant.source, node)) + operand.suffix
        mask = kept(self.path, name, operand.array)
        self._tell_rounding(name, constant, int(mask.sum()), mask.size)
        array = WeightArray(
            name,
            mask,
            operand.orientation,
            lstm=None if operand.lstm is None else (operand.layer, operand.lstm),
            groups=operand.groups,
            is_transposed=operand.is_transposed,
            positions=positions,
            steps=None if operand.lstm is None else self.shapes.steps(node),
            geometry=geometry,
            is_product=True,
            values=operand.array if tells_values(operand.array) else None,
        )
        entries = self.entries.setdefault(constant.source, [])
        # Multiplied by after all: a tied word table is both.
        entries[:] = [entry for entry in entries if not entry.array.is_lookup]  # a table that is multiplied by, too
        # By the numbers, so that a matrix which two products use is costed once and told to be.
        digest = _digest(operand)
        again = next((entry for entry in entries if entry.digest == digest), None)
        if again is not None:
            again.uses += 1
            both = again.array.positions, positions
            # As often as one item runs it, where the graph says how often each of the products does.
            again.array = replace(again.array, positions=None if None in both else sum(both))  # type: ignore[arg-type]
            return
        taken = {entry.array.name for each in self.entries.values() for entry in each}
        while name in taken:
            name += "_"
        entries.append(_Entry(replace(array, name=name), digest))
        if operand.layer and operand.lstm is None:
            self.notes.append(
                f"{name} is of a recurrent layer: costed as a product of its own, without element-wise part"
            )
        if place:
            self.notes.append(f"{name} is in the {place}: costed as if that ran once")

    def _tell_rounding(self, name: str, constant: Constant, left: int, size: int) -> None:
        rounding = [one for one in constant.operators if one in ("QuantizeLinear", "Quant", "IntQuant")]
        source = self.constants[constant.source].array
        if rounding and source.size == size and left < constant.nonzero:
            gone = constant.nonzero - left
            self.notes.append(f"{rounding[0]} rounds {gone} weights of {name} to zero: they are taken as zero")

    def _other(self, node: Any, names: list[str], known: dict[str, Constant]) -> None:
        """Keep tables that are looked up, and what operators of nobody's standard take."""
        tables = LOOK_UPS.get(node.op_type, ())
        for index, name in enumerate(names):
            one = known.get(name)
            if one is None:
                continue
            is_table = index in tables and one.array.ndim == 2 and not attribute(node, "axis", 0)
            is_unknown = node.domain not in _STANDARD and one.array.ndim in (2, 4) and not tables
            is_unknown &= node.op_type not in NO_PRODUCTS
            # A matrix in an operator that nobody knows is likelier weights than not, and the note says so.
            if (is_table or is_unknown) and one.source not in self.entries:
                mask = kept(self.path, one.source, one.array)
                array = WeightArray(one.source, mask, is_lookup=is_table)
                self.entries[one.source] = [_Entry(array)]
                if is_unknown:
                    operator = f"{node.domain}.{node.op_type}"
                    self.notes.append(f"{one.source} goes into {operator}, which is not known: taken as a product")
            self.used.add(one.source)

    def result(self) -> OnnxWeights:
        """Everything that was found; matrices that no node takes come last."""
        arrays = [entry.array for entries in self.entries.values() for entry in entries]
        skipped = []
        for name, constant in self.constants.items():
            if name in self.entries:
                continue
            # Of two or four axes: vectors are biases, and what no node takes may be anything.
            if name not in self.used and constant.array.ndim in (2, 4):
                arrays.append(WeightArray(name, kept(self.path, name, constant.array)))
            elif name not in self.small:
                skipped.append(f"{name} {constant.array.shape}")
        notes = [*self.notes]
        for entry in (entry for entries in self.entries.values() for entry in entries):
            if entry.uses > 1:
                often = entry.array.positions
                told = "costed once" if often is None else f"{often} positions in all"
                notes.append(f"{entry.array.name} is used by {entry.uses} products: {told}")
        return OnnxWeights(tuple(arrays), tuple(skipped), (*notes, *self._unsized(), *self._unfound()))

    def _unsized(self) -> Iterator[str]:
        if self.unsized:
            yield (
                f"the graph leaves open at how many positions (tokens) these run: {self._few(self.unsized)}; costed "
                "for one; export with fixed sizes, or give them as output sizes"
            )

    def _unfound(self) -> Iterator[str]:
        if self.unfound:
            yield f"products without weights in the file, left out: {self._few(self.unfound)}"

    @staticmethod
    def _few(names: list[str]) -> str:
        more = len(names) - _MOST_TOLD
        return ", ".join(names[:_MOST_TOLD]) + (f" and {more} more" if more > 0 else "")


def _is_mask(array: Array) -> bool:
    return array.dtype == np.bool_ or bool(((array == 0) | (array == 1)).all())


def _is_matrix(constant: Constant | None) -> bool:
    return constant is not None and constant.array.ndim > 1


def _constant(tensors: Tensors, node: Any) -> Array | None:
    """The value of a node `Constant`, of any of its forms that holds numbers."""
    for found in node.attribute:
        if found.name == "value":
            return tensors.array(found.t)
        if found.name == "sparse_value":
            return tensors.dense(found.sparse_tensor)
        if found.name in ("value_float", "value_floats"):
            return np.array(found.floats if found.name.endswith("s") else found.f, dtype=np.float32)
        if found.name in ("value_int", "value_ints"):
            return np.array(found.ints if found.name.endswith("s") else found.i, dtype=np.int64)
    return None


def _digest(operand: Operand) -> bytes:
    """What tells equal weights of one constant from different ones, such as two halves of it that are both dense."""
    array = operand.array if operand.orientation == "rows_out" else operand.array.T
    rules = f"{array.shape} {array.dtype} {operand.groups} {operand.layer}{operand.suffix}"
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), key=rules.encode()[:64]).digest()


def _name(node: Any) -> str:
    name = str(node.name or next(iter(node.output), ""))
    return re.sub(r"\s+", " ", name)[:60]
