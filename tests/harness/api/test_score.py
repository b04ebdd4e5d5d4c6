"""Scores of the interface: what they compute, what they ask for, how they are named and refused."""

from typing import ClassVar

import numpy as np
import pytest
from pydantic import Field, TypeAdapter, ValidationError

from harness.api import AnyScore, Gradient, Magnitude, Measurement, PluginContractError, Random, Score, ScoreInput
from harness.api.score import entry_of


def given(weights, seed=0, **needed):
    weights = np.array(weights, np.float32)
    weights.flags.writeable = False
    return ScoreInput(weights, np.ones(weights.shape, bool), np.random.default_rng(seed), needed)


def test_magnitude_is_the_absolute_weight():
    np.testing.assert_array_equal(Magnitude().scores(given([[-2.0, 0.5]])), [[2.0, 0.5]])


def test_random_scores_come_from_the_generator_alone():
    first, second = (Random().scores(given(np.full((3, 4), shift), 5)) for shift in (0, 1))

    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first)) == 12


def test_gradient_scores_are_the_product_without_underflow():
    scores = Gradient().scores(given([[1e-30, -2.0]], gradients=np.array([[1e-30, 3.0]], np.float32)))

    assert scores[0, 0] == pytest.approx(1e-60, rel=1e-5)
    assert scores[0, 1] == 6.0


def test_batches_are_a_parameter_only_where_something_is_measured():
    assert Magnitude().measurements() == ()
    assert Gradient(batches=3).measurements() == (Measurement(what="gradients", batches=3),)
    assert Gradient(batches=3).identity() != Gradient().identity()
    with pytest.raises(ValidationError):
        Magnitude(batches=3)


def test_the_identity_of_a_score_is_what_it_was_before_scores_were_plugins():
    assert Magnitude().identity() == {"name": "magnitude", "parameters": {}}
    assert Gradient().identity() == {"name": "gradient", "parameters": {"batches": 4}}


@pytest.mark.parametrize("name", ["magnitude", "random", "gradient"])
def test_a_score_of_the_interface_goes_by_its_name(name):
    assert TypeAdapter(AnyScore).validate_python(name).name == name


def test_a_score_is_written_as_a_file_names_it():
    assert entry_of(Gradient()) == "gradient"
    assert entry_of(Gradient(batches=7)) == {"name": "gradient", "batches": 7}


def test_what_is_no_score_is_refused():
    with pytest.raises(ValidationError, match="expected the name of a score"):
        TypeAdapter(AnyScore).validate_python(3)


def test_a_score_of_the_older_interface_is_refused_with_the_way_out():
    with pytest.raises(
        PluginContractError, match=r"a score's method is `scores\(given\)`.*got `scores\(weights, rng\)`"
    ):

        class Old(Score):
            name = "old"

            def scores(self, weights, rng):
                return weights


@pytest.mark.parametrize("needs", ["gradients", ("hessians",)])
def test_needs_that_nobody_knows_are_refused(needs):
    with pytest.raises(PluginContractError, match="`needs` is a tuple of gradients"):
        type(
            "Odd",
            (Magnitude,),
            {"__module__": __name__, "needs": needs, "__annotations__": {"needs": ClassVar[object]}},
        )


def test_a_temperature_is_handed_to_the_backend():
    class Warm(Gradient):
        name: ClassVar[str] = "warm"
        temperature: float = Field(default=20.0)

    assert Warm().measurements() == (Measurement(what="gradients", batches=4, temperature=20.0),)
