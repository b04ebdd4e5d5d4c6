from fractions import Fraction

import numpy as np
import pytest
from harness_plugins.hardware.engines.csr_stream import CsrStream
from harness_plugins.hardware.engines.csr_stream.stream import expected_largest, fit
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Conditions, EngineShape, Part, Product

BARE = {"occupancy": 1.0, "start_up_us": 0.0}


def matrix(mask):
    return Product("layer", (Part("layer.kernel", *mask.shape, mask, int(np.count_nonzero(mask))),))


def shape(channels, pairs=8):
    return EngineShape((("channels", channels), ("pairs_per_cycle", pairs)), channels * pairs)


def test_a_case_by_hand():
    """Rows of 3, 1, 2, 5, 4 weights on two channels: 3 + 2 + 4 against 1 + 5; two pairs per cycle at half the rate."""
    mask = np.zeros((5, 6), dtype=bool)
    for row, kept in enumerate((3, 1, 2, 5, 4)):
        mask[row, :kept] = True
    found = CsrStream(pairs_per_cycle=2, occupancy=0.5, start_up_us=1.5).simulate(
        matrix(mask), shape(2, 2), Conditions(clock_mhz=100)
    )

    assert found.cycles == 9 + 150
    assert found.parts == {
        "compute": Fraction(15, 4),
        "occupancy": Fraction(15, 4),
        "pe_imbalance": Fraction(3, 2),
        "memory_stall": 0,
        "launch": 150,
    }
    assert found.last == 4


def test_memory_decides_when_it_is_slower():
    mask = np.ones((16, 100), dtype=bool)
    found = CsrStream(**BARE).simulate(matrix(mask), shape(16), Conditions(bytes_per_cycle=4))

    assert found.cycles == 1600 * 8 / 4
    assert found.parts["memory_stall"] == 3200 - Fraction(1600, 128)


def test_an_unknown_bandwidth_is_said():
    found = CsrStream().simulate(matrix(np.ones((16, 10), dtype=bool)), shape(16), Conditions())

    assert "off-chip bandwidth is not known: pairs are taken to arrive in time" in found.notes


def test_padding_is_stored_and_streamed():
    product = matrix(np.ones((16, 100), dtype=bool))
    plain = CsrStream(**BARE).simulate(product, shape(4), Conditions(bytes_per_cycle=1))
    padded = CsrStream(padding=0.25, **BARE).simulate(product, shape(4), Conditions(bytes_per_cycle=1))

    assert padded.cycles == plain.cycles * Fraction(5, 4)
    assert padded.stored_bits == 1600 * 64 * Fraction(5, 4)


def test_nothing_kept_costs_the_start_up_alone():
    product = matrix(np.zeros((3, 5), dtype=bool))

    for found in (
        CsrStream().simulate(product, shape(2), Conditions()),
        CsrStream().expect(product, shape(2), Conditions()),
    ):
        assert found.cycles == found.parts["launch"] == 244 * 200


def test_the_two_calibration_points_of_hisparse_are_reproduced():
    for sparsity, gops in ((0.5, 21.9), (0.95, 5.7)):
        kept = round(512 * 33000 * (1 - sparsity))
        product = Product("spmv", (Part("spmv.kernel", 512, 33000, None, kept),))
        conditions = Conditions(clock_mhz=237, bytes_per_cycle=258e3 / 237)
        found = CsrStream().expect(product, CsrStream().fixed_shape([product], 128), conditions)

        assert 2 * kept / (float(found.cycles) / 237) / 1e3 == pytest.approx(gops, rel=0.01)


@given(
    rows=st.integers(1, 40), cols=st.integers(1, 60), density=st.floats(0, 1), channels=st.integers(1, 20),
    occupancy=st.floats(0.1, 1), bandwidth=st.sampled_from([None, 0.5, 40.0]),
)  # fmt: skip
def test_laws(rows, cols, density, channels, occupancy, bandwidth):
    product = matrix(np.random.default_rng(0).random((rows, cols)) < density)
    engine = CsrStream(occupancy=occupancy, start_up_us=0)
    conditions = Conditions(bytes_per_cycle=bandwidth)

    for found in (method(product, shape(channels), conditions) for method in (engine.simulate, engine.expect)):
        assert all(cycles >= 0 for cycles in found.parts.values())
        assert found.cycles * channels * 8 >= product.nnz
        assert found.busy is None or found.busy.max() <= found.cycles


@pytest.mark.parametrize("density", [0.05, 0.3])
@pytest.mark.parametrize(("rows", "cols", "channels"), [(64, 50, 4), (100, 80, 16), (33, 100, 16), (10, 200, 16)])
def test_the_expectation_is_close_to_simulated_masks(rows, cols, channels, density):
    rng = np.random.default_rng(0)
    engine = CsrStream(**BARE)
    drawn = [matrix(rng.random((rows, cols)) < density) for _ in range(40)]
    simulated = np.mean([float(engine.simulate(one, shape(channels), Conditions()).cycles) for one in drawn])
    told = Product("layer", (Part("layer.kernel", rows, cols, None, round(rows * cols * density)),))

    assert float(engine.expect(told, shape(channels), Conditions()).cycles) == pytest.approx(simulated, rel=0.04)


def test_shapes_stay_within_the_budget():
    product = matrix(np.ones((50, 8), dtype=bool))

    for budget in (1, 5, 8, 100, 5000):
        assert all(found.multipliers <= budget for found in CsrStream().shapes([product], budget))
        assert CsrStream().fixed_shape([product], budget).multipliers <= budget
    assert [found["channels"] for found in CsrStream().shapes([product], 5000)] == [50, 25, 12, 6, 3, 1]


def test_a_number_of_channels_that_is_given_wins_over_the_budget():
    product = matrix(np.ones((50, 8), dtype=bool))

    assert [str(found) for found in CsrStream(channels=3).shapes([product], 4)] == ["channels=3 pairs_per_cycle=8"]


def test_two_points_give_start_up_and_rate():
    line = fit((100.0, 30.0), (300.0, 50.0))

    assert (line.start_up_us, line.pairs_per_us) == (20.0, 10.0)


def test_points_without_a_rate_are_refused():
    with pytest.raises(ValueError, match="300 pairs in 20 us and 100 in 30 us have no rate"):
        fit((100.0, 30.0), (300.0, 20.0))


def test_the_largest_of_one_is_the_mean():
    assert expected_largest((5.0, 2.0, 1)) == pytest.approx(5.0)
    assert expected_largest((5.0, 0.0, 3)) == 5.0


def test_the_largest_of_several_normal_sums():
    assert expected_largest((0.0, 1.0, 16)) == pytest.approx(1.766, abs=0.001)  # tables of normal order statistics
    assert expected_largest((0.0, 1.0, 15), (0.0, 1.0, 1)) == pytest.approx(1.766, abs=0.001)
    assert expected_largest((0.0, 1.0, 15), (20.0, 1.0, 1)) == pytest.approx(20.0)
