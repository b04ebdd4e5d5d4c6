"""A user's own Keras optimiser, with its state as arrays that the store keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import SGD, Array, PluginContractError, SpecError, theirs

from .optimiser import Rule, scaled_by
from .toolkit import frameworks

if TYPE_CHECKING:
    from tensorflow import Tensor, Variable

_PREFIX = "optimiser/"


class GivenRule(Rule):
    """An optimiser that the user makes; its learning rate is set before every step.

    Args:
        make: variables -> the optimiser.
        variables: what is trained, by tensor name.
        folder: where the user's files lie.
    """

    def __init__(self, make: Callable[[Any], Any], variables: Mapping[str, Variable], folder: Path) -> None:
        super().__init__(SGD(), variables)
        keras = frameworks().keras
        with theirs(folder, "making the optimiser"):
            self._given = make(list(variables.values()))
        if not isinstance(self._given, keras.optimizers.Optimizer):
            raise SpecError(
                f"own: `optimiser` must make a tf_keras.optimizers.Optimizer, got {type(self._given).__name__}"
            )
        # Such a schedule counts steps by itself, which a rewind could not put back.
        if isinstance(self._given._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            raise SpecError("own: the optimiser has a schedule of its own; give it as `learning_rate` of the OwnModel")
        self._like: dict[Any, list[Variable]] = {}
        self._remember_slots()
        with theirs(folder, "making the optimiser"):
            self._given.build(list(variables.values()))

    @property
    def takes_rows(self) -> bool:
        """It may keep a state for every row."""
        return False

    def _remember_slots(self) -> None:
        """Note which variable of the optimiser is made for which weight."""
        # Keras names slots only for people: which weight one belongs to is told while it is made, and nowhere later.
        inner = self._given.add_variable_from_reference

        def add(model_variable: Variable, *given: Any, **named: Any) -> Variable:
            made = inner(model_variable, *given, **named)
            self._like.setdefault(model_variable.ref(), []).append(made)
            return made

        self._given.add_variable_from_reference = add

    def apply(self, gradients: Mapping[str, Any], scale: Tensor | None, rate: Tensor) -> None:
        """Let the optimiser take its step; called inside a traced function."""
        self._given._learning_rate.assign(rate)
        scaled = scaled_by(scale, gradients)
        self._given.apply_gradients([(scaled[name], self.variables[name]) for name in self.variables])

    def like(self, weight: Variable) -> list[Variable]:
        """The state of a weight that has its shape: momentum and the like."""
        return [each for each in self._like.get(weight.ref(), []) if each.shape == weight.shape]

    def state(self) -> dict[str, Array]:
        """Everything it keeps, by place and name."""
        return {name: np.array(variable.numpy()) for name, variable in self._kept().items()}

    def load(self, values: Mapping[str, Array]) -> None:
        """Take the state over; what is not there starts anew."""
        # A state of before the first step has none of them.
        has_any = any(name.startswith(_PREFIX) for name in values)
        for name, variable in self._kept().items():
            if has_any and name not in values:
                raise PluginContractError(f"keras_tfmot: a state must hold {name}; load a state of this task")
            variable.assign(values[name] if has_any else self._first[name])

    def _kept(self) -> dict[str, Variable]:
        kept = {f"{_PREFIX}{place}/{each.name}": each for place, each in enumerate(self._given.variables)}
        # As they are right after building: what a chain without a state begins with.
        if not hasattr(self, "_first"):
            self._first = {name: variable.numpy() for name, variable in kept.items()}
        return kept
