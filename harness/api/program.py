"""Strategies as programs: phases, learning rates, and the plain values they are lowered to.

A strategy maps (recipe, target sparsity) to phases. The planner lowers the phases to stages of numbers: an epoch is its
learning rates and its mask updates. A backend only ever sees those.
"""

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny, model_validator

from harness.api.component import Component, Frozen
from harness.api.schedule import SparsitySchedule
from harness.api.score import Magnitude, Score

Rates = float | tuple[float, ...]
"""The learning rate of an epoch: one number, or one per step."""


class LearningRate(Frozen):
    """A learning rate as a pure function of the epoch (0-based); subclass it to write another schedule.

    Example:
        >>> class Halving(LearningRate):
        ...     def at(self, epoch):
        ...         return 0.1 / 2**epoch
        >>> Halving().at(1), Halving().from_epoch(1).at(0)
        (0.05, 0.05)
    """

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

    Example:
        >>> [StepDecay(initial=1, decay=0.5, full_epochs=2).at(epoch) for epoch in range(4)]
        [1.0, 1.0, 0.5, 0.25]
    """

    initial: float = Field(gt=0, allow_inf_nan=False)
    decay: float = Field(gt=0, le=1)
    full_epochs: int = Field(ge=0)

    def at(self, epoch: int) -> Rates:
        """The rate of one epoch."""
        # The power is taken afresh, not carried along: an epoch's rate does not depend on where training was taken up.
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


# --- phases ---------------------------------------------------------------------------------------------------------


class MaskUpdate(Frozen):
    """Recompute the masks before a step.

    Args:
        step: 0-based step within the epoch, or within the phase that lists the update; equal to the number of steps for
            an update after the last one.
        sparsity: the target at this update.
        score: ranks the weights.
        progress: part of the phase that is trained by then; 1 for a pruning at once.
    """

    step: int = Field(ge=0)
    sparsity: float = Field(ge=0, lt=1)
    score: SerializeAsAny[Score] = Magnitude()
    progress: float = Field(default=1.0, ge=0, le=1)


class StraightThrough(Frozen):
    """Training in which masked weights go on living: the loss sees w * mask, and its gradient moves all of w.

    The gradient of a weight is that of the masked weight in its place, plus `decay` * w where it is masked; so the
    dense weights survive, and a mask update with a score that `revives` may choose among all of them. Minus the sum of
    w * gradient is kept on the way (`movement` of `Score.needs`). What the phase leaves is the masked model.

    Source:
        Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch", ICLR 2021: the gradient
        g + decay (1 - mask) w.
    """

    decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class Train(Frozen):
    """Train for some epochs; with `sparsity`, prune on the way.

    Args:
        epochs: length of the phase.
        lr: the learning rate, its epoch 0 being the phase's first.
        sparsity: mask updates during the phase; None keeps the masks as they are.
        score: ranks the weights at every update of `sparsity`.
        updates: mask updates with a score each, by step of the phase, instead of `sparsity`; several of one step happen
            in their order. Regrowth is two of them: to a higher sparsity, and back with a score that revives.
        through: keep the masked weights alive during the phase; a backend says whether it can (`trains_through`).
    """

    type: Literal["train"] = "train"
    epochs: int = Field(ge=0)
    lr: SerializeAsAny[LearningRate]
    sparsity: SerializeAsAny[SparsitySchedule] | None = None
    score: SerializeAsAny[Score] = Magnitude()
    updates: tuple[MaskUpdate, ...] = ()
    through: StraightThrough | None = None

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
            # Without validation: a schedule makes thousands, and its values are checked where they are lowered.
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
    """When to train, prune and rewind, and how weights are scored.

    Example:
        Train, prune, and train half as long again.

        >>> class Half(Strategy):
        ...     name = "half"
        ...     def program(self, recipe, sparsity):
        ...         rate = recipe.learning_rate
        ...         after = Train(epochs=recipe.epochs // 2, lr=Constant(rate=recipe.last_rate))
        ...         return Train(epochs=recipe.epochs, lr=rate), Prune(sparsity=sparsity), after
        >>> recipe = Recipe(epochs=4, optimiser=SGD(), learning_rate=Constant(rate=0.1), steps_per_epoch=10)
        >>> [phase.type for phase in Half().program(recipe, 0.9)]
        ['train', 'prune', 'train']
    """

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
        # All own fields by default; a strategy whose fields exclude each other says otherwise.
        return tuple(sorted(set(type(self).model_fields) - {"own_label"}))


# --- lowered values -------------------------------------------------------------------------------------------------


class Epoch(Frozen):
    """One epoch as numbers.

    Args:
        rates: the learning rate, or one per step.
        updates: the mask updates, by step.
        through: how masked weights live on, where they do.

    Example:
        >>> Epoch(rates=(0.2, 0.1), updates=(MaskUpdate(step=1, sparsity=0.5),)).rate(1)
        0.1
    """

    rates: Rates
    updates: tuple[MaskUpdate, ...] = ()
    through: StraightThrough | None = None

    def rate(self, step: int) -> float:
        """The learning rate of one step."""
        return self.rates if isinstance(self.rates, float) else self.rates[step]
