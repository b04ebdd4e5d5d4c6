"""Evaluation in fixed point: equal, bit for bit, to an engine written down in integers."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.api import (
    LSTM,
    Activation,
    Conv2D,
    Dense,
    Embedding,
    Flatten,
    Network,
    NumberFormat,
    NumPyOperations,
    Operands,
    Pool2D,
    lstm_outputs,
)
from harness.fixed_point.integers import Tapped, cell_operands, layer_integers, requantised_as, tapped
from harness.fixed_point.network import FixedArithmetic, FloatArithmetic, Pass, step_exponents
from harness.fixed_point.quantise import exponent, quantised, shared

_spec = importlib.util.spec_from_file_location("integer_engine", Path(__file__).with_name("integer_engine.py"))
engine = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(engine)

OPS = NumPyOperations()

FORMATS = (
    NumberFormat(),
    NumberFormat(weight_bits=8, activation_bits=8),
    NumberFormat(weight_bits=6, activation_bits=6, scaling="row"),
    NumberFormat(weight_bits=4, activation_bits=8, scaling="row"),
    NumberFormat(weight_bits=4, activation_bits=4),
    NumberFormat(weight_bits=8, activation_bits=8, accumulator_bits=12),  # wraps
)


def language_model(words=11, units=6):
    return Network(
        layers=(
            Embedding(name="embedding", words=words, features=units),
            LSTM(name="lstm_0", inputs=units, units=units, input_label="embedding.features"),
            LSTM(name="lstm_1", inputs=units, units=units + 1, input_label="lstm_0.units"),
            Dense(name="softmax", inputs=units + 1, units=words, role="softmax", input_label="lstm_1.units"),
        )
    )


def convolutional():
    return Network(
        layers=(
            Conv2D(name="conv", inputs=2, outputs=3, kernel=(3, 2), stride=2, padding=1, input_label="pixels"),
            Activation(function="relu"),
            Pool2D(size=2),
            Flatten(),
            Dense(name="dense", inputs=3 * 2 * 2, units=5, input_label="conv.channels", input_repeat=4),
        ),
        input_shape=(2, 8, 7),
    )


def weights_of(network, seed, scale=0.8):
    rng = np.random.default_rng(seed)
    found = {t.name: (scale * rng.standard_normal(t.shape)).astype(np.float32) for t in network.tensors()}
    for name, weight in found.items():
        if weight.ndim == 2 and "table" not in name:
            weight[rng.random(weight.shape) < 0.5] = 0
    return found


def calibrated(network, weights, inputs, form):
    measuring = FloatArithmetic(OPS, network, weights, form)
    run = Pass(network, {n.removesuffix(".table"): OPS.array(w) for n, w in weights.items() if n.endswith(".table")})
    run.logits(inputs, measuring)
    return step_exponents(measuring.seen, form.activation_bits)


def logits(network, weights, inputs, form, exponents, ops=OPS):
    arithmetic = FixedArithmetic(ops, network, weights, form, exponents)
    run = Pass(network, {n.removesuffix(".table"): ops.array(w) for n, w in weights.items() if n.endswith(".table")})
    return ops.numpy(run.logits(inputs, arithmetic)), arithmetic.wrapped


@pytest.mark.parametrize("form", FORMATS, ids=NumberFormat.label)
def test_a_language_model_equals_the_integer_engine_bit_for_bit(form):
    network = language_model()
    weights = weights_of(network, 3)
    words = np.random.default_rng(0).integers(0, 11, (1, 40))
    exponents = calibrated(network, weights, words, form)

    found, wrapped = logits(network, weights, words, form, exponents)

    x = weights["embedding.table"][words[0]]
    for name in ("lstm_0", "lstm_1"):
        x = engine.lstm(x, weights, name, exponents, form)
    ints = engine.vector(x, exponents["softmax"], form.activation_bits)
    expected, units = engine.sums(weights["softmax.kernel"], weights["softmax.bias"], ints, exponents["softmax"], form)
    assert np.array_equal(found, expected * np.ldexp(1.0, units))
    assert (wrapped > 0) == (form.accumulator_bits == 12)


@pytest.mark.parametrize("form", FORMATS, ids=NumberFormat.label)
def test_a_convolutional_network_equals_the_integer_engine_bit_for_bit(form):
    network = convolutional()
    weights = weights_of(network, 5)
    images = np.random.default_rng(1).standard_normal((3, 2, 8, 7)).astype(np.float32)
    exponents = calibrated(network, weights, images, form)

    found, _ = logits(network, weights, images, form, exponents)

    bits = form.activation_bits
    for image, row in zip(images, found, strict=True):
        padded = np.zeros((2, 10, 9), dtype=np.int64)
        padded[:, 1:-1, 1:-1] = engine.vector(image, exponents["conv"], bits)
        patches = np.array([padded[:, y : y + 3, x : x + 2].ravel() for y in (0, 2, 4, 6) for x in (0, 2, 4, 6)])
        acc, units = engine.sums(weights["conv.kernel"], weights["conv.bias"], patches, exponents["conv"], form)
        maps = np.maximum(acc * np.ldexp(1.0, units), 0).T.reshape(3, 2, 2, 2, 2).max(axis=(2, 4))
        ints = engine.vector(maps.ravel(), exponents["dense"], bits)[None]
        expected, units = engine.sums(weights["dense.kernel"], weights["dense.bias"], ints, exponents["dense"], form)
        assert np.array_equal(row, (expected * np.ldexp(1.0, units))[0])


@pytest.mark.parametrize("at_once", [1, 22, 10**6])
@pytest.mark.parametrize("make", [language_model, convolutional])
def test_logits_in_pieces_are_those_of_the_whole(make, at_once):
    network, form, rng = make(), FORMATS[-1], np.random.default_rng(2)
    weights = weights_of(network, 3)
    batches = [rng.integers(0, 11, (2, 5)) for _ in range(2)]
    if make is convolutional:
        batches = [rng.standard_normal((5, 2, 8, 7)).astype(np.float32) for _ in range(2)]
    tables = {name.removesuffix(".table"): weight for name, weight in weights.items() if name.endswith(".table")}
    exponents = calibrated(network, weights, batches[0], form)
    whole, parted = Pass(network, tables), Pass(network, tables)
    by, again = (FixedArithmetic(OPS, network, weights, form, exponents) for _ in range(2))

    for batch in batches:  # a state is carried from one to the next
        pieces = list(parted.pieces(batch, again, at_once))

        assert np.array_equal(np.concatenate(pieces), whole.logits(batch, by))
        assert max(map(len, pieces)) <= max(1, at_once // network.layers[-1].units)
    assert again.wrapped == by.wrapped


def test_sixteen_bits_are_close_to_float_and_fewer_are_farther():
    network = language_model()
    weights = weights_of(network, 3)
    words = np.random.default_rng(0).integers(0, 11, (2, 30))
    exact = OPS.numpy(
        Pass(network, {"embedding": OPS.array(weights["embedding.table"])}).logits(
            words, FloatArithmetic(OPS, network, weights)
        )
    )

    def error(bits):
        form = NumberFormat(weight_bits=bits, activation_bits=bits, accumulator_bits=40)
        return np.abs(
            logits(network, weights, words, form, calibrated(network, weights, words, form))[0] - exact
        ).mean()

    assert error(16) < 0.001 < error(8) < error(4)


@given(st.floats(1e-6, 1e6), st.integers(2, 16))
def test_the_step_is_the_smallest_that_holds_the_range(largest, bits):
    top = 2 ** (bits - 1) - 1

    found = exponent(largest, bits)

    assert largest <= top * 2.0**found
    assert largest > top * 2.0 ** (found - 1)


@given(st.integers(2, 16), st.integers(0, 2**32 - 1), st.sampled_from(["tensor", "row"]))
def test_rounded_weights_are_within_half_a_step_and_pruned_ones_stay_zero(bits, seed, scaling):
    weights = np.random.default_rng(seed).standard_normal((5, 9))
    weights[weights < -0.5] = 0
    weights[0] = 0

    integers, exponents = quantised(weights, NumberFormat(weight_bits=bits, scaling=scaling))

    steps = np.ldexp(1.0, exponents)[:, None]
    assert (np.abs(integers * steps - weights) <= steps / 2).all()
    assert (integers[weights == 0] == 0).all()
    assert np.abs(integers).max(initial=0) < 2 ** (bits - 1)


def test_a_percentile_clips_what_lies_outside_and_makes_the_steps_finer():
    weights = np.concatenate([np.linspace(0.01, 1, 99), [50.0]])[None]

    rough, _ = quantised(weights, NumberFormat(weight_bits=8))
    fine, exponents = quantised(weights, NumberFormat(weight_bits=8, percentile=98))

    assert len(set(fine[0])) > len(set(rough[0]))
    assert fine[0, -1] * 2.0 ** exponents[0] < 50


def test_a_codebook_has_so_many_values_and_rounds_to_the_nearest_of_them():
    weights = np.random.default_rng(0).standard_normal((20, 30))
    weights[np.abs(weights) < 0.7] = 0

    found = shared(weights, 16)

    values = np.unique(found[found != 0])
    assert 14 <= len(values) <= 16
    assert ((found == 0) == (weights == 0)).all()
    kept = weights[weights != 0]
    nearest = values[np.abs(kept[:, None] - values).argmin(axis=1)]
    assert np.allclose(found[weights != 0], nearest)
    assert ((found - weights) ** 2).sum() < 0.1 * (weights**2).sum() / 16


def test_a_codebook_larger_than_its_values_is_refused():
    with pytest.raises(ValueError, match="fewer values than `weight_bits` can tell apart, got 16 values of 4 bits"):
        NumberFormat(weight_bits=4, codebook=16)


def test_a_vector_gets_a_coarser_step_where_sums_would_fill_the_accumulator():
    network, form = language_model(), NumberFormat()
    weights = {name: weight * 30 for name, weight in weights_of(network, 3).items()}
    words = np.random.default_rng(0).integers(0, 11, (1, 60))
    measuring = FloatArithmetic(OPS, network, weights, NumberFormat(accumulator_bits=24))
    run = Pass(network, {"embedding": OPS.array(weights["embedding.table"])})
    run.logits(words, measuring)
    narrow = NumberFormat(accumulator_bits=24)

    _, without = logits(network, weights, words, narrow, step_exponents(measuring.seen, form.activation_bits))
    _, wrapped = logits(network, weights, words, narrow, measuring.exponents())

    assert without > 0
    assert wrapped == 0


# --- one layer as integers ------------------------------------------------------------------------------------------


def tap(network, weights, inputs, form, layer):
    """A layer's integers, what it was multiplied with and its sums, for the first item of a batch."""
    exponents = calibrated(network, weights, inputs, form)
    arithmetic = Tapped(OPS, network, weights, form, exponents)
    arithmetic.watch(layer)
    tables = {n.removesuffix(".table"): OPS.array(w) for n, w in weights.items() if n.endswith(".table")}
    Pass(network, tables).logits(inputs, arithmetic)
    vectors, sums = tapped(arithmetic, 7, exponents[layer])
    integers = layer_integers(network, weights, layer, form, exponents)
    after = requantised_as(network, layer, form, exponents)
    shifts = np.zeros_like(integers.units) if after.exponent is None else after.exponent - integers.units
    operands = Operands(
        layer, integers.weights, integers.bias, shifts, after.bits or form.accumulator_bits, vectors, form
    )
    return operands, sums, integers.units


