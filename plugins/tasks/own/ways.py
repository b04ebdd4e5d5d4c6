"""Which framework the model of a task of a user's own is of: the one that their file has imported."""

from __future__ import annotations

import sys
from collections.abc import Collection
from importlib import import_module
from typing import Any

from harness.api import SpecError

from .keras_way import KerasWay
from .torch_way import TorchWay
from .way import Way


def loaded_ways() -> tuple[Way, ...]:
    """The frameworks that this process has imported."""
    return tuple(way for way in (TorchWay(), KerasWay()) if way.modules & set(sys.modules))


def used_ways(modules: Collection[str]) -> tuple[Way, ...]:
    """The frameworks among the modules that a user's files import, imported; those that are not installed left out."""
    found = []
    for way in (TorchWay(), KerasWay()):
        named = sorted(way.modules & set(modules))
        try:
            for module in named:
                import_module(module)
        except ImportError:  # told when their file is imported, with the line
            continue
        found += [way] if named else []
    return tuple(found)


def way_of(make_model: Any) -> Way:
    """The framework of a user's model: the one that their file has imported, or else the one of the model it makes.

    Raises:
        SpecError: it is of none that the harness knows.
    """
    # One framework in the process: no model has to be made to ask it.
    loaded = loaded_ways()
    if len(loaded) == 1:
        return loaded[0]
    model = make_model()
    for way in loaded_ways():
        if way.is_model(model):
            return way
    raise SpecError(
        f"own: `model` must make a torch.nn.Module or a tf_keras.Model, got {type(model).__name__}; return one of them"
    )
