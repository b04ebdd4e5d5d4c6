"""The layers and variables of a Keras model under names that no two share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorflow import Variable
    from tf_keras import Model as KerasModel
    from tf_keras.layers import Layer as KerasLayer


@dataclass
class Held:
    """A layer with variables of its own, and their names.

    Args:
        name: the layer's, with those of the layers around it.
        layer: itself.
        inside: the layers around it, outermost first.
        variables: its own, by part, such as `kernel`.
    """

    name: str
    layer: KerasLayer
    inside: tuple[KerasLayer, ...]
    variables: dict[str, Variable] = field(default_factory=dict)

    def full(self, part: str) -> str:
        """The name of a variable; those of the model itself stand alone."""
        return f"{self.name}.{part}" if self.inside else part


def layers_of(model: KerasModel) -> list[KerasLayer]:
    """Every layer inside, at any depth."""
    return list(model._flatten_layers(recursive=True, include_self=False))


def held(model: KerasModel) -> list[Held]:
    """Every layer that holds variables itself, with names that no two share, in the order in which they are found."""
    found: list[Held] = []
    seen: set[int] = set()
    names: dict[str, int] = {}
    for path in _paths(model, ()):
        layer = path[-1]
        # By identity: two layers may be equal, and one may be used in two places.
        if id(layer) in seen:  # used twice, or listed by two layers around it
            continue
        seen.add(id(layer))
        name = ".".join(_short(each, path[:place]) for place, each in enumerate(path) if place) or "model"
        name = name.rstrip(".")
        names[name] = names.get(name, 0) + 1
        unique = name if names[name] == 1 else f"{name}_{names[name] - 1}"
        own = _own_variables(layer)
        if own:
            found.append(Held(unique, layer, path[:-1], own))
    return found


def _paths(layer: KerasLayer, before: tuple[KerasLayer, ...]) -> Iterator[tuple[KerasLayer, ...]]:
    import tf_keras

    path = (*before, layer)
    yield path
    if isinstance(layer, tf_keras.layers.RNN) and not is_custom_cell(layer):
        # Else its cell would be found as a layer of its own, and its variables twice.
        return  # its cell is read as a part of the layer
    for inner in layer._flatten_layers(recursive=False, include_self=False):
        yield from _paths(inner, path)


def is_custom_cell(layer: KerasLayer) -> bool:
    """Whether a recurrent layer runs a cell that is none of Keras' own."""
    import tf_keras

    known = (tf_keras.layers.LSTMCell, tf_keras.layers.GRUCell, tf_keras.layers.SimpleRNNCell)
    return not isinstance(layer.cell, known)


def _short(layer: KerasLayer, around: Sequence[KerasLayer]) -> str:
    return str(layer.name).replace("/", ".")


def _own_variables(layer: KerasLayer) -> dict[str, Variable]:
    """Variables of this layer alone, by the last part of their names."""
    holder = layer
    import tf_keras

    if isinstance(layer, tf_keras.layers.RNN) and not is_custom_cell(layer):
        holder = layer.cell
    found: dict[str, Variable] = {}
    # The private lists are this layer's own: the public ones have those of inner layers too.
    for variable in (*holder._trainable_weights, *holder._non_trainable_weights):
        part = variable.name.partition(":")[0].rpartition("/")[2] or "variable"
        # Some layers give two variables one name.
        count = sum(each == part or each.startswith(f"{part}_") for each in found)
        found[part if part not in found else f"{part}_{count}"] = variable
    return found


def variables(model: KerasModel) -> dict[str, Variable]:
    """Every variable by name, trained or not, shared ones once."""
    found: dict[str, Variable] = {}
    seen: set[Any] = set()
    for each in held(model):
        for part, variable in each.variables.items():
            if variable.ref() not in seen:
                seen.add(variable.ref())
                found[each.full(part)] = variable
    return found


def trainable(model: KerasModel) -> dict[str, Variable]:
    """Those that are trained, by name."""
    trained = {variable.ref() for variable in model.trainable_weights}
    return {name: variable for name, variable in variables(model).items() if variable.ref() in trained}
