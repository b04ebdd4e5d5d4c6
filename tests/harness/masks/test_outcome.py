"""What is told by finished masks alone."""

import numpy as np
from harness_plugins.patterns.block import Block
from harness_plugins.patterns.unstructured import Unstructured
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Axis, Tensor
from harness.masks.beforehand import why_skipped
from harness.masks.outcome import why_missed


def matrix(name, rows, cols):
    return Tensor(
        name=name,
        layer=name.split(".")[0],
        role="lstm",
        rows=Axis(label=f"{name}.rows", size=rows),
        cols=Axis(label=f"{name}.cols", size=cols),
    )


ONE, OTHER = matrix("lstm_0.kernel", 8, 20), matrix("lstm_0.recurrent_kernel", 8, 12)
SCOPE = (ONE, OTHER)


def best(tensor, sparsity):
    kept = round(tensor.size * (1 - sparsity))
    return (np.arange(tensor.size) < kept).reshape(tensor.shape)


def masks(one, other):
    return {ONE.name: best(ONE, one), OTHER.name: best(OTHER, other)}


def test_masks_as_they_were_asked_for_are_no_miss():
    assert why_missed(masks(0.5, 0.5), Unstructured(), "uniform", SCOPE, 0.5) is None


def test_an_emptied_tensor_is_named_though_the_total_is_right():
    emptied = masks(1, 0)
    target = ONE.size / (ONE.size + OTHER.size)

    reason = why_missed(emptied, Unstructured(), "global", SCOPE, target)

    assert "lstm_0.kernel (8 x 20)" in reason and "'global'" in reason and "`uniform`" in reason


def test_one_ranking_may_prune_tensors_differently():
    uneven = masks(1 - 108 / ONE.size, 1 - 20 / OTHER.size)  # 128 of the 256 weights

    assert why_missed(uneven, Unstructured(), "global", SCOPE, 0.5) is None
    assert "lstm_0.kernel" in why_missed(uneven, Unstructured(), "uniform", SCOPE, 0.5)


def test_a_strategy_that_ends_early_is_found_out():
    reason = why_missed(masks(0.375, 0.375), Unstructured(), "uniform", SCOPE, 0.75)

    assert "0.375 where 0.75 was asked for" in reason


def test_a_strategy_that_never_prunes_is_found_out():
    assert "0 where 0.5" in why_missed({}, Unstructured(), "uniform", SCOPE, 0.5)


def test_what_is_off_by_just_the_tolerance_is_no_miss_and_half_a_weight_of_a_ranking_is_none():
    assert why_missed(masks(0.75, 0.75), Unstructured(), "uniform", SCOPE, 0.5, 0.25) is None
    assert why_missed(masks(0.75, 0.75), Unstructured(), "uniform", SCOPE, 0.5, 0.2499)
    assert why_missed(masks(0.5, 0.5), Unstructured(), "global", SCOPE, 0.5 + 0.5 / 256, 0.0) is None
    assert why_missed(masks(0.5, 0.5), Unstructured(), "global", SCOPE, 0.5 + 0.6 / 256, 0.0)


def test_shares_are_judged_tensor_by_tensor():
    shares = {OTHER.name: 0.25}

    assert why_missed(masks(0.5, 0.25), Unstructured(), shares, SCOPE, 0.5) is None
    assert OTHER.name in why_missed(masks(0.5, 0.28), Unstructured(), shares, SCOPE, 0.5)


@given(
    rows=st.integers(2, 40),
    cols=st.integers(2, 40),
    height=st.integers(1, 16),
    width=st.integers(1, 16),
    sparsity=st.sampled_from([0.25, 0.5, 0.75, 0.9]),
    seed=st.integers(0, 99),
)
def test_what_runs_and_is_accepted_is_within_the_tolerance(rows, cols, height, width, sparsity, seed):
    pattern, tensor = Block(height=min(height, rows), width=min(width, cols)), matrix("a.kernel", rows, cols)
    skipped = why_skipped(pattern, "uniform", (tensor,), sparsity)
    if pattern.layout(rows, cols).quota(sparsity) == 0:
        assert skipped
        return
    mask = pattern.mask(np.random.default_rng(seed).random((rows, cols)), sparsity)
    off = abs(1 - np.count_nonzero(mask) / mask.size - sparsity)

    missed = why_missed({tensor.name: mask}, pattern, "uniform", (tensor,), sparsity)

    assert (missed is None) == (off <= 0.02 + 1e-9)
    if skipped:  # only what no mask could have reached is refused before it is there
        assert missed
