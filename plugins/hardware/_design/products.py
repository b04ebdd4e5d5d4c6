"""From a workload to the matrix-vector products that an engine runs one after another."""

from dataclasses import replace
from itertools import groupby
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from harness.api import Convolution, NativeModel, NumberFormat, Part, Product, ShapeError, SpecError, Tensor, Workload

CostedRole = Literal["lstm", "dense", "softmax", "conv"]


_PRODUCTS: WeakKeyDictionary[Workload, dict[tuple[CostedRole, ...], tuple[Product, ...]]] = WeakKeyDictionary()
"""Products, kept as long as their workload: engines and models share what is counted on them."""


def products(workload: Workload, roles: tuple[CostedRole, ...]) -> tuple[Product, ...]:
    """The products of a workload, in network order; the same objects for the same workload.

    Raises:
        SpecError: nothing is left to cost, a convolution's output positions are unknown, layers run at positions of
            which nobody knows how many a time step has, or a mask is not boolean.
        ShapeError: a mask has another shape than its tensor.
    """
    known = _PRODUCTS.setdefault(workload, {})
    if roles not in known:
        known[roles] = _products(workload, roles)
    return known[roles]


def _products(workload: Workload, roles: tuple[CostedRole, ...]) -> tuple[Product, ...]:
    chosen = [tensor for tensor in workload.tensors if tensor.cols is not None and _costed_as(tensor) in roles]
    if not chosen:
        given = ", ".join(f"{tensor.name} ({tensor.role})" for tensor in workload.tensors) or "no tensors"
        raise SpecError(
            f"hardware models cost matrices with roles {', '.join(roles)}, got {given}; widen the scope or `roles`"
        )
    # What a caller measured counts more than what the network was declared with.
    geometry = {**workload.network.convolutions(), **workload.convolutions}
    # Matrices of one layer that give different outputs run one after the other, as in a separable convolution.
    groups = [
        (layer, tuple(tensors))
        for (layer, _), tensors in groupby(chosen, key=lambda each: (each.layer, each.rows.size))
    ]
    found = tuple(_product(layer, tensors, workload, geometry) for layer, tensors in groups)
    recurrent_layers = [layer for layer, tensors in groups if _is_recurrent(tensors)]
    if not recurrent_layers:
        return found
    if all(layer in workload.steps for layer in recurrent_layers):
        # Beside recurrent layers those that wait for them in every step, as the projection of an output.
        return _of_known_steps(found, {layer: workload.steps[layer] for layer, _ in groups if layer in workload.steps})
    return _of_one_step(found, recurrent_layers[0])


