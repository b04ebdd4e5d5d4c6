"""Checkpoints whose arrays are not weights: packed here by the rules of their formats, and read back."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from harness.api import DataError
from harness.formats.checkpoints import decoded
from harness.formats.weights_files import read_weights

PATH = Path("model.safetensors")
MOST = 1 << 20


def mask_of(rows, cols, seed=0):
    return np.random.default_rng(seed).random((rows, cols)) < 0.4


def words(fields, bits):
    """Unsigned numbers packed into 32-bit words along the last axis, the lowest bits first."""
    per_word = 32 // bits
    padded = np.pad(fields.astype(np.uint64), [(0, 0), (0, -fields.shape[1] % per_word)])
    shifts = np.arange(per_word, dtype=np.uint64) * np.uint64(bits)
    packed = (padded.reshape(len(fields), -1, per_word) << shifts).sum(axis=-1)
    return packed.astype(np.uint32).view(np.int32)


def around(zeros, mask, bits):
    """Integers that are their zero point where the mask drops them, and something else where it keeps them."""
    return np.where(mask, (zeros + 3) % (1 << bits), zeros)


def found(arrays, name="fc.weight"):
    result = decoded(PATH, arrays, MOST)
    assert list(result.arrays) == [name]
    return result.arrays[name] != 0, result


# --- compressed by places ---


@settings(deadline=None)
@given(
    rows=st.integers(1, 6), cols=st.integers(1, 20), stem=st.sampled_from(["fc", "fc.weight"]), offsets=st.booleans()
)
def test_a_bit_mask_of_compressed_tensors(rows, cols, stem, offsets):
    mask = mask_of(rows, cols)
    arrays = {
        f"{stem}.shape": np.array([[rows], [cols]]),
        f"{stem}.compressed": np.ones(mask.sum(), np.float16),
        f"{stem}.bitmask": np.packbits(mask, axis=-1, bitorder="little"),
    }
    if offsets:
        arrays[f"{stem}.row_offsets"] = np.concatenate([[0], mask.sum(axis=1).cumsum()[:-1]])

    np.testing.assert_array_equal(found(arrays)[0], mask)


@pytest.mark.parametrize("names", [("indptr", "indices", "data"), ("crow_indices", "col_indices", "values"),
                                   ("row_offsets", "column_indices", "values")])  # fmt: skip
def test_compressed_rows_under_the_names_in_use(names):
    from scipy.sparse import csr_matrix

    mask = mask_of(5, 9)
    sparse = csr_matrix(mask.astype(np.float32))
    parts = dict(zip(names, (sparse.indptr, sparse.indices, sparse.data), strict=True))

    arrays = {f"fc.{last}": part for last, part in parts.items()} | {"fc.shape": np.array([5, 9])}

    np.testing.assert_array_equal(found(arrays)[0], mask)


def test_coordinates_of_torch():
    mask = mask_of(5, 9)
    arrays = {"fc.indices": np.argwhere(mask).T, "fc.values": np.ones(mask.sum()), "fc.size": np.array([5, 9])}

    np.testing.assert_array_equal(found(arrays)[0], mask)


# --- quantised ---


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("points", ["symmetric", "packed", "plain", "by order"])
def test_packed_integers_of_compressed_tensors(bits, points):
    mask = mask_of(6, 64)
    middle = 1 << (bits - 1)
    groups = np.random.default_rng(1).integers(0, 1 << bits, (6, 2))
    order = np.arange(64) // 32
    if points == "symmetric":
        groups = np.full((6, 2), middle)
    elif points == "by order":
        order = np.random.default_rng(2).permutation(order)
    arrays = {
        "fc.weight_packed": words(around(groups[:, order], mask, bits), bits),
        "fc.weight_shape": np.array([6, 64]),
        "fc.weight_scale": np.ones((6, 2), np.float16),
    }
    if points in ("packed", "by order"):
        arrays["fc.weight_zero_point"] = words(groups.T, bits).T
    elif points == "plain":
        arrays["fc.weight_zero_point"] = (groups - middle).astype(np.int8)
    if points == "by order":
        arrays["fc.weight_g_idx"] = order.astype(np.int32)

    kept, result = found(arrays)

    np.testing.assert_array_equal(kept, mask)
    assert result.orientation == {"fc.weight": "rows_out"}


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("version", "ordered"), [(1, False), (1, True), (2, False)])
def test_packed_integers_of_gptq(bits, version, ordered):
    """(inputs, outputs), packed along the inputs; the first version stores zero points one too low."""
    mask, middle = mask_of(64, 16), 1 << (bits - 1)
    zeros = np.full((64, 16), middle)
    arrays = {
        "fc.qweight": words(around(zeros, mask, bits).T, bits).T,
        "fc.qzeros": words(zeros[:2] - (version == 1), bits),
        "fc.scales": np.ones((2, 16), np.float16),
    }
    if ordered:
        arrays["fc.g_idx"] = np.random.default_rng(0).permutation(np.arange(64) // 32).astype(np.int32)

    np.testing.assert_array_equal(found(arrays)[0], mask.T)


def test_packed_integers_of_awq():
    """(inputs, outputs), packed along the outputs in the order 0, 2, 4, 6, 1, 3, 5, 7."""
    mask = mask_of(64, 16)
    zeros = np.random.default_rng(1).integers(0, 16, (2, 16))
    order = np.array([0, 2, 4, 6, 1, 3, 5, 7])

    def packed(fields):
        return words(fields.reshape(len(fields), -1, 8)[..., order].reshape(len(fields), -1), 4)

    arrays = {
        "fc.qweight": packed(around(np.repeat(zeros, 32, axis=0), mask, 4)),
        "fc.qzeros": packed(zeros),
        "fc.scales": np.ones((2, 16), np.float16),
    }

    np.testing.assert_array_equal(found(arrays)[0], mask.T)


def test_four_bit_blocks_of_bitsandbytes():
    mask = mask_of(5, 8)
    table = np.linspace(-1, 1, 17)[:-1].astype(np.float32)  # zero at 8
    codes = np.where(mask, 3, 8).ravel()
    state = json.dumps({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [5, 8]})
    arrays = {
        "fc.weight": (codes[0::2] << 4 | codes[1::2]).astype(np.uint8)[:, None],
        "fc.weight.absmax": np.ones(1, np.uint8),
        "fc.weight.quant_map": table,
        "fc.weight.nested_absmax": np.ones(1, np.float32),
        "fc.weight.quant_state.bitsandbytes__nf4": np.frombuffer(state.encode(), np.uint8),
    }

    np.testing.assert_array_equal(found(arrays)[0], mask)


@pytest.mark.parametrize(
    "zeros", [np.array(3), np.array([3]), np.arange(6), np.arange(6)[:, None], np.arange(12).reshape(6, 2)], ids=str
)
def test_integers_around_zero_points(zeros):
    mask = mask_of(6, 8)
    wide = np.repeat(zeros, 4, axis=1) if zeros.shape == (6, 2) else zeros.reshape(-1, 1)
    weights = np.where(mask, 100, wide).astype(np.int8)
    arrays = {"fc.weight": weights, "fc.weight_zero_point": zeros.astype(np.int8)}

    np.testing.assert_array_equal(found(arrays)[0], mask)


@pytest.mark.parametrize("scale", ["weight_scale", "scales"])
def test_signed_bytes_beside_scales_are_the_weights_themselves(scale):
    mask = mask_of(6, 8)

    result = decoded(PATH, {"fc.weight": np.where(mask, -3, 0).astype(np.int8), f"fc.{scale}": np.ones((6, 1))}, MOST)

    np.testing.assert_array_equal(result.arrays["fc.weight"] != 0, mask)


def test_zero_points_beside_names_without_dots():
    arrays = {
        "a": np.full((2, 3), 5, np.int8),
        "a_zero_point": np.int8(5),
        "b": np.ones((2, 3), np.int8),
        "b_zp": np.int8(0),
    }

    result = decoded(PATH, {name: np.asarray(array) for name, array in arrays.items()}, MOST)

    assert {name: int((array != 0).sum()) for name, array in result.arrays.items()} == {"a": 0, "b": 6}


def test_eight_bits_of_quanto_are_weights():
    arrays = {"fc.weight._data": mask_of(4, 6).astype(np.int8), "fc.weight._scale": np.ones((4, 1))}

    np.testing.assert_array_equal(found(arrays)[0], mask_of(4, 6))


# --- factored ---


@pytest.mark.parametrize(
    ("gain", "direction", "name"),
    [
        ("fc.weight_g", "fc.weight_v", "fc.weight"),
        ("fc.parametrizations.weight.original0", "fc.parametrizations.weight.original1", "fc.weight"),
    ],
)
def test_the_gains_of_weight_normalisation_drop_what_they_scale(gain, direction, name):
    mask = mask_of(4, 6)
    gains = np.array([1, 0, 2, 3])[:, None]

    kept, _ = found({gain: gains, direction: mask * 1.0}, name)

    np.testing.assert_array_equal(kept, mask & (gains != 0))


def test_the_vectors_of_spectral_normalisation_are_no_directions():
    arrays = {"fc.weight_orig": mask_of(4, 6) * 1.0, "fc.weight_u": np.ones(4), "fc.weight_v": np.ones(6)}

    assert list(decoded(PATH, arrays, MOST).arrays) == list(arrays)


# --- what cannot be decoded is never costed ---

INTS = np.ones((4, 4), np.int32)

REFUSED = {
    "GPTQ of an unknown version": {
        "qweight": np.ones((4, 32), np.int32),
        "qzeros": words(np.full((1, 32), 3), 4),
        "scales": np.ones((1, 32)),
    },
    "qweight alone": {"qweight": INTS},
    "AQLM": {"codes": INTS, "codebooks": np.ones((1, 4, 1, 8))},
    "EXL2": {"q_weight": INTS, "q_scale": INTS},
    "HQQ": {"W_q": INTS.astype(np.uint8), "scale": np.ones((4, 1))},
    "MXFP4": {"down_proj_blocks": INTS.astype(np.uint8), "down_proj_scales": INTS.astype(np.uint8)},
    "NVFP4": {"weight_packed": INTS.astype(np.uint8), "weight_scale": np.ones((4, 1))},
    "bytes beside scales": {"weight": INTS.astype(np.uint8), "weight_scale": np.ones((4, 1))},
    "2:4 metadata": {"packed": np.ones((4, 4), np.float16), "meta": INTS.astype(np.int16)},
    "values and metadata": {"values": np.ones((4, 4)), "metadata": INTS.astype(np.int16)},
    "bit mask without a shape": {"bitmask": INTS.astype(np.uint8), "compressed": np.ones(3)},
    "rows without a shape": {"indptr": np.array([0, 1]), "indices": np.array([3]), "data": np.ones(1)},
    "bitsandbytes without a state": {"absmax": np.ones(4), "quant_map": np.ones(16)},
    "quanto of four bits": {"_data": INTS.astype(np.uint8), "_scale": np.ones((4, 1))},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_packed_in_a_way_that_is_not_known_is_refused_by_name(kind):
    arrays = {f"layers.0.fc.{last}": array for last, array in REFUSED[kind].items()}

    with pytest.raises(DataError, match=r"model.safetensors: expected .*layers\.0\.fc.*; save"):
        decoded(PATH, {"other.weight": np.ones((2, 2)), **arrays}, MOST)


@pytest.mark.parametrize(
    "arrays",
    [
        {"shape": np.array([4, 9]), "bitmask": np.ones((4, 1), np.uint8)},
        {"shape": np.array([4, 8]), "bitmask": np.ones((4, 1), np.uint8), "compressed": np.ones(9)},
        {"shape": np.array([2**40, 2**40]), "bitmask": np.ones((4, 1), np.uint8)},
        {"shape": np.array([-1, 8]), "bitmask": np.ones((4, 1), np.uint8)},
        {"weight_shape": np.array([4, 4]), "weight_packed": INTS},
        {"shape": np.array([1, 2]), "indptr": np.array([0, 1]), "indices": np.array([5]), "data": np.ones(1)},
        {"weight": INTS.astype(np.int8), "weight_zero_point": np.ones(3, np.int8)},
        {"qweight": np.ones((4, 5), np.int32), "qzeros": np.ones((1, 1), np.int32), "scales": np.ones((1, 8))},
        {
            "qweight": np.ones((64, 4), np.int32),
            "qzeros": np.ones((2, 4), np.int32),
            "scales": np.ones((2, 16)),
        },  # 8 bits
        {"qweight": np.ones((4, 8), np.int16), "qzeros": np.ones((1, 1), np.int16), "scales": np.ones((1, 8))},
    ],
    ids="-".join,
)
def test_arrays_that_do_not_fit_each_other_are_refused(arrays):
    with pytest.raises(DataError, match=r"model\.safetensors: expected"):
        decoded(PATH, {f"fc.{last}": array for last, array in arrays.items()}, MOST)


def test_arrays_that_are_only_called_so_are_left_alone():
    arrays = {
        "meta": np.ones((3, 4)),
        "head.scale": np.ones(3),
        "head.weight": np.ones((3, 4)),
        "size": np.ones((3, 4)),
    }

    assert list(decoded(PATH, arrays, MOST).arrays) == list(arrays)


# --- whole files ---


def test_a_decoded_checkpoint_says_so(tmp_path):
    mask = mask_of(6, 64)
    save_file(
        {
            "fc.weight_packed": words(np.where(mask, 3, 8), 4),
            "fc.weight_shape": np.array([6, 64]),
            "fc.weight_scale": np.ones((6, 2), np.float16),
            "fc.bias": np.ones(6, np.float32),
        },
        tmp_path / "model.safetensors",
    )

    read = read_weights(tmp_path / "model.safetensors")

    np.testing.assert_array_equal(read.workload.masks["fc.weight"], mask)
    assert read.notes == ("fc.weight is decoded from packed integers of compressed-tensors",)
    assert read.skipped == ("fc.bias (6,)",)
