"""The rounding rule."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import keep_count


@pytest.mark.parametrize(
    ("size", "sparsity", "kept"),
    [
        (50, 0.58, 21),  # int(0.58 * 50) is 28, one too few dropped
        (100, 0.29, 71),
        (100, 0.57, 43),
        (10, 0.9, 1),
        (16, 0.9, 2),
        (5, 0.5, 3),  # half up, where round-half-even keeps 2
        (4, 0.5, 2),
        (3, 0.0, 3),
        (1, 0.6, 0),
        (9_000_000, 0.9, 900_000),
        (10**9, 1e-09, 10**9 - 1),  # written with an exponent
    ],
)
def test_the_count_is_half_up_of_the_exact_product(size, sparsity, kept):
    assert keep_count(size, sparsity) == kept


@given(size=st.integers(0, 10**7), thousandths=st.integers(0, 999))
@settings(deadline=None)
def test_a_decimal_sparsity_is_taken_as_written(size, thousandths):
    exact = Fraction(size * (1000 - thousandths), 1000)

    assert keep_count(size, thousandths / 1000) == int(exact + Fraction(1, 2))


@given(size=st.integers(0, 1000), low=st.floats(0, 1, exclude_max=True), high=st.floats(0, 1, exclude_max=True))
@settings(deadline=None)
def test_a_higher_sparsity_never_keeps_more(size, low, high):
    low, high = sorted((low, high))

    assert keep_count(size, high) <= keep_count(size, low) <= size


def test_the_count_is_within_half_a_weight_of_the_product():
    for percent in range(100):
        sparsity = percent / 100
        exact = 243 * (1 - Decimal(str(sparsity)))

        assert abs(keep_count(243, sparsity) - exact) <= Decimal("0.5")
