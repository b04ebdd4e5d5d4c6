"""Memory files hold what the packed arrays hold, in words of exactly the bits of hardware."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import DataError, SpecError
from harness.formats.memory_files import memory_files, quantised
from harness.formats.packing import pack
from harness.formats.storage import split


def words(text):
    return [int(line, 16) for line in text.splitlines()]


def signed(word, bits):
    return word - (1 << bits) if word >> (bits - 1) else word


def banked(rows, cols, banks, kept, seed):
    rng = np.random.default_rng(seed)
    matrix = np.zeros((rows, cols), dtype=np.int16)
    edges = [*split(cols, banks).tolist(), cols]
    for row in matrix:
        for left, right in pairwise(edges):
            row[rng.choice(np.arange(left, right), kept, replace=False)] = rng.integers(1, 100, kept)
    return matrix * rng.choice([-1, 1], matrix.shape).astype(np.int16)


def test_every_array_is_a_file_of_words_of_its_width():
    matrix = np.array([[0, -3, 0, 7], [5, 0, 0, -1]])
    texts = memory_files("a/b", pack(matrix, "csr"), weight_bits=6)
    manifest = json.loads(texts["a_b.json"])

    assert texts["a_b.values.hex"] == "3d\n07\n05\n3f\n"
    assert words(texts["a_b.indices.hex"]) == [1, 3, 0, 3]
    assert words(texts["a_b.pointers.hex"]) == [0, 2, 4]
    assert manifest["word_bits"] == {"values": 6, "indices": 2, "pointers": 3}
    assert (manifest["scale"], manifest["tensor"]) == (1.0, "a/b")


@pytest.mark.parametrize("bits", [2, 8, 16, 32])
def test_floats_are_quantised_to_half_a_step(bits):
    values = np.random.default_rng(0).normal(size=200).astype(np.float32)
    found = quantised(values, bits)

    assert np.abs(found.integers).max() == 2 ** (bits - 1) - 1
    assert np.abs(found.integers * found.scale - values).max() <= found.scale * 0.5000001


def test_quantising_zeros_keeps_them():
    assert quantised(np.zeros(3, np.float32), 8).integers.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("values", "bits", "error"),
    [
        (np.array([200]), 8, SpecError),
        (np.array([np.nan]), 8, DataError),
        (np.array([1.0]), 1, SpecError),
    ],
)
def test_what_has_no_such_integers_is_refused(values, bits, error):
    with pytest.raises(error, match="memory files"):
        quantised(values, bits)


def run_bank_engine(texts, word, pes, vector, starts, rows):
    """What the RTL does with these words: every lane multiplies, a row ends where its word says so."""
    result = np.zeros(rows, dtype=np.int64)
    for pe in range(pes):
        row = pe
        for line in words(texts[f"m.pe{pe}.hex"]):
            wave = (line >> (word["word"] - 1 - word["wave"])) & ((1 << word["wave"]) - 1)
            step = word["index"] + word["weight"]
            for lane in range((word["word"] - 1 - word["wave"]) // step):
                entry = line >> (lane * step)
                weight = signed(entry & ((1 << word["weight"]) - 1), word["weight"])
                index = (entry >> word["weight"]) & ((1 << word["index"]) - 1)
                bank = wave * LANES + lane
                if weight:
                    result[row] += weight * vector[starts[bank] + index]
            row += pes * (line >> (word["word"] - 1))
    return result


LANES = 3


@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(1, 4))
@settings(deadline=None)
def test_the_bank_engine_computes_the_product_from_its_words(rows, banks, width, kept, pes):
    cols = banks * width + (1 if banks > 1 else 0)
    matrix = banked(rows, cols, banks, min(kept, width), seed=rows)
    vector = np.arange(1, cols + 1)
    packed = pack(matrix, "csb", banks=banks)
    texts = memory_files("m", packed, weight_bits=9, pes=pes, lanes=LANES)
    word = json.loads(texts["m.json"])["word_bits"]["pe"]

    assert run_bank_engine(texts, word, pes, vector, split(cols, banks), rows).tolist() == (matrix @ vector).tolist()


def test_a_row_takes_one_word_per_wave_and_place():
    texts = memory_files("m", pack(banked(5, 24, 4, 2, 0), "csb", banks=4), pes=2, lanes=LANES)

    assert [len(words(texts[f"m.pe{pe}.hex"])) for pe in range(2)] == [3 * 2 * 2, 2 * 2 * 2]


@pytest.mark.parametrize(
    ("form", "options"), [("csr", {"pes": 1, "lanes": 1}), ("csb", {"pes": 1}), ("csb", {"pes": 0, "lanes": 1})]
)
def test_files_per_pe_need_csb_and_a_shape(form, options):
    with pytest.raises(SpecError, match="per PE"):
        memory_files("m", pack(np.eye(4), form), **options)
