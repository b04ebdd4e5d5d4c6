"""Patterns that are others under certain parameters, and what each of the declared ones keeps."""

import numpy as np
import pytest
from harness_plugins.patterns.balanced_2d import Balanced2D
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.block import Block
from harness_plugins.patterns.channel import Channel
from harness_plugins.patterns.column_balanced import ColumnBalanced
from harness_plugins.patterns.csb import CSB
from harness_plugins.patterns.density_bound_block import DensityBoundBlock
from harness_plugins.patterns.filter import Filter
from harness_plugins.patterns.load_balanced import LoadBalanced
from harness_plugins.patterns.mcbbs import MCBBS
from harness_plugins.patterns.n_m import NM
from harness_plugins.patterns.row_balanced import RowBalanced
from harness_plugins.patterns.shared_index_banks import SharedIndexBanks
from harness_plugins.patterns.tile import Tile
from harness_plugins.patterns.unstructured import Unstructured
from harness_plugins.patterns.vector import Vector
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import Axis, ShapeError, Tensor
from harness.testing import check_pattern, score_matrices, sparsities

MATRICES = score_matrices(rows_multiple_of=4, cols_multiple_of=8, max_rows=12, max_cols=24)


def same(first, second, scores, sparsity):
    assert np.array_equal(first.mask(scores, sparsity), second.mask(scores, sparsity))


@given(scores=MATRICES, sparsity=sparsities())
@settings(deadline=None, max_examples=60)
def test_patterns_that_are_other_patterns(scores, sparsity):
    rows, cols = scores.shape

    same(MCBBS(cluster=1, range_clusters=4), BankBalanced(bank_size=4), scores, sparsity)
    same(SharedIndexBanks(rows_sharing=1, banks=4), BankBalanced(banks=4), scores, sparsity)
    same(Balanced2D(height=1, width=cols), RowBalanced(), scores, sparsity)
    same(Balanced2D(height=1, width=4), BankBalanced(bank_size=4), scores, sparsity)
    same(Balanced2D(height=rows, width=cols), Unstructured(), scores, sparsity)
    same(Tile(height=1), Unstructured(), scores, sparsity)
    same(Block(height=1, width=1), Unstructured(), scores, sparsity)
    same(LoadBalanced(pes=1), Unstructured(), scores, sparsity)
    same(LoadBalanced(pes=rows), RowBalanced(), scores, sparsity)
    same(Filter(), Block(height=1, width=cols), scores, sparsity)
    same(Channel(), Block(height=rows, width=1), scores, sparsity)
    same(Vector(length=rows), ColumnBalanced(), scores, sparsity)


@given(scores=MATRICES)
@settings(deadline=None, max_examples=30)
def test_patterns_that_are_n_m_at_its_own_sparsity(scores):
    same(BankBalanced(bank_size=4), NM(n=2, m=4), scores, 0.5)
    same(DensityBoundBlock(most=2, size=4), NM(n=2, m=4), scores, 0.5)
    same(MCBBS(cluster=1, range_clusters=4), NM(n=1, m=4), scores, 0.75)


@given(scores=MATRICES, sparsity=sparsities(), pes=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_processing_elements_hold_the_rows_dealt_to_them_one_by_one(scores, sparsity, pes):
    by_column = ColumnBalanced(pes=pes).mask(scores, sparsity)
    whole = LoadBalanced(pes=pes).mask(scores, sparsity)

    assert len({tuple(by_column[pe::pes].sum(axis=0).tolist()) for pe in range(pes)}) == 1 or sparsity == 0
    assert len({int(whole[pe::pes].sum()) for pe in range(pes)}) == 1 or sparsity == 0
    assert len(set(by_column.sum(axis=0).tolist())) == 1


def test_rows_that_do_not_divide_by_the_elements_are_dealt_all_the_same():
    mask = LoadBalanced(pes=4).mask(np.random.default_rng(0).random((10, 6)), 0.5)

    assert [int(mask[pe::4].sum()) for pe in range(4)] == [8, 8, 8, 8]  # half up of 15 / 2, in 18 or 12 weights
    check_pattern(LoadBalanced(pes=3), [(10, 6), (13, 5)])
    check_pattern(ColumnBalanced(pes=3), [(10, 6), (13, 5)])


def test_more_elements_than_rows_are_refused():
    with pytest.raises(ShapeError, match=r"rows=3 cannot be split into 4 banks; set `row_banks` to at most 3"):
        LoadBalanced(pes=4).mask(np.ones((3, 3)), 0.5)


@given(scores=MATRICES, sparsity=sparsities())
@settings(deadline=None, max_examples=60)
def test_no_density_bound_block_keeps_more_than_its_bound_once_it_is_reached(scores, sparsity):
    pattern = DensityBoundBlock(most=2, size=8)
    mask = pattern.mask(scores, sparsity)

    kept = mask.reshape(len(scores), -1, 8).sum(axis=2)
    if sparsity >= 0.75:
        assert kept.max() <= 2
    assert 1 - mask.mean() == pytest.approx(pattern.reachable(*scores.shape, sparsity))


def test_a_density_bound_block_may_keep_fewer_than_its_bound():
    scores = np.array([[9.0, 8, 7, 6, 1, 1, 1, 1]])

    assert DensityBoundBlock().mask(scores, 0.75).tolist() == [[True, True] + [False] * 6]
    assert DensityBoundBlock().mask(scores, 0.625).tolist() == [[True, True, False, False, True, False, False, False]]


@given(scores=MATRICES, sparsity=sparsities())
@settings(deadline=None, max_examples=60)
def test_every_compressed_structured_block_is_a_product_of_rows_and_columns(scores, sparsity):
    pattern = CSB(height=4, width=8)
    high, wide = pattern.kernel(sparsity)
    mask = pattern.mask(scores, sparsity)

    for block in mask.reshape(len(scores) // 4, 4, -1, 8).swapaxes(1, 2).reshape(-1, 4, 8):
        assert (block.any(axis=1).sum(), block.any(axis=0).sum()) == (high, wide)
        assert np.array_equal(block, np.outer(block.any(axis=1), block.any(axis=0)))


def test_a_channel_is_all_taps_of_a_convolution_and_one_column_of_an_lstm():
    def tensor(**cols):
        return Tensor(name="k", layer="l", role="conv", rows=Axis(label="o", size=2), cols=Axis(label="i", **cols))

    scores = np.array([[9.0, 1, 1, 1, 3, 3, 3, 3]] * 2)

    conv = Channel().for_tensor(tensor(size=8, repeat=4)).mask(scores, 0.5)
    dense = Channel().for_tensor(tensor(size=8)).mask(scores, 0.5)

    assert conv.tolist() == [[True] * 4 + [False] * 4] * 2  # a tie of means: the lower channel stays
    assert dense[0].tolist() == [True, False, False, False, True, True, True, False]
