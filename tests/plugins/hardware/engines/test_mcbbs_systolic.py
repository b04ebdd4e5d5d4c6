from fractions import Fraction

import numpy as np
import pytest
from harness_plugins.hardware.engines.mcbbs_systolic import McbbsSystolic
from harness_plugins.hardware.engines.mcbbs_systolic.latency import (
    Array,
    Numbers,
    Window,
    best_latency,
    blocks_per_tap,
    latency,
)
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Conditions, Convolution, Part, Product

SMALL = {"cluster": 1, "range_clusters": 4, "parallel_clusters": 2, "layer_overhead_us": 0}


def clustered(rng, rows, channels, taps, kept, cluster=1, clusters=4):
    """`kept` of every `clusters` clusters of neighbouring channels, columns in the order (channel, tap)."""
    ranges = channels // (cluster * clusters)
    chosen = rng.random((rows, taps, ranges, clusters)).argsort(axis=-1) < kept
    by_channel = np.repeat(chosen.reshape(rows, taps, -1), cluster, axis=2)  # (rows, taps, channels)
    return by_channel.swapaxes(1, 2).reshape(rows, -1)


def part(mask, banks=None, name="layer.kernel"):
    return Part(name, *mask.shape, mask, int(np.count_nonzero(mask)), banks)


def vector(*parts):
    return Product("layer", parts)


def convolution(mask, channels, kernel, output, stride=1):
    geometry = Convolution(channels, kernel, stride, output)
    return Product("layer", (part(mask),), pixels=output[0] * output[1], convolution=geometry)


def run(engine, product, budget=128, **conditions):
    shape = engine.fixed_shape([product], budget)
    return engine.simulate(product, shape, Conditions(**conditions)), shape


def test_a_vector_by_hand():
    # 8 outputs on 4 rows: 2 passes. 2 of 4 stay of 16 channels, 8 in a span: 2 * 16 / 8 = 4 blocks.
    mask = clustered(np.random.default_rng(0), 8, 16, 1, 2)
    found, _ = run(McbbsSystolic(pe_rows=4, pe_columns=1, **SMALL), vector(part(mask)))

    assert found.parts["compute"] + found.parts["tail"] == 2 * 4
    assert found.parts["feed_stall"] == 0
    assert found.parts["fill_drain"] == 1 + 1  # 16 inputs and 8 outputs of 2 bytes, a block of 64 bytes each


def test_a_convolution_by_hand():
    # One tile of 2 rows x 1 pixel per column, 2 columns: 9 taps * 1 * (2 of 4 in 1 range of 8 channels: 2 blocks).
    mask = clustered(np.random.default_rng(0), 4, 8, 9, 2)
    product = convolution(mask, 8, (3, 3), (2, 2))
    found, _ = run(McbbsSystolic(pe_rows=4, pe_columns=2, **SMALL), product)

    assert found.parts["compute"] + found.parts["tail"] == 9 * 2 * 1 * 2
    assert found.parts["fill_drain"] == 4 * 4 + 2 * 2  # 4 x 4 input pixels, 2 x 2 output pixels, one block each


def test_the_published_array_on_one_layer_of_vgg_16():
    """512 to 512 channels at 14 x 14, 75 % sparse: 8 blocks per tap, 22 passes of 24 filters."""
    window = Window((512,), 512, (3, 3), 1, (14, 14), (1,))
    found = best_latency(window, Array(), Numbers(word_bytes=71))

    assert blocks_per_tap(window, Array()) == 8
    assert found.compute == 9 * 8 * 22 * 2 * 14
    assert found.tile == (2, 14)


def test_a_tile_replaces_the_best_only_if_it_is_more_than_a_tenth_faster():
    window = Window((64,), 64, (3, 3), 1, (14, 14), (2,))
    found = best_latency(window, Array(), Numbers())
    every = [latency(window, Array(), Numbers(), wide, high).total for wide in (1, 2) for high in range(1, 15)]

    assert min(every) <= found.total <= min(every) / Fraction(9, 10)


def test_a_layer_of_fewer_channels_than_a_block_runs_any_mask_as_if_dense():
    rng = np.random.default_rng(0)
    product = convolution(rng.random((8, 3 * 9)) < 0.4, 3, (3, 3), (4, 4))
    engine = McbbsSystolic()
    found, _ = run(engine, product, 2688)
    dense, _ = run(engine, convolution(np.ones((8, 27), dtype=bool), 3, (3, 3), (4, 4)), 2688)

    assert engine.refusal(product) is None
    assert found.cycles == dense.cycles


