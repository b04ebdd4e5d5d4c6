"""The N:M engine against the bank engine, hand-worked cases and laws."""

from fractions import Fraction

import numpy as np
import pytest
from harness_plugins.hardware.engines.bank import Bank
from harness_plugins.hardware.engines.n_m import NM
from harness_plugins.hardware.engines.n_m.groups import group_fill, smallest_group
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from harness.api import Conditions, EngineShape, Part, Product

CONDITIONS = Conditions(weight_bits=16, activation_bits=8)


def part_of(mask, name="kernel", banks=None):
    return Part(name, *mask.shape, mask, int(mask.sum()), banks)


def product_of(*masks, units=None):
    return Product("layer", tuple(part_of(mask, f"part_{index}") for index, mask in enumerate(masks)), units=units)


def shape_of(pes, lanes, n, m):
    return EngineShape((("pes", pes), ("lanes", lanes), ("n", n), ("m", m)), pes * lanes)


def n_of_m(rows, groups, n, m, cols=None, seed=0):
    """A mask with n of every m, cut to `cols` columns."""
    order = np.random.default_rng(seed).random((rows, groups, m)).argsort(axis=-1)
    return (order < n).reshape(rows, groups * m)[:, :cols]


ratios = st.sampled_from([(1, 2), (1, 4), (2, 4), (3, 4), (3, 8), (5, 16), (1, 32)])
sizes = st.integers(1, 7)


@given(ratio=ratios, rows=sizes, groups=sizes, pes=sizes, lanes=sizes, seed=st.integers(0, 99))
def test_it_equals_the_bank_engine_with_banks_of_m_and_k_of_n(ratio, rows, groups, pes, lanes, seed):
    n, m = ratio
    product = product_of(n_of_m(rows, groups, n, m, seed=seed))
    run = NM(n=n, m=m).simulate(product, shape_of(pes, lanes, n, m), CONDITIONS)
    bank = Bank(banks=groups).simulate(product, EngineShape((("pes", pes), ("lanes", lanes)), pes * lanes), CONDITIONS)

    assert run.issue_cycles == -(-rows // pes) * -(-groups // lanes) * n
    assert run.cycles == bank.cycles
    assert run.last == bank.last


@pytest.mark.parametrize(("pes", "lanes"), [(1, 1), (7, 5), (32, 32), (64, 30)])
def test_two_of_four_takes_exactly_half_of_the_dense_cycles(pes, lanes):
    sparse, dense = product_of(n_of_m(100, 75, 2, 4)), product_of(np.ones((100, 300), np.bool_))
    shape = shape_of(pes, lanes, 2, 4)

    halves = [NM().simulate(product, shape, CONDITIONS).issue_cycles for product in (sparse, dense)]
    assert 2 * halves[0] == halves[1]


def test_five_rows_of_three_groups_worked_by_hand():
    product = product_of(n_of_m(5, 3, 2, 4, cols=11))  # the last group has three columns
    kept = product.nnz
    run = NM().simulate(product, shape_of(2, 2, 2, 4), CONDITIONS)

    assert run.issue_cycles == 3 * 2 * 2  # groups of rows, waves, weights of a group
    assert run.parts == {
        "compute": Fraction(kept, 4),
        "zeros": Fraction(5 * 3 * 2 - kept, 4),
        "lane_mismatch": Fraction(5 * 2, 4),  # one lane idles in the second wave
        "tail": 2,  # one PE idles in the third group of rows
        "fill_drain": 5,
    }
    assert run.busy.tolist() == [12, 8]
    assert (run.last, run.last_rows) == (4, 1)
    assert [(ram.purpose, ram.width, ram.depth, ram.count) for ram in run.rams] == [
        ("weights", 2 * (16 + 2), 12, 2),
        ("vector", 4 * 8, 4, 2),
    ]
    assert run.stored_words == 5 * 4 * 2
    assert run.stored_bits == 40 * 18


@given(ratio=ratios, rows=sizes, groups=sizes, cut=st.integers(0, 3), budget=st.integers(1, 200))
def test_every_shape_keeps_the_budget_and_the_laws(ratio, rows, groups, cut, budget):
    n, m = ratio
    product = product_of(n_of_m(rows, groups, n, m, cols=max(1, groups * m - cut)))
    engine = NM(n=n, m=m)

    shapes = engine.shapes([product], budget)
    assert 1 <= len(shapes) <= 20
    for shape in shapes:
        run = engine.simulate(product, shape, CONDITIONS)
        assert shape.multipliers <= budget
        assert min(run.parts.values()) >= 0
        assert engine.least_cycles(product, shape) == run.issue_cycles >= Fraction(product.nnz, shape.multipliers)
        assert run.busy.max() == run.issue_cycles


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (3, 8), (5, 16), (7, 32)])
def test_the_ratio_of_a_mask_is_found(n, m):
    product = product_of(n_of_m(20, 4, n, m))

    assert NM().refusal(product) is None
    assert {(shape["n"], shape["m"]) for shape in NM().shapes([product], 16)} == {(n, m)}


def test_the_smallest_group_is_taken_and_larger_ones_suit_as_well():
    part = part_of(n_of_m(20, 32, 1, 2))

    assert smallest_group(part) == 2
    assert [tuple(group_fill(part, size)) for size in (4, 8, 16, 32)] == [(2, 2), (4, 4), (8, 8), (16, 16)]


