"""Files of masks and weights as people bring them, and files that are wrong."""

import io
import struct
import zipfile
from functools import partial

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.api import DataError, SpecError
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
    **{f"{form}.npz": partial(write_sparse, form=form) for form in ("csr", "csc", "coo", "bsr")},
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


def test_a_gru_is_two_products_and_a_note(tmp_path):
    found = read(tmp_path, lstm(gates=3))

    assert [layer.type for layer in found.workload.network.layers] == ["dense", "dense"]
    assert len({tensor.layer for tensor in found.workload.tensors}) == 2
    assert sum("GRU" in note for note in found.notes) == 2


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


WRONG = {
    "empty.npz": (b"", "empty file"),
    "garbage.npz": (b"hello", "damaged"),
    "truncated.npz": (saved(a=np.ones((50, 50)))[:-400], "damaged"),
    "objects.npz": (saved(a=np.array([{}, []], dtype=object)), "never unpickled"),
    "absurd.npz": (archive(a=npy_header((2**20, 2**20))), "at most"),
    "short.npz": (archive(a=npy_header((100, 100)) + b"1234"), "declares 40000 bytes and has 4"),
    "negative.npz": (archive(a=npy_header((-1, 4))), "at most"),
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
        "1000000000. entries of 3 numbers",
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


@pytest.mark.parametrize("name", [f"missing{suffix}" for suffix in SUFFIXES if suffix != ".onnx"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(SpecError, match=r"expected .*, got no such file"):
        read_workload(tmp_path / name)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "folder.npz").mkdir()

    with pytest.raises(SpecError, match="got a folder"):
        read_workload(tmp_path / "folder.npz")


def test_an_unknown_kind_of_file_is_refused():
    with pytest.raises(SpecError, match=r"'model\.pt'"):
        read_workload("model.pt")


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
