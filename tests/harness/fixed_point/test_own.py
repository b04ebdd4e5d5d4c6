"""The layers of a user's own model in fixed point: equal, bit for bit, to an engine written down in integers."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from harness.api import LSTM, Cell, Conv2D, Dense, Network, NumberFormat, NumPyOperations, Recurrence, SpecError, Window
from harness.fixed_point.network import FixedArithmetic, FloatArithmetic, Pass
from harness.fixed_point.own import Fixed, Measuring

_spec = importlib.util.spec_from_file_location("integer_engine", Path(__file__).with_name("integer_engine.py"))
engine = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(engine)

FORMATS = (
    NumberFormat(),
    NumberFormat(weight_bits=8, activation_bits=8),
    NumberFormat(weight_bits=6, activation_bits=6, scaling="row"),
    NumberFormat(weight_bits=4, activation_bits=8, scaling="row"),
    NumberFormat(weight_bits=8, activation_bits=8, accumulator_bits=12),  # wraps
)
every_format = pytest.mark.parametrize("form", FORMATS, ids=NumberFormat.label)


def drawn(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def both(form, run, *, steps=None):
    """What a pass without rounding gives, the same in fixed point, and the steps."""
    measuring = Measuring(form)
    exact = run(measuring)
    # Plain steps, without the bit that calibration leaves free in the accumulator: some sums are to wrap around.
    exponents = measuring.exponents() if steps is None else steps(measuring)
    fixed = Fixed(form, exponents)
    return exact, run(fixed), exponents, fixed


def plain_steps(measuring):
    return {
        name: engine.power(largest, measuring._form.activation_bits)
        for by in measuring._by.values()
        for name, largest in by.seen.items()
    }


@every_format
def test_a_linear_layer_equals_the_integer_engine(form):
    values, weights, bias = drawn(0, (2, 3, 9), (5, 9), (5,))

    _, found, exponents, fixed = both(form, lambda by: by.linear("fc", values, weights, bias), steps=plain_steps)

    ints = engine.vector(values.reshape(6, 9), exponents["fc"], form.activation_bits)
    expected, units = engine.sums(weights, bias, ints, exponents["fc"], form)
    assert np.array_equal(found.reshape(6, 5), expected * np.ldexp(1.0, units))
    assert (fixed.wrapped > 0) == (form.accumulator_bits == 12)


@every_format
def test_a_grouped_dilated_convolution_equals_the_integer_engine(form):
    values, weights, bias = drawn(1, (2, 4, 9, 8), (6, 2 * 3 * 2), (6,))
    window = Window((3, 2), (2, 1), (2, 3), ((1, 2), (0, 3)), groups=2)

    _, found, exponents, _ = both(
        form, lambda by: by.convolution("conv", values, weights, bias, window), steps=plain_steps
    )

    ints = engine.vector(values, exponents["conv"], form.activation_bits)
    padded = np.pad(ints, [(0, 0), (0, 0), (1, 2), (0, 3)])
    assert found.shape == (2, 6, 4, 8)
    for item in range(2):
        for y in range(4):
            for x in range(8):
                seen = padded[item, :, 2 * y : 2 * y + 5 : 2, x : x + 4 : 3]
                for group in range(2):
                    patch = seen[2 * group : 2 * group + 2].reshape(1, -1)
                    # All groups share the step of the whole tensor.
                    wide = np.zeros((1, 24), dtype=np.int64)
                    wide[:, 12 * group : 12 * group + 12] = patch
                    whole = np.concatenate(
                        [
                            np.concatenate([weights[:3], np.zeros((3, 12))], axis=1),
                            np.concatenate([np.zeros((3, 12)), weights[3:]], axis=1),
                        ]
                    )
                    acc, units = engine.sums(whole, bias, wide, exponents["conv"], form)
                    rows = slice(3 * group, 3 * group + 3)
                    assert np.array_equal(found[item, rows, y, x], (acc * np.ldexp(1.0, units))[0, rows])


@every_format
def test_an_lstm_equals_the_integer_engine(form):
    values, kernel, recurrent, bias = drawn(2, (1, 12, 5), (16, 5), (16, 4), (16,))
    cell, zero = Cell("lstm", kernel, recurrent, bias), np.zeros((1, 4))

    _, found, exponents, _ = both(
        form, lambda by: by.recurrent("lstm", values, cell, Recurrence(zero, zero))[0], steps=plain_steps
    )

    weights = {"lstm.kernel": kernel, "lstm.recurrent_kernel": recurrent, "lstm.bias": bias}
    assert np.array_equal(found[0], engine.lstm(values[0], weights, "lstm", exponents, form))


@every_format
def test_a_gru_equals_the_integer_engine(form):
    values, kernel, recurrent, bias, of_h = drawn(3, (1, 12, 5), (12, 5), (12, 4), (12,), (12,))
    cell = Cell("gru", kernel, recurrent, bias, of_h)

    _, found, exponents, _ = both(
        form, lambda by: by.recurrent("gru", values, cell, Recurrence(np.zeros((1, 4))))[0], steps=plain_steps
    )

    expected = engine.gru(values[0], kernel, recurrent, bias, of_h, exponents, form)
    assert np.array_equal(found[0], expected)


def test_the_layers_are_those_of_a_network_of_the_harness():
    """One model, told as a network and as calls of layers: the same bits."""
    form = NumberFormat(weight_bits=8, activation_bits=8)
    values, kernel, recurrent, of_lstm, of_dense, dense = drawn(4, (3, 7, 5), (16, 5), (16, 4), (16,), (6,), (6, 4))
    lstm = LSTM(name="lstm", inputs=5, units=4, input_label="x")
    network = Network(layers=(lstm, Dense(name="dense", inputs=4, units=6, input_label="y")), input_shape=(7, 5))
    weights = {
        "lstm.kernel": kernel, "lstm.recurrent_kernel": recurrent, "lstm.bias": of_lstm,
        "dense.kernel": dense, "dense.bias": of_dense,
    }  # fmt: skip
    cell, zero = Cell("lstm", kernel, recurrent, of_lstm), np.zeros((3, 4))

    def run(by):
        outputs, _ = by.recurrent("lstm", values, cell, Recurrence(zero, zero))
        return by.linear("dense", outputs, dense, of_dense)

    _, found, exponents, _ = both(form, run)

    ops = NumPyOperations()
    measuring = FloatArithmetic(ops, network, weights, form)
    Pass(network, {}).logits(values, measuring)
    arithmetic = FixedArithmetic(ops, network, weights, form, measuring.exponents())
    assert exponents == measuring.exponents()
    assert np.array_equal(found.reshape(-1, 6), Pass(network, {}).logits(values, arithmetic))


def test_a_convolution_is_that_of_a_network_of_the_harness():
    form = NumberFormat(weight_bits=6, activation_bits=7, scaling="row")
    values, weights, bias = drawn(5, (2, 3, 8, 9), (4, 27), (4,))
    layer = Conv2D(name="conv", inputs=3, outputs=4, kernel=(3, 3), stride=2, padding=1, input_label="x")
    network = Network(layers=(layer,), input_shape=(3, 8, 9))
    window = Window((3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)))

    _, found, exponents, _ = both(form, lambda by: by.convolution("conv", values, weights, bias, window))

    arithmetic = FixedArithmetic(
        NumPyOperations(), network, {"conv.kernel": weights, "conv.bias": bias}, form, exponents
    )
    assert np.array_equal(found.reshape(-1, 5), Pass(network, {}).logits(values, arithmetic))


@pytest.mark.parametrize("kind", ["lstm", "gru", "early gru", "rnn", "relu"])
def test_dead_steps_change_nothing_and_repeat_what_was_given(kind):
    gates = {"lstm": 4, "gru": 3, "early gru": 3}.get(kind, 1)
    values, kernel, recurrent, bias = drawn(6, (2, 6, 5), (gates * 4, 5), (gates * 4, 4), (gates * 4,))
    cell = Cell(
        {"early gru": "gru", "relu": "rnn"}.get(kind, kind), kernel, recurrent, bias, resets_after=kind != "early gru",
        function="relu" if kind == "relu" else "tanh",
    )  # fmt: skip
    zero = np.zeros((2, 4))
    live = np.array([[True, True, False, True, False, False], [False, True, True, True, True, True]])

    def run(by, seen=values, flags=live):
        start = Recurrence(zero[: len(seen)], zero[: len(seen)] if kind == "lstm" else None)
        return by.recurrent("r", seen, cell, start, flags)

    form = NumberFormat()
    (exact, _), (found, last), exponents, _ = both(form, run)

    assert np.abs(exact - found).max() < 0.02
    alone, _ = run(Fixed(form, exponents), values[:1, [0, 1, 3]], None)
    assert np.array_equal(found[0], alone[0][[0, 1, 1, 2, 2, 2]])
    assert np.array_equal(last.h[0], alone[0, 2])
    assert np.array_equal(found[1, 0], zero[0])


def test_a_projected_output_is_a_product_of_its_own():
    values, kernel, recurrent, bias, projection = drawn(7, (2, 5, 3), (16, 3), (16, 2), (16,), (2, 4))
    cell = Cell("lstm", kernel, recurrent, bias, projection=projection)

    def run(by):
        return by.recurrent("r", values, cell, Recurrence(np.zeros((2, 2)), np.zeros((2, 4))))[0]

    exact, found, exponents, fixed = both(NumberFormat(), run)

    assert {"r", "r.state", "r.projection"} == set(exponents)
    assert np.abs(exact - found).max() < 0.02
    assert fixed.layers == ("r", "r.projection")


def test_a_layer_that_validation_data_do_not_reach_is_told():
    values, weights = drawn(8, (2, 3), (4, 3))

    with pytest.raises(SpecError, match=r"steps of fixed point come from validation data, and fc runs on the test"):
        Fixed(NumberFormat(), {}).linear("fc", values, weights, None)


def test_no_values_of_a_sequence_give_none():
    (kernel, recurrent, bias) = drawn(9, (4, 3), (4, 4), (4,))

    found, last = Measuring(NumberFormat()).recurrent(
        "r", np.zeros((2, 0, 3)), Cell("rnn", kernel, recurrent, bias), Recurrence(np.ones((2, 4)))
    )

    assert found.shape == (2, 0, 4)
    assert np.array_equal(last.h, np.ones((2, 4)))