def _of_known_steps(found: tuple[Product, ...], steps: dict[str, int]) -> tuple[Product, ...]:
    """Products of one time step where an item is so many equal ones, else those of one item.

    Args:
        found: the products, recurrent ones for one step, others for an item.
        steps: how often recurrent layers run for an item.
    """
    (count, *others) = set(steps.values())
    # Every step alike: what runs beside the recurrent layers runs equally often in each.
    if not others and all(product.layer in steps or product.pixels % count == 0 for product in found):
        return tuple(
            product if product.layer in steps or count == 1 else replace(product, pixels=product.pixels // count)
            for product in found
        )
    return tuple(
        replace(product, steps=steps[product.layer]) if product.layer in steps else product for product in found
    )


def _is_recurrent(tensors: tuple[Tensor, ...]) -> bool:
    """Whether a layer runs once per time step: by its role, or a plain one by the matrix of its own outputs."""
    if _costed_as(tensors[0]) == "lstm":
        return True
    return len(tensors) > 1 and any(each.cols is not None and each.cols.label == each.rows.label for each in tensors)


def _of_one_step(found: tuple[Product, ...], layer: str) -> tuple[Product, ...]:
    """Every product once, as in one time step: a recurrent layer is costed for one, so that others must be too.

    Where all matrices that run at several positions of an item run at equally many, those are its time steps.

    Raises:
        SpecError: how many positions fall on one step cannot be told.
    """
    several = {product.layer: product for product in found if product.pixels > 1}
    counts = sorted({product.pixels for product in several.values()})
    windows = [name for name, product in several.items() if product.convolution is not None]
    if len(counts) > 1 or windows:
        places = [*windows[:1], *(next(n for n, each in several.items() if each.pixels == count) for count in counts)]
        told = " and ".join(f"{name!r} at {several[name].pixels}" for name in list(dict.fromkeys(places))[:2])
        raise SpecError(
            f"hardware models cost one time step of {layer!r}, and {told} positions of an item: how many of them fall "
            "on a step is not known; cost recurrent layers and the others apart, by `scope` or `roles` (such as `--set "
            "roles=conv`)"
        )
    return tuple(replace(product, pixels=1) if product.pixels > 1 else product for product in found)


def uneven_steps(workload: Workload, work: tuple[Product, ...]) -> str:
    """What a reader must know where items differ in the steps of a recurrent layer beside others; else empty."""
    seen = workload.network.steps if isinstance(workload.network, NativeModel) else {}
    uneven = [product.layer for product in work if product.layer in seen and product.layer not in workload.steps]
    if not uneven or len(uneven) == len(work):
        return ""
    return (
        f"how many steps {', '.join(uneven)} runs differs from item to item: cycles are those of one time step, each "
        "other layer once in it"
    )


_VALUED: WeakKeyDictionary[Workload, dict[tuple[object, ...], tuple[Product, ...]]] = WeakKeyDictionary()


def valued(work: tuple[Product, ...], workload: Workload, number_format: NumberFormat) -> tuple[Product, ...]:
    """The same products with their weights as integers of a number format, those whose weights are known.

    The matrices of a product share their steps, as they do where finished models are evaluated.

    Raises:
        ShapeError: weights have another shape than their tensor.
    """
    known = _VALUED.setdefault(workload, {})
    place = (*map(id, work), number_format)
    if place not in known:
        known[place] = tuple(_with_values(product, workload, number_format) for product in work)
    return known[place]


def _with_values(product: Product, workload: Workload, number_format: NumberFormat) -> Product:
    names = [part.tensor for part in product.parts]
    if workload.quantise is None or not all(name in workload.weights for name in names):
        return product
    matrices = []
    for part in product.parts:
        weights = workload.weights[part.tensor]
        if weights.shape != (part.rows, part.cols):
            raise ShapeError(
                f"hardware models expect weights of shape {(part.rows, part.cols)} for {part.tensor!r}, got "
                f"{weights.shape}; weights are (outputs, inputs)"
            )
        matrices.append(weights if part.mask is None else np.where(part.mask, weights, 0.0))
    integers, _ = workload.quantise(np.hstack(matrices), number_format)
    pieces = np.split(integers.astype(np.int64), product.offsets[1:-1], axis=1)
    parts = tuple(replace(part, values=piece) for part, piece in zip(product.parts, pieces, strict=True))
    return replace(product, parts=parts)


def left_out(workload: Workload, roles: tuple[CostedRole, ...]) -> tuple[str, ...]:
    """Names of the matrices that are not costed."""
    return tuple(
        tensor.name for tensor in workload.tensors if tensor.cols is not None and _costed_as(tensor) not in roles
    )


def _costed_as(tensor: Tensor) -> str:
    """The role that stands for a tensor's: a GRU is a recurrent product of three gates, a projection a dense one."""
    return {"gru": "lstm", "attention": "dense"}.get(tensor.role, tensor.role)


def dense(product: Product) -> Product:
    """The same product with every weight kept."""
    parts = tuple(Part(part.tensor, part.rows, part.cols, None, part.size) for part in product.parts)
    return Product(
        product.layer,
        parts,
        product.units,
        product.pixels,
        product.convolution,
        activation_density=product.activation_density,
        steps=product.steps,
    )


def recurrent(product: Product) -> Product:
    """The part of an LSTM layer's product that waits for the last output: W_h alone."""
    part = product.parts[-1]
    return Product(f"{product.layer}.recurrent", (part,), product.units)


def _product(layer: str, tensors: tuple[Tensor, ...], workload: Workload, geometry: dict[str, Convolution]) -> Product:
    first = tensors[0]
    if first.role == "conv" and layer not in geometry and layer not in workload.output_pixels:
        raise SpecError(
            f"hardware models need the output positions of {layer!r}, got none; give them as `output_pixels`"
        )
    found = geometry.get(layer)
    # A layer that one item runs several times, at whatever sizes, is counted as often as it was seen.
    pixels = workload.output_pixels.get(layer, 1 if found is None else found.positions)
    return Product(
        layer=layer,
        parts=tuple(_part(tensor, workload) for tensor in tensors),
        # Every unit stands in it once for each of its gates.
        units=first.rows.size // first.rows.repeat if _costed_as(first) == "lstm" else None,
        # A recurrent product is costed per time step; a dense one may run at many positions of one item.
        pixels=1 if _is_recurrent(tensors) else pixels,
        convolution=found,
        activation_density=workload.activation_density.get(layer, 1.0),
    )


def _part(tensor: Tensor, workload: Workload) -> Part:
    rows, cols = tensor.shape
    size = rows * cols
    mask = workload.masks.get(tensor.name)
    if mask is None:
        return Part(
            tensor.name, rows, cols, None, workload.kept.get(tensor.name, size), workload.banks.get(tensor.name)
        )
    if mask.shape != (rows, cols):
        raise ShapeError(
            f"hardware models expect a mask of shape {(rows, cols)} for {tensor.name!r}, got {mask.shape}; "
            "masks are (outputs, inputs)"
        )
    if mask.dtype != np.bool_:
        raise SpecError(
            f"hardware models expect a boolean mask for {tensor.name!r}, got {mask.dtype}; compare weights with 0"
        )
    kept = int(np.count_nonzero(mask))
    # Dense by its count: no engine need look at such a mask.
    if kept == size:
        return Part(tensor.name, rows, cols, None, size)
    return Part(tensor.name, rows, cols, mask, kept, workload.banks.get(tensor.name))
