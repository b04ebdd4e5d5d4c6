"""Weights from the checkpoints that trainers write: a state, or a state in a dictionary, under names of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from harness.api import SpecError

if TYPE_CHECKING:
    from torch import Tensor, nn

INDEX = ".safetensors.index.json"
"""How the list of a checkpoint's parts ends, as Hugging Face writes it."""

_HOLDERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module")
"""What trainers call the weights among what else they save, the likeliest first."""

_AROUND = ("module.", "_orig_mod.", "model.", "net.")
"""What DataParallel, `torch.compile` and classes that train a model put before the names of its weights."""


def load(model: nn.Module, path: Path) -> None:
    """Replace the weights and buffers of a module by those of a checkpoint.

    Raises:
        SpecError: the file holds no weights, or more than weights.
        Exception: whatever the framework says of a checkpoint of another model.
    """
    state = _named(_pruned(_read(path)), {*model.state_dict()})
    model.load_state_dict({**state, **_missing_and_tied(model, state)})


def files(path: Path) -> list[Path]:
    """All files of a checkpoint: of the list of its parts, these too."""
    return [path, *_parts(path)] if path.name.endswith(INDEX) else [path]


def _parts(path: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        return [path.with_name(name) for name in names]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecError(f"own: {path} must be the list of a checkpoint's parts, as Hugging Face writes it") from error


def _read(path: Path) -> dict[str, Any]:
    if path.name.endswith(INDEX):
        return {name: value for part in _parts(path) for name, value in _safetensors(part).items()}
    if path.suffix == ".safetensors":
        return _safetensors(path)
    return _unwrapped(_unpickled(path))


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _unpickled(path: Path) -> Any:
    import torch

    try:
        # weights_only: a pickle that runs code is refused.
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        # The framework's own advice is to run what is in the file.
        told = str(error).partition("Unsupported global: GLOBAL ")[2].split(" ")[0]
        more = f" ({told})" if told else ""
        raise SpecError(
            f"it holds more than weights{more}, or none at all, and code in a file is never run; save weights alone, "
            "`torch.save(model.state_dict(), path)`"
        ) from error


def _unwrapped(found: Any) -> dict[str, Any]:
    """The weights among what a trainer has saved."""
    import torch

    if not isinstance(found, Mapping):
        raise SpecError(f"it is a {type(found).__name__} and no state; save `model.state_dict()`")
    # A state has tensors alone: a dictionary in it is what a trainer has put them into.
    inner = next((found[name] for name in _HOLDERS if isinstance(found.get(name), Mapping)), None)
    if inner is not None:
        return _unwrapped(inner)
    if not any(isinstance(value, torch.Tensor) for value in found.values()):
        raise SpecError(f"it has no weights, only {', '.join(map(str, found)) or 'nothing'}")
    return dict(found)


def _pruned(state: dict[str, Any]) -> dict[str, Any]:
    """Weights under a mask of `torch.nn.utils.prune`, as what they are with it."""
    found = dict(state)
    for name in state:
        whole = name.removesuffix("_orig")
        if whole != name and f"{whole}_mask" in state and whole not in state:
            found[whole] = found.pop(name) * found.pop(f"{whole}_mask")
    return found


def _named(state: dict[str, Any], wanted: set[str]) -> dict[str, Any]:
    """Under the names of the model, without what stands before all of them; as they are where that does not help."""
    if wanted & set(state):
        return state
    left = state
    for _ in range(3):  # one may stand around another
        before = next((each for each in _AROUND if all(name.startswith(each) for name in left)), None)
        if before is None:
            # A checkpoint of the inner module alone, of which the model is a wrapper.
            around = next((each for each in _AROUND if all(f"{each}{name}" in wanted for name in left)), None)
            return state if around is None else {f"{around}{name}": value for name, value in left.items()}
        left = {name.removeprefix(before): value for name, value in left.items()}
        if wanted & set(left):
            return left
    return state


def _missing_and_tied(model: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """Further names of tensors that are there under one of theirs: formats without pickles store a tensor once."""
    names: dict[int, list[str]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        names.setdefault(id(value), []).append(name)
    found = {}
    for tied in names.values():
        there = next((name for name in tied if name in state), None)
        if there is not None:
            found.update({name: state[there] for name in tied if name not in state})
    return found
