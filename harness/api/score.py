"""Scores: how important each weight is, from the weights and from what a score says it needs."""

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, WithJsonSchema

from harness.api.component import Component, Frozen, JsonValue, nested
from harness.api.network import Tensor
from harness.arrays import Mask, Matrix
from harness.errors import PluginContractError

Need = Literal[
    "gradients", "hessian_gradients", "input_norms", "input_moments", "synaptic_flow", "movement", "momentum",
    "initial_weights", "progress",
]  # fmt: skip
"""What a score may need beside weights and masks; `Score.needs` lists it, `ScoreInput.needed` holds it.

- `gradients`: the mean gradient of the loss, (rows, cols), of pruned weights too.
- `hessian_gradients`: the Hessian of the loss times its gradient, (rows, cols).
- `input_norms`: the Euclidean norm of every input over all positions, (cols,).
- `input_moments`: the sum over all positions of x x^T, x the inputs, (cols, cols).
- `synaptic_flow`: the derivative of the summed outputs by each |w|, the network's weights made positive and its input
  all ones, (rows, cols).
- `movement`: minus the sum of w * gradient over the steps of straight-through training so far, (rows, cols).
- `momentum`: the optimiser's mean gradient, (rows, cols); zero where it keeps none.
- `initial_weights`: the weights before any training, (rows, cols).
- `progress`: nothing of its own; `ScoreInput.progress` then is the part of the phase that is trained.
"""

WORDS: Mapping[Need, str] = {
    "gradients": "gradients", "hessian_gradients": "the product of Hessian and gradient", "input_norms": "input norms",
    "input_moments": "second moments of inputs", "synaptic_flow": "the flow of a positive network",
    "movement": "movement, which only straight-through training sums up", "momentum": "the optimiser's momentum",
    "initial_weights": "initial weights", "progress": "the progress of the phase",
}  # fmt: skip
"""What is needed, in words."""

FROM_STATE: frozenset[Need] = frozenset({"movement", "momentum", "initial_weights", "progress"})
"""What the harness takes from states and plans: every backend has it."""


class Measurement(Frozen):
    """What a backend is asked to measure on the model as it stands.

    Args:
        what: one of `Need`.
        batches: training batches that it is averaged (gradients) or summed (inputs) over.
        temperature: what logits are divided by before the loss.
    """

    what: Need
    batches: int = Field(default=1, gt=0)
    temperature: float = Field(default=1.0, gt=0)


@dataclass(frozen=True)
class ScoreInput:
    """What a score may look at for one tensor.

    Args:
        weights: the current weights, (rows, cols); not to be modified.
        mask: True where a weight is kept at present, of the same shape.
        rng: a generator that depends on the seed, the epoch, the step and the tensor.
        needed: what the score's `needs` names.
        tensor: name, role and labelled axes.
        sparsity: what this update prunes the tensor's scope to.
        step: 0-based step within the epoch.
        progress: part of the phase that is trained, in [0, 1]; given where the score needs it.
    """

    weights: Matrix
    mask: Mask
    rng: np.random.Generator
    needed: Mapping[Need, NDArray[np.floating]] = field(default_factory=dict)
    tensor: Tensor | None = None
    sparsity: float = 0.0
    step: int = 0
    progress: float = 1.0