def test_single_weights_are_refused_with_what_the_groups_keep():
    mask = np.zeros((40, 12), np.bool_)
    mask[:, 0] = mask[39, 4:7] = True

    assert NM().refusal(product_of(mask)) == (
        "it runs masks with N of every 2, 4, 8, 16 or 32 weights, and part_0 keeps 0 to 3 of 4"
    )


def test_a_mask_narrower_than_a_group_is_not_taken_for_one_group_unless_its_rows_agree():
    uneven = np.array([[1, 1, 0], [0, 0, 0]], np.bool_)
    even = np.array([[1, 1, 0], [0, 1, 1]], np.bool_)

    assert NM().refusal(product_of(uneven)) is not None
    assert NM().refusal(product_of(even)) is None


def test_a_given_ratio_takes_sparser_masks_and_refuses_denser_ones_with_the_count():
    engine = NM(n=2, m=4)
    sparser, denser = product_of(n_of_m(6, 5, 1, 4)), product_of(n_of_m(6, 5, 3, 4))
    shape = engine.fixed_shape([sparser], 4)

    assert engine.refusal(denser) == "it is set to 2 of every 4 weights, and part_0 keeps up to 3 of 4"
    assert engine.refusal(sparser) is None
    run = engine.simulate(sparser, shape, CONDITIONS)
    assert run.cycles == engine.simulate(product_of(n_of_m(6, 5, 2, 4)), shape, CONDITIONS).cycles
    assert run.parts["zeros"] == run.parts["compute"]


def test_one_engine_is_built_for_the_densest_of_its_masks():
    products = [product_of(n_of_m(6, 8, 1, 2)), product_of(n_of_m(6, 2, 3, 8)), product_of(np.ones((6, 8), np.bool_))]
    shape = NM().fixed_shape(products, 1)

    assert (shape["n"], shape["m"]) == (4, 8)  # 1:2 is 4:8
    cycles = [NM().simulate(product, shape, CONDITIONS).issue_cycles for product in products]
    assert cycles == [6 * 2 * 4, 6 * 2 * 4, 6 * 1 * 8]  # 3:8 is padded to 4:8, dense groups pass twice


def test_a_dense_tensor_beside_a_sparse_one_passes_several_times():
    product = product_of(np.ones((4, 8), np.bool_), n_of_m(4, 2, 2, 4), units=1)
    run = NM().simulate(product, shape_of(4, 3, 2, 4), CONDITIONS)

    assert run.issue_cycles == 4 + 2  # waves (dense, dense, 2:4) and (2:4)


def test_statistics_suffice_where_they_tell_the_ratio():
    part = Part("kernel", 6, 20, None, 60, banks=5)
    unknown = Part("kernel", 6, 20, None, 61)
    shape = shape_of(2, 5, 2, 4)

    assert NM().refusal(Product("layer", (part,))) is None
    assert NM().expect(Product("layer", (part,)), shape, CONDITIONS).issue_cycles == 3 * 2
    assert NM().refusal(Product("layer", (unknown,))) == (
        "it runs masks with N of every 2, 4, 8, 16 or 32 weights, and of kernel it is known only how many are kept; "
        "set its `n` and `m`"
    )
    assert NM(n=3, m=4).refusal(Product("layer", (unknown,))) is None
    assert NM(n=2, m=4).refusal(Product("layer", (unknown,))) is not None


@pytest.mark.parametrize(("rows", "cols"), [(1, 8), (8, 1), (1, 1), (5, 33)])
def test_empty_and_dense_masks_of_any_size_run(rows, cols):
    for mask in (np.zeros((rows, cols), np.bool_), np.ones((rows, cols), np.bool_)):
        product = product_of(mask)
        shape = NM().fixed_shape([product], 16)
        run = NM().simulate(product, shape, CONDITIONS)

        assert NM().refusal(product) is None
        assert run.parts["compute"] == Fraction(product.nnz, shape.multipliers)
        assert min(run.parts.values()) >= 0
        assert run == NM().expect(product, shape, CONDITIONS)


def test_fixed_sizes_win_over_the_budget():
    product, engine = product_of(n_of_m(20, 10, 2, 4)), NM(pes=6, lanes=3)

    shapes = (*engine.shapes([product], 4), engine.fixed_shape([product], 4))
    assert {str(shape) for shape in shapes} == {"pes=6 lanes=3 n=2 m=4"}


def test_the_search_finds_the_fastest_split_of_all():
    product, engine = product_of(n_of_m(100, 45, 2, 4)), NM()
    all_splits = [shape_of(pes, lanes, 2, 4) for lanes in range(1, 46) for pes in range(1, 96 // lanes + 1)]

    best = min(engine.least_cycles(product, shape) for shape in engine.shapes([product], 96))
    assert best == min(engine.least_cycles(product, shape) for shape in all_splits)


@given(mask=hnp.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 20))), size=st.integers(1, 9))
def test_fills_agree_with_counting_group_by_group(mask, size):
    groups = [mask[:, left : left + size].sum(axis=1) for left in range(0, mask.shape[1], size)]
    whole = groups[:-1] if mask.shape[1] % size and len(groups) > 1 else groups
    fill = group_fill(Part("kernel", *mask.shape, mask, -1), size)

    assert fill.most == max(counts.max() for counts in groups)
    assert fill.least == min(counts.min() for counts in whole)


def test_a_ratio_is_given_whole_and_below_one():
    with pytest.raises(ValidationError, match="got n=2 and m=None; give both or neither"):
        NM(n=2)
    with pytest.raises(ValidationError, match="got n=5 and m=4; set `n` to at most `m`"):
        NM(n=5, m=4)
