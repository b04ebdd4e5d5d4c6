"""Files of masks and weights as people bring them, and files that are wrong."""

import gzip
import io
import json
import os
import pickle
import re
import struct
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save, save_file

from harness.api import DataError, SpecError
from harness.formats import array_files, sparse_files
from harness.formats.packing import pack, write_packed
from harness.formats.weights_files import SUFFIXES, read_weights, read_workload


def mask_of(rows, cols, seed=0):
    mask = np.random.default_rng(seed).random((rows, cols)) < 0.4
    mask[0, 0], mask[0, -1] = True, False
    return mask


def weights_of(rows, cols, seed=0):
    return np.where(mask_of(rows, cols, seed), 0.5, 0).astype(np.float32)


MASK = mask_of(5, 7)
WEIGHTS = weights_of(5, 7)


def sparse(form):
    """The weights as SciPy holds them."""
    from scipy.sparse import coo_matrix

    return coo_matrix(WEIGHTS).asformat(form)


def write_sparse(path, form):
    from scipy.sparse import save_npz

    save_npz(path, sparse(form))


def write_mtx(path, matrix, **options):
    from scipy.io import mmwrite

    mmwrite(path, matrix, **options)


def write_smtx(path):
    csr = sparse("csr")
    lines = [
        f"{csr.shape[0]}, {csr.shape[1]}, {csr.nnz}",
        *(" ".join(map(str, part)) for part in (csr.indptr, csr.indices)),
    ]
    path.write_text("\n".join(lines) + "\n")


WRITERS = {
    "dense.npz": lambda path: np.savez(path, layer=WEIGHTS),
    "fortran.npz": lambda path: np.savez_compressed(path, layer=np.asfortranarray(WEIGHTS)),
    "mask.npz": lambda path: np.savez(path, layer=MASK),
    "integers.npz": lambda path: np.savez(path, layer=MASK.astype(np.int8) * -3),
    "half.safetensors": lambda path: save_file({"layer": WEIGHTS.astype(np.float16)}, path),
    "single.safetensors": lambda path: save_file({"layer": WEIGHTS}, path),
    "weights.mtx": lambda path: write_mtx(path, sparse("csr")),
    "pattern.mtx": lambda path: write_mtx(path, sparse("csr"), field="pattern"),
    "array.mtx": lambda path: write_mtx(path, WEIGHTS),
    "weights.smtx": write_smtx,
    **{f"{form}.npz": partial(write_sparse, form=form) for form in ("csr", "csc", "coo", "bsr", "dia")},
    "array.npy": lambda path: np.save(path, WEIGHTS),
    "fortran.npy": lambda path: np.save(path, np.asfortranarray(WEIGHTS)),
    "complex.mtx": lambda path: write_mtx(path, sparse("csr") * 1j),
    "packed.npz": lambda path: path.write_bytes(write_packed({"layer": pack(WEIGHTS, "csr")}, {})),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_mask_in_every_kind_of_file_is_found(tmp_path, name):
    WRITERS[name](tmp_path / name)
    workload = read_workload(tmp_path / name)
    (tensor,) = workload.tensors

    np.testing.assert_array_equal(workload.masks[tensor.name], MASK)
    assert (tensor.shape, tensor.role) == ((5, 7), "dense")


def test_bfloat16_is_read(tmp_path):
    bits = (WEIGHTS.view(np.uint32) >> 16).astype("<u2")
    header = b'{"layer":{"dtype":"BF16","shape":[5,7],"data_offsets":[0,70]}}'.ljust(64)
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", 64) + header + bits.tobytes())

    np.testing.assert_array_equal(read_workload(tmp_path / "w.safetensors").masks["layer"], MASK)


def read(tmp_path, arrays, **options):
    np.savez(tmp_path / "model.npz", **arrays)
    return read_weights(tmp_path / "model.npz", **options)


FLOAT8 = {
    # by code: zero, minus zero, the smallest number, one, the largest, minus one
    "F8_E4M3": [(0x00, 0), (0x80, 0), (0x01, 2**-9), (0x38, 1), (0x7E, 448), (0xB8, -1)],
    "F8_E5M2": [(0x00, 0), (0x80, 0), (0x01, 2**-16), (0x3C, 1), (0x7B, 57344), (0xBC, -1)],
    "F8_E4M3FNUZ": [(0x00, 0), (0x01, 2**-10), (0x40, 1), (0x7F, 240), (0xC0, -1)],
    "F8_E5M2FNUZ": [(0x00, 0), (0x01, 2**-17), (0x40, 1), (0x7F, 57344), (0xC0, -1)],
}
"""Values from the tables of the formats' descriptions."""


def write_tensor(path, kind, shape, data):
    header = f'{{"layer":{{"dtype":"{kind}","shape":{list(shape)},"data_offsets":[0,{len(data)}]}}}}'.encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def test_layers_of_safetensors_are_in_the_order_of_their_numbers_in_every_process(tmp_path):
    names = [f"blocks.{place}.conv{other}.weight" for place in (0, 2, 9, 10, 11) for other in (1, 2)]
    save_file({name: WEIGHTS for name in reversed(names)}, tmp_path / "w.safetensors")
    huge = [f"x{'9' * 5000}.weight", f"x1{'0' * 5000}.weight"]  # more digits than Python makes an integer of
    save_file({name: WEIGHTS for name in huge}, tmp_path / "huge.safetensors")

    assert [tensor.name for tensor in read_workload(tmp_path / "w.safetensors").tensors] == names
    assert list(array_files.read_safetensors(tmp_path / "huge.safetensors")) == huge


def test_a_header_in_an_order_of_its_own_keeps_it(tmp_path):
    places = {"last": [0, 4], "first": [4, 8], "middle": [8, 12]}
    header = json.dumps(
        {name: {"dtype": "F32", "shape": [1, 1], "data_offsets": each} for name, each in places.items()}
    )
    data = np.ones(3, np.float32).tobytes()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + data)

    assert list(array_files.read_safetensors(tmp_path / "w.safetensors")) == ["last", "first", "middle"]


