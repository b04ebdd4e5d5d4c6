"""Masks beside their weights, under the names that people and their tools give them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.api import DataError
from harness.formats.mask_names import paired, parts_of
from harness.formats.weights_files import read_weights

PATH = Path("model.npz")
DENSE = np.full((4, 6), 0.5, np.float32)
MASK = np.random.default_rng(0).random((4, 6)) < 0.5

NAMES = [
    ("fc.kernel", "fc.kernel.mask", "fc.kernel"),
    ("fc.weight_orig", "fc.weight_mask", "fc.weight"),
    ("fc.weight", "fc.weight_mask", "fc.weight"),
    ("fc.weight", "fc.mask", "fc.weight"),
    ("fc.weight", "fc.Mask", "fc.weight"),
    ("fc.weight", "fc.weight.MASK", "fc.weight"),
    ("fc.weight", "fc.weightMask", "fc.weight"),
    ("fc.weight", "fc.mask_weight", "fc.weight"),
    ("fc.weight", "masks/fc.weight", "fc.weight"),
    ("fc.weight", "Masks/fc.weight", "fc.weight"),
    ("fc.weight", "mask/fc", "fc.weight"),
    ("fc.weight", "masks.fc.weight", "fc.weight"),
    ("params/fc/kernel", "masks/fc/kernel", "params/fc/kernel"),
    ("model.fc.weight", "masks/fc.weight", "model.fc.weight"),
    ("w", "w_mask", "w"),
    ("weight", "mask", "weight"),
    ("w1", "mask1", "w1"),
    ("layer_2", "mask_2", "layer_2"),
    ("w", "mask_w", "w"),
    ("W", "WMask", "W"),
    ("dense/kernel:0", "prune_low_magnitude_dense/mask:0", "dense/kernel:0"),
    ("prune_low_magnitude_dense/kernel:0", "prune_low_magnitude_dense/mask:0", "prune_low_magnitude_dense/kernel:0"),
    ("dense_1/kernel:0", "prune_low_magnitude_dense_1/mask:0", "dense_1/kernel:0"),
    ("fc.parametrizations.weight.original", "fc.parametrizations.weight.0.mask", "fc.weight"),
    ("0.weight_orig", "0.weight_mask", "0.weight"),
    ("conv1.weight", "conv1_weight_mask", "conv1.weight"),
]


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.float32])
@pytest.mark.parametrize(("weights", "mask", "shown"), NAMES)
def test_a_mask_is_that_of_its_weights_under_every_name_in_use(weights, mask, shown, kind):
    for arrays in ({weights: DENSE, mask: MASK.astype(kind)}, {mask: MASK.astype(kind), weights: DENSE}):
        found = paired(PATH, arrays)

        assert list(found.weights) == [shown]
        np.testing.assert_array_equal(found.weights[shown], MASK)
        assert found.notes == ()


@given(
    layer=st.from_regex(r"[a-z][a-z0-9]{0,6}(_[0-9])?", fullmatch=True).filter(lambda name: "mask" not in name),
    end=st.sampled_from(["weight", "kernel", "Weight"]),
    join=st.sampled_from([".", "/"]),
    word=st.sampled_from(["mask", "MASK", "Mask", "masks"]),
)
def test_any_layer_may_have_a_mask(layer, end, join, word):
    name = f"net{join}{layer}{join}{end}"

    for mask in (f"{name}.{word}", f"{name}_{word}", f"{word}/{name}"):
        assert list(paired(PATH, {name: DENSE, mask: MASK}).weights) == [name]


def test_layers_whose_names_begin_alike_keep_their_own_masks():
    arrays = {f"{layer}/kernel:0": DENSE for layer in ("dense", "dense_1", "dense_10")}
    masks = {f"prune_low_magnitude_{layer}/mask:0": np.eye(4, 6) * 0 + (place == np.arange(6))
             for place, layer in enumerate(("dense", "dense_1", "dense_10"))}  # fmt: skip

    found = paired(PATH, {**masks, **arrays})

    for place, layer in enumerate(("dense", "dense_1", "dense_10")):
        assert found.weights[f"{layer}/kernel:0"][:, place].all() and found.weights[f"{layer}/kernel:0"].sum() == 4


def test_the_masks_of_a_recurrent_layer_come_in_the_order_of_its_matrices():
    """Its kernel and its recurrent kernel may have one shape."""
    square = np.ones((4, 16), np.float32)
    first, second = np.eye(4, 16, dtype=bool), ~np.eye(4, 16, dtype=bool)
    arrays = {
        "lstm/lstm_cell/kernel:0": square, "lstm/lstm_cell/recurrent_kernel:0": square,
        "lstm/lstm_cell/bias:0": square[0], "prune_low_magnitude_lstm/mask:0": first,
        "prune_low_magnitude_lstm/mask_1:0": second,
    }  # fmt: skip

    found = paired(PATH, {name: array for name, array in arrays.items() if array.ndim > 1})

    np.testing.assert_array_equal(found.weights["lstm/lstm_cell/kernel:0"], first)
    np.testing.assert_array_equal(found.weights["lstm/lstm_cell/recurrent_kernel:0"], second)


def test_a_mask_of_whole_channels_is_spread_over_them():
    found = paired(
        PATH, {"conv.weight": np.ones((2, 3, 2, 2)), "conv.weight_mask": np.array([1, 0]).reshape(2, 1, 1, 1)}
    )

    assert found.weights["conv.weight"].reshape(2, -1).sum(axis=1).tolist() == [12, 0]


@pytest.mark.parametrize("shape", [(6, 4), (4, 5), (1, 4, 6)])
@pytest.mark.parametrize("mask", ["fc.weight_mask", "fc.mask", "masks/fc.weight", "masks/fc"])
def test_a_mask_of_another_shape_is_refused(mask, shape):
    with pytest.raises(DataError, match=r"the mask '.*' to have the shape of 'fc.weight', \(4, 6\), got \("):
        paired(PATH, {"fc.weight": DENSE, mask: np.ones(shape)})


def test_a_mask_that_could_be_of_several_weights_is_refused():
    with pytest.raises(DataError, match=r"expected to know whose mask 'gru.mask' is, got gru.input, gru.hidden"):
        paired(PATH, {"gru.input": DENSE, "gru.hidden": DENSE, "gru.mask": MASK})


def test_a_mask_of_rows_alone_is_refused_and_one_of_biases_is_not(tmp_path):
    np.savez(tmp_path / "rows.npz", **{"fc.weight": DENSE, "fc.mask": np.ones(4)})
    np.savez(tmp_path / "bias.npz", **{"fc.weight": DENSE, "fc.bias_orig": np.ones(4), "fc.bias_mask": np.ones(4)})

    with pytest.raises(DataError, match=r"'fc.mask' to have the shape of 'fc.weight', \(4, 6\), got \(4,\)"):
        read_weights(tmp_path / "rows.npz")
    assert read_weights(tmp_path / "bias.npz").skipped == ("fc.bias_orig (4,)", "fc.bias_mask (4,)")


@pytest.mark.parametrize("name", ["fc.weight_mask", "fc.mask", "masks/fc.weight", "fc.mask_scores"])
def test_scores_and_soft_masks_are_refused(name):
    with pytest.raises(DataError, match=rf"expected masks of zeros and ones, got '{name}' with other values"):
        paired(PATH, {"fc.weight": DENSE, name: MASK * 0.5 + 0.1})


def test_masks_without_weights_are_what_is_costed():
    found = paired(PATH, {"a.weight_mask": MASK, "masks/b": ~MASK})

    assert set(found.weights) == {"a.weight_mask", "masks/b"}


@pytest.mark.parametrize(
    "name", ["roi_heads.mask_head.mask_fcn1.weight", "mask_predictor.weight", "decoder.mask_token", "masked_lm.weight"]
)
def test_weights_that_are_only_called_so_are_weights(name):
    found = paired(PATH, {name: DENSE, "other.weight": DENSE})

    assert found.weights[name].all() and found.notes == ()


def test_numbered_masks_are_of_the_weights_with_their_numbers():
    arrays = {"w1": DENSE, "w2": DENSE, "w12": DENSE, "mask1": MASK, "mask2": ~MASK, "mask12": MASK & False}

    found = paired(PATH, arrays)

    assert [int(found.weights[name].sum()) for name in ("w1", "w2", "w12")] == [MASK.sum(), (~MASK).sum(), 0]


def test_a_nameless_mask_of_another_shape_is_refused_beside_a_bias_too():
    with pytest.raises(DataError, match="expected the mask 'mask' to have the shape of 'weight'"):
        paired(PATH, {"weight": DENSE, "bias": np.ones(4, np.float32), "mask": MASK.T})


def test_the_order_of_numbered_masks_is_that_of_their_numbers_wherever_they_stand_in_the_file():
    first, second = MASK, ~MASK
    masks = {"lstm/mask_1:0": second, "lstm/mask:0": first}

    found = paired(PATH, {**masks, "lstm/kernel:0": DENSE, "lstm/recurrent_kernel:0": DENSE}).weights

    np.testing.assert_array_equal(found["lstm/kernel:0"], first)
    np.testing.assert_array_equal(found["lstm/recurrent_kernel:0"], second)


def test_one_mask_and_one_matrix_of_different_shapes_are_refused():
    with pytest.raises(DataError, match=r"the mask 'mask' to have the shape of 'weight'"):
        paired(PATH, {"weight": DENSE, "mask": MASK.T})


@pytest.mark.parametrize("name", ["attn.causal_mask", "h.0.attention_mask", "tgt_mask", "mask"])
def test_a_mask_of_positions_is_left_out_and_told(name):
    found = paired(PATH, {"fc.weight": DENSE, "out.weight": DENSE, name: np.tril(np.ones((9, 9)))})

    assert set(found.weights) == {"fc.weight", "out.weight"}
    assert found.notes == (f"{name} (9, 9) is a mask of no weights in the file: left out",)


@pytest.mark.parametrize(
    "name", ["Adam/m/dense/kernel:0", "dense/kernel/Adam_1", "optimizer.state.0.exp_avg", "dense_kernel_momentum"]
)
def test_what_an_optimiser_keeps_is_left_out_and_told(name):
    found = paired(PATH, {"dense/kernel:0": DENSE, name: DENSE})

    assert list(found.weights) == ["dense/kernel:0"]
    assert found.notes == (f"variables of an optimiser, left out: {name}",)


# --- what is dropped need not be a number ---


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_weight_that_its_mask_drops_may_be_anything(wrong):
    weights = np.where(MASK, 0.5, wrong)

    found = paired(PATH, {"w": weights, "w_mask": MASK})

    np.testing.assert_array_equal(found.weights["w"], MASK)
    assert found.notes == ()


def test_a_kept_weight_that_is_no_number_is_costed_by_its_mask_and_said():
    weights = np.where(MASK, np.inf, 0.5)

    found = paired(PATH, {"w": weights, "w_mask": MASK})

    np.testing.assert_array_equal(found.weights["w"], MASK)
    assert found.notes == (f"{MASK.sum()} weights of w that its mask keeps are NaN or infinite: costed by the mask",)


def test_without_a_mask_a_weight_has_to_be_a_number():
    with pytest.raises(DataError, match="NaN or infinity in 'w'; repair it or give its mask"):
        paired(PATH, {"w": np.where(MASK, np.nan, 0.5), "v_mask": MASK})


# --- whole files ---


def test_all_variables_of_a_keras_model_are_two_layers_with_their_masks(tmp_path):
    rng = np.random.default_rng(1)
    arrays, masks = {}, {}
    for layer, (inputs, outputs) in {"dense": (8, 6), "dense_1": (6, 3)}.items():
        masks[layer] = rng.random((inputs, outputs)) < 0.25
        arrays |= {
            f"{layer}/kernel:0": rng.normal(size=(inputs, outputs)), f"{layer}/bias:0": np.zeros(outputs),
            f"prune_low_magnitude_{layer}/mask:0": masks[layer].astype(np.float32),
            f"prune_low_magnitude_{layer}/threshold:0": np.float32(0.1),
            f"prune_low_magnitude_{layer}/pruning_step:0": np.int64(7),
        }  # fmt: skip
    np.savez(tmp_path / "model.npz", **arrays)

    found = read_weights(tmp_path / "model.npz")

    assert [tensor.shape for tensor in found.workload.tensors] == [(6, 8), (3, 6)]
    for layer, mask in masks.items():
        np.testing.assert_array_equal(found.workload.masks[f"{layer}/kernel:0"], mask.T)
    assert found.notes == () and len(found.skipped) == 6


@pytest.mark.parametrize(("layout", "shape"), [("auto", (6, 4)), ("rows_in", (6, 4)), ("rows_out", (4, 6))])
def test_names_of_keras_say_how_a_matrix_lies_unless_somebody_else_does(tmp_path, layout, shape):
    np.savez(tmp_path / "model.npz", **{"dense/kernel:0": DENSE * MASK})

    found = read_weights(tmp_path / "model.npz", layout=layout)

    assert found.workload.tensors[0].shape == shape and found.notes == ()


@pytest.mark.parametrize("name", ["depthwise_conv2d/depthwise_kernel:0", "depthwise_conv2d/kernel"])
def test_a_depthwise_kernel_of_keras_is_one_small_row_per_output(tmp_path, name):
    """(height, width, channels, outputs of each): a row of nine for every output, none of 9 x channels."""
    kernel = np.zeros((3, 3, 5, 2), np.float32)
    kernel[2, 0, 3, 1] = 1
    np.savez(tmp_path / "model.npz", **{name: kernel})

    found = read_weights(tmp_path / "model.npz")

    assert found.workload.tensors[0].shape == (10, 9)
    assert np.argwhere(found.workload.masks[name]).tolist() == [[3 * 2 + 1, 2 * 3 + 0]]
    assert any("5 groups" in note for note in found.notes)


def test_parts_are_in_lower_case_without_what_frameworks_put_around_them():
    assert parts_of("prune_low_magnitude_Dense_1/Kernel:0") == ("dense_1", "kernel")
    assert parts_of("net.fc.parametrizations.weight.0.mask") == ("net", "fc", "weight", "mask")
    assert parts_of("fcWeight") == ("fc_weight",)
