"""The checks for plugin authors find what they are there to find."""

import itertools
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings

from harness.api import (
    Component,
    Constant,
    Cubic,
    Engine,
    EngineShape,
    Frame,
    Pattern,
    PluginContractError,
    Prune,
    Ram,
    ReportColumn,
    Rewind,
    Run,
    ShapeError,
    Strategy,
    Train,
)
from harness.testing import (
    check_column,
    check_component,
    check_engine,
    check_pattern,
    check_strategy,
    engine_products,
    score_matrices,
    sparsities,
)


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


class Serial(Engine):
    """Lanes that take any weight, for the others to spoil."""

    name: ClassVar[str] = "serial"

    def shapes(self, products, budget):
        return [EngineShape((("lanes", budget),), budget)]

    def fixed_shape(self, products, budget):
        return EngineShape((("lanes", budget),), budget)

    def simulate(self, product, shape, conditions):
        compute = Fraction(product.nnz, shape["lanes"])
        depth = -(-product.nnz // shape["lanes"])
        return Run(
            parts={"compute": compute, "tail": depth - compute, "fill_drain": Fraction(3)},
            rams=(Ram("weights", 16, depth, shape["lanes"], stacked=True),),
            stored_bits=Fraction(16 * depth * shape["lanes"]),
            stored_words=Fraction(depth * shape["lanes"]),
            busy=np.full(1, depth),
        )

    def expect(self, product, shape, conditions):
        return self.simulate(product, shape, conditions)


class Negative(Serial):
    """Takes back cycles."""

    def simulate(self, product, shape, conditions):
        run = super().simulate(product, shape, conditions)
        return replace(run, parts={**run.parts, "bonus": Fraction(-1)})


class Floating(Serial):
    """Rounds."""

    def simulate(self, product, shape, conditions):
        run = super().simulate(product, shape, conditions)
        return replace(run, parts={name: float(cycles) for name, cycles in run.parts.items()})


class Miraculous(Serial):
    """Does twice what its multipliers can."""

    def simulate(self, product, shape, conditions):
        return super().simulate(product, EngineShape((("lanes", 2 * shape["lanes"]),), shape.multipliers), conditions)


class Hurried(Serial):
    """Says that it takes at least more than it takes."""

    def least_cycles(self, product, shape):
        return product.size + 1


class Greedy(Serial):
    """Offers one shape too large beside one that fits."""

    def shapes(self, products, budget):
        return [*super().shapes(products, budget), EngineShape((("lanes", budget + 1),), budget + 1)]


class Twofold(Serial):
    """Offers the same shape twice."""

    def shapes(self, products, budget):
        return [*super().shapes(products, budget)] * 2


class Barren(Serial):
    """Offers no shape."""

    def shapes(self, products, budget):
        return []


class Pruning(Serial):
    """Writes to the mask."""

    def simulate(self, product, shape, conditions):
        run = super().simulate(product, shape, conditions)
        for part in product.parts:
            if part.mask is not None:
                part.mask[0] = False
        return run


class Moody(Serial):
    """Takes longer every time."""

    asked: ClassVar[list[int]] = []

    def simulate(self, product, shape, conditions):
        self.asked.append(1)
        run = super().simulate(product, shape, conditions)
        return replace(run, parts={**run.parts, "mood": Fraction(len(self.asked))})


class Lossy(Serial):
    """Forgets to store weights."""

    def simulate(self, product, shape, conditions):
        return replace(super().simulate(product, shape, conditions), stored_words=Fraction(0))


class Busy(Serial):
    """Works longer than it runs."""

    def simulate(self, product, shape, conditions):
        return replace(super().simulate(product, shape, conditions), busy=np.array([product.size + 9]))


class Speechless(Serial):
    """Refuses without a word."""

    def refusal(self, product):
        return ""


class Recluse(Serial):
    """Refuses everything."""

    def refusal(self, product):
        return "it would rather not"


class Guessing(Serial):
    """Expects another time of dense weights than it takes."""

    def expect(self, product, shape, conditions):
        run = super().simulate(product, shape, conditions)
        return replace(run, parts={**run.parts, "guess": Fraction(1)})


def test_a_good_engine_passes():
    check_engine(Serial())
    check_engine(Recluse(), engine_products())  # what it is given, it may refuse


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        (Negative(), "parts of 0 or more, got bonus=-1"),
        (Floating(), "parts that are fractions, got compute="),
        (Miraculous(), "at least the .* cycles of its weights"),
        (Hurried(), "least_cycles of at most"),
        (Greedy(), "1 to 1 multipliers, got 2"),
        (Twofold(), "every shape once"),
        (Barren(), "at least one shape"),
        (Pruning(), "the masks to be left as they were"),
        (Moody(), "the same run when asked twice"),
        (Lossy(), "all .* weights to be stored, got 0"),
        (Busy(), "no PE busy beyond"),
        (Speechless(), "a reason for refusing a product"),
        (Recluse(), "at least one of `engine_products.*to be taken"),
        (Guessing(), "dense weights expected to take the .* cycles simulated"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_spoilt_engine_is_found_out(engine, sentence):
    with pytest.raises(PluginContractError, match=sentence):
        check_engine(engine)


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


ASKED = itertools.count()


class Kept(ReportColumn):
    """What is left of the weights, in percent."""

    name = "kept"

    def value(self, row):
        return None if row.sparsity is None else 100 * (1 - row.sparsity)


def column(**changes):
    return type("Spoilt", (Kept,), {"__doc__": "Spoilt.", "__module__": __name__, **changes})()


@pytest.mark.parametrize(
    ("spoilt", "sentence"),
    [
        (column(value=lambda self, row: float("inf")), "a finite number, a text or None, got inf"),
        (column(value=lambda self, row: object()), "a finite number, a text or None, got <object"),
        (column(value=lambda self, row: None), "a value for at least one of"),
        (column(value=lambda self, row: next(ASKED)), "the same value when asked twice"),
        (column(shown=lambda self, value: value), "a text for .* from `shown`"),
        (column(footnote=lambda self, row: None), "a footnote that is a text"),
        (column(applies=lambda self, rows: None), "`applies` to be true or false"),
        (column(header=7), "a header that is a text, got 7"),
        (column(matters="most"), "`matters` to be one of main, second, extra, got 'most'"),
    ],
    ids=["infinite", "object", "nothing", "fickle", "shown", "footnote", "applies", "header", "matters"],
)
def test_a_spoilt_column_is_found_out(spoilt, sentence):
    check_column(Kept())
    with pytest.raises(PluginContractError, match=sentence):
        check_column(spoilt)


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
