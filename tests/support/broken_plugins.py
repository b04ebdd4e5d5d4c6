"""Plugins that break their contracts, each in a way that people's own plugins do."""

import sys
from typing import ClassVar

import numpy as np
from toy import FineTuning

from harness.api import Frame, HardwareModel, Magnitude, Pattern, Prune, Score


class Exits(Score):
    name: ClassVar[str] = "exits"

    def scores(self, given):
        sys.exit("enough")


class Lists(Score):
    name: ClassVar[str] = "lists"

    def scores(self, given):
        return [1.0, 2.0]


class NotANumber(Score):
    name: ClassVar[str] = "not_a_number"

    def scores(self, given):
        return np.full_like(given.weights, np.nan)


class Divides(Score):
    name: ClassVar[str] = "divides"

    def scores(self, given):
        return given.weights / (1 // 0)


class Shouts(Score):
    name: ClassVar[str] = "shouts"

    def scores(self, given):
        raise RuntimeError("\x1b[31m[bold]\ud800\x00" + "x" * 5_000_000)


class Scored(FineTuning):
    """Fine-tuning by a score of one's own."""

    name = "scored"
    score: Score = Magnitude()

    def program(self, recipe, sparsity):
        dense, _, train = super().program(recipe, sparsity)
        return dense, Prune(sparsity=sparsity, score=self.score), train


class Fickle(Pattern):
    """Keeps as many weights as it should, others every time."""

    name: ClassVar[str] = "fickle"
    asked: ClassVar[int] = 0

    def frame(self, rows, cols):
        return Frame()

    def mask(self, scores, sparsity):
        type(self).asked += 1
        return super().mask(np.roll(scores, type(self).asked, axis=1), sparsity)


class Nothing(Pattern):
    name: ClassVar[str] = "nothing"

    def frame(self, rows, cols):
        return Frame()

    def mask(self, scores, sparsity):
        return None


class Costless(HardwareModel):
    name: ClassVar[str] = "costless"

    def cost(self, workload):
        return None
