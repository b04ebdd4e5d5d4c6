"""Sparse training: masks of one density that move while the network trains (SET, RigL)."""

import math
from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from harness.api import Magnitude, MaskUpdate, Matrix, Phase, Prune, Random, Recipe, Score, ScoreInput, Strategy, Train


class Regrown(Score):
    """Kept weights above all others, those by what `candidates` says: so a mask grows and loses nothing."""

    revives: ClassVar[bool] = True

    @abstractmethod
    def candidates(self, given: ScoreInput) -> Matrix:
        """What pruned weights are ranked by, 0 or more."""

    def scores(self, given: ScoreInput) -> Matrix:
        """2 for kept weights, at most 1 for the others."""
        # In double precision: many candidates that differ in float32's last bits would otherwise tie when divided.
        candidates = self.candidates(given).astype(np.float64)
        most = float(candidates.max())
        # All kept weights tie at 2, above the best candidate: the quota is the number that shall live, so it keeps them
        # all and fills up.
        return np.where(given.mask, 2.0, candidates / most if most > 0 else candidates)


class SparseTraining(Strategy):
    """Start from a random mask, and now and then drop the smallest weights and grow as many others, at zero.

    At an update the fraction f of the kept weights is dropped, by magnitude, and the density restored; both through the
    pattern, so that its groups keep their quotas. Where a group keeps so few weights that f of them is none, its mask
    does not move. The authors' 100 steps between updates are of 32,000: here at most a fortieth of the training. Their
    last update, at step 25,000, is a share of the recipe, too.
    """

    needs_dense_model: ClassVar[bool] = False
    every: int | None = Field(
        default=None, gt=0, description="steps between two updates; None: 100, or a fortieth of a shorter training"
    )
    drop: float = Field(default=0.3, gt=0, lt=1, description="fraction of the kept weights dropped at the first update")
    until: float = Field(default=0.78, gt=0, le=1, description="part of the training after which masks stay")
    anneal: Literal["constant", "cosine"] = Field(
        default="constant", description="whether that fraction stays, or falls to 0 along a cosine"
    )

    @abstractmethod
    def grown(self) -> Score:
        """What ranks the weights that may grow."""

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        """A random mask, then one training with the updates in it."""
        total = recipe.epochs * recipe.steps_per_epoch
        every = self.every or max(1, min(100, total // 40))
        # RigL stops moving its masks at step 25,000 of 32,000, 78 %: weights grown later would have no time to learn.
        last = math.floor(self.until * total)
        updates: list[MaskUpdate] = []
        for step in range(every, last + 1, every):
            fraction = self.drop * (1 if self.anneal == "constant" else (1 + math.cos(math.pi * step / (last + 1))) / 2)
            # In two updates at one step, since an update reaches one sparsity by one score: first down to a sparser
            # mask, then up again.
            sparser = round(sparsity + fraction * (1 - sparsity), 12)
            updates += [
                MaskUpdate(step=step, sparsity=sparser, score=Magnitude()),
                MaskUpdate(step=step, sparsity=sparsity, score=self.grown()),
            ]
        training = Train(epochs=recipe.epochs, lr=recipe.learning_rate, updates=tuple(updates))
        return Prune(sparsity=sparsity, score=Random()), training