@pytest.mark.parametrize("form", FORMATS, ids=NumberFormat.label)
@pytest.mark.parametrize("layer", ["lstm_0", "lstm_1", "softmax"])
def test_a_layer_of_a_language_model_is_the_same_in_integers(form, layer):
    network = language_model()
    words = np.random.default_rng(0).integers(0, 11, (2, 9))

    operands, sums, units = tap(network, weights_of(network, 3), words, form, layer)

    assert operands.vectors.shape == (7, operands.weights.shape[1])
    assert np.array_equal(operands.sums * np.ldexp(1.0, units), sums)
    if layer == "softmax":
        assert np.array_equal(operands.outputs, operands.sums)  # logits are not rounded
    else:
        places = np.clip(np.floor(sums * 256 + 0.5), -2048, 2047)
        assert np.array_equal(operands.outputs, places)


@pytest.mark.parametrize("form", FORMATS, ids=NumberFormat.label)
@pytest.mark.parametrize("layer", ["lstm_0", "lstm_1"])
def test_a_whole_lstm_layer_is_the_same_in_integers(form, layer):
    network, words = language_model(), np.random.default_rng(0).integers(0, 11, (1, 9))
    weights = weights_of(network, 3)
    operands, _, _ = tap(network, weights, words, form, layer)
    exponents = calibrated(network, weights, words, form)
    units = weights[f"{layer}.recurrent_kernel"].shape[1]
    cell = cell_operands(units, form, exponents[layer], exponents[f"{layer}.state"])
    inputs = operands.vectors[:, :-units] * 2.0 ** exponents[layer]

    found = lstm_outputs(replace(operands, cell=cell))

    expected = engine.lstm(inputs, weights, layer, exponents, form)
    assert np.array_equal(found * 2.0 ** (2 - 2 * form.activation_bits), expected)


@pytest.mark.parametrize("form", FORMATS, ids=NumberFormat.label)
def test_results_of_a_convolution_are_what_the_next_layer_reads(form):
    network = convolutional()
    weights = weights_of(network, 5)
    images = np.random.default_rng(1).standard_normal((1, 2, 8, 7)).astype(np.float32)
    arithmetic = Tapped(OPS, network, weights, form, calibrated(network, weights, images, form))
    arithmetic.watch("dense")
    Pass(network, {}).logits(images, arithmetic)
    read, _ = tapped(arithmetic, 1, calibrated(network, weights, images, form)["dense"])

    operands, _, _ = tap(network, weights, images, form, "conv")

    assert operands.outputs.shape == (7, 3)  # of 16 positions
    maps = np.maximum(operands.outputs, 0)
    # The first window of every channel: positions (0, 0), (0, 1), (1, 0) and (1, 1) of 4 x 4.
    assert maps[[0, 1, 4, 5]].max(axis=0).tolist() == read.reshape(3, 2, 2)[:, 0, 0].tolist()
