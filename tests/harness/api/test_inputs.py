"""Sums over the inputs of matrices: what positions there are, and what is summed over them."""

import numpy as np
import pytest

from harness.api import LSTM, Activation, Conv2D, Dense
from harness.api.inputs import InputSums, patches

RNG = np.random.default_rng(2)


@pytest.mark.parametrize(("kernel", "stride"), [((1, 1), 1), ((3, 2), 1), ((2, 3), 2)])
def test_a_patch_is_what_one_output_pixel_is_made_of(kernel, stride):
    images = RNG.normal(size=(2, 3, 7, 8))
    high, wide = kernel
    expected = [
        images[n, :, top : top + high, left : left + wide].ravel()
        for n in range(2)
        for top in range(0, 7 - high + 1, stride)
        for left in range(0, 8 - wide + 1, stride)
    ]

    np.testing.assert_array_equal(patches(images, kernel, stride), expected)


@pytest.mark.parametrize("moments", [False, True])
def test_sums_go_over_all_positions_of_all_batches(moments):
    sums = InputSums(moments=moments)
    layer = Dense(name="d", inputs=4, units=2, input_label="x")
    batches = RNG.normal(size=(3, 5, 6, 4)).astype(np.float32)

    for batch in batches:
        sums.see(layer, batch)
        sums.see(Activation(function="relu"), batch)

    rows = batches.reshape(-1, 4).astype(np.float64)
    expected = rows.T @ rows if moments else np.linalg.norm(rows, axis=0)
    assert list(sums.found()) == ["d.kernel"]
    np.testing.assert_allclose(sums.found()["d.kernel"], expected, rtol=1e-12)


def test_a_convolution_sums_over_its_patches():
    sums, images = InputSums(moments=True), RNG.normal(size=(2, 2, 5, 5))

    sums.see(Conv2D(name="c", inputs=2, outputs=3, kernel=(2, 2), input_label="x"), images)

    rows = patches(images, (2, 2), 1)
    np.testing.assert_allclose(sums.found()["c.kernel"], rows.T @ rows)


def test_a_recurrent_matrix_sees_the_outputs_of_one_step_earlier_across_batches():
    sums = InputSums(moments=False)
    layer = LSTM(name="l", inputs=3, units=2, input_label="x")
    inputs, outputs = RNG.normal(size=(2, 4, 5, 3)), RNG.normal(size=(2, 4, 5, 2))  # (batches, batch, steps, features)

    for batch in range(2):
        sums.see(layer, inputs[batch])
        sums.see(layer, outputs[batch])

    earlier = np.concatenate([outputs[0], outputs[1, :, :-1]], axis=1)  # after the zero state, all but the last
    found = sums.found()
    np.testing.assert_allclose(found["l.recurrent_kernel"], np.linalg.norm(earlier.reshape(-1, 2), axis=0))
    np.testing.assert_allclose(found["l.kernel"], np.linalg.norm(inputs.reshape(-1, 3), axis=0))
