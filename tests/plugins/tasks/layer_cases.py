"""What scripts of own models do with one layer, whichever the framework; they lie beside this file and import it."""

import numpy as np


def compared(model, inputs, outputs, computed_by):
    """How far two arithmetics are from the framework's own outputs, which layers they computed, and what they left.

    Args:
        outputs: (model, inputs) -> arrays.
        computed_by: of the framework.
    """
    from harness.api import NumberFormat
    from harness.fixed_point.own import Fixed, Measuring

    def by(arithmetic):
        with computed_by(model, arithmetic) as done:
            found = outputs(model, inputs)
        return [float(np.abs(a - b).max()) for a, b in zip(own, found, strict=True)], sorted(done)

    form = NumberFormat(accumulator_bits=48)
    own = outputs(model, inputs)
    measuring = Measuring(form)
    unrounded, done = by(measuring)
    fixed = by(Fixed(form, measuring.exponents()))[0] if done else unrounded
    again = outputs(model, inputs)
    same = all(np.array_equal(a, b) for a, b in zip(own, again, strict=True))
    return {"done": done, "unrounded": max(unrounded), "fixed": max(fixed), "as before": same}


def assert_computed(found, computed):
    """The layers named, and no others, were computed, to rounding as the framework does it; it is back in its place."""
    assert found["done"] == computed
    assert found["unrounded"] < 2e-6
    assert found["fixed"] < 0.005
    assert (found["fixed"] > found["unrounded"]) == bool(computed)
    assert found["as before"]
