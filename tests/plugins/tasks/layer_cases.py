"""What scripts of own models do with one layer, whichever the framework; they lie beside this file and import it."""

import importlib.util
from pathlib import Path

import numpy as np


def compared(model, inputs, outputs, layers):
    """How far two arithmetics are from the framework's own outputs, which layers they computed, and what they left.

    Args:
        outputs: (model, inputs) -> arrays.
        layers: the module of the framework that has `computed_by`.
    """
    from harness.api import NumberFormat
    from harness.fixed_point.own import Fixed, Measuring

    def by(arithmetic):
        with layers.computed_by(model, arithmetic, folds) as done:
            found = outputs(model, inputs)
        return [float(np.abs(a - b).max()) for a, b in zip(own, found, strict=True)], done

    form = NumberFormat(accumulator_bits=48)
    own = outputs(model, inputs)
    folds = layers.norms_in_layers(model, lambda: outputs(model, inputs))
    measuring = Measuring(form)
    unrounded, done = by(measuring)
    fixed = by(Fixed(form, measuring.exponents()))[0] if done.layers else unrounded
    again = outputs(model, inputs)
    same = all(np.array_equal(a, b) for a, b in zip(own, again, strict=True))
    return {
        "done": sorted(done.layers),
        "folded": done.folded,
        "unrounded": max(unrounded),
        "fixed": max(fixed),
        "as before": same,
    }


def refused(model, first, second, outputs, layers):
    """What is said of a batch that contradicts what the first one has shown."""
    from harness.api import NumberFormat, SpecError
    from harness.fixed_point.own import Measuring

    folds = layers.norms_in_layers(model, lambda: outputs(model, first))
    with layers.computed_by(model, Measuring(NumberFormat()), folds):
        try:
            outputs(model, second)
        except SpecError as error:
            return str(error)
    return ""


def normed_numbers():
    """A linear layer of 18 inputs and its norm, and values for it; as a convolution, 3 x 3 over two channels."""
    rng = np.random.default_rng(5)
    found = {
        "values": rng.normal(size=(6, 18)),
        "weights": rng.normal(size=(4, 18)) * (rng.random((4, 18)) < 0.5),
        "bias": rng.normal(size=4),
        "gamma": rng.normal(size=4),
        "beta": rng.normal(size=4),
        "mean": rng.normal(size=4),
        "variance": rng.random(4) + 0.1,
    }
    return {name: array.astype(np.float32) for name, array in found.items()}


def in_8_bits(model, inputs, outputs, layers):
    """The outputs of a model in 8-bit numbers whose steps come from the same inputs, and the exponents of these."""
    from harness.api import NumberFormat
    from harness.fixed_point.own import Fixed, Measuring

    form = NumberFormat(weight_bits=8, activation_bits=8)
    folds = layers.norms_in_layers(model, lambda: outputs(model, inputs))
    measuring = Measuring(form)
    with layers.computed_by(model, measuring, folds):
        outputs(model, inputs)
    exponents = measuring.exponents()
    with layers.computed_by(model, Fixed(form, exponents), folds):
        found = outputs(model, inputs)[0]
    return {"outputs": np.asarray(found, dtype=np.float64).reshape(6, 4).tolist(), "exponents": exponents}


def expected_in_8_bits(exponent, epsilon):
    """The same of `normed_numbers` by an engine of integers, the norm in the layer's weights and bias."""
    from harness.api import NumberFormat

    engine = integer_engine()
    given = {name: array.astype(np.float64) for name, array in normed_numbers().items()}
    scale = given["gamma"] / np.sqrt(given["variance"] + epsilon)
    weights = given["weights"] * scale[:, None]
    bias = (given["bias"] - given["mean"]) * scale + given["beta"]
    form = NumberFormat(weight_bits=8, activation_bits=8)
    ints = engine.vector(given["values"], exponent, 8)
    sums, units = engine.sums(weights, bias, ints, exponent, form)
    return sums * np.ldexp(1.0, units)


def integer_engine():
    path = Path(__file__).parents[2] / "harness" / "fixed_point" / "integer_engine.py"
    spec = importlib.util.spec_from_file_location("integer_engine", path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def assert_computed(found, computed, folded=None):
    """The layers named, and no others, were computed, to rounding as the framework does it; it is back in its place."""
    assert found["done"] == computed
    assert found["folded"] == (folded or {})
    # Norms of random numbers stretch their values, and the roundings with them.
    assert found["unrounded"] < (2e-6 if folded is None else 2e-5)
    assert found["fixed"] < (0.005 if folded is None else 0.05)
    assert (found["fixed"] > found["unrounded"]) == bool(computed)
    assert found["as before"]
