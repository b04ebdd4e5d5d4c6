"""Packed matrices come back exactly; what a format cannot hold is refused with its place."""

import io
import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.api import DataError, ShapeError, SpecError
from harness.formats.packing import FORMATS, keep, pack, read_packed, unpack, write_packed
from harness.formats.storage import even_banks, smallest_n_m, split, whole_block

KINDS = [np.float32, np.int8, np.int16]


@st.composite
def matrices(draw):
    """A matrix and its mask: any, with equally filled ragged banks, or of whole blocks; kept weights may be zero."""
    rows, cols = draw(st.integers(1, 8)), draw(st.integers(1, 20))
    kind = draw(st.sampled_from(["any", "banked", "blocks"]))
    if kind == "banked":
        banks = draw(st.integers(1, cols))
        kept = draw(st.integers(0, cols // banks))
        mask = np.zeros((rows, cols), dtype=bool)
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        edges = [*split(cols, banks).tolist(), cols]
        for row in mask:
            for left, right in pairwise(edges):
                row[rng.choice(np.arange(left, right), kept, replace=False)] = True
    else:
        mask = draw(arrays(np.bool_, (rows, cols)))
        if kind == "blocks":
            mask = np.repeat(np.repeat(mask, draw(st.integers(1, 3)), axis=0), draw(st.integers(1, 3)), axis=1)
    dtype = np.dtype(draw(st.sampled_from(KINDS)))
    weights = draw(arrays(dtype, mask.shape, elements={"allow_nan": False} if dtype.kind == "f" else None))
    return np.where(mask, weights, dtype.type(0)), mask


def possible(mask):
    """The formats that can hold a mask."""
    needs = {"csb": even_banks(mask), "n_m": smallest_n_m(mask, 16), "block": whole_block(mask) != (1, 1)}
    return [form for form in FORMATS if needs.get(form, True)]


@pytest.mark.parametrize(
    ("form", "options", "last"),
    [
        ("csb", {"banks": 4}, 3),  # the longest of the four banks of ten columns
        ("csr", {}, 10),
        ("n_m", {"n_m": (4, 5)}, 5),
        ("block", {"block": (2, 2)}, 5),
        ("bitmap", {}, 1),
        ("dense", {}, 1),
    ],
)
def test_an_index_has_as_many_bits_as_its_last_place_needs(form, options, last):
    matrix = np.zeros((2, 10), np.float32)
    matrix[:, split(10, 4)] = 1
    packed = keep(matrix) if form == "dense" else pack(matrix, form, **options)

    assert packed.index_bits == (last - 1).bit_length()


@given(matrices())
@settings(deadline=None, max_examples=300)
def test_every_format_that_can_hold_a_matrix_gives_it_back_bit_for_bit(drawn):
    matrix, mask = drawn

    for form in possible(mask):
        restored = unpack(pack(matrix, form, mask=mask))

        assert restored.dtype == matrix.dtype
        assert restored.tobytes() == matrix.tobytes()


@given(matrices())
@settings(deadline=None)
def test_every_other_format_refuses_and_names_another(drawn):
    matrix, mask = drawn

    for form in set(FORMATS) - set(possible(mask)):
        with pytest.raises(SpecError, match="pack it as csr or bitmap"):
            pack(matrix, form, mask=mask)


@pytest.fixture
def written(tmp_path):
    """Five matrices of one mask, one per format, and a bias, in one file."""
    rng = np.random.default_rng(0)
    mask = np.tile(np.repeat([True, False, False, True], 2), (6, 3))
    matrix = np.where(mask, rng.normal(size=mask.shape), 0).astype(np.float32)
    bias = rng.normal(size=6).astype(np.float32)
    packed = {form: pack(matrix, form) for form in FORMATS} | {"bias": keep(bias)}
    path = tmp_path / "cell.npz"
    path.write_bytes(write_packed(packed, {"cell": "abc"}))
    return path, packed, matrix, bias


def test_a_file_gives_every_matrix_back(written):
    path, _, matrix, bias = written
    found = read_packed(path)

    assert list(found) == [*FORMATS, "bias"]
    assert all((found[form] == matrix).all() for form in FORMATS)
    np.testing.assert_array_equal(found["bias"], bias)


def test_the_same_matrices_give_the_same_bytes(written):
    path, packed, _, _ = written

    assert write_packed(packed, {"cell": "abc"}) == path.read_bytes()


def test_the_first_weight_of_every_bank_comes_first():
    matrix = np.array([[0, 1, 2, 3, 0, 4]])
    packed = pack(matrix, "csb", banks=2)

    assert packed.arrays["values"].tolist() == [[[1, 3], [2, 4]]]
    assert packed.arrays["indices"].tolist() == [[[1, 0], [2, 2]]]
    assert packed.arrays["indices"].dtype == np.uint8


def test_csb_names_the_bank_that_keeps_another_number():
    mask = np.tile([True, False, True, False], (3, 2))
    mask[1, :4] = [True, True, True, False]

    with pytest.raises(SpecError, match="bank 0 of row 1 keeps 3 weights, most of the 6 banks keep 2"):
        pack(mask.astype(np.float32), "csb", banks=2)


def test_csb_names_the_rows_that_keep_other_numbers():
    with pytest.raises(SpecError, match=r"rows keep 0 \(row 1\) to 2 \(row 0\) weights"):
        pack(np.array([[1, 1], [0, 0]]), "csb")


@pytest.mark.parametrize("options", [{"n_m": (1, 3)}, {"n_m": (3, 2)}, {"n_m": (1, 2)}])
def test_groups_that_do_not_suit_are_refused(options):
    with pytest.raises(ShapeError, match="n_m"):
        pack(np.ones((2, 4)), "n_m", **options)


def test_blocks_that_do_not_divide_are_refused():
    with pytest.raises(SpecError, match="must divide"):
        pack(np.ones((2, 4)), "block", block=(2, 3))


def rewritten(path, **changes):
    """The same archive with some of its arrays replaced."""
    with np.load(path) as file:
        arrays = dict(file) | changes
    stream = io.BytesIO()
    np.savez(stream, **{name: array for name, array in arrays.items() if array is not None})
    path.write_bytes(stream.getvalue())
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"0.indices": np.full((6, 2, 6), 200, np.uint8)},
        {"0.values": np.zeros(3, np.float32)},
        {"1.indices": np.full(72, -1, np.int8)},
        {"1.pointers": np.arange(7, dtype=np.uint8)[::-1].copy()},
        {"2.bits": np.zeros((6, 3), np.uint8)},
        {"3.indices": None},
        {"4.pointers": np.zeros(1, np.uint8)},
        {"meta": np.frombuffer(b'{"packed": 99}', np.uint8)},
        {"meta": np.frombuffer(b'{"packed": 1, "matrices": 3}', np.uint8)},
        {"meta": np.frombuffer(b'{"packed"', np.uint8)},
        {"meta": None},
    ],
    ids=str,
)
def test_a_file_that_was_tampered_with_is_refused(written, changes):
    with pytest.raises(DataError):
        read_packed(rewritten(written[0], **changes))


def test_a_shape_beyond_reason_is_refused_before_it_is_allocated(written):
    path = written[0]
    with np.load(path) as file:
        meta = json.loads(file["meta"].tobytes())
    meta["matrices"][1]["shape"] = [10**9, 10**9]

    with pytest.raises(DataError, match="at most"):
        read_packed(rewritten(path, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8)))
