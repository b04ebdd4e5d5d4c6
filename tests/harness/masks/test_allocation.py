"""Sparsities shared out by a rule."""

import numpy as np
import pytest
from harness_plugins.patterns.row_balanced import RowBalanced
from harness_plugins.patterns.unstructured import Unstructured
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import Axis, Tensor
from harness.masks.allocation import erk_shares, lamp_shares
from harness.masks.beforehand import why_skipped


def matrix(name, rows, cols, taps=1):
    role = "conv" if taps > 1 else "dense"
    axes = Axis(label=f"{name}.out", size=rows), Axis(label=f"{name}.in", size=cols * taps, repeat=taps)
    return Tensor(name=name, layer=name, role=role, rows=axes[0], cols=axes[1])


SCOPE = (matrix("conv", 16, 6, taps=25), matrix("wide", 120, 400), matrix("thin", 10, 84))


@given(sparsity=st.floats(0.0, 0.99))
@settings(deadline=None)
def test_erk_reaches_the_sparsity_in_proportion_to_the_sides(sparsity):
    shares = erk_shares(SCOPE, sparsity)

    kept = sum((1 - shares[tensor.name]) * tensor.size for tensor in SCOPE)
    assert kept == pytest.approx((1 - sparsity) * sum(tensor.size for tensor in SCOPE), abs=1e-6)
    assert all(0 <= share < 1 for share in shares.values())
    if shares["conv"] > 0 and shares["wide"] > 0:  # (16 + 6 + 5 + 5) / 2400 and (120 + 400) / 48000
        assert (1 - shares["conv"]) / (1 - shares["wide"]) == pytest.approx((32 / 2400) / (520 / 48000))


def test_erk_leaves_whole_what_would_need_more_than_its_weights():
    shares = erk_shares(SCOPE, 0.5)

    assert shares["thin"] == 0.0
    assert shares["wide"] > 0.5


def test_lamp_is_worked_by_hand():
    scores = {"a": np.array([[3.0, 1.0]]), "b": np.array([[30.0, 20.0]])}

    # worths: a: 9/9, 1/10; b: 900/900, 400/1300
    assert lamp_shares(scores, 0.25) == {"a": 0.5, "b": 0.0}
    assert lamp_shares(scores, 0.5) == {"a": 0.5, "b": 0.5}


@given(seed=st.integers(0, 99), scale=st.sampled_from([1e-3, 1.0, 1e3]), sparsity=st.sampled_from([0.5, 0.9, 0.98]))
@settings(deadline=None)
def test_lamp_does_not_see_the_scale_of_a_tensor_and_empties_none(seed, scale, sparsity):
    rng = np.random.default_rng(seed)
    scores = {"a": rng.random((10, 20)), "b": rng.random((5, 8))}

    shares = lamp_shares(scores, sparsity)

    assert shares == lamp_shares({**scores, "b": scores["b"] * scale}, sparsity)
    assert max(shares.values()) < 1


def test_lamp_counts_pruned_weights_as_pruned():
    scores = np.where(np.arange(20) < 12, -np.inf, 1.0).reshape(2, 10)

    assert lamp_shares({"a": scores}, 0.6) == {"a": 0.6}


def test_a_rule_that_ranks_across_tensors_needs_a_pattern_that_can():
    assert why_skipped(Unstructured(), "lamp", SCOPE, 0.9) is None
    assert "allocation 'lamp'; use 'uniform'" in why_skipped(RowBalanced(), "lamp", SCOPE, 0.9)
    assert why_skipped(RowBalanced(), "erk", SCOPE, 0.9) is None