def test_recurrent_layers_are_in_order_each_direction_with_its_projection(tmp_path):
    arrays = {}
    for place in ("l0", "l0_reverse", "l1", "l1_reverse"):
        arrays |= {
            f"rnn.weight_ih_{place}": np.ones((16, 3 if "0" in place else 4), np.float32),
            f"rnn.weight_hh_{place}": np.ones((16, 2), np.float32),
            f"rnn.weight_hr_{place}": np.ones((2, 4), np.float32),
        }
    save_file(arrays, tmp_path / "w.safetensors")

    found = read_workload(tmp_path / "w.safetensors").tensors

    assert list(dict.fromkeys((tensor.layer, tensor.role) for tensor in found)) == [
        (name, role)
        for place in ("l0", "l0_reverse", "l1", "l1_reverse")
        for name, role in ((f"rnn.{place}", "lstm"), (f"rnn.weight_hr_{place}", "dense"))
    ]


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_float8_is_read(tmp_path, kind):
    codes, values = zip(*FLOAT8[kind], strict=True)
    write_tensor(tmp_path / "w.safetensors", kind, (1, len(codes)), bytes(codes))

    assert array_files.read_safetensors(tmp_path / "w.safetensors")["layer"].tolist() == [list(values)]
    assert read_workload(tmp_path / "w.safetensors").masks["layer"].tolist() == [[value != 0 for value in values]]


@pytest.mark.parametrize("kind", FLOAT8)
def test_every_kind_of_float8_has_the_values_of_its_description(kind):
    table = array_files._float8(*array_files._FLOAT8[kind])

    assert [(code, table[code]) for code, _ in FLOAT8[kind]] == FLOAT8[kind]
    nan = {"F8_E4M3": [0x7F, 0xFF], "F8_E5M2": [0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]}.get(kind, [0x80])
    assert np.flatnonzero(np.isnan(table)).tolist() == nan


def test_a_float8_that_is_no_number_is_refused(tmp_path):
    write_tensor(tmp_path / "w.safetensors", "F8_E4M3", (1, 2), b"\x38\x7f")

    with pytest.raises(DataError, match="NaN or infinity in 'layer'"):
        read_workload(tmp_path / "w.safetensors")


SYMMETRIC = np.array([[1, 2, 0], [2, 0, 3], [0, 3, 4.0]])
SKEW = np.array([[0, 2, 0], [-2, 0, 3], [0, -3, 0.0]])
HERMITIAN = np.array([[1, 2j, 0], [-2j, 0, 3 + 1j], [0, 3 - 1j, 4]])


@pytest.mark.parametrize("sparse", [False, True], ids=["array", "coordinate"])
@pytest.mark.parametrize("matrix", [SYMMETRIC, SKEW, HERMITIAN], ids=["symmetric", "skew-symmetric", "hermitian"])
def test_the_triangle_of_a_matrix_that_mirrors_itself_stands_for_the_whole(tmp_path, matrix, sparse):
    """As SciPy writes it: of a dense array too, the lower triangle alone."""
    from scipy.sparse import coo_matrix

    write_mtx(tmp_path / "m.mtx", coo_matrix(matrix) if sparse else matrix)
    banner = (tmp_path / "m.mtx").read_text().split("\n")[0]
    assert ("array" in banner) != sparse and "general" not in banner

    np.testing.assert_array_equal(read_workload(tmp_path / "m.mtx").masks["m"], matrix != 0)


@given(matrix=st.integers(1, 6).flatmap(lambda n: arrays(np.int8, (n, n), elements=st.integers(-1, 1))))
def test_any_symmetric_array_is_read_back(tmp_path_factory, matrix):
    path = tmp_path_factory.mktemp("mtx") / "m.mtx"
    whole = np.triu(matrix) + np.triu(matrix, 1).T
    below = [str(whole[row, col]) for col in range(len(whole)) for row in range(col, len(whole))]
    path.write_text("\n".join(["%%MatrixMarket matrix array integer symmetric", f"{len(whole)} {len(whole)}", *below]))

    np.testing.assert_array_equal(sparse_files.read_mtx(path), whole != 0)


def test_diagonals_that_leave_the_matrix_are_cut(tmp_path):
    from scipy.sparse import dia_matrix, save_npz

    matrix = dia_matrix((np.ones((3, 5)), [-1, 0, 3]), shape=(4, 6))
    save_npz(tmp_path / "m.npz", matrix)

    np.testing.assert_array_equal(read_workload(tmp_path / "m.npz").masks["m"], matrix.toarray() != 0)


# ---- checkpoints in several files


