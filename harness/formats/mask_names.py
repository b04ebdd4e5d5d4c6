"""Masks beside their weights, under the names that pruning tools give them.

| who | weights | mask |
| --- | --- | --- |
| this harness | `lstm_0.kernel` | `lstm_0.kernel.mask` |
| torch.nn.utils.prune | `fc.weight_orig` | `fc.weight_mask` |
| torch.nn.utils.parametrize | `fc.parametrizations.weight.original` | `fc.parametrizations.weight.0.mask` |
| TF-MOT | `dense/kernel:0` | `prune_low_magnitude_dense/mask:0` |
| modules with a buffer | `fc.weight` | `fc.mask`, `fc.weightMask` |
| archives of both | `params/fc/kernel`, `fc.weight` | `masks/fc/kernel`, `masks/fc.weight` |

Case is ignored.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.arrays import Array, Mask
from harness.errors import DataError
from harness.formats.weight_arrays import check_numbers, is_binary, kept, tells_values

_WEIGHT_WORDS = ("weight", "weights", "kernel", "w")

_OF_INPUTS = re.compile(r"(attn|attention|causal|padding|pad|valid|loss|token|key|src|tgt|time)s?_?mask|^masks?$", re.I)
"""Masks of positions and not of weights, by the names of transformers."""

_SCORES = re.compile(r"^mask_(scores?|logits?|alphas?|params?)$")
"""What movement pruning and its like train in the place of a mask."""

_OPTIMISER = re.compile(
    r"(^|[./])(adam\w*|rmsprop|sgd|adagrad|optimi[sz]er\w*|exp_avg(_sq)?|momentum\w*|velocity)([./:]|$)"
    r"|_(momentum|velocity)(:0)?$",
    re.IGNORECASE,
)
"""Variables that an optimiser keeps for every weight; they have the shapes of weights and are none."""


@dataclass(frozen=True, eq=False)
class Paired:
    """Arrays of weights by name, with what is kept of each, their values, and sentences on what was left out."""

    weights: Mapping[str, Mask]
    notes: tuple[str, ...]
    values: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class _MaskName:
    """The name of a mask, taken apart.

    Args:
        key: its parts without the word itself.
        index: of several masks of one layer, which.
    """

    key: tuple[str, ...]
    index: int = 0


def parts_of(name: str) -> tuple[str, ...]:
    """A name in lower case, cut at dots and slashes, without what frameworks put around it."""
    # TensorFlow appends the index of an operation's output.
    bare = re.sub(r":\d+$", "", name)
    found = []
    for part in re.split(r"[./]", bare):
        # CamelCase as snake_case: `LayerNorm` and `layer_norm` name one layer.
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", part).lower()
        found.append(re.sub(r"^prune_low_magnitude_", "", snake))
    if "parametrizations" in found[:-1]:  # fc.parametrizations.weight.original, fc.parametrizations.weight.0.mask
        found.remove("parametrizations")
        # Indices inside parametrisations say only which of several one is; a leading one is a layer of a Sequential.
        found = [part for part in found if not part.isdigit() or part == found[0]]
    return tuple(found)


def _mask_name(name: str) -> _MaskName | None:
    parts = parts_of(name)
    if len(parts) > 1 and parts[0] in ("mask", "masks"):
        return _MaskName(parts[1:])
    # `mask` alone is of the layer, `mask_1` of its second matrix.
    if match := re.fullmatch(r"masks?(?:_?(\d+))?", parts[-1]):
        return _MaskName(parts[:-1], int(match[1] or 0))
    if match := re.fullmatch(r"(.+?)_?masks?(?:_(\d+))?", parts[-1]):
        return _MaskName((*parts[:-1], match[1]), int(match[2] or 0))
    if match := re.fullmatch(r"masks?_(.+)", parts[-1]):
        return _MaskName((*parts[:-1], match[1]))
    return None


def paired(path: Path, arrays: Mapping[str, Array]) -> Paired:
    """The weights of a file, each with its mask if there is one.

    An array is a mask by its name and by its values, zeros and ones alone. Where a file has masks and no weights for
    them, the masks are what is costed.

    Raises:
        DataError: a mask has another shape than its weights, could be that of several, or a kept weight is no number.
    """
    notes: list[str] = []
    # Before masks are looked for: Adam's moments have the shapes of weights and often their names.
    left = [name for name in arrays if _OPTIMISER.search(name)]
    if left:
        notes.append(f"variables of an optimiser, left out: {_some(left)}")
    arrays = {name: array for name, array in arrays.items() if name not in left}
    _refuse_soft(path, arrays)
    # Only what is binary is a mask, whatever its name says.
    named = {name: found for name in arrays if (found := _mask_name(name)) and is_binary(arrays[name])}
    weights = {name: array for name, array in arrays.items() if name not in named}
    keys = {name: _key(name) for name in weights}
    owner: dict[str, str] = {}  # by name of the weights
    alone: list[str] = []
    for name, taken_apart in named.items():
        of_it = _owner(path, name, taken_apart, arrays, keys, owner)
        if of_it is None:
            alone.append(name)
        else:
            owner[of_it] = name
    found_masks: dict[str, Mask] = {}
    sources: dict[str, Array] = {}
    for name, array in arrays.items():
        if name in weights and array.ndim < 2:
            continue
        if name in weights:
            mask_name = owner.get(name)
            if mask_name is None:
                found_masks[_parametrised(name)] = kept(path, name, array)
                sources[_parametrised(name)] = array
                continue
            # A kept weight may happen to be zero, and what is dropped need not be a number: the mask knows better.
            check_numbers(path, name, array)
            # A mask with axes of one is of whole channels: it stands for all of them.
            mask = np.ascontiguousarray(np.broadcast_to(arrays[mask_name] != 0, array.shape))
            wrong = 0 if array.dtype.kind != "f" else int((mask & ~np.isfinite(array)).sum())
            if wrong:
                notes.append(f"{wrong} weights of {name} that its mask keeps are NaN or infinite: costed by the mask")
            found_masks[_parametrised(re.sub(r"_orig$", "", name))] = mask
            sources[_parametrised(re.sub(r"_orig$", "", name))] = array
        elif name in alone and array.ndim > 1:
            if _OF_INPUTS.search(parts_of(name)[-1]) and any(array.ndim > 1 for array in weights.values()):
                notes.append(f"{name} {array.shape} is a mask of no weights in the file: left out")
            else:
                found_masks[name] = kept(path, name, array)
    return Paired(found_masks, tuple(notes), {name: array for name, array in sources.items() if tells_values(array)})


def _refuse_soft(path: Path, arrays: Mapping[str, Array]) -> None:
    """Pass if no array is what a mask would have to be made of: scores, or a mask between 0 and 1."""
    keys = {_key(name) for name in arrays}
    for name, array in arrays.items():
        found = _mask_name(name)
        if found is None or array.ndim < 2 or is_binary(array):
            continue
        key = "_".join(found.key)
        is_score = bool(_SCORES.search(parts_of(name)[-1]))
        # A learnt score named like the weights it belongs to would pass for another matrix of the model.
        if is_score or (not parts_of(name)[-1].startswith("mask_") and {key, f"{key}_weight", f"{key}_kernel"} & keys):
            raise DataError(
                f"{path}: expected masks of zeros and ones, got {name!r} with other values; make the mask that "
                "the model is to have of it, and save that"
            )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _parametrised(name: str) -> str:
    """`fc.parametrizations.weight.original` is `fc.weight`."""
    return re.sub(r"(^|\.)parametrizations\.(.+)\.original$", r"\1\2", name)


def _key(name: str) -> str:
    """The name of weights as masks refer to it."""
    parts = parts_of(name)
    if parts[-1] == "original" and len(parts) > 1:
        parts = parts[:-1]
    return "_".join((*parts[:-1], re.sub(r"_orig$", "", parts[-1])))


def _owner(
    path: Path,
    name: str,
    mask: _MaskName,
    arrays: Mapping[str, Array],
    keys: Mapping[str, str],
    taken: Mapping[str, str],
) -> str | None:
    """The weights that a mask belongs to: by its whole name, else by that of its layer, else by the end of theirs."""
    key = "_".join(mask.key)
    shape = arrays[name].shape
    # A second mask of a layer is not of its first matrix, wherever it stands in the file: their order tells.
    words = () if mask.index else _WEIGHT_WORDS
    wanted = [key, *(f"{key}_{word}".lstrip("_") for word in words)]
    same = [weights for weights, own in keys.items() if own in wanted] if key else []
    if len(same) > 1:  # both `fc.weight` and `fc.kernel`, say
        # Of several matrices that fit, the one with the very name is meant.
        same = [weights for weights in same if keys[weights] == key] or same
    if same:
        if not _fits(arrays[same[0]].shape, shape):
            # A second mask of a layer may be of another one of its matrices, which it is matched with below.
            if mask.index or arrays[same[0]].ndim < 2:
                return None
            raise _other_shape(path, name, same[0], arrays)
        return same[0] if same[0] not in taken else None
    return _by_layer(path, name, mask, arrays, keys, taken)


def _fits(weights: tuple[int, ...], mask: tuple[int, ...]) -> bool:
    """Whether a mask is of these weights: element for element, or along axes where it has one (whole channels)."""
    return len(weights) == len(mask) and all(m in (w, 1) for w, m in zip(weights, mask, strict=True))


def _by_layer(
    path: Path,
    name: str,
    mask: _MaskName,
    arrays: Mapping[str, Array],
    keys: Mapping[str, str],
    taken: Mapping[str, str],
) -> str | None:
    """Weights of the layer that a mask names (`dense/mask` of `dense/kernel`), or whose names end with its own."""
    layer = "_".join(mask.key)
    if not layer:
        return _nameless(path, name, arrays, keys, taken)
    inside = [weights for weights, own in keys.items() if arrays[weights].ndim > 1 and _is_inside(own, layer)]
    fitting = [weights for weights in inside if _fits(arrays[weights].shape, arrays[name].shape)]
    masks = sorted(
        (each for each in arrays if (other := _mask_name(each)) and other.key == mask.key), key=_index_of_mask
    )
    if len(fitting) > 1 and len(masks) == len(inside):  # one mask per matrix, in the order of both
        return inside[masks.index(name)] if inside[masks.index(name)] in fitting else None
    free = [weights for weights in fitting if weights not in taken]
    if len(free) > 1:
        raise DataError(
            f"{path}: expected to know whose mask {name!r} is, got {_some(free)}, which all fit; name it after one"
        )
    if not free and inside:
        raise _other_shape(path, name, inside[0], arrays)
    return free[0] if free else None


def _nameless(
    path: Path, name: str, arrays: Mapping[str, Array], keys: Mapping[str, str], taken: Mapping[str, str]
) -> str | None:
    """Weights of a mask that is called `mask`, or `mask2`: those with the same number, or the only ones."""
    number = re.search(r"(\d*)$", parts_of(name)[-1])
    matrices = [weights for weights in keys if arrays[weights].ndim > 1]
    if number and number[1]:
        matrices = [weights for weights in matrices if re.fullmatch(rf"\D*{number[1]}", keys[weights])]
    fitting = [weights for weights in matrices if _fits(arrays[weights].shape, arrays[name].shape)]
    if len(matrices) == 1 and not fitting:
        raise _other_shape(path, name, matrices[0], arrays)
    if len(fitting) > 1:
        raise DataError(
            f"{path}: expected to know whose mask {name!r} is, got {_some(fitting)}, which all fit; name it after one"
        )
    return fitting[0] if fitting and fitting[0] not in taken else None


def _other_shape(path: Path, mask: str, weights: str, arrays: Mapping[str, Array]) -> DataError:
    return DataError(
        f"{path}: expected the mask {mask!r} to have the shape of {weights!r}, {arrays[weights].shape}, got "
        f"{arrays[mask].shape}; save both as (rows, columns) alike"
    )


def _is_inside(weights: str, layer: str) -> bool:
    """Whether weights are of a layer, `dense_kernel` of `dense` but not `dense_1_kernel`, or end with its name."""
    # `dense_1` is a layer of its own, and no matrix of `dense`.
    if weights.startswith(f"{layer}_") and not weights[len(layer) + 1].isdigit():
        return True
    return any(weights.endswith(f"_{layer}{end}") for end in ("", *(f"_{word}" for word in _WEIGHT_WORDS)))


def _index_of_mask(name: str) -> int:
    found = _mask_name(name)
    return 0 if found is None else found.index
