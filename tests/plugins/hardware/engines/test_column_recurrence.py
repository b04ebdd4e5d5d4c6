"""The recurrence of the column engine against an engine that ticks, hand-worked cases, and laws."""

import numpy as np
import pytest
from column_ticks import tick
from harness_plugins.hardware.engines.column_fifo import recurrence as _columns
from harness_plugins.hardware.engines.column_fifo.recurrence import (
    broadcast_order,
    column_cycles,
    dense_counts,
    pe_counts,
    run_padding,
    scan_idle,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

FLAGS = ("registered", "same_cycle", "late")

entries_of_columns = hnp.arrays(
    np.int64,
    st.tuples(st.integers(1, 12), st.integers(1, 3), st.integers(1, 5)),
    elements=st.sampled_from([0, 0, 0, 1, 2, 5]),
)
flags = st.sampled_from(FLAGS)
masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 6)))


def random_case(rng):
    """One group's or several groups' entries and everything else that `column_cycles` takes."""
    columns, groups, pes = rng.integers(1, 25), rng.integers(1, 4), rng.integers(1, 7)
    counts = rng.binomial(rng.integers(1, 8), rng.random(), size=(columns, groups, pes))
    flag = FLAGS[rng.integers(3)]
    return counts, {
        "depth": int(rng.integers(2 if flag == "late" else 1, 9)),
        "full_flag": flag,
        "least": int(rng.integers(2)),
        "idle": rng.integers(0, 3, size=(columns, groups)) if rng.random() < 0.5 else None,
        "lengths": rng.integers(0, columns + 1, size=groups) if rng.random() < 0.5 else None,
    }