def write_parts(folder, **weight_map):
    save_file({"a.weight": WEIGHTS}, folder / "model-00001-of-00002.safetensors")
    save_file({"b.weight": WEIGHTS[:3], "b.bias": WEIGHTS[0]}, folder / "model-00002-of-00002.safetensors")
    names = {
        "b.weight": "model-00002-of-00002.safetensors",
        "a.weight": "model-00001-of-00002.safetensors",
        **weight_map,
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return folder / "model.safetensors.index.json"


def test_the_parts_of_a_checkpoint_are_one_workload_in_the_order_of_its_list(tmp_path):
    found = read_weights(write_parts(tmp_path))

    assert [(tensor.name, tensor.shape) for tensor in found.workload.tensors] == [
        ("b.weight", (3, 7)),
        ("a.weight", (5, 7)),
    ]


def test_one_part_alone_says_that_it_is_one(tmp_path):
    write_parts(tmp_path)

    notes = read_weights(tmp_path / "model-00002-of-00002.safetensors").notes

    assert notes[0].startswith("model-00002-of-00002.safetensors is part 2 of 2 of a checkpoint")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"c.weight": "../other.safetensors"}, "names of safetensors files beside it"),
        ({"c.weight": "/etc/passwd"}, "names of safetensors files beside it"),
        ({"c.weight": "model-00003-of-00003.safetensors"}, "no such file"),
        ({"c.weight": "model-00001-of-00002.safetensors"}, "'c.weight' in model-00001"),
        ({"c.weight": 3}, "to name a file for every array"),
    ],
    ids=str,
)
def test_a_list_that_is_wrong_is_refused(tmp_path, wrong, said):
    with pytest.raises((DataError, SpecError), match=said):
        read_weights(write_parts(tmp_path, **wrong))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "{", '{"weight_map": []}', "[" * 100_000], ids=lambda text: text[:9]
)
def test_a_list_that_is_no_list_is_refused(tmp_path, content):
    (tmp_path / "m.safetensors.index.json").write_text(content)

    with pytest.raises(DataError, match=r"m\.safetensors\.index\.json: expected"):
        read_weights(tmp_path / "m.safetensors.index.json")


# ---- arrays of other shapes


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("turned", [False, True])
def test_convolutions_over_one_and_three_axes(tmp_path, axes, turned):
    kernel = np.random.default_rng(0).integers(0, 2, (4, 3, 2, 2, 2)[: 2 + axes]).astype(np.float32)
    stored = np.moveaxis(kernel, (0, 1), (-1, -2)) if turned else kernel
    layout = "rows_in" if turned else "auto"

    found = read(tmp_path, {"conv.weight": stored}, layout=layout, output_sizes={"conv": (5, 6, 7)[:axes]})

    np.testing.assert_array_equal(found.workload.masks["conv.weight"], kernel.reshape(4, -1) != 0)
    assert found.workload.output_pixels == {"conv": (5, 0, 210)[axes - 1]}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("h.0.attn.bias", (1, 1, 8, 8)),
        ("gru/bias:0", (2, 12)),
        ("fc.weight_scale", (5, 1)),
        ("fc.weight_scale_inv", (2, 2)),
    ],
)
def test_biases_and_scales_are_no_matrices_however_many_axes_they_have(tmp_path, name, shape):
    found = read(tmp_path, {"fc.weight": MASK.astype(np.int8), name: np.full(shape, 0.5)})

    assert [tensor.name for tensor in found.workload.tensors] == ["fc.weight"]
    assert found.skipped == (f"{name} {shape}",)


@pytest.mark.parametrize("name", ["pos_embed", "cls_token", "mlp.experts.gate_up_proj"])
def test_an_array_of_three_axes_that_is_no_kernel_is_left_out_and_told(tmp_path, name):
    found = read(tmp_path, {"fc.weight": WEIGHTS, name: np.ones((2, 9, 8))})

    assert [tensor.name for tensor in found.workload.tensors] == ["fc.weight"]
    assert f"{name} of shape (2, 9, 8) is no matrix and no kernel: left out" in found.notes


@pytest.mark.parametrize("symmetry", ["symmetric", "skew-symmetric"])
def test_half_of_a_symmetric_matrix_is_mirrored(tmp_path, symmetry):
    (tmp_path / "m.mtx").write_text(f"%%MatrixMarket matrix coordinate real {symmetry}\n% a comment\n3 3 1\n3 1 2.5\n")
    mask = read_workload(tmp_path / "m.mtx").masks["m"]

    assert np.argwhere(mask).tolist() == [[0, 2], [2, 0]]


def test_rows_in_turns_a_matrix(tmp_path):
    found = read(tmp_path, {"layer": WEIGHTS.T}, layout="rows_in")

    np.testing.assert_array_equal(found.workload.masks["layer"], MASK)
    assert found.notes == ()


def test_what_is_taken_for_granted_is_said(tmp_path):
    found = read(tmp_path, {"a": WEIGHTS, "b": WEIGHTS})

    assert found.notes == ("taken as (outputs, inputs): a, b; if they are not, say layout rows_in",)


def lstm(prefix="rnn.", rest="_l0", units=3, inputs=5, gates=4):
    return {
        f"{prefix}weight_hh{rest}": weights_of(gates * units, units, 1),
        f"{prefix}weight_ih{rest}": weights_of(gates * units, inputs, 2),
        f"{prefix}bias_ih{rest}": np.ones(gates * units, np.float32),
    }


