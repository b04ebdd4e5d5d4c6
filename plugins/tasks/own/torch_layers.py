"""Layers of a torch module whose products another arithmetic computes: linear, convolutional, recurrent, attention.

A layer is known where it is PyTorch's own; one whose forward pass the user wrote computes what that says. A batch norm
that alone reads the sums of a linear layer or a convolution is a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.api import Cell, LayerArithmetic, Recurrence, Window

from . import torch_norms
from .folding import Affine, Computed, Fold
from .torch_norms import Forward
from .torch_products import Operands, is_of_no_layer, operands

if TYPE_CHECKING:
    from torch import Tensor, nn

_EDGES: dict[str, Any] = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@contextmanager
def computed_by(
    model: nn.Module, arithmetic: LayerArithmetic, folds: Mapping[str, str] | None = None
) -> Iterator[Computed]:
    """Let an arithmetic compute every layer that is known, until the context is left.

    Args:
        model: in evaluation, with its final weights and statistics.
        arithmetic: computes the layers.
        folds: layer -> the norm that is a part of it, as `norms_in_layers` finds them.

    Yields:
        What it has computed so far.
    """
    modules, done = dict(model.named_modules()), Computed()
    affine = {
        layer: found
        for layer, norm in (folds or {}).items()
        if (found := torch_norms.affine(modules[norm])) is not None
    }
    fold = Fold({layer: norm for layer, norm in (folds or {}).items() if layer in affine}, done)

    def bound(name: str, inner: nn.Module) -> Forward | None:
        known, norm = _forward_of(inner), type(inner).forward
        if known is not None:
            return _bound(known, _Layer(name, inner, arithmetic, done.layers, affine.get(name)), fold)
        # Also a norm in no layer keeps its own pass, which takes nothing that has another norm in it.
        return torch_norms.passed_on(name, inner, norm, fold) if affine and torch_norms.is_norm(inner) else None

    with (
        torch_norms.replaced(model, bound),
        _linear_functions(model, arithmetic, done.layers),
        torch_norms.uses(fold, torch_norms.owners(model, affine)) if affine else nullcontext(),
    ):
        yield done


def norms_in_layers(model: nn.Module, run: Callable[[], None]) -> dict[str, str]:
    """Layer -> the batch norm that alone reads its sums.

    Args:
        model: in evaluation.
        run: sends a batch through it.
    """
    return torch_norms.seen(model, run, lambda inner: _forward_of(inner) in (_linear, _convolution))


def _linear_functions(model: nn.Module, arithmetic: LayerArithmetic, done: set[str]) -> AbstractContextManager[Any]:
    """Products with a parameter of the model, as where an embedding is the last layer's matrix too."""
    from torch.overrides import TorchFunctionMode

    names, modules = {id(each): name for name, each in model.named_parameters()}, dict(model.named_modules())

    class Functions(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = operands(function, args, kwargs)
            full = None if found is None else names.get(id(found.matrix))
            if found is None or full is None:
                return function(*args, **(kwargs or {}))
            matrix = found.matrix.t() if found.has_inputs_first else found.matrix
            if found.bias is not None and found.bias.shape != matrix.shape[:1]:
                return function(*args, **(kwargs or {}))  # what `addmm` adds may be anything
            owner, _, last = full.rpartition(".")
            name = _name_of_product(modules[owner], owner or "model", last, found)
            if is_of_no_layer(modules[owner]):
                done.add(owner or "model")
            return _Layer(name, model, arithmetic, done).linear(name, found.values, matrix, found.bias)

    return Functions()


def _name_of_product(module: nn.Module, owner: str, parameter: str, found: Operands) -> str:
    """What a product is known by: its layer, or a name of its own where that has other products."""
    if not is_of_no_layer(module):
        # Beside the layer itself, with another bias, it is a product of its own.
        return owner if found.bias is getattr(module, "bias", None) else f"{owner}.product"
    matrices = sum(each.ndim == 2 for each in module.parameters(recurse=False))
    return owner if matrices == 1 else f"{owner}.{parameter}"


def _bound(forward: Forward, layer: _Layer, fold: Fold) -> Forward:
    def call(*inputs: Any, **named: Any) -> Any:
        result = forward(layer, *inputs, **named)
        if layer.affine is not None:
            fold.gave(layer.name, result)
            if not torch_norms.has_channels_second(layer.inner, result):
                fold.elsewhere(layer.name, "none")
        return result

    return call


class _Layer:
    """A module with what computes it."""

    def __init__(
        self, name: str, inner: Any, arithmetic: LayerArithmetic, done: set[str], affine: Affine | None = None
    ) -> None:
        self.name, self.inner, self.arithmetic, self._done, self.affine = name, inner, arithmetic, done, affine

    def with_norm(
        self, weights: NDArray[np.floating], bias: NDArray[np.floating] | None
    ) -> tuple[NDArray[np.floating], NDArray[np.floating] | None]:
        """Weights and bias, with the norm that is a part of the layer."""
        return (weights, bias) if self.affine is None else self.affine.folded(weights, bias)

    def linear(self, name: str, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """A product, in the type of its input."""
        self._done.add(name)
        return _tensor(
            self.arithmetic.linear(name, _array(values), *self.with_norm(_array(weight), _or_none(bias))), values
        )

    def convolution(self, values: Tensor, window: Window) -> Tensor:
        """A convolution, likewise."""
        self._done.add(self.name)
        weight = _array(self.inner.weight)
        matrix, bias = self.with_norm(weight.reshape(len(weight), -1), _or_none(self.inner.bias))
        found = self.arithmetic.convolution(self.name, _array(values), matrix, bias, window)
        return _tensor(found, values)

    def recurrent(
        self, name: str, values: NDArray[Any], cell: Cell, start: Recurrence, live: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float64], Recurrence]:
        """A recurrence in one direction."""
        self._done.add(name)
        if cell.projection is not None:
            self._done.add(f"{name}.projection")
        return self.arithmetic.recurrent(name, values, cell, start, live)


def _forward_of(inner: nn.Module) -> Forward | None:
    """What takes the place of a module's forward pass; None for one that is not known."""
    from torch import nn

    known: tuple[tuple[type[nn.Module], Forward], ...] = (
        (nn.Linear, _linear),
        (nn.Conv1d, _convolution),
        (nn.Conv2d, _convolution),
        (nn.Conv3d, _convolution),
        (nn.LSTM, _recurrent),
        (nn.GRU, _recurrent),
        (nn.RNN, _recurrent),
        (nn.LSTMCell, _cell),
        (nn.GRUCell, _cell),
        (nn.RNNCell, _cell),
        (nn.MultiheadAttention, _attention),
    )
    for kind, forward in known:
        if isinstance(inner, kind) and type(inner).forward is kind.forward:
            return forward
    return None


def _linear(layer: _Layer, values: Tensor) -> Tensor:
    return layer.linear(layer.name, values, layer.inner.weight, layer.inner.bias)


def _convolution(layer: _Layer, values: Tensor) -> Tensor:
    inner = layer.inner
    axes = len(inner.kernel_size)
    batched = values if values.ndim == axes + 2 else values[None]
    # What PyTorch has worked out for `same` too, last axis first.
    flat = inner._reversed_padding_repeated_twice
    padding = tuple((int(flat[2 * place]), int(flat[2 * place + 1])) for place in reversed(range(axes)))
    window = Window(inner.kernel_size, inner.stride, inner.dilation, padding, inner.groups, _EDGES[inner.padding_mode])
    found = layer.convolution(batched, window)
    return found if batched is values else found[0]


# --- recurrent layers -----------------------------------------------------------------------------------------------


def _recurrent(layer: _Layer, values: Any, start: Any = None) -> Any:
    """Every layer and direction of a recurrent module, packed sequences too."""
    from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

    inner = layer.inner
    if isinstance(values, PackedSequence):
        padded, lengths = pad_packed_sequence(values, batch_first=True)
        live = np.arange(padded.shape[1]) < np.asarray(lengths)[:, None]
        outputs, last = _stacked(layer, padded, start, live)
        # In the order that the user gave: what packs them sorts them in the same way again.
        packed = pack_padded_sequence(outputs, lengths, batch_first=True, enforce_sorted=values.sorted_indices is None)
        return packed, last
    is_batched = values.ndim == 3
    if not is_batched:
        values = values[None] if inner.batch_first else values[:, None]
        start = None if start is None else _mapped(start, lambda each: each[:, None])
    batch_first = values if inner.batch_first else values.transpose(0, 1)
    outputs, last = _stacked(layer, batch_first, start, None)
    outputs = outputs if inner.batch_first else outputs.transpose(0, 1)
    if not is_batched:
        outputs = outputs[0] if inner.batch_first else outputs[:, 0]
        last = _mapped(last, lambda each: each[:, 0])
    return outputs, last


def _mapped(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return tuple(map(change, state)) if isinstance(state, tuple) else change(state)


def _stacked(layer: _Layer, values: Tensor, start: Any, live: NDArray[np.bool_] | None) -> tuple[Tensor, Any]:
    """All layers over a batch.

    Shapes:
        values (batch, steps, inputs), start (layers * directions, batch, units)
        -> (batch, steps, directions * outputs).
    """
    import torch

    inner = layer.inner
    directions = 2 if inner.bidirectional else 1
    current = _array(values)
    all_h, all_c = [], []
    for index in range(inner.num_layers):
        outputs = []
        for direction in range(directions):
            place = f"l{index}" + ("_reverse" if direction else "")
            begun = _start(inner, start, index * directions + direction, len(current))
            turned = current[:, ::-1] if direction else current
            seen = live[:, ::-1] if direction and live is not None else live
            found, last = layer.recurrent(f"{layer.name}.{place}", turned, _cell_of(inner, place), begun, seen)
            if live is not None and seen is not None:
                found = np.where(seen[:, :, None], found, 0.0)  # as PyTorch pads
            outputs.append(found[:, ::-1] if direction else found)
            all_h.append(last.h)
            all_c.append(last.c)
        current = np.concatenate(outputs, axis=2)
    h = _tensor(np.stack(all_h), values)
    is_lstm = isinstance(inner, torch.nn.LSTM)
    return _tensor(current, values), (h, _tensor(np.stack(all_c), values)) if is_lstm else h  # type: ignore[arg-type]  # c is there


def _start(inner: Any, start: Any, place: int, batch: int) -> Recurrence:
    import torch

    outputs = getattr(inner, "proj_size", 0) or inner.hidden_size
    is_lstm = isinstance(inner, torch.nn.LSTM)
    if start is None:
        return Recurrence(np.zeros((batch, outputs)), np.zeros((batch, inner.hidden_size)) if is_lstm else None)
    if is_lstm:
        return Recurrence(_array(start[0][place]), _array(start[1][place]))
    return Recurrence(_array(start[place]))


def _cell_of(inner: Any, place: str) -> Cell:
    """The weights of a layer in one direction; `place` is empty for a module of one step."""
    import torch

    end = f"_{place}" if place else ""
    kernel, recurrent = (_array(getattr(inner, f"weight_{part}{end}")) for part in ("ih", "hh"))
    of_x: NDArray[np.floating] = np.zeros(len(kernel))
    of_h = of_x
    if inner.bias:
        of_x, of_h = (_array(getattr(inner, f"bias_{part}{end}")) for part in ("ih", "hh"))
    if isinstance(inner, torch.nn.GRU | torch.nn.GRUCell):
        return Cell("gru", kernel, recurrent, of_x, of_h)
    if isinstance(inner, torch.nn.LSTM | torch.nn.LSTMCell):
        projection = _array(getattr(inner, f"weight_hr{end}")) if getattr(inner, "proj_size", 0) else None
        return Cell("lstm", kernel, recurrent, of_x + of_h, projection=projection)
    function = "relu" if getattr(inner, "nonlinearity", "tanh") == "relu" else "tanh"
    return Cell("rnn", kernel, recurrent, of_x + of_h, function=function)  # type: ignore[arg-type]  # a literal


def _cell(layer: _Layer, values: Tensor, start: Any = None) -> Any:
    """One step."""
    import torch

    inner = layer.inner
    is_batched, is_lstm = values.ndim == 2, isinstance(inner, torch.nn.LSTMCell)
    if not is_batched:
        values = values[None]
        start = None if start is None else _mapped(start, lambda each: each[None])
    zero = np.zeros((len(values), inner.hidden_size))
    if start is None:
        begun = Recurrence(zero, zero if is_lstm else None)
    else:
        begun = Recurrence(_array(start[0]), _array(start[1])) if is_lstm else Recurrence(_array(start))
    _, last = layer.recurrent(layer.name, _array(values)[:, None], _cell_of(inner, ""), begun, None)
    h = _tensor(last.h, values)
    found = (h, _tensor(last.c, values)) if is_lstm and last.c is not None else h
    return found if is_batched else _mapped(found, lambda each: each[0])


# --- attention ------------------------------------------------------------------------------------------------------


def _attention(layer: _Layer, query: Tensor, key: Tensor, value: Tensor, *options: Any, **named: Any) -> Any:
    """The four projections; between them PyTorch's own attention, whose projections are the identity."""
    import torch
    from torch.nn import MultiheadAttention

    inner, width = layer.inner, layer.inner.embed_dim
    weights: Any
    if inner._qkv_same_embed_dim:
        weights = inner.in_proj_weight.chunk(3)
    else:
        weights = inner.q_proj_weight, inner.k_proj_weight, inner.v_proj_weight
    biases = (None, None, None) if inner.in_proj_bias is None else inner.in_proj_bias.chunk(3)
    projected = [
        layer.linear(f"{layer.name}.{part}", given, weight, bias)
        for part, given, weight, bias in zip("qkv", (query, key, value), weights, biases, strict=True)
    ]
    plain = MultiheadAttention(
        width, inner.num_heads, dropout=inner.dropout, bias=False, add_zero_attn=inner.add_zero_attn,
        batch_first=inner.batch_first,
    ).to(query.device).eval()  # fmt: skip
    with torch.no_grad():
        identity = torch.eye(width, dtype=query.dtype)
        plain.in_proj_weight.copy_(identity.repeat(3, 1))
        plain.out_proj.weight.copy_(identity)
    plain.bias_k, plain.bias_v = inner.bias_k, inner.bias_v
    attended, shares = plain(*projected, *options, **named)
    out = inner.out_proj
    return layer.linear(f"{layer.name}.out_proj", attended, out.weight, out.bias), shares


# --- arrays ---------------------------------------------------------------------------------------------------------


def _array(values: Tensor) -> NDArray[np.floating]:
    found: NDArray[np.floating] = values.detach().float().cpu().numpy()
    return found


def _or_none(values: Tensor | None) -> NDArray[np.floating] | None:
    return None if values is None else _array(values)


def _tensor(values: NDArray[np.floating], like: Tensor) -> Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to(dtype=like.dtype, device=like.device)
