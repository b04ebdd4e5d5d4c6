"""The checks for plugin authors find what they are there to find."""

import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings

from harness.api import (
    Component,
    Constant,
    Cubic,
    Frame,
    Pattern,
    PluginContractError,
    Prune,
    Rewind,
    ShapeError,
    Strategy,
    Train,
)
from harness.testing import check_component, check_pattern, check_strategy, score_matrices, sparsities


class Good(Pattern):
    """Unstructured, for the others to spoil."""

    name: ClassVar[str] = "good"

    def frame(self, rows, cols):
        return Frame()


class Counts(Good):
    """Keeps one too many."""

    def mask(self, scores, sparsity):
        mask = super().mask(scores, sparsity)
        mask.ravel()[np.argmin(mask)] = True
        return mask


class Integers(Good):
    """Answers ones and zeros."""

    def mask(self, scores, sparsity):
        return super().mask(scores, sparsity).astype(np.int8)


class Scribbles(Good):
    """Works in place."""

    def mask(self, scores, sparsity):
        scores *= 2
        return super().mask(scores, sparsity)


class UpperTies(Good):
    """Keeps ties at the higher index."""

    def mask(self, scores, sparsity):
        return super().mask(scores[::-1, ::-1], sparsity)[::-1, ::-1]


class Restless(Good):
    """Keeps other weights at every sparsity."""

    def mask(self, scores, sparsity):
        mask = super().mask(scores, sparsity)
        return np.roll(mask, int(100 * sparsity), axis=1)


class Thresholds(Good):
    """Compares with an absolute number first."""

    def mask(self, scores, sparsity):
        return super().mask(np.minimum(scores, 1.0), sparsity)


class Picky(Good):
    """Takes no shape at all."""

    def frame(self, rows, cols):
        raise ShapeError("never")


def test_a_good_pattern_passes():
    check_pattern(Good())


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        (Counts(), "the sparsity 0.25 that it calls reachable"),
        (Integers(), "a bool array"),
        (Scribbles(), "the scores to be left as they were"),
        (UpperTies(), "ties at the lower index"),
        (Thresholds(), "four times the scores|its highest scores to stay"),
        (Picky(), "at least one of these shapes"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_spoilt_pattern_is_found_out(pattern, sentence):
    with pytest.raises(PluginContractError, match=sentence):
        check_pattern(pattern)


def test_a_pattern_outside_the_frame_is_not_held_to_it_but_to_the_rest():
    check_pattern(UpperTies(), follows_frame=False)
    with pytest.raises(PluginContractError, match="a subset of a lower one"):
        check_pattern(Restless(), follows_frame=False)


class Program(Strategy):
    """A strategy with a given program."""

    name: ClassVar[str] = "program"
    how: str = "good"

    def program(self, recipe, sparsity):
        dense = Train(epochs=recipe.epochs, lr=recipe.learning_rate)
        late = Cubic(final=sparsity, begin=0, end=recipe.epochs + 1, every=10)
        programs = {
            "good": (dense, Prune(sparsity=sparsity)),
            "dense": (dense,),
            "elsewhere": (dense, Prune(sparsity=sparsity / 2)),
            "falling": (dense, Prune(sparsity=sparsity), Prune(sparsity=sparsity / 2), Prune(sparsity=sparsity)),
            "future": (dense, Prune(sparsity=sparsity), Rewind(to=recipe.epochs + 1)),
            "late": (Train(epochs=recipe.epochs, lr=recipe.learning_rate, sparsity=late),),
            "words": (dense, "prune"),
        }
        return programs[self.how]


class Fickle(Program):
    """Another rate every time."""

    asked: ClassVar[list[int]] = []

    def program(self, recipe, sparsity):
        self.asked.append(1)
        return (*super().program(recipe, sparsity), Train(epochs=1, lr=Constant(rate=1 / len(self.asked))))


class Boastful(Program):
    """Names a hyper-parameter that it does not have."""

    def hyper_parameters(self):
        return ("how", "temperature")


def test_a_good_strategy_passes():
    check_strategy(Program())


@pytest.mark.parametrize(
    ("strategy", "sentence"),
    [
        (Program(how="dense"), "the target to be reached at the end, got 0.0"),
        (Program(how="elsewhere"), "the target to be reached at the end, got 0.25"),
        (Program(how="falling"), "sparsities that do not fall, got 0.25 after 0.5"),
        (Program(how="future"), "rewinds into the past, got 2 after 1 epochs"),
        (Program(how="late"), "mask updates in steps 0 to 30"),
        (Program(how="words"), "Train, Prune and Rewind phases only, got 'prune'"),
        (Fickle(), "the same program when asked twice"),
        (Boastful(), "hyper-parameters that are fields, got temperature"),
    ],
    ids=str,
)
def test_a_spoilt_strategy_is_found_out(strategy, sentence):
    with pytest.raises(PluginContractError, match=sentence):
        check_strategy(strategy)


class Needy(Good):
    """Has a field without a default."""

    size: int


class Camel(Good):
    """Has a name of the wrong form."""

    name: ClassVar[str] = "CamelCase"


class Loose(Good, frozen=False):
    """Can be changed."""

    size: int = 3


class Forgetful(Good):
    """Makes another one of its parameters."""

    size: int = 3

    def parameters(self):
        return {"size": 4}


@pytest.mark.parametrize(
    ("component", "sentence"),
    [
        (Needy, "a default for every field, got 'Field required'"),
        (Camel, "a snake_case name, got 'CamelCase'"),
        (Loose, "a frozen model"),
        (Forgetful, "its parameters to make it again"),
    ],
)
def test_a_spoilt_component_is_found_out(component: type[Component], sentence):
    check_component(Good)
    with pytest.raises(PluginContractError, match=sentence):
        check_component(component)


def test_a_component_without_words_is_found_out():
    class Silent(Good):
        pass

    Silent.__doc__ = None
    with pytest.raises(PluginContractError, match="a docstring"):
        check_component(Silent)


@given(scores=score_matrices(rows_multiple_of=2, cols_multiple_of=4, levels=3), sparsity=sparsities())
@settings(deadline=None)
def test_random_scores_have_the_asked_shape_and_few_values(scores, sparsity):
    rows, cols = scores.shape

    assert (rows % 2, cols % 4) == (0, 0)
    assert set(np.unique(scores)) <= {0.0, 0.25, 0.5}
    assert 0 <= sparsity < 1


def test_without_hypothesis_the_checks_work_and_the_strategies_say_what_is_missing():
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from harness.testing import check_component, sparsities\n"
        "from harness_plugins.patterns.block import Block\n"
        "check_component(Block)\n"
        "try: sparsities()\n"
        "except Exception as error: print(error)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "which is not installed; run `pip install hypothesis`" in done.stdout