@pytest.fixture(params=["NumPy", "compiled"])
def form(request, monkeypatch):
    """The recurrence in NumPy, and compiled where numba is installed."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    monkeypatch.setattr(_columns, "_worth_compiling", lambda: request.param == "compiled")
    return request.param


@pytest.mark.usefixtures("form")
def test_the_recurrence_equals_the_ticking_engine_on_500_random_cases():
    rng = np.random.default_rng(2)
    for _ in range(500):
        counts, given_ = random_case(rng)
        lengths = [len(counts)] * counts.shape[1] if given_["lengths"] is None else given_["lengths"].tolist()
        ticked = [
            tick(
                counts[:length, group].tolist(),
                given_["depth"],
                given_["full_flag"],
                given_["least"],
                None if given_["idle"] is None else given_["idle"][:length, group].tolist(),
            )
            for group, length in enumerate(lengths)
        ]

        ran = column_cycles(counts, **given_)

        assert ran.finish.tolist() == [group.cycles for group in ticked]
        assert ran.fifo_high_water == max(group.fifo_high_water for group in ticked)
        worked = [pes for pes, length in zip(ran.busy.tolist(), lengths, strict=True) if length]
        assert worked == [list(group.busy) for group in ticked if group.busy]


@pytest.mark.parametrize(
    ("flag", "depth", "cycles"),
    # PE 0 takes 3 cycles for column 0 and 1 for each other. Column 0 starts in cycle 1, column 1 waits in the FIFO
    # until cycle 4; with one slot, column 2 is sent in cycle 4 if the pop is seen at once and in 5 if it is not.
    [("same_cycle", 1, 6), ("registered", 1, 7), ("late", 2, 7), ("registered", 2, 6)],
)
def test_three_columns_on_one_pe_worked_by_hand(flag, depth, cycles):
    counts = np.array([3, 1, 1]).reshape(3, 1, 1)

    ran = column_cycles(counts, depth=depth, full_flag=flag)

    assert ran.cycles == cycles
    assert ran.unlimited.tolist() == [6]
    assert ran.fifo_stall == cycles - 6


@settings(deadline=None)
@given(counts=entries_of_columns, flag=flags, depth=st.integers(2, 8))
def test_a_deeper_fifo_is_never_slower(counts, flag, depth):
    shallow = column_cycles(counts, depth=depth, full_flag=flag)
    deep = column_cycles(counts, depth=depth + 1, full_flag=flag)

    assert (deep.finish <= shallow.finish).all()
    assert (column_cycles(counts, depth=1).finish >= column_cycles(counts, depth=depth).finish).all()


@settings(deadline=None)
@given(counts=entries_of_columns, flag=flags)
def test_a_fifo_for_every_column_leaves_the_slowest_pe_and_the_fill(counts, flag):
    ran = column_cycles(counts, depth=len(counts) + 1, full_flag=flag)

    assert (ran.finish == np.maximum(counts, 1).sum(axis=0).max(axis=1) + 1).all()
    assert (ran.finish == ran.unlimited).all()
    assert ran.fifo_stall == 0


@settings(deadline=None)
@given(counts=entries_of_columns, depth=st.integers(1, 8))
def test_cycles_lie_between_the_slowest_pe_and_the_slowest_pe_of_every_column(counts, depth):
    work = np.maximum(counts, 1)

    finish = column_cycles(counts, depth=depth, full_flag="same_cycle").finish

    assert (finish >= work.sum(axis=0).max(axis=1) + 1).all()
    assert (finish <= work.max(axis=2).sum(axis=0) + 1).all()


@settings(deadline=None)
@given(counts=entries_of_columns, depth=st.integers(2, 6), flag=flags, data=st.data())
def test_more_entries_are_never_faster(counts, depth, flag, data):
    more = counts + data.draw(hnp.arrays(np.int64, counts.shape, elements=st.sampled_from([0, 0, 0, 1, 3])))

    fewer_cycles = column_cycles(counts, depth=depth, full_flag=flag).finish

    assert (column_cycles(more, depth=depth, full_flag=flag).finish >= fewer_cycles).all()


@settings(deadline=None)
@given(counts=entries_of_columns, depth=st.integers(1, 6))
def test_groups_do_not_feel_each_other(counts, depth):
    together = column_cycles(counts, depth=depth)
    alone = [column_cycles(counts[:, [group]], depth=depth) for group in range(counts.shape[1])]

    assert together.finish.tolist() == [ran.cycles for ran in alone]
    assert together.fifo_high_water == max(ran.fifo_high_water for ran in alone)


@settings(deadline=None)
@given(counts=entries_of_columns, depth=st.integers(1, 6), data=st.data())
def test_what_stands_behind_a_groups_last_column_does_not_matter(counts, depth, data):
    columns, groups, _ = counts.shape
    lengths = np.array(data.draw(st.lists(st.integers(0, columns), min_size=groups, max_size=groups)))
    other = np.where((np.arange(columns)[:, None] < lengths)[..., None], counts, 9)

    assert (
        column_cycles(counts, depth=depth, lengths=lengths).finish
        == column_cycles(other, depth=depth, lengths=lengths).finish
    ).all()


@settings(deadline=None)
@given(counts=entries_of_columns, depth=st.integers(1, 8), least=st.integers(0, 1))
def test_the_parts_sum_to_the_cycles_and_none_is_negative(counts, depth, least):
    ran = column_cycles(counts, depth=depth, least=least)

    parts = ran.parts(nonzeros=int(counts.sum()), entries=int(counts.sum()))

    assert sum(parts.values()) + ran.fill == ran.cycles
    assert min(parts.values()) >= 0
    assert ran.busy.max() <= ran.cycles


def test_a_fifo_fills_up_to_its_depth_and_no_further():
    counts = np.ones((40, 1, 2), dtype=np.int64)
    counts[:, 0, 1] = 3

    assert [column_cycles(counts, depth=depth).fifo_high_water for depth in (1, 4, 8)] == [1, 4, 8]


@pytest.mark.parametrize(("flag", "depth", "least"), [("registered", 0, 1), ("late", 1, 2)])
def test_a_fifo_too_shallow_for_its_flag_is_refused(flag, depth, least):
    with pytest.raises(ValueError, match=f"{flag!r} needs a depth of at least {least}, got {depth}"):
        column_cycles(np.ones((2, 1, 1), dtype=np.int64), depth=depth, full_flag=flag)


def test_blocks_of_columns_join_without_a_seam():
    counts = np.random.default_rng(0).poisson(1.0, size=(300, 1, 3))  # longer than a block of columns, and deeper

    cycles = column_cycles(counts, depth=100).cycles

    assert cycles == tick(counts[:, 0].tolist(), 100).cycles


@settings(deadline=None)
@given(mask=masks, pes=st.integers(1, 45))
def test_pe_counts_are_those_of_rows_dealt_in_turn(mask, pes):
    counts = pe_counts(mask, pes)

    assert counts.shape == (pes, mask.shape[1])
    assert (counts == [mask[pe::pes].sum(axis=0) for pe in range(pes)]).all()


def test_pe_counts_do_not_overflow():
    mask = np.ones((70_000, 1), dtype=np.bool_)

    assert pe_counts(mask, 1).tolist() == [[70_000]]
    assert pe_counts(mask, 100).tolist() == [[700]] * 100


def padding_of(slice_of_column, index_bits, trailing_runs):
    """Zeros that run-length coding stores, one weight after the other."""
    stored, run = 0, 0
    for kept in slice_of_column:
        if kept:
            run = 0
            continue
        run += 1
        if run == 1 << index_bits:
            stored, run = stored + 1, 0
    kept_rows = np.flatnonzero(slice_of_column)
    behind = len(slice_of_column) - (kept_rows[-1] + 1 if len(kept_rows) else 0)
    return stored - (behind >> index_bits if trailing_runs == "not_padded" else 0)


@settings(deadline=None)
@given(
    mask=masks,
    pes=st.integers(1, 5),
    index_bits=st.integers(1, 4),
    trailing_runs=st.sampled_from(["padded", "not_padded"]),
)
def test_padding_is_that_of_coding_one_weight_after_the_other(mask, pes, index_bits, trailing_runs):
    padding = run_padding(mask, pes, index_bits, trailing_runs)

    assert padding.tolist() == [
        [padding_of(column, index_bits, trailing_runs) for column in mask[pe::pes].T] for pe in range(pes)
    ]


@pytest.mark.parametrize(
    ("density", "trailing_runs", "factor"),
    # hardware models, section 2: 64-row slices, 4-bit runs [simulated]
    [(0.04, "padded", 1.95), (0.04, "not_padded", 1.56), (0.09, "padded", 1.24), (0.09, "not_padded", 1.19)],
)
def test_padding_of_random_masks_has_the_known_size(density, trailing_runs, factor):
    mask = np.random.default_rng(0).random((64 * 50, 500)) < density

    padding = run_padding(mask, 50, 4, trailing_runs)

    assert 1 + padding.sum() / mask.sum() == pytest.approx(factor, abs=0.01)


@settings(deadline=None)
@given(cols=st.integers(1, 30), groups=st.integers(1, 8), data=st.data())
def test_every_live_column_is_broadcast_once_by_its_own_group(cols, groups, data):
    live = data.draw(hnp.arrays(np.bool_, cols))

    order, lengths = broadcast_order(cols, groups, live)

    for group, length in enumerate(lengths.tolist()):
        mine = np.arange(group, cols, groups)
        assert order[:length, group].tolist() == mine[live[mine]].tolist()


def test_groups_differ_by_at_most_one_column_if_all_are_broadcast():
    assert broadcast_order(11, 4)[1].tolist() == [3, 3, 3, 2]


def test_stretches_of_zeros_cost_a_cycle_each():
    live = np.zeros(20, dtype=np.bool_)
    live[[1, 3, 17]] = True  # stretches of 4: 0 0 | . | . | . | 4; three of zeros between the second and the third
    order, lengths = broadcast_order(20, 1, live)

    assert scan_idle(order, lengths, 4).ravel().tolist() == [0, 0, 3]


@pytest.mark.parametrize("pes", [32, 1024])
def test_the_depth_of_the_fifo_buys_the_known_efficiency(pes):
    # hardware models, section 8: 6000 x 1500, 10 % kept, depths 1, 2, 4, 8, 16 [simulated]
    known = {32: [0.91, 0.95, 0.97, 0.98, 0.99], 1024: [0.24, 0.33, 0.43, 0.48, 0.50]}[pes]
    mask = np.zeros(9_000_000, dtype=np.bool_)
    mask[np.random.default_rng(0).permutation(9_000_000)[:900_000]] = True
    counts = np.ascontiguousarray(pe_counts(mask.reshape(6000, 1500), pes).T)[:, None]

    ran = [column_cycles(counts, depth=depth, full_flag="same_cycle") for depth in (1, 2, 4, 8, 16)]

    assert [900_000 / pes / one.cycles for one in ran] == pytest.approx(known, abs=0.006)
    assert ran[3].cycles == pytest.approx({32: 28_590, 1024: 1_845}[pes], rel=0.01)


@pytest.mark.parametrize(("rows", "pes"), [(10, 4), (3, 8), (300, 1), (7, 7), (70_000, 1)])
def test_dense_counts_are_those_of_a_mask_that_keeps_everything(rows, pes):
    counted, known = pe_counts(np.ones((rows, 2), dtype=np.bool_), pes), dense_counts(rows, 2, pes)

    np.testing.assert_array_equal(known, counted)
    assert known.dtype == counted.dtype
