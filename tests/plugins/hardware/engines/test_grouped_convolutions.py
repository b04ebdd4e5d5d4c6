"""Rows that see inputs of their own: a grouped convolution on every engine is one product per group, or is refused."""

from dataclasses import replace

import numpy as np
import pytest
from harness_plugins.hardware.engines.bank import Bank
from harness_plugins.hardware.engines.block import Block
from harness_plugins.hardware.engines.column_fifo import ColumnFifo
from harness_plugins.hardware.engines.csr_stream import CsrStream
from harness_plugins.hardware.engines.dense_compact import DenseCompact
from harness_plugins.hardware.engines.dense_mvm import DenseMvm
from harness_plugins.hardware.engines.dense_systolic import DenseSystolic
from harness_plugins.hardware.engines.mcbbs_systolic import McbbsSystolic
from harness_plugins.hardware.engines.n_m import NM
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Conditions, Convolution, Part, Product


def grouped(groups, rows, cols, mask=None):
    """A 1 x 1 convolution of so many groups, each of rows x cols."""
    geometry = Convolution(groups * cols, (1, 1), 1, (3, 4), groups=groups)
    size = groups * rows * cols
    part = Part("kernel", groups * rows, cols, mask, size if mask is None else int(mask.sum()))
    return Product("layer", (part,), pixels=12, convolution=geometry)


def alone(rows, cols):
    return replace(grouped(1, rows, cols))


SHARING = [DenseMvm(pes=3, lanes=2), NM(n=2, m=4, pes=3, lanes=2), DenseSystolic(array_rows=3, array_cols=2)]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.sampled_from(SHARING))
def test_engines_whose_rows_share_a_vector_run_one_group_after_another(groups, rows, cols, engine):
    product, one = grouped(groups, rows, cols), alone(rows, cols)
    shape = engine.shapes([product], 6)[0]

    run, single = (engine.simulate(each, shape, Conditions()) for each in (product, one))

    tails = (groups - 1) * single.parts["fill_drain"] if engine.whole_layer else 0  # tiles fill and drain each
    assert run.issue_cycles == groups * single.issue_cycles + tails
    assert engine.least_cycles(product, shape) <= run.cycles
    assert run.stored_words == groups * single.stored_words


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_a_bank_engine_deals_rows_of_all_groups_to_its_pes_and_holds_the_inputs_of_all(groups, rows, cols, seed):
    mask = np.random.default_rng(seed).random((groups * rows, cols)) < 0.5
    product = grouped(groups, rows, cols, mask)
    same = replace(product, convolution=replace(product.convolution, groups=1))
    engine, shape = Bank(), Bank(pes=3, lanes=2).shapes([product], 6)[0]

    run, other = (engine.simulate(each, shape, Conditions()) for each in (product, same))

    assert run.parts == other.parts
    assert [ram.depth for ram in run.rams if ram.purpose == "vector"] == [
        groups * ram.depth for ram in other.rams if ram.purpose == "vector"
    ]


def test_a_csr_stream_holds_the_inputs_of_all_groups():
    product = grouped(4, 8, 16)
    shape = CsrStream(channels=2).shapes([product], 16)[0]

    rams = {ram.purpose: ram for ram in CsrStream().simulate(product, shape, Conditions()).rams}

    assert rams["vector"].depth == 4 * 16 // 8


@pytest.mark.parametrize("engine", [ColumnFifo(), McbbsSystolic(), Block(block=(2, 2)), DenseCompact()])
def test_engines_that_cannot_tell_the_groups_apart_refuse_them(engine):
    mask = np.zeros((8, 6), bool)
    mask[:4] = True

    assert "of 4 groups" in engine.refusal(grouped(4, 2, 6, mask))