def test_pairs_of_pytorch_form_lstm_layers(tmp_path):
    found = read(tmp_path, lstm() | lstm(rest="_l0_reverse") | lstm(rest="_l1", inputs=6) | lstm("", ""))
    tensors = found.workload.tensors

    assert [layer.name for layer in found.workload.network.layers] == ["rnn.l0", "rnn.l0_reverse", "rnn.l1", "lstm"]
    backwards = [note for note in found.notes if "runs from the end of a sequence" in note]
    assert [note.split()[0] for note in backwards] == ["rnn.l0_reverse"]
    assert {tensor.role for tensor in tensors} == {"lstm"}
    assert [tensor.name for tensor in tensors][:2] == ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]
    assert all((tensor.rows.size, tensor.rows.repeat) == (12, 4) for tensor in tensors)
    assert found.workload.network.layers[2].inputs == 6
    assert len(found.skipped) == 4 and found.skipped[0] == "rnn.bias_ih_l0 (12,)"


@pytest.mark.parametrize("turned", [False, True])
def test_kernels_form_lstm_layers_whichever_way_they_lie(tmp_path, turned):
    arrays = {"lstm_0.kernel": weights_of(12, 5), "lstm_0.recurrent_kernel": weights_of(12, 3)}
    found = read(tmp_path, {name: array.T if turned else array for name, array in arrays.items()})

    assert [layer.type for layer in found.workload.network.layers] == ["lstm"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.workload.masks[name], array != 0)


def test_a_gru_is_one_layer_of_three_gates(tmp_path):
    found = read(tmp_path, lstm(gates=3))

    assert len({tensor.layer for tensor in found.workload.tensors}) == 1
    assert {(tensor.role, tensor.rows.repeat) for tensor in found.workload.tensors} == {("gru", 3)}
    assert sum("GRU" in note for note in found.notes) == 1


def test_an_lstm_with_a_projected_output_is_a_layer_and_its_projection(tmp_path):
    arrays = {"rnn.weight_ih_l0": weights_of(12, 5), "rnn.weight_hh_l0": weights_of(12, 2)}
    found = read(tmp_path, {**arrays, "rnn.weight_hr_l0": weights_of(2, 3)})

    assert [(tensor.role, tensor.shape, tensor.rows.repeat) for tensor in found.workload.tensors] == [
        ("lstm", (12, 5), 4), ("lstm", (12, 2), 4), ("dense", (2, 3), 1),
    ]  # fmt: skip
    alone = read(tmp_path, arrays)
    assert {tensor.role for tensor in alone.workload.tensors} == {"dense"}  # nobody says what is projected


def test_masks_know_better_than_weights(tmp_path):
    dense = np.ones((5, 7), np.float32)
    found = read(
        tmp_path, {"a.kernel": dense, "a.kernel.mask": MASK, "b.weight_orig": dense, "b.weight_mask": MASK * 1.0}
    )

    assert [tensor.name for tensor in found.workload.tensors] == ["a.kernel", "b.weight"]
    for name in ("a.kernel", "b.weight"):
        np.testing.assert_array_equal(found.workload.masks[name], MASK)


@pytest.mark.parametrize("turned", [False, True])
def test_a_convolution_runs_once_per_output_position(tmp_path, turned):
    kernel = np.random.default_rng(0).integers(0, 2, (4, 3, 2, 5)).astype(np.float32)
    stored = kernel.transpose(2, 3, 1, 0) if turned else kernel
    layout = "rows_in" if turned else "auto"
    found = read(tmp_path, {"conv.weight": stored}, layout=layout, output_sizes={"conv": (6, 7)})
    (layer,) = found.workload.network.layers

    assert found.workload.output_pixels == {"conv": 42}
    assert (layer.inputs, layer.outputs, layer.kernel) == (3, 4, (2, 5))
    assert found.workload.tensors[0].role == "conv"
    np.testing.assert_array_equal(found.workload.masks["conv.weight"], kernel.reshape(4, -1) != 0)


def test_a_convolution_of_unknown_output_is_a_product_and_a_note(tmp_path):
    found = read(tmp_path, {"conv.weight": np.ones((4, 3, 2, 2), np.float32)})

    assert (found.workload.tensors[0].role, found.workload.tensors[0].shape) == ("dense", (4, 12))
    assert "unknown output size" in found.notes[0]


def test_an_embedding_is_a_look_up(tmp_path):
    found = read(tmp_path, {"embedding.weight": WEIGHTS, "out.weight": WEIGHTS}, banks=2)

    assert [tensor.role for tensor in found.workload.tensors] == ["embedding", "dense"]
    assert "look-up" in found.notes[0]


def test_banks_are_taken_where_they_are_equally_filled(tmp_path):
    even = np.tile([1, 0, 0, 1], (3, 2))
    found = read(tmp_path, {"even": even, "odd": np.eye(3, 8), "full": np.ones((2, 8))}, banks=4)

    assert found.workload.banks == {"even": 4}
    assert found.workload.masks.keys() == {"even", "odd"}
    assert [note for note in found.notes if note.startswith("odd does not fill 4 banks per row equally")]