@pytest.mark.parametrize("kept", [0, 1, 2, 3, 4])
def test_more_clusters_take_more_cycles(kept):
    mask = clustered(np.random.default_rng(0), 8, 64, 1, kept)
    found, _ = run(McbbsSystolic(pe_rows=4, pe_columns=1, **SMALL), vector(part(mask)))

    assert found.parts["compute"] + found.parts["tail"] == 2 * kept * 8


def test_clusters_of_two_share_an_index():
    mask = clustered(np.random.default_rng(0), 8, 64, 1, 1, cluster=2)
    one = run(McbbsSystolic(cluster=2, parallel_clusters=4), vector(part(mask)), weight_bits=8)[0]

    assert one.stored_words == mask.sum()
    assert one.stored_bits == mask.sum() * (8 + Fraction(4, 2))


def test_two_tensors_of_different_sparsity_run_side_by_side():
    rng = np.random.default_rng(0)
    product = vector(part(clustered(rng, 8, 16, 1, 1)), part(clustered(rng, 8, 24, 1, 3), name="layer.other"))
    engine = McbbsSystolic(pe_rows=8, pe_columns=1, **SMALL)
    found, _ = run(engine, product)

    assert engine.refusal(product) is None
    assert found.parts["compute"] + found.parts["tail"] == 1 * 2 + 3 * 3


def test_a_range_that_is_cut_off_may_keep_fewer():
    mask = np.tile(np.array([1, 0, 1, 0, 1, 0], dtype=bool), (6, 1))  # 2 of 4, then 1 of 2
    engine = McbbsSystolic(pe_rows=6, pe_columns=1, **SMALL)

    assert engine.refusal(vector(part(mask))) is None
    whole = np.tile(np.array([1, 0, 1, 0, 1, 0, 1, 0], dtype=bool), (6, 1))
    assert run(engine, vector(part(mask)))[0].cycles == run(engine, vector(part(whole)))[0].cycles


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.tile([1, 0, 0, 0, 1, 1, 0, 0], 4), "keeps 1 to 2"),
        (np.tile([1, 1, 1, 1, 0, 0, 0, 0], 4), "keeps 0 to 4"),
    ],
)
def test_uneven_ranges_are_refused_with_what_they_keep(mask, reason):
    refusal = McbbsSystolic().refusal(vector(part(np.tile(mask.astype(bool), (3, 1)))))

    assert refusal == f"it runs clusters of 1 input channels, equally many of every 4, and layer.kernel {reason}"


def test_parts_of_clusters_are_refused():
    mask = clustered(np.random.default_rng(0), 8, 64, 1, 1, cluster=2)
    mask[0, np.flatnonzero(mask[0])[0]] = False

    assert "layer.kernel keeps parts of clusters" in McbbsSystolic(cluster=2).refusal(vector(part(mask)))


def test_banks_along_the_taps_of_a_filter_are_refused():
    """2 of 4 neighbouring columns of a 2 x 2 filter are taps of one channel, not channels."""
    mask = np.random.default_rng(0).random((8, 32, 4)).argsort(axis=-1) < 2
    product = convolution(mask.reshape(8, -1), 32, (2, 2), (3, 3))

    assert "it runs clusters of 1 input channels" in McbbsSystolic().refusal(product)


def test_an_unknown_geometry_is_refused():
    product = Product("layer", (part(np.ones((4, 64), dtype=bool)),), pixels=9)

    assert McbbsSystolic().refusal(product) == "it tiles convolutions, and the geometry of layer is not known"


def test_filters_wider_than_the_input_tile_are_refused():
    product = convolution(np.ones((4, 3 * 121), dtype=bool), 3, (11, 11), (4, 4))

    assert McbbsSystolic().refusal(product) == "its input tile is 31 x 8 pixels, and layer has 11 x 11 taps"


def test_counts_alone_are_enough_only_where_the_banks_are_the_ranges():
    told = Product("layer", (Part("layer.kernel", 8, 64, None, 8 * 32, banks=16),))
    untold = Product("layer", (Part("layer.kernel", 8, 64, None, 8 * 32),))
    engine = McbbsSystolic()

    assert engine.refusal(told) is None
    assert "of layer.kernel only the number of kept weights is known" in engine.refusal(untold)


