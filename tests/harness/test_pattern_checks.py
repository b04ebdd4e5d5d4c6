"""The checks of patterns at the edges and over several tensors: each finds the fault that is planted for it."""

from typing import ClassVar

import numpy as np
import pytest
from harness_plugins.patterns.hidden_unit import HiddenUnit
from harness_plugins.patterns.two_ratio import TwoRatio
from numpy.lib.stride_tricks import as_strided

from harness.api import Frame, Pattern, PluginContractError
from harness.testing import PatternChecks, check_pattern, pattern_scope


class Good(Pattern):
    """Unstructured, for the others to spoil."""

    name: ClassVar[str] = "good"

    def frame(self, rows, cols):
        return Frame()


class InMemoryOrder(Good):
    """Reads the scores as if neighbours in a row were neighbours in memory."""

    def mask(self, scores, sparsity):
        size = scores.itemsize
        return super().mask(as_strided(scores, scores.shape, (scores.shape[1] * size, size)), sparsity)


class Divides(Good):
    """Has no answer where there is no column."""

    def frame(self, rows, cols):
        return Frame(group=(1, cols // max(1, cols // (8 // cols if cols < 8 else 1))))


class NeedsTwo(Good):
    """Compares the first two weights."""

    def mask(self, scores, sparsity):
        scores.ravel()[1]
        return super().mask(scores, sparsity)


class Swells(Good):
    """Finds weights where there are none."""

    def layout(self, rows, cols):
        return super().layout(max(rows, 1), max(cols, 1))

    def mask(self, scores, sparsity):
        return super().mask(scores, sparsity) if scores.size else np.ones((1, 1), bool)


class Another(Good):
    """Is something else for every tensor."""

    def for_tensor(self, tensor):
        return tensor.name


class CoupledBySize(Good):
    """Couples the larger matrices only."""

    def frame(self, rows, cols):
        return Frame(unit=(1, None), coupling="labels" if cols > 60 else "none")


class CoupledWithMask(HiddenUnit):
    """Says what nobody would ask it."""

    def mask(self, scores, sparsity):
        return super().mask(scores, sparsity)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        (InMemoryOrder(), r"its highest scores to stay|pruned weights \(-inf\) to stay pruned"),
        (Divides(), r"on 0 x 0: the contract expects a ShapeError or a mask, got ZeroDivisionError"),
        (NeedsTwo(), r"on 1 x 1: the contract expects a ShapeError or a mask, got IndexError"),
        (Swells(), r"on 0 x 0: the contract expects an empty mask"),
        (Another(), "for lstm_0.kernel: the contract expects a pattern from `for_tensor`, got str"),
        (CoupledBySize(), r"one coupling for all tensors of a scope, got \['labels', 'none'\]"),
        (CoupledWithMask(), "no `mask` or `masks` beside a coupling by labels"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fault_at_an_edge_or_beside_a_coupling_is_found_out(pattern, sentence):
    check_pattern(Good())
    with pytest.raises(PluginContractError, match=sentence):
        check_pattern(pattern)


# --- over a whole scope ---------------------------------------------------------------------------------------------


class Whole(Good):
    """Every tensor by itself, in one answer."""

    def masks(self, scores, sparsities, tensors):
        return {name: self.mask(values, sparsities[name]) for name, values in scores.items()}


class Unpaired(Whole):
    """Answers in no mapping."""

    def masks(self, scores, sparsities, tensors):
        return list(super().masks(scores, sparsities, tensors).items())


class Forgets(Whole):
    """Leaves the last tensor out."""

    def masks(self, scores, sparsities, tensors):
        found = super().masks(scores, sparsities, tensors)
        found.popitem()
        return found


class Ones(Whole):
    """Answers ones and zeros."""

    def masks(self, scores, sparsities, tensors):
        return {name: mask.astype(np.uint8) for name, mask in super().masks(scores, sparsities, tensors).items()}


class Turned(Whole):
    """Answers as frameworks store a kernel."""

    def masks(self, scores, sparsities, tensors):
        return {name: mask.T for name, mask in super().masks(scores, sparsities, tensors).items()}


class WritesOver(Whole):
    """Works in place."""

    def masks(self, scores, sparsities, tensors):
        for values in scores.values():
            np.multiply(values, 2, out=values)
        return super().masks(scores, sparsities, tensors)


class Moody(Whole):
    """Answers otherwise when asked again."""

    count: ClassVar[list[int]] = [0]

    def masks(self, scores, sparsities, tensors):
        self.count[0] += 1
        found = super().masks(scores, sparsities, tensors)
        return {name: np.roll(mask, self.count[0], axis=1) for name, mask in found.items()}


class Rolls(Whole):
    """Keeps other weights at every sparsity."""

    def masks(self, scores, sparsities, tensors):
        found = super().masks(scores, sparsities, tensors)
        return {name: np.roll(mask, int(100 * sparsities[name]), axis=1) for name, mask in found.items()}


class Revives(Whole):
    """Takes pruned weights for the smallest that are left."""

    def masks(self, scores, sparsities, tensors):
        left = {name: np.where(values == -np.inf, 99, values) for name, values in scores.items()}
        return super().masks(left, sparsities, tensors)


class HalfPruned(Whole):
    """Leaves the first tensor alone."""

    def masks(self, scores, sparsities, tensors):
        first = tensors[0].name
        return super().masks(scores, {**sparsities, first: sparsities[first] / 2}, tensors)


class Wordless(Whole):
    """Refuses without a reason."""

    def why_not_scope(self, tensors, sparsity):
        return " "


class Refuses(Whole):
    """Takes no scope at all."""

    def why_not_scope(self, tensors, sparsity):
        return "is for convolutions"


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        (Unpaired(), "a mapping of masks by tensor name, got list"),
        (Forgets(), "a mask for each of .*output.kernel, got lstm_0.kernel"),
        (Ones(), "lstm_0.kernel: the contract expects a bool array"),
        (Turned(), r"a mask of shape \(200, 100\), got \(100, 200\)"),
        (WritesOver(), "lstm_0.kernel: the contract expects the scores to be left as they were"),
        (Moody(), "the same masks when asked twice"),
        (Rolls(), "a subset of what a lower sparsity keeps, got other weights in"),
        (Revives(), "of those left: the contract expects a subset"),
        (HalfPruned(), "a sparsity within 0.02 over all of them"),
        (Wordless(), "a reason or None, got ' '"),
        (Refuses(), "a scope that it takes at some sparsity; pass a `scope` that fits"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fault_over_a_whole_scope_is_found_out(pattern, sentence):
    with pytest.raises(PluginContractError, match=sentence):
        check_pattern(pattern)


def test_patterns_that_decide_over_a_whole_scope_pass_and_may_be_given_another():
    check_pattern(Whole())
    check_pattern(TwoRatio())
    with pytest.raises(PluginContractError, match="pass a `scope` that fits"):
        check_pattern(TwoRatio(), scope=[tensor for tensor in pattern_scope() if "recurrent" not in tensor.name])


class TestTwoRatio(PatternChecks):
    """As an author would inherit it."""

    plugin = TwoRatio(recurrent=2.0)
    scope = pattern_scope()[:2]
