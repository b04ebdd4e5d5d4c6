"""What a torch module holds: its matrices with roles and axes, and how often each runs for an item."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from harness.api import Axis, Convolution, ListedTensor, NativeModel, Place, Role, SpecError, Tensor

from .steps import Steps, for_one
from .torch_products import Products, is_of_no_layer, is_transposed_linear

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class _Found:
    """One tensor of a parameter, before its axes get their final labels."""

    parameter: str
    tensor: Tensor
    start: int = 0
    rows: int | None = None
    layout: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()


def read(
    model: nn.Module,
    outputs: set[str],
    positions: dict[str, int],
    convolutions: dict[str, Convolution],
    steps: dict[str, int | None],
    prunable: Sequence[str],
    same: Mapping[str, str],
    inputs_first: Set[str] = frozenset(),
) -> NativeModel:
    """Every trainable tensor of a module, tied ones once, in the order of its parameters.

    Args:
        model: the module.
        outputs: names of the layers whose result is the model's own.
        positions: as a forward pass showed.
        convolutions: their geometry, as it showed.
        steps: of the recurrent layers, as it showed.
        prunable: further two-dimensional parameters that may be pruned.
        same: labels of axes that are to be other ones.
        inputs_first: parameters of no layer of PyTorch that vectors were multiplied with from the left.

    Raises:
        SpecError: `prunable` or `same` names what is not there.
    """
    owners = {id(p): (module, name) for module, name, p in _owned(model)}
    found: list[_Found] = []
    names = dict(model.named_parameters())  # tied parameters once, under their first name
    for full, parameter in names.items():
        if parameter.requires_grad and parameter.numel():
            found += _tensors(full, parameter, *owners[id(parameter)], outputs, prunable, inputs_first)
    _check_prunable(prunable, names)
    labels = {axis.label for each in found for axis in (each.tensor.rows, each.tensor.cols) if axis is not None}
    unknown = sorted(set(same) - labels)
    if unknown:
        raise SpecError(f"own: `same_units` must name axes of the model, got {unknown[0]!r}; there is {sorted(labels)}")
    return NativeModel(
        framework="torch",
        trained=tuple(_relabelled(each.tensor, same) for each in found),
        places=tuple(
            Place(
                tensor=each.tensor.name,
                parameter=each.parameter,
                start=each.start,
                rows=each.rows,
                layout=each.layout,
                axes=each.axes,
            )
            for each in found
        ),
        positions=positions,
        traced=convolutions,
        steps=steps,
        listed=_listed(model, found, owners),
    )


def _listed(
    model: nn.Module, found: Sequence[_Found], owners: Mapping[int, tuple[nn.Module, str]]
) -> tuple[ListedTensor, ...]:
    """Every parameter for people: what holds it, under which names, and why it is left out."""
    parameters = dict(model.named_parameters())
    also: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        also.setdefault(id(parameter), []).append(name)
    rows = []
    for each in found:
        parameter = parameters[each.parameter]
        module, _ = owners[id(parameter)]
        rows.append(
            ListedTensor(
                tensor=each.tensor.name,
                kind=_kind(module),
                shape=tuple(parameter.shape) if each.rows is None else (each.rows, *parameter.shape[1:]),
                gates=_GATES.get(each.tensor.role, "") if each.tensor.is_prunable else "",
                also=tuple(also[id(parameter)][1:]),
                left_out="" if each.tensor.is_prunable else _why_left_out(module, parameter),
            )
        )
    frozen = {name: p for name, p in parameters.items() if not p.requires_grad}
    return (
        *rows,
        *(
            ListedTensor(tensor=name, kind=_kind(owners[id(p)][0]), shape=tuple(p.shape), left_out="frozen")
            for name, p in frozen.items()
        ),
    )


_GATES = {"lstm": "i f g o", "gru": "r z n"}


def _kind(module: nn.Module) -> str:
    """The class of a module, with what is special of it."""
    from torch import nn

    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "Linear"  # torch's own name for the projection of its attention
    groups = getattr(module, "groups", 1)
    special = f", {groups} groups" if isinstance(groups, int) and groups > 1 else ""
    return type(module).__name__ + special


def _why_left_out(module: nn.Module, parameter: torch.Tensor) -> str:
    from torch.nn.modules.conv import _ConvTransposeNd
    from torch.nn.utils.parametrize import ParametrizationList

    if parameter.ndim < 2:
        return "a bias or a vector"
    if isinstance(module, ParametrizationList):
        return "what a parametrisation makes the weight of; take it off (`remove_parametrizations`)"
    if _is_made_into_weight(module, parameter):
        return "what a hook makes the weight of; take it off (`remove_weight_norm`, `prune.remove` or the like)"
    if isinstance(module, _ConvTransposeNd):
        return "a transposed convolution"
    if parameter.ndim == 2:
        return "of no layer that is known; name it in `prunable` if it is a matrix"
    return "neither a matrix nor of a layer that is known"


def _is_made_into_weight(module: nn.Module, parameter: torch.Tensor) -> bool:
    """Whether it stands for a weight that is computed before every call, as weight norm and pruning of torch do."""
    held = next((name for name, each in module.named_parameters(recurse=False) if each is parameter), "")
    whole, _, end = held.rpartition("_")
    return end in ("g", "v", "orig") and whole in vars(module)


def _owned(model: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    """Every parameter with the module that holds it first."""
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield module, name, parameter


def _check_prunable(prunable: Sequence[str], names: Mapping[str, Any]) -> None:
    for name in prunable:
        if name not in names or names[name].ndim != 2:
            matrices = ", ".join(each for each, p in names.items() if p.ndim == 2) or "none"
            raise SpecError(f"own: `prunable` must name two-dimensional parameters, got {name!r}; there is {matrices}")


def _tensors(
    full: str,
    parameter: torch.Tensor,
    module: nn.Module,
    name: str,
    outputs: set[str],
    prunable: Sequence[str],
    inputs_first: Set[str],
) -> Iterator[_Found]:
    """The tensors that one parameter holds: one, unless it is a fused projection."""
    from torch import nn

    layer = full.rpartition(".")[0] or "model"
    shape = tuple(parameter.shape)
    role: Role
    if isinstance(module, nn.MultiheadAttention) and name in ("in_proj_weight", "in_proj_bias"):
        for index, part in enumerate("qkv"):
            yield _projection(full, layer, part, index, shape)
    elif isinstance(module, nn.MultiheadAttention) and name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
        yield _Found(full, _matrix(full, f"{layer}.{name[0]}", "attention", *shape))
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase) and name.startswith("weight_"):
        yield _Found(full, _recurrent(full, layer, module, name, shape))
    elif name == "weight" and isinstance(module, nn.Linear):
        role = "softmax" if layer in outputs else "dense"
        if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
            role = "attention"  # the output projection of torch's own attention
        yield _Found(full, _matrix(full, layer, role, *shape))
    elif name == "weight" and isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        rows, cols = Axis(label=f"{layer}.channels", size=shape[0]), prod(shape[1:])
        inputs = Axis(label=f"{layer}.inputs", size=cols, repeat=cols // shape[1])
        yield _Found(full, Tensor(name=full, layer=layer, role="conv", rows=rows, cols=inputs))
    elif name == "weight" and isinstance(module, nn.Embedding | nn.EmbeddingBag):
        words, features = Axis(label=f"{layer}.words", size=shape[0]), Axis(label=f"{layer}.features", size=shape[1])
        yield _Found(full, Tensor(name=full, layer=layer, role="embedding", rows=words, cols=features))
    elif full in prunable or (name == "weight" and is_transposed_linear(module)):
        role = "softmax" if layer in outputs else "dense"
        if full in inputs_first or is_transposed_linear(module):  # also where no item came by it
            yield _Found(full, _matrix(full, layer, role, shape[1], shape[0]), layout=shape, axes=(1, 0))
        else:
            yield _Found(full, _matrix(full, layer, role, *shape))
    else:  # biases, norms, positions, transposed convolutions: trained, counted, never pruned
        size = max(1, prod(shape))
        yield _Found(full, Tensor(name=full, layer=layer, role="bias", rows=Axis(label=f"{full}.values", size=size)))


def _matrix(name: str, layer: str, role: Role, rows: int, cols: int) -> Tensor:
    return Tensor(
        name=name,
        layer=layer,
        role=role,
        rows=Axis(label=f"{layer}.units", size=rows),
        cols=Axis(label=f"{layer}.inputs", size=cols),
    )


def _projection(full: str, layer: str, part: str, index: int, shape: tuple[int, ...]) -> _Found:
    """Queries, keys or values of a fused projection."""
    rows = shape[0] // 3
    kind = full.rpartition("_")[2]  # weight or bias
    name, own = f"{layer}.{part}.{kind}", f"{layer}.{part}"
    if kind == "weight":
        tensor = _matrix(name, own, "attention", rows, shape[1])
    else:
        tensor = Tensor(name=name, layer=own, role="bias", rows=Axis(label=f"{own}.units", size=rows))
    return _Found(full, tensor, index * rows, rows)


def _recurrent(full: str, layer: str, module: nn.Module, name: str, shape: tuple[int, ...]) -> Tensor:
    """A matrix of an LSTM (gates i, f, g, o, as in the harness), a GRU (r, z, n) or a plain recurrent layer."""
    from torch import nn

    _, part, *place = name.split("_", 2)  # weight_hh_l0_reverse
    own = f"{layer}.{place[0]}" if place else layer
    role: Role = "dense"
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        role = "lstm"
    elif isinstance(module, nn.GRU | nn.GRUCell):
        role = "gru"
    gates = {"lstm": 4, "gru": 3}.get(role, 1)
    units = f"{own}.units"
    if part == "hr":  # the projection of an LSTM's output
        return _matrix(full, f"{own}.projection", "dense", *shape)
    cols = Axis(label=f"{own}.inputs" if part == "ih" else units, size=shape[1])
    # All units of a gate stand together, then those of the next one.
    rows = Axis(label=units, size=shape[0], repeat=gates, order="blocks" if gates > 1 else "adjacent")
    return Tensor(name=full, layer=own, role=role, rows=rows, cols=cols)


def _relabelled(tensor: Tensor, same: Mapping[str, str]) -> Tensor:
    def axis(given: Axis | None) -> Axis | None:
        return given and given.model_copy(update={"label": same.get(given.label, given.label)})

    return tensor.model_copy(update={"rows": axis(tensor.rows), "cols": axis(tensor.cols)})


def _geometry(module: nn.Conv2d, taken: Sequence[int], given: Sequence[int]) -> Convolution | None:
    """The geometry of a convolution over lines or images; None in three directions."""
    count = len(module.kernel_size)
    if count > 2:
        return None

    def both(sizes: Sequence[int]) -> tuple[int, int]:
        """Height and width; a line is one row."""
        found = [int(size) for size in sizes][-count:]
        return (found[0], found[1]) if count == 2 else (1, found[0])

    down, across = both(module.stride)
    return Convolution(
        inputs=module.in_channels,
        kernel=both(module.kernel_size),
        stride=across,
        output=both(given),
        image=both(taken),
        groups=module.groups,
        dilation=both(module.dilation),
        stride_down=None if count == 1 or down == across else down,
    )


_AFTER = re.compile(
    r"(Log)?(Softmax|Sigmoid)|Tanh|(Unsafe)?View|ReshapeAlias|Squeeze|Unsqueeze|Transpose|T|Permute|Select|Slice|ToCopy|"
    r"Clone|Alias|Split|Unbind"
)
"""What may come after the layer that gives the outputs: a function of every output, or another view of them all."""


def _results(result: object) -> list[torch.Tensor]:
    """The tensors that a model gives: of those with names the one called logits, where there is one."""
    if isinstance(result, Mapping):
        result = result["logits"] if "logits" in result else tuple(result.values())
    found: list[Any] = list(result) if isinstance(result, tuple | list) else [result]
    return [each for each in found if hasattr(each, "data_ptr")]


def _is_made_of(result: torch.Tensor, given: torch.Tensor) -> bool:
    """Whether a tensor is another, but for what may come after it."""
    node = result.grad_fn
    while node is not None:
        if node is given.grad_fn:
            return True
        if not _AFTER.fullmatch(re.sub(r"Backward\d*$", "", type(node).__name__)):
            return False
        node = node.next_functions[0][0]
    return False


class Trace:
    """What runs in a forward pass, by hooks on the layers with matrices.

    Attributes:
        positions: products of each layer over the whole batch.
        convolutions: geometry of those that ran at one size only.
        last: what the linear layers gave, to tell which of them gives the model's output; held, or its place in memory
            would be used again.
    """

    def __init__(self, model: nn.Module) -> None:
        from torch import nn

        self.positions: dict[str, int] = {}
        self._sizes: dict[str, set[Convolution | None]] = {}
        self.last: dict[str, torch.Tensor] = {}
        self._steps = Steps()
        self._handles = []
        self._products = Products(_of_unknown_layers(model))
        self._open = ExitStack()
        self._open.enter_context(self._products.watched())
        for name, module in model.named_modules():
            layer = name or "model"
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                self._handles.append(module.register_forward_hook(self._product(layer)))
            elif isinstance(module, nn.MultiheadAttention):
                self._handles.append(module.register_forward_hook(self._attention(layer), with_kwargs=True))
            elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
                self._handles.append(module.register_forward_hook(self._recurrent(layer), with_kwargs=True))

    def close(self) -> None:
        """Take the hooks off."""
        self._open.close()
        for handle in self._handles:
            handle.remove()
        for name, result in self._products.results.items():
            layer = name.rpartition(".")[0] or "model"
            # Two matrices of one module are multiplied with side by side.
            self.positions[layer] = max(self.positions.get(layer, 0), self._products.positions[name])
            self.last[layer] = result

    @property
    def inputs_first(self) -> set[str]:
        """Parameters of no layer of PyTorch whose first axis is that of the inputs."""
        return self._products.inputs_first

    def per_item(self, items: int) -> dict[str, int]:
        """Products for one item."""
        return {layer: for_one(count, items) for layer, count in self.positions.items()}

    @property
    def convolutions(self) -> dict[str, Convolution]:
        """Geometry of every convolution that ran at one size, in one or two directions."""
        return {layer: found for layer, sizes in self._sizes.items() for found in sizes if found and len(sizes) == 1}

    def outputs(self, result: object) -> set[str]:
        """The linear layers whose result the model gives as its own."""
        return {
            layer
            for layer, given in self.last.items()
            for each in _results(result)
            if given.data_ptr() == each.data_ptr() or _is_made_of(each, given)
        }

    def _count(self, layer: str, positions: int) -> None:
        self.positions[layer] = self.positions.get(layer, 0) + positions

    def _product(self, layer: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            channels = getattr(module, "out_channels", None) or module.out_features
            self._count(layer, output.numel() // channels)
            if hasattr(module, "out_channels") and inputs:
                self._sizes.setdefault(layer, set()).add(_geometry(module, inputs[0].shape, output.shape))
            if hasattr(module, "out_features"):
                self.last[layer] = output

        return hook

    def steps(self, items: int) -> dict[str, int | None]:
        """Steps of recurrent layers for one item; None where items differ in them."""
        return self._steps.per_item(items)

    def _recurrent(self, layer: str) -> Any:
        from torch import nn

        def hook(module: Any, inputs: Any, named: Any, output: Any) -> None:
            values = inputs[0] if inputs else named["input"]
            if isinstance(module, nn.RNNCellBase):
                self._steps.add(layer, [1] * (len(values) if values.ndim == 2 else 1))
                return
            lengths = _lengths(module, values)
            for index in range(module.num_layers):
                for end in ("", "_reverse")[: 2 if module.bidirectional else 1]:
                    own = f"{layer}.l{index}{end}"
                    for each in (own, f"{own}.projection")[: 2 if getattr(module, "proj_size", 0) else 1]:
                        self._steps.add(each, lengths)

        return hook

    def _attention(self, layer: str) -> Any:
        def hook(module: Any, inputs: Any, named: Any, output: Any) -> None:
            given = dict(zip(("query", "key", "value"), inputs, strict=False)) | named
            for part, name in (("q", "query"), ("k", "key"), ("v", "value")):
                self._count(f"{layer}.{part}", given[name].numel() // given[name].shape[-1])
            self._count(f"{layer}.out_proj", given["query"].numel() // given["query"].shape[-1])

        return hook


def _of_unknown_layers(model: nn.Module) -> dict[int, str]:
    """Matrices that no layer of PyTorch's holds, by their identity."""
    layers = (module for module in model.modules() if not is_of_no_layer(module))
    held = {id(p) for layer in layers for p in layer.parameters(recurse=False)}
    return {id(p): name for name, p in model.named_parameters() if p.ndim == 2 and id(p) not in held}


def _lengths(module: nn.RNNBase, values: Any) -> list[int]:
    """Steps of every item of a batch that a recurrent module takes."""
    from torch.nn.utils.rnn import PackedSequence

    if isinstance(values, PackedSequence):
        # How many items are still there at each step: an item has as many steps as batches reach it.
        sizes = values.batch_sizes.tolist()
        return [sum(size > place for size in sizes) for place in range(sizes[0])]
    if values.ndim == 2:  # one item
        return [len(values)]
    batch, steps = (0, 1) if module.batch_first else (1, 0)
    return [values.shape[steps]] * values.shape[batch]
