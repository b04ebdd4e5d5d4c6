"""Strategies as programs: phases, learning rates, sparsity schedules, scores, and the plain values they are lowered to.

A strategy maps (recipe, target sparsity) to phases. The planner lowers the phases to stages of numbers: an epoch is its
learning rates and its mask updates. A backend only ever sees those.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, SerializeAsAny, model_validator

from harness.api.component import Component, Frozen
from harness.arrays import Mask, Matrix

Rates = float | tuple[float, ...]
"""The learning rate of an epoch: one number, or one per step."""


class LearningRate(Frozen):
    """A learning rate as a pure function of the epoch (0-based); subclass it to write another schedule."""

    @abstractmethod
    def at(self, epoch: int) -> Rates:
        """The rate, or one rate per step, of one epoch."""

    def last(self, epoch: int) -> float:
        """The rate of the last step of an epoch."""
        rates = self.at(epoch)
        return rates if isinstance(rates, float) else rates[-1]

    def from_epoch(self, start: int) -> "LearningRate":
        """The same schedule, beginning at its epoch `start`."""
        return Shifted(schedule=self, start=start) if start else self


class Constant(LearningRate):
    """One rate for ever."""

    rate: float = Field(gt=0, allow_inf_nan=False)

    def at(self, epoch: int) -> Rates:
        """The rate."""
        return self.rate


class StepDecay(LearningRate):
    """`initial` for `full_epochs` epochs, then multiplied by `decay` before every epoch.

    Source: tensorflow/models, tutorials/rnn/ptb/ptb_word_lm.py: decay ** max(epoch + 1 - max_epoch, 0).
    """

    initial: float = Field(gt=0, allow_inf_nan=False)
    decay: float = Field(gt=0, le=1)
    full_epochs: int = Field(ge=0)

    def at(self, epoch: int) -> Rates:
        """The rate of one epoch."""
        return float(self.initial * self.decay ** max(epoch + 1 - self.full_epochs, 0))


class Shifted(LearningRate):
    """Another schedule, seen from a later epoch."""

    schedule: SerializeAsAny[LearningRate]
    start: int = Field(ge=0)

    def at(self, epoch: int) -> Rates:
        """The rate of the other schedule, `start` epochs later."""
        return self.schedule.at(self.start + epoch)


class SGD(Frozen):
    """Plain stochastic gradient descent, with heavy-ball momentum if asked for.

    v = momentum * v + g + weight_decay * w; w = w - rate * v. Slot name: `momentum` (none if momentum is 0).
    """

    type: Literal["sgd"] = "sgd"
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)


class Adam(Frozen):
    """Adam (Kingma & Ba 2015), bias-corrected, epsilon outside the square root. Slots: `m`, `v`, and the scalar `t`."""

    type: Literal["adam"] = "adam"
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)


class AdamW(Frozen):
    """Adam with decoupled weight decay: w shrinks by rate * weight_decay * w before Adam's own step. Slots as Adam's.

    Source:
        Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    type: Literal["adamw"] = "adamw"
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)


Optimiser = Annotated[SGD | Adam | AdamW, Field(discriminator="type")]


class Recipe(Frozen):
    """How the dense model is trained; strategies cut and repeat pieces of it.

    Args:
        epochs: T, the length of the dense training; 0 for a model that comes trained.
        optimiser: the rule of one step.
        learning_rate: the dense schedule.
        clip_norm: the global norm that gradients are clipped to; None for no clipping.
        steps_per_epoch: training steps of one epoch.
    """

    epochs: int = Field(ge=0)
    optimiser: Optimiser
    learning_rate: SerializeAsAny[LearningRate]
    clip_norm: float | None = Field(default=None, gt=0)
    steps_per_epoch: int = Field(gt=0)

    @property
    def last_rate(self) -> float:
        """The last learning rate of the dense training; the first of the schedule where nothing is trained."""
        return self.learning_rate.last(max(self.epochs - 1, 0))


# --- scores ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreInput:
    """What a score may look at for one tensor.

    Args:
        weights: the current weights, (rows, cols); not to be modified.
        mask: True where a weight is kept at present, of the same shape.
        needed: what the score's `needs` names, or None.
        rng: a generator that depends on the seed, the epoch, the step and the tensor.
    """

    weights: Matrix
    mask: Mask
    needed: Matrix | None
    rng: np.random.Generator