@given(
    rows=st.integers(1, 40), ranges=st.integers(1, 12), kept=st.integers(0, 4), side=st.integers(1, 9),
    kernel=st.sampled_from([1, 2, 3]), stride=st.sampled_from([1, 2]), budget=st.integers(1, 400),
    bandwidth=st.sampled_from([None, 0.3, 5.0, 70.2]),
)  # fmt: skip
def test_laws(rows, ranges, kept, side, kernel, stride, budget, bandwidth):
    mask = clustered(np.random.default_rng(0), rows, 4 * ranges, kernel**2, kept)
    product = convolution(mask, 4 * ranges, (kernel, kernel), (side, side), stride)
    engine = McbbsSystolic(parallel_clusters=2)
    conditions = Conditions(bytes_per_cycle=bandwidth)
    assert engine.refusal(product) is None

    for shape in engine.shapes([product], budget):
        found = engine.simulate(product, shape, conditions)
        assert shape.multipliers <= budget
        assert all(cycles >= 0 for cycles in found.parts.values())
        assert found.cycles >= engine.least_cycles(product, shape)
        assert engine.least_cycles(product, shape) * shape.multipliers >= product.nnz * product.pixels
        assert found.busy.max(initial=0) <= found.cycles
        assert found.busy.sum() * 2 >= product.nnz * product.pixels
        assert found.stored_words >= product.nnz
        assert engine.expect(product, shape, conditions).cycles == found.cycles


def test_less_bandwidth_is_never_faster():
    mask = clustered(np.random.default_rng(0), 64, 64, 1, 2)
    speeds = [run(McbbsSystolic(), vector(part(mask)), 2688, bytes_per_cycle=speed)[0].cycles for speed in (2, 8, 32)]

    assert speeds == sorted(speeds, reverse=True) and speeds[0] > speeds[-1]


def test_an_unknown_bandwidth_is_said():
    mask = clustered(np.random.default_rng(0), 64, 64, 1, 2)
    found, _ = run(McbbsSystolic(), vector(part(mask)))

    assert any("off-chip bandwidth is not known" in note for note in found.notes)
    assert found.parts["memory_stall"] == 0


def test_the_overhead_per_layer_is_a_launch_in_cycles_of_the_clock():
    mask = clustered(np.random.default_rng(0), 64, 64, 1, 2)
    found, _ = run(McbbsSystolic(), vector(part(mask)), clock_mhz=242.0)

    assert float(found.parts["launch"]) == pytest.approx(44.2 * 242)


def test_the_fixed_shape_is_the_published_array_as_far_as_the_budget_goes():
    product = vector(part(np.ones((64, 64), dtype=bool)))

    assert str(McbbsSystolic().fixed_shape([product], 5000)) == "pe_rows=24 pe_columns=7 multipliers_per_pe=16"
    assert McbbsSystolic().fixed_shape([product], 2688).multipliers == 2688
    assert McbbsSystolic().fixed_shape([product], 1024).multipliers == 9 * 7 * 16
    assert McbbsSystolic(pe_rows=30, pe_columns=2).shapes([product], 16)[0].multipliers == 30 * 2 * 16


def test_a_vector_gets_one_column():
    product = vector(part(np.ones((64, 64), dtype=bool)))

    assert {shape["pe_columns"] for shape in McbbsSystolic().shapes([product], 2688)} == {1}


def test_the_published_buffers_take_about_three_quarters_of_its_m20k():
    """1,785 M20K are published; the three double buffers alone take 1,324 blocks of 40 x 512."""
    found, _ = run(McbbsSystolic(), vector(part(np.ones((64, 64), dtype=bool))), 2688)
    blocks = sum(-(-ram.width // 40) * -(-ram.depth // 512) * ram.count for ram in found.rams)

    assert blocks == 2 * 7 * 13 * 2 + 24 * 20 * 2
    assert 0.6 < blocks / 1785 < 1


def test_banks_that_the_pattern_tells_are_the_ranges():
    rng = np.random.default_rng(0)
    mask = (rng.random((24, 12, 10)).argsort(axis=-1) < 3).reshape(24, 120)
    product = Product("layer", (Part("matrix", 24, 120, mask, int(mask.sum()), banks=12),))
    engine, given = McbbsSystolic(), McbbsSystolic(range_clusters=10)

    assert engine.refusal(product) is None and McbbsSystolic(range_clusters=4).refusal(product) is not None
    shape = engine.fixed_shape([product], 256)
    assert engine.simulate(product, shape, Conditions()) == given.simulate(product, shape, Conditions())