def test_banks_of_a_packed_export_are_known(tmp_path):
    matrix = np.tile([1.0, 0, 0, 2.0], (3, 2))
    (tmp_path / "cell.npz").write_bytes(write_packed({"out.kernel": pack(matrix, "csb", banks=2)}, {}))
    found = read_weights(tmp_path / "cell.npz")

    assert (found.workload.banks, found.notes) == ({"out.kernel": 2}, ())


@pytest.mark.parametrize("form", ["csb", "csr", "bitmap"])
def test_a_kept_weight_that_is_zero_stays_kept_in_a_packed_export(tmp_path, form):
    mask = np.tile([True, False, False, True], (3, 2))
    packed = pack(np.zeros(mask.shape, np.float32), form, mask=mask)
    (tmp_path / "cell.npz").write_bytes(write_packed({"out.kernel": packed}, {}))

    np.testing.assert_array_equal(read_workload(tmp_path / "cell.npz").masks["out.kernel"], mask)


def test_a_matrix_of_zeros_keeps_nothing(tmp_path):
    assert not read(tmp_path, {"layer": np.zeros((3, 4))}).workload.masks["layer"].any()


def test_equal_layer_names_stay_two_layers(tmp_path):
    found = read(tmp_path, {"a.weight": WEIGHTS, "a.kernel": WEIGHTS, "a": WEIGHTS})

    assert len({tensor.layer for tensor in found.workload.tensors}) == 3


# ---- files that are wrong