Needs = Literal["nothing", "gradients", "input_norms"]


class Score(Frozen):
    """How important each weight is: a frozen value that says what it needs and computes in NumPy.

    A backend supplies what it `needs` as arrays of the weight's shape, averaged over `batches` training batches.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs] = "nothing"
    revives: ClassVar[bool] = False
    """Whether pruned weights may come back; otherwise they rank below all kept ones."""

    batches: int = Field(
        default=1, gt=0, description="training batches that gradients or input norms are averaged over"
    )

    @abstractmethod
    def scores(self, weights: Matrix, needed: Matrix | None, rng: np.random.Generator) -> Matrix:
        """Importance of each weight, higher is kept.

        Args:
            weights: the current weights; not modified.
            needed: mean gradient of the loss (shape of `weights`), or the norm of every input (cols,), or None.
            rng: a generator that depends on the seed, the epoch, the step and the tensor.

        Shapes:
            weights (rows, cols) -> scores (rows, cols).
        """

    def ranked(self, given: "ScoreInput") -> Matrix:
        """As `scores`, for a score that also looks at the masks; this is what is called."""
        return self.scores(given.weights, given.needed, given.rng)

    def identity(self) -> dict[str, object]:
        """What a cache key needs of this score."""
        parameters = self.model_dump() if self.needs != "nothing" else self.model_dump(exclude={"batches"})
        return {"name": self.name, "parameters": parameters}


class Magnitude(Score):
    """|w|."""

    name: ClassVar[str] = "magnitude"

    def scores(self, weights: Matrix, needed: Matrix | None, rng: np.random.Generator) -> Matrix:
        """The absolute weights."""
        return np.abs(weights)


class Random(Score):
    """Uniform noise: the baseline that is there to be beaten."""

    name: ClassVar[str] = "random"

    def scores(self, weights: Matrix, needed: Matrix | None, rng: np.random.Generator) -> Matrix:
        """Uniform random numbers in [0, 1)."""
        return rng.random(weights.shape)


class Gradient(Score):
    """|w * g|, g the mean gradient of the loss over `batches` batches.

    Source: SNIP (Lee et al., ICLR 2019) and first-order Taylor pruning use this saliency.
    """

    name: ClassVar[str] = "gradient"
    needs: ClassVar[Needs] = "gradients"
    batches: int = Field(default=4, gt=0, description="training batches that the gradient is averaged over")

    def scores(self, weights: Matrix, needed: Matrix | None, rng: np.random.Generator) -> Matrix:
        """The absolute product of weight and gradient."""
        assert needed is not None
        return np.abs(weights.astype(np.float64) * needed)


ScoreName = Literal["magnitude", "random", "gradient"]


def score_named(name: ScoreName) -> Score:
    """The built-in score of that name."""
    scores: dict[ScoreName, Score] = {"magnitude": Magnitude(), "random": Random(), "gradient": Gradient()}
    return scores[name]


# --- phases ---------------------------------------------------------------------------------------------------------


class SparsitySchedule(Frozen):
    """Sparsity over the steps of one `Train` phase; subclass it to write another one."""

    @abstractmethod
    def updates(self, steps_per_epoch: int) -> Sequence[tuple[int, float]]:
        """(step, sparsity), steps counted from the phase's start and strictly increasing.

        An update at step n happens before the n-th step (0-based) is taken; the last one is the schedule's end.
        """


class Cubic(SparsitySchedule):
    """s(t) = final + (initial - final) * (1 - (t - begin) / (end - begin))^3, every `every` steps and at the end.

    Source: Zhu & Gupta 2017, equation 1. Begin and end are epochs of the phase; `every` is in steps.
    """

    initial: float = Field(default=0.0, ge=0, lt=1)
    final: float = Field(ge=0, lt=1)
    begin: int = Field(ge=0, description="epoch at which pruning begins")
    end: int = Field(gt=0, description="epoch at which the final sparsity is reached")
    every: int = Field(gt=0, description="steps between two updates")

    def updates(self, steps_per_epoch: int) -> Sequence[tuple[int, float]]:
        """The updates from begin to end; the one at the end is always listed."""
        first, last = self.begin * steps_per_epoch, self.end * steps_per_epoch
        steps = [*range(first, last, self.every), last]
        return [(step, self._at((step - first) / (last - first))) for step in steps]

    def _at(self, progress: float) -> float:
        if progress >= 1:
            return self.final
        return self.final + (self.initial - self.final) * (1 - progress) ** 3


class MaskUpdate(Frozen):
    """Recompute the masks before a step.

    Args:
        step: 0-based step within the epoch, or within the phase that lists the update; equal to the number of steps for
            an update after the last one.
        sparsity: the target at this update.
        score: ranks the weights.
    """

    step: int = Field(ge=0)
    sparsity: float = Field(ge=0, lt=1)
    score: SerializeAsAny[Score] = Magnitude()


class Train(Frozen):
    """Train for some epochs; with `sparsity`, prune on the way.

    Args:
        epochs: length of the phase.
        lr: the learning rate, its epoch 0 being the phase's first.
        sparsity: mask updates during the phase; None keeps the masks as they are.
        score: ranks the weights at every update of `sparsity`.
        updates: mask updates with a score each, by step of the phase, instead of `sparsity`; several of one step happen
            in their order. Regrowth is two of them: to a higher sparsity, and back with a score that revives.
    """

    type: Literal["train"] = "train"
    epochs: int = Field(ge=0)
    lr: SerializeAsAny[LearningRate]
    sparsity: SerializeAsAny[SparsitySchedule] | None = None
    score: SerializeAsAny[Score] = Magnitude()
    updates: tuple[MaskUpdate, ...] = ()

    @model_validator(mode="after")
    def _one_of_the_two(self) -> "Train":
        if self.sparsity is not None and self.updates:
            raise ValueError("a Train phase takes either `sparsity` or `updates`, got both; leave one of them out")
        return self

    def mask_updates(self, steps_per_epoch: int) -> tuple[MaskUpdate, ...]:
        """All mask updates, by step of the phase."""
        if self.sparsity is None:
            return self.updates
        return tuple(
            MaskUpdate.model_construct(step=step, sparsity=sparsity, score=self.score)
            for step, sparsity in self.sparsity.updates(steps_per_epoch)
        )


class Prune(Frozen):
    """Prune at once to a sparsity."""

    type: Literal["prune"] = "prune"
    sparsity: float = Field(ge=0, lt=1)
    score: SerializeAsAny[Score] = Magnitude()


class Rewind(Frozen):
    """Go back to the weights, the optimiser state and the epoch counter after `to` trained epochs; the masks stay.

    Args:
        to: trained epochs from the chain's start.
        weights: `kept` for the weights of that time; `new` for initial weights drawn afresh, with `to` = 0 alone.
    """

    type: Literal["rewind"] = "rewind"
    to: int = Field(ge=0)
    weights: Literal["kept", "new"] = "kept"

    @model_validator(mode="after")
    def _new_at_the_start(self) -> "Rewind":
        if self.weights == "new" and self.to:
            raise ValueError(f"new weights are initial ones, so `to` must be 0, got {self.to}")
        return self


Phase = Train | Prune | Rewind


class Strategy(Component):
    """When to train, prune and rewind, and how weights are scored."""

    kind: ClassVar[Literal["strategy"]] = "strategy"

    needs_dense_model: ClassVar[bool] = True
    """Whether the program starts from a trained dense model (so that one at hand saves its epochs)."""

    @abstractmethod
    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """The phases that lead from initial weights to a pruned, trained model.

        Args:
            recipe: the dense recipe of the task.
            sparsity: the target, in (0, 1).

        Raises:
            SpecError: the parameters do not fit the recipe; the sentence says which and why.
        """

    def hyper_parameters(self) -> tuple[str, ...]:
        """Names of the parameters a user has to choose beyond the dense recipe."""
        return tuple(sorted(set(type(self).model_fields) - {"own_label"}))


# --- lowered values -------------------------------------------------------------------------------------------------


class Epoch(Frozen):
    """One epoch as numbers.

    Args:
        rates: the learning rate, or one per step.
        updates: the mask updates, by step.
    """

    rates: Rates
    updates: tuple[MaskUpdate, ...] = ()

    def rate(self, step: int) -> float:
        """The learning rate of one step."""
        return self.rates if isinstance(self.rates, float) else self.rates[step]