class Score(Component):
    """How important each weight is: a frozen value that says what it needs and computes in NumPy.

    Pruned weights rank below all kept ones, whatever their scores, unless it `revives`.

    Example:
        The size of each weight against the largest of its column.

        >>> class ByColumn(Score):
        ...     name = "by_column"
        ...     def scores(self, given):
        ...         return np.abs(given.weights) / np.abs(given.weights).max(axis=0)
        >>> weights = np.array([[1.0, 8.0], [2.0, 4.0]])
        >>> ByColumn().scores(ScoreInput(weights, weights != 0, np.random.default_rng(0)))
        array([[0.5, 1. ],
               [1. , 0.5]])
    """

    kind: ClassVar[Literal["score"]] = "score"
    needs: ClassVar[tuple[Need, ...]] = ()
    revives: ClassVar[bool] = False
    """Whether pruned weights may come back; otherwise they rank below all kept ones."""

    @abstractmethod
    def scores(self, given: ScoreInput) -> Matrix:
        """Importance of each weight, higher is kept.

        Args:
            given: weights, mask, and what the score needs.

        Shapes:
            weights (rows, cols) -> scores (rows, cols).
        """

    def measurements(self) -> tuple[Measurement, ...]:
        """What a backend has to measure, from `needs` and the fields `batches` and `temperature`, if there are any."""
        # A field counts as a parameter of the measurement by its name, so that a score needs no code for it.
        known = {name: getattr(self, name) for name in ("batches", "temperature") if hasattr(self, name)}
        return tuple(Measurement(what=need, **known) for need in self.needs if need not in FROM_STATE)

    def identity(self) -> dict[str, JsonValue]:
        """What a cache key needs of this score."""
        # Only from version 2 on: the keys of scores are older than their versions.
        version: dict[str, JsonValue] = {} if self.result_version == 1 else {"result_version": self.result_version}
        return {"name": self.name, "parameters": self.parameters(), **version}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Refuse a score of an older interface, whose `scores` takes its arguments one by one, and unknown needs."""
        # Looked at when the class is made, not when it is called: a cell would have trained by then.
        taken = [name for name in inspect.signature(cls.scores).parameters if name != "self"]
        if len(taken) != 1:
            raise PluginContractError(
                f"{cls.__name__}: a score's method is `scores(given)`, given being a ScoreInput with weights, mask, "
                f"rng and what the score needs, got `scores({', '.join(taken)})`; write it so"
            )
        if isinstance(cls.needs, str) or not set(cls.needs) <= set(WORDS):
            raise PluginContractError(
                f"{cls.__name__}: `needs` is a tuple of {', '.join(WORDS)}, empty for a score that needs none of them, "
                f"got {cls.needs!r}"
            )


class Solver(Score):
    """A score that moves the kept weights, too, so that the layer's outputs stay what they were."""

    @abstractmethod
    def solved(self, given: ScoreInput, mask: Mask) -> Matrix:
        """New weights, once the pattern has chosen.

        Args:
            given: as `scores` got it.
            mask: True where a weight is kept.

        Shapes:
            weights (rows, cols), mask (rows, cols) -> weights (rows, cols); those of pruned weights are ignored.
        """


class Magnitude(Score):
    """|w|."""

    name: ClassVar[str] = "magnitude"

    def scores(self, given: ScoreInput) -> Matrix:
        """The absolute weights."""
        return np.abs(given.weights)


class Random(Score):
    """Uniform noise: the baseline that is there to be beaten."""

    name: ClassVar[str] = "random"

    def scores(self, given: ScoreInput) -> Matrix:
        """Uniform random numbers in [0, 1)."""
        return given.rng.random(given.weights.shape)


class Gradient(Score):
    """|w * g|, g the mean gradient of the loss over `batches` batches.

    Source: SNIP (Lee et al., ICLR 2019) and first-order Taylor pruning use this saliency.
    """

    name: ClassVar[str] = "gradient"
    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    batches: int = Field(default=4, gt=0, description="training batches that the gradient is averaged over")

    def scores(self, given: ScoreInput) -> Matrix:
        """The absolute product of weight and gradient."""
        return np.abs(given.weights.astype(np.float64) * given.needed["gradients"])


_OWN: Mapping[str, type[Score]] = {score.name: score for score in (Magnitude, Random, Gradient)}


def entry_of(component: Component) -> JsonValue:
    """What an experiment file says of a component inside another one: its name, or a mapping with its parameters."""
    changed = {
        key: value for key, value in component.parameters().items() if value != type(component)().parameters().get(key)
    }
    return {"name": component.name, **changed} if changed else component.name


def _made(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str) and value in _OWN:
        return _OWN[value]()  # those of the interface need no registry
    found = nested("score", value, info)
    if not isinstance(found, Score):
        raise ValueError(f"expected the name of a score, or a mapping with `name` and parameters, got {value!r}")
    return found


AnyScore = Annotated[
    Score,
    BeforeValidator(_made),
    PlainSerializer(entry_of),
    WithJsonSchema({"component": "score"}),
]
"""The field of a strategy that holds a score: a name, or a mapping of `name` and parameters, in an experiment file."""
