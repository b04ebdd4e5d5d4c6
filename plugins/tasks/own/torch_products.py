"""Products with a parameter that no layer of PyTorch holds: `x @ w`, `addmm`, `einsum`, `F.linear` in own modules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn


class Operands(NamedTuple):
    """What a product is made of.

    Args:
        values: (..., inputs).
        matrix: (inputs, outputs) where `has_inputs_first`, else (outputs, inputs).
        bias: what is added; may be None.
        has_inputs_first: which axis of the matrix is summed over.
    """

    values: Tensor
    matrix: Tensor
    bias: Tensor | None
    has_inputs_first: bool


def operands(function: Any, args: Any, kwargs: Mapping[str, Any] | None) -> Operands | None:
    """The operands of a product whose second one is a matrix; None for every other function."""
    import torch

    named = dict(kwargs or {})
    name = getattr(function, "__name__", "")
    if function is torch.nn.functional.linear:
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | named
        return Operands(given["input"], given["weight"], given.get("bias"), has_inputs_first=False)
    if name == "addmm" and not {"out", "beta", "alpha"} & named.keys():
        given = dict(zip(("input", "mat1", "mat2"), args, strict=False)) | named
        found = Operands(given["mat1"], given["mat2"], given["input"], has_inputs_first=True)
    elif name in ("matmul", "__matmul__", "mm") and "out" not in named:
        given = dict(zip(("input", "other"), args, strict=False)) | named
        matrix: Any = given.get("other", given.get("mat2"))  # as `matmul` and `mm` call it
        found = Operands(given["input"], matrix, None, has_inputs_first=True)
    elif name == "einsum" and len(args) == 3:
        return _of_einsum(*args)
    else:
        return None
    return found if getattr(found.matrix, "ndim", 0) == 2 else None


_EINSUM = re.compile(
    r"(?P<before>(?:\.\.\.)?[A-Za-z]*)(?P<sum>[A-Za-z]),(?P<matrix>[A-Za-z]{2})->(?P=before)(?P<out>[A-Za-z])"
)
"""A product over the last axis of the values, such as `bsi,io->bso` and `...i,oi->...o`."""


def _of_einsum(equation: Any, values: Any, matrix: Any) -> Operands | None:
    found = _EINSUM.fullmatch(equation.replace(" ", "")) if isinstance(equation, str) else None
    if found is None or {found["sum"], found["out"]} != set(found["matrix"]):
        return None
    letters = found["before"].removeprefix("...") + found["sum"] + found["out"]
    if len(set(letters)) < len(letters):  # one that stands twice is a diagonal, or no sum at all
        return None
    return Operands(values, matrix, None, has_inputs_first=found["matrix"][0] == found["sum"])


def is_transposed_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer with its weights as (inputs, outputs): `Conv1D` of GPT-2 and its kin."""
    weight = getattr(module, "weight", None)
    return type(module).__name__ == "Conv1D" and getattr(weight, "ndim", 0) == 2 and hasattr(module, "nf")


def is_of_no_layer(module: nn.Module) -> bool:
    """Whether a module is none of PyTorch's layers with matrices: what it does with its parameters is its own."""
    from torch import nn

    known = (nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
    return not isinstance(module, known)


class Products:
    """What a forward pass multiplies with the parameters of modules that are not PyTorch's own.

    Args:
        names: of these parameters, by their identity.

    Attributes:
        positions: how many vectors each was multiplied with.
        results: what the last product with each gave.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self.positions: dict[str, int] = {}
        self.results: dict[str, Tensor] = {}
        self._first: set[str] = set()
        self._second: set[str] = set()

    @property
    def inputs_first(self) -> set[str]:
        """The parameters whose first axis is that of the inputs, in every product with them."""
        return self._first - self._second

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note every product until the context is left."""
        from torch.overrides import TorchFunctionMode

        note = self._note

        class Watch(TorchFunctionMode):
            def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = function(*args, **(kwargs or {}))
                found = operands(function, args, kwargs)
                if found is not None:
                    note(found, result)
                return result

        with Watch():
            yield

    def _note(self, found: Operands, result: Tensor) -> None:
        name = self._names.get(id(found.matrix))
        if name is not None:
            (self._first if found.has_inputs_first else self._second).add(name)
            count = found.values.numel() // found.matrix.shape[0 if found.has_inputs_first else 1]
            self.positions[name] = self.positions.get(name, 0) + count
            self.results[name] = result