def npy_header(shape):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def archive(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return stream.getvalue()


def saved(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def damaged(method):
    """An archive one of whose members is spoilt in the middle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        content = npy_header((50, 50)) + np.random.default_rng(0).random((50, 50)).astype(np.float32).tobytes()
        file.writestr("a.npy", content)
    data = bytearray(stream.getvalue())
    data[len(data) // 2 : len(data) // 2 + 64] = b"\xff" * 64
    return bytes(data)


def encrypted():
    """An archive that says its member needs a password."""
    data = bytearray(saved(a=np.ones((2, 2))))
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(sign) + offset] |= 1
    return bytes(data)


def npy_file(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def tensor_file(shape, data):
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    return struct.pack("<Q", len(header)) + header + data


WRONG = {
    "empty.npz": (b"", "empty file"),
    "garbage.npz": (b"hello", "damaged"),
    "truncated.npz": (saved(a=np.ones((50, 50)))[:-400], "damaged"),
    "objects.npz": (saved(a=np.array([{}, []], dtype=object)), "never unpickled"),
    "absurd.npz": (archive(a=npy_header((2**20, 2**20))), "at most"),
    "short.npz": (archive(a=npy_header((100, 100)) + b"1234"), "declares 40000 bytes and has 4"),
    "boolean.npz": (archive(a=npy_header("(True, 4)") + b"1234"), r"shape \(True, 4\)"),
    "real.npz": (archive(a=npy_header("(2.0, 4)")), "damaged"),
    "nested.npz": (archive(a=npy_header("(" * 5000 + ")" * 5000)), "damaged"),
    "deeper.npz": (archive(a=npy_header("-" * 9000 + "1")), "damaged"),
    "nul.npz": (archive(a=npy_header("(2,\0 4)")), "damaged"),
    "open_bracket.npz": (archive(a=npy_header("(((2, 4")), "damaged"),
    "long_header.npz": (archive(a=npy_header("(" + "1," * 20000 + ")")), "damaged"),
    "many_axes.npz": (archive(a=npy_header("(" + "1," * 200 + ")") + b"1234"), "damaged"),
    "overflow.npz": (archive(a=npy_header((2**62, 2**62, 0, 4))), "damaged"),
    "future.npz": (archive(a=b"\x93NUMPY\x09\x00" + bytes(200)), "version"),
    "no_numbers.npz": (archive(a=npy_header((2, 2)).replace(b"<f4", b"<V0")), "damaged|numbers"),
    "fields.npz": (saved(a=np.zeros((2, 2), [("x", "f4")])), "numbers or booleans"),
    "lzma.npz": (damaged(zipfile.ZIP_LZMA), "damaged"),
    "deflate.npz": (damaged(zipfile.ZIP_DEFLATED), "damaged"),
    "bzip2.npz": (damaged(zipfile.ZIP_BZIP2), "damaged"),
    "encrypted.npz": (encrypted(), "damaged"),
    "garbage.npy": (b"hello", "damaged"),
    "short.npy": (npy_header((100, 100)) + b"1234", "declares 40000 bytes and has 4"),
    "objects.npy": (npy_file(np.array([{}, []], dtype=object)), "never unpickled"),
    "dia.npz": (saved(format=b"dia", shape=[2, 3], data=[[1.0, 1, 1]], offsets=[0, 1]), "2 offsets are given for 1"),
    "zero.safetensors": (tensor_file([0, 4], b""), "rows and columns"),
    "overflow.safetensors": (tensor_file([2**62, 4], b""), "damaged|at most"),
    "overflow_to_zero.safetensors": (tensor_file([2**32, 2**32], b""), "damaged|at most"),
    "negative.safetensors": (tensor_file([-2, -2], bytes(16)), "damaged"),
    "real.safetensors": (tensor_file([2.5, 2], bytes(20)), "damaged"),
    "zeros.safetensors": (bytes(4096), "damaged"),
    "hermitian.mtx": (b"%%MatrixMarket matrix array real hermitian\n1 1\n1\n", "hermitian matrix is complex"),
    "triangle.mtx": (b"%%MatrixMarket matrix array real symmetric\n3 3\n1 2 3 4\n", "has 6 numbers, 4 are there"),
    "pattern_array.mtx": (b"%%MatrixMarket matrix array pattern general\n1 1\n1\n", "not pattern"),
    "zeros.mtx": (bytes(4096), "Matrix Market"),
    "digits.smtx": (b"9" * 5000 + b", 1, 1\n", "rows, cols, nnz"),
    "negative.npz": (archive(a=npy_header((-1, 4))), "at least 0"),
    "no_member.npz": (archive(), "no array"),
    "nan.npz": (saved(a=np.array([[1, np.nan]])), "NaN or infinity in 'a'"),
    "infinite.npz": (saved(a=np.array([[1, np.inf]], np.float16)), "NaN or infinity in 'a'"),
    "complex.npz": (saved(a=np.ones((2, 2), complex)), "complex128"),
    "text.npz": (saved(a=np.array([["a", "b"]])), "numbers or booleans"),
    "no_rows.npz": (saved(a=np.ones((0, 4))), "rows and columns"),
    "biases.npz": (saved(b=np.ones(4)), r"got b \(4,\)"),
    "bad_csr.npz": (
        saved(format=b"csr", shape=[2, 3], data=[1.0], indices=[7], indptr=[0, 1, 1]),
        "sparse matrix of SciPy",
    ),
    "huge_csr.npz": (saved(format=b"csr", shape=[2**40, 9], data=[1.0], indices=[7], indptr=[0, 1]), "at most"),
    "wild_csc.npz": (
        saved(format=b"csc", shape=[2, 3], data=[1.0], indices=[0], indptr=[0, 2**40, 1, 1]),
        "do not rise",
    ),
    "wild_coo.npz": (
        saved(format=b"coo", shape=[2, 3], data=[1.0], row=[0], col=[-1]),
        "column indices lie between -1",
    ),
    "deep_csr.npz": (saved(format=b"csr", shape=[1, 3], data=[[1.0]], indices=[0], indptr=[0, 1]), "data have shape"),
    "odd_bsr.npz": (saved(format=b"bsr", shape=[3, 3], data=np.ones((1, 2, 2)), indices=[0], indptr=[0, 1]), "SciPy"),
    "real_csr.npz": (
        saved(format=b"csr", shape=[1, 3], data=[1.0], indices=[0.5], indptr=[0, 1]),
        "indices are float64",
    ),
    "lil.npz": (saved(format=b"lil", shape=[2, 3], data=[1.0]), "'lil'"),
    "no_pointers.npz": (saved(format=b"csr", shape=[2, 3], data=[1.0]), "indptr"),
    "garbage.safetensors": (b"\xff" * 64, "damaged"),
    "truncated.safetensors": (struct.pack("<Q", 10**6) + b"{}", "damaged"),
    "outside.safetensors": (
        struct.pack("<Q", 64) + b'{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'.ljust(64),
        "damaged",
    ),
    "garbage.mtx": (b"hello\n1 2 3\n", "Matrix Market"),
    "absurd.mtx": (b"%%MatrixMarket matrix coordinate real general\n1000000000 1000000000 1\n1 1 1\n", "at most"),
    "lying.mtx": (
        b"%%MatrixMarket matrix coordinate real general\n9 9 1000000000\n1 1 1\n",
        "1000000000 entries of 3 numbers",
    ),
    "outside.mtx": (b"%%MatrixMarket matrix coordinate real general\n2 2 1\n5 1 1.0\n", "Matrix Market"),
    "complex.mtx": (b"%%MatrixMarket matrix coordinate complex general\n1 1 1\n1 1 1\n", "entries of 4 numbers"),
    "lopsided.mtx": (b"%%MatrixMarket matrix coordinate pattern symmetric\n1 3 1\n1 2\n", "not symmetric"),
    "nan.mtx": (b"%%MatrixMarket matrix coordinate real general\n2 2 1\n1 1 nan\n", "NaN"),
    "words.smtx": (b"two, 3, 1\n0 1\n0\n", "rows, cols, nnz"),
    "short.smtx": (b"2, 3, 2\n0 1 2\n0\n", "need 5 numbers, there are 4"),
    "falling.smtx": (b"2, 3, 1\n0 2 1\n0\n", "do not rise"),
    "outside.smtx": (b"2, 3, 1\n0 1 1\n3\n", "column indices lie between 3 and 3"),
    "absurd.smtx": (b"99999999, 99999999, 0\n0\n", "at most"),
    "binary.smtx": (b"\xff\xfe", "rows, cols, nnz"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_by_name(tmp_path, name):
    data, reason = WRONG[name]
    (tmp_path / name).write_bytes(data)

    with pytest.raises(DataError, match=reason) as caught:
        read_workload(tmp_path / name)

    assert name in str(caught.value)


def test_a_file_larger_than_allowed_is_refused(tmp_path):
    with pytest.raises(DataError, match="at most 34 weights"):
        read(tmp_path, {"layer": WEIGHTS}, most_weights=34)


@pytest.mark.parametrize("name", [f"missing{suffix}" for suffix in SUFFIXES])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(SpecError, match=r"expected .*, got no such file"):
        read_workload(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["pipe", "folder", "dangling", "loop", "device"])
def test_what_is_no_plain_file_is_told_and_never_waited_for(tmp_path, kind, suffix):
    path = tmp_path / f"model{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"dangling": "gone", "loop": path, "device": "/dev/zero"}[kind])
    said = {"dangling": "a link to nothing", "loop": "a link that leads back", "device": "a device"}.get(
        kind, f"a {kind}"
    )

    with pytest.raises(SpecError, match=rf"model{suffix}: expected .*, got {said}"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if not suffix.endswith("json")])
@pytest.mark.parametrize("size", [3 << 30, 6 << 30])
def test_a_large_file_of_nothing_is_refused_at_once(tmp_path, size, suffix):
    path = tmp_path / f"model{suffix}"
    path.touch()
    os.truncate(path, size)  # a hole

    with pytest.raises((DataError, SpecError), match=f"model{suffix}: expected"):
        read_weights(path)


def test_a_small_archive_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for member in range(9):
            file.writestr(f"a{member}.npy", npy_header((1000, 100)) + bytes(400_000))

    with pytest.raises(DataError, match="at most 800000 weights, got more in all"):
        read_weights(tmp_path / "bomb.npz", most_weights=800_000)


def test_an_archive_of_many_members_is_read(tmp_path):
    np.savez(tmp_path / "model.npz", **{f"layer{index}": np.eye(2) for index in range(3000)})

    assert len(read_weights(tmp_path / "model.npz").workload.tensors) == 3000


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "folder.npz").mkdir()

    with pytest.raises(SpecError, match="got a folder"):
        read_workload(tmp_path / "folder.npz")


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("model.pt", "save_file"),
        ("model.bin", "save_file"),
        ("model.keras", "numpy.savez"),
        ("pytorch_model.bin.index.json", "save_file"),
        ("model.weights.h5", "numpy.savez"),
        ("model.Q4_K.gguf", "made from"),
        ("model.safetensors.gz", "unpack it"),
        ("weights.mat", "scipy.io.loadmat"),
        ("model.onnx.txt", "numpy.loadtxt"),
        ("layers.json", "call it .yaml"),
        ("model.xyz", "convert or rename it"),
    ],
)
def test_an_unknown_kind_of_file_is_refused_with_the_way_to_one_that_is_read(name, way):
    with pytest.raises(SpecError, match=f"{re.escape(repr(name))}; .*{way}"):
        read_workload(name)


def zipped(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, member in members.items():
            file.writestr(name, member)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "begins", "said"),
    [
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("a.npz", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("a.onnx", b"<!DOCTYPE HTML><html>404", "a web page; download"),
        ("a.safetensors", b"<HTML><body>", "a web page; download"),
        ("a.safetensors", b"GGUF\x03\0\0\0", "GGUF; name the checkpoint"),
        ("a.safetensors", pickle.dumps({"a": [1]}, protocol=2), "a pickle, which is never read"),
        ("a.npz", pickle.dumps({"a": [1]}, protocol=4), "a pickle, which is never read"),
        ("a.safetensors", zipped(data="x"), "torch.save"),
        ("a.npy", zipped(a="x"), "call it .npz"),
        ("a.npz", zipped(**{"archive/data.pkl": "x"}), "torch.save; .*save_file"),
        ("a.npz", zipped(**{"metadata.json": "{}", "config.json": "{}"}), "Keras .*numpy.savez"),
        ("a.npz", npy_header((2, 2)) + bytes(16), "call it .npy"),
        ("a.npz", b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5; .*numpy.savez"),
        ("a.mtx", gzip.compress(b"%%MatrixMarket"), "gzip.*unpack it"),
        ("a.smtx", b"%%MatrixMarket matrix coordinate pattern general\n1 1 0\n", "call it .mtx"),
        ("a.onnx", save({"a": np.eye(2)}), "call it .safetensors"),
        ("a.safetensors.index.json", save({"a": np.eye(2)}), "call it .safetensors"),
        ("a.onnx", b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        ("a.onnx", bytes(257) + b"ustar\x0000", "tar.*unpack it"),
        ("a.onnx", b"MATLAB 5.0 MAT-file", "loadmat"),
    ],
)
def test_a_file_of_another_kind_than_its_name_says_is_told_by_its_first_bytes(tmp_path, name, begins, said):
    (tmp_path / name).write_bytes(begins)

    with pytest.raises(DataError, match=rf"{name}: expected \.\w+, got .*{said}"):
        read_weights(tmp_path / name)


def test_a_file_that_no_name_tells_is_told_by_its_first_bytes(tmp_path):
    (tmp_path / "model").write_bytes(save({"a": np.eye(2)}))

    with pytest.raises(SpecError, match=r"'model', safetensors; call it \.safetensors"):
        read_weights(tmp_path / "model")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["config.json", "model.safetensors"], "such as there/model.safetensors"),
        (["a-1.safetensors", "a.safetensors.index.json"], "such as there/a.safetensors.index.json"),
        (["saved_model.pb", "keras_metadata.pb"], "a SavedModel: .*numpy.savez"),
        (["pytorch_model.bin"], "safetensors.torch"),
        ([], "name a file of masks or weights"),
    ],
)
def test_a_folder_is_told_with_the_file_in_it_that_is_read(tmp_path, names, said):
    (tmp_path / "there").mkdir()
    for name in names:
        (tmp_path / "there" / name).touch()

    with pytest.raises(SpecError, match=f"'there', a folder; .*{said}"):
        read_weights(tmp_path / "there")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"real general\n2 2 1\n0 1 1\n", "rows lie between 0 and 0, of 1 to 2"),
        (b"real general\n2 2 1\n1 3 1\n", "columns lie between 3 and 3, of 1 to 2"),
        (b"real skew-symmetric\n2 2 1\n2 2 1\n", "nothing on its diagonal"),
        (b"real general\n2 2\n1 1 1\n", "not rows, columns and entries"),
        (b"real general\n-2 2 0\n", "extents of at least 0"),
    ],
)
def test_a_place_outside_a_market_file_is_told_as_the_file_counts(tmp_path, text, said):
    (tmp_path / "a.mtx").write_bytes(b"%%MatrixMarket matrix coordinate " + text)

    with pytest.raises(DataError, match=said):
        read_weights(tmp_path / "a.mtx")


def test_a_market_file_of_another_system_is_read(tmp_path):
    text = b"\xef\xbb\xbf%%MatrixMarket matrix coordinate real general\r\n2 2 2\r\n1 1 1.0D0\r\n2 1 -2.5d-3\r\n"
    (tmp_path / "a.mtx").write_bytes(text)

    np.testing.assert_array_equal(read_workload(tmp_path / "a.mtx").masks["a"], [[True, False], [True, False]])


def test_an_index_too_large_for_any_matrix_is_told_as_it_is(tmp_path):
    np.savez(
        tmp_path / "a.npz", format=b"csr", shape=[2, 2], data=[1.0], indptr=[0, 1, 1],
        indices=np.array([2**63 + 5], dtype=np.uint64),
    )  # fmt: skip

    with pytest.raises(DataError, match="an index is 9223372036854775813"):
        read_weights(tmp_path / "a.npz")


def test_a_part_that_is_not_there_is_told_with_its_list(tmp_path):
    (tmp_path / "m.safetensors.index.json").write_text(
        '{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}'
    )

    with pytest.raises(DataError, match=r"m\.safetensors\.index\.json: .*'m-1\.safetensors' beside it.* all 2 parts"):
        read_weights(tmp_path / "m.safetensors.index.json")


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "columns"},
        {"banks": 8},
        {"banks": 0},
        {"banks": {"other": 2}},
        {"output_sizes": {"other": (2, 2)}},
        {"output_sizes": {"layer": (0, 2)}},
    ],
    ids=str,
)
def test_a_wrong_option_is_refused(tmp_path, options):
    with pytest.raises(SpecError):
        read(tmp_path, {"layer": WEIGHTS}, **options)


SEEDS = [name for name in WRITERS if not name.startswith(("integers", "mask"))]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(SEEDS), data=st.data())
def test_no_damage_whatever_is_more_than_one_sentence(tmp_path, name, data):
    """Bytes changed, lost and added: read all the same, or refused by name."""
    path = tmp_path / name
    WRITERS[name](path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    path.write_bytes(content)

    try:
        read_workload(path)
    except (DataError, SpecError) as error:
        assert name in str(error)


# --- values -----------------------------------------------------------------------------------------------------------


def test_values_are_told_as_outputs_by_inputs_and_masks_have_none(tmp_path):
    weights = np.array([[0.5, 0, -2.0], [0, 3.0, 0]])
    path = tmp_path / "weights.npz"
    np.savez(path, fc=weights, bits=weights != 0, zeros_and_ones=(weights != 0).astype(np.float32))
    upright, turned = read_workload(path, layout="rows_out"), read_workload(path, layout="rows_in")

    assert list(upright.weights) == list(turned.weights) == ["fc"]
    assert np.array_equal(upright.weights["fc"], weights)
    assert np.array_equal(turned.weights["fc"], weights.T)
    assert upright.quantise is not None


def test_values_beside_a_mask_and_of_a_window_are_told_too(tmp_path):
    rng = np.random.default_rng(0)
    kernel, fc = rng.standard_normal((4, 3, 2, 2)), rng.standard_normal((5, 6))
    path = tmp_path / "weights.npz"
    np.savez(path, **{"conv.weight": kernel, "fc.weight_orig": fc, "fc.weight_mask": fc > 0})
    found = read_workload(path, output_sizes={"conv": (2, 2)})

    assert np.array_equal(found.weights["conv.weight"], kernel.reshape(4, 12))
    assert np.array_equal(found.weights["fc.weight"], fc)


def test_values_of_an_lstm_lie_beside_their_masks(tmp_path):
    rng = np.random.default_rng(0)
    x, h = rng.standard_normal((8, 3)), rng.standard_normal((8, 2))
    path = tmp_path / "lstm.npz"
    np.savez(path, weight_ih_l0=x, weight_hh_l0=h)
    found = read_workload(path)

    assert np.array_equal(found.weights["weight_ih_l0"], x)
    assert np.array_equal(found.weights["weight_hh_l0"], h)


def test_the_folder_in_which_one_stands_is_told_by_its_dot(tmp_path, monkeypatch):
    (tmp_path / "m.npz").touch()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SpecError, match=r"got '\.', a folder; name a file in it, such as m\.npz$"):
        read_weights(Path("."))
