"""Labelled images: IDX files read strictly, MNIST's protocols, and the embedded digits."""

import gzip
import hashlib
import os
import struct

import numpy as np
import pytest
from harness_plugins.tasks import _images
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import DataError
from harness.data import DATA_SETS

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx(array, *, type_code=8):
    """The bytes of an IDX file, by the description of the format."""
    return bytes([0, 0, type_code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def some(count, side=28, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side), dtype=np.uint8), rng.integers(0, 10, count, dtype=np.uint8)


def write_pair(folder, part="t10k", count=20, seed=0):
    folder.mkdir(exist_ok=True)
    images, labels = some(count, seed=seed)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return images, labels


@settings(deadline=None)
@given(shape=st.lists(st.integers(0, 5), min_size=3, max_size=3), packed=st.booleans())
def test_an_idx_file_reads_back_what_was_written(tmp_path_factory, shape, packed):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = tmp_path_factory.mktemp("idx") / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))

    read = _images.read_idx(path, axes=3)

    assert read.dtype == np.uint8
    assert read.shape == array.shape and (read == array).all()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize(("cut", "got"), [(1, 1583), (1568, 16), (1580, 4)])
def test_a_truncated_file_says_how_many_bytes_were_expected(tmp_path, packed, cut, got):
    content = idx(some(2)[0])[:-cut]
    path = tmp_path / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(content) if packed else content)

    with pytest.raises(DataError, match=rf"expects \d+ bytes in .*file(\.gz)? from its header .*, got {got};"):
        _images.read_idx(path, axes=3)


def test_a_file_that_is_too_long_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(idx(some(2)[0]) + b"more")

    with pytest.raises(DataError, match=r"expects 1584 bytes .* got at least 1585"):
        _images.read_idx(tmp_path / "file", axes=3)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", idx(some(2)[1]), idx(some(2)[0], type_code=13), b"<html>not found</html>"],
    ids=["empty", "one byte", "labels for images", "floats", "a web page"],
)
def test_a_file_with_another_beginning_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)

    with pytest.raises(DataError, match=r"begins with 00000803 \(unsigned bytes, 3 axes\), .* begins with"):
        _images.read_idx(tmp_path / "file", axes=3)


def test_a_header_that_promises_too_much_is_refused_before_allocating(tmp_path):
    (tmp_path / "file").write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1))

    with pytest.raises(DataError, match=r"reads at most 268435456 bytes, .* announces \[4294967295"):
        _images.read_idx(tmp_path / "file", axes=3)


@pytest.mark.parametrize(
    "content",
    [gzip.compress(idx(some(9)[0]))[:-20], gzip.compress(idx(some(9)[0]))[:40] + b"\xff" * 200],
    ids=["cut short", "altered"],
)
def test_a_damaged_gzip_file_is_one_sentence(tmp_path, content):
    (tmp_path / "file.gz").write_bytes(content)

    with pytest.raises(DataError, match=r"file\.gz is a damaged or truncated gzip file"):
        _images.read_idx(tmp_path / "file.gz", axes=3)


# --- MNIST ---


def test_test_files_alone_are_split_in_file_order_and_said_to_be_unusual(tmp_path):
    images, labels = write_pair(tmp_path / "mnist", count=20)

    data = _images.mnist(tmp_path)

    assert [len(data.labels[split]) for split in ("train", "valid", "test")] == [16, 2, 2]
    assert (np.concatenate(list(data.pixels.values())) == images).all()
    assert (np.concatenate(list(data.labels.values())) == labels).all()
    assert "not MNIST's usual protocol" in data.protocol


def test_all_four_files_give_the_usual_protocol(tmp_path):
    train, _ = write_pair(tmp_path, "train", count=24, seed=1)
    test, labels = write_pair(tmp_path, "t10k", count=8, seed=2)

    data = _images.mnist(tmp_path)

    assert (data.pixels["train"] == train[:22]).all()
    assert (data.pixels["valid"] == train[22:]).all()
    assert (data.pixels["test"] == test).all() and (data.labels["test"] == labels).all()
    assert data.protocol.startswith("usual")


@pytest.mark.parametrize("spelling", ["{}-{}-idx{}-ubyte.gz", "{}-{}.idx{}-ubyte", "{}-{}.idx{}-ubyte.gz"])
def test_other_spellings_of_the_file_names_are_found(tmp_path, spelling):
    for kind, axes, array in zip(("images", "labels"), (3, 1), some(10), strict=True):
        name = spelling.format("t10k", kind, axes)
        (tmp_path / name).write_bytes(gzip.compress(idx(array)) if name.endswith(".gz") else idx(array))

    assert len(_images.mnist(tmp_path).labels["train"]) == 8


def test_half_a_training_set_is_not_taken_for_the_small_protocol(tmp_path):
    write_pair(tmp_path, "t10k")
    write_pair(tmp_path, "train")
    (tmp_path / "train-labels-idx1-ubyte").unlink()

    with pytest.raises(DataError, match="found no train-labels-idx1-ubyte in"):
        _images.mnist(tmp_path)


def test_missing_files_are_named_with_the_places_looked_in(tmp_path):
    with pytest.raises(
        DataError, match=r"found no .*t10k-images-idx3-ubyte.* in .*mnist or .*`harness data fetch mnist"
    ):
        _images.mnist(tmp_path)


def test_without_a_data_folder_the_error_says_how_to_give_one():
    with pytest.raises(DataError, match="needs the data set 'mnist' and no data folder is given"):
        _images.mnist(None)


def test_more_labels_than_images_are_refused(tmp_path):
    write_pair(tmp_path, count=20)
    (tmp_path / LABELS).write_bytes(idx(some(21)[1]))

    with pytest.raises(DataError, match=r"as many labels as images, got 21 in .* and 20 in"):
        _images.mnist(tmp_path)


def test_images_of_another_size_are_refused(tmp_path):
    write_pair(tmp_path, count=20)
    (tmp_path / IMAGES).write_bytes(idx(some(20, side=32)[0]))

    with pytest.raises(DataError, match=r"images of 28 x 28 pixels, .* has 32 x 32"):
        _images.mnist(tmp_path)


def test_a_label_that_is_no_digit_is_refused(tmp_path):
    write_pair(tmp_path, count=20)
    (tmp_path / LABELS).write_bytes(idx(np.full(20, 10, dtype=np.uint8)))

    with pytest.raises(DataError, match=r"labels from 0 to 9, .* has 10"):
        _images.mnist(tmp_path)


@pytest.mark.parametrize("name", ["file", "file.gz"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_the_first_bytes_say_whether_a_file_is_packed_not_its_name(tmp_path, name, packed):
    images, _ = some(3)
    (tmp_path / name).write_bytes(gzip.compress(idx(images)) if packed else idx(images))

    assert (_images.read_idx(tmp_path / name, axes=3) == images).all()


@pytest.mark.parametrize("place", ["mnist", "MNIST/raw", "MNIST", "mnist/raw", "raw", "."])
def test_files_are_found_where_other_tools_put_them(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    _, labels = write_pair(folder, count=20)

    assert (np.concatenate(list(_images.mnist(tmp_path).labels.values())) == labels).all()


def test_a_file_unpacked_into_a_folder_of_its_name_is_found(tmp_path):
    write_pair(tmp_path / "flat", count=20)
    for name in (IMAGES, LABELS):
        (tmp_path / name).mkdir()
        (tmp_path / "flat" / name).rename(tmp_path / name / name)

    assert len(_images.mnist(tmp_path).labels["train"]) == 16


def test_a_pipe_in_the_place_of_images_is_told_and_not_waited_for(tmp_path):
    write_pair(tmp_path, count=20)
    (tmp_path / IMAGES).unlink()
    os.mkfifo(tmp_path / IMAGES)

    with pytest.raises(DataError, match="expected an IDX file of images or labels, got a pipe"):
        _images.mnist(tmp_path)


# --- Fashion-MNIST ---


@pytest.fixture
def small_fashion(tmp_path, monkeypatch):
    """A folder with four small files, which count as the published ones."""
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    write_pair(folder, "train", count=24, seed=1)
    write_pair(folder, "t10k", count=8, seed=2)
    sums = tuple(hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _images.NAMES)
    monkeypatch.setitem(_images.CONTENTS, "fashion_mnist", sums)
    return folder


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_fashion_mnist_is_read_whole_and_says_what_is_validation(tmp_path, small_fashion, packed):
    for name in _images.NAMES if packed else ():
        (small_fashion / f"{name}.gz").write_bytes(gzip.compress((small_fashion / name).read_bytes()))
        (small_fashion / name).unlink()

    data = _images.fashion_mnist(tmp_path)

    assert [len(data.labels[split]) for split in ("train", "valid", "test")] == [22, 2, 8]
    assert data.white == 255 and "this project's own choice" in data.protocol


def test_fashion_mnist_with_an_altered_byte_is_refused_with_both_checksums(tmp_path, small_fashion):
    content = bytearray((small_fashion / IMAGES).read_bytes())
    content[-1] ^= 1
    (small_fashion / IMAGES).write_bytes(content)
    got = hashlib.sha256(content).hexdigest()

    with pytest.raises(DataError, match=rf"t10k-images.* with SHA-256 [0-9a-f]{{64}} when unpacked, .* has {got}"):
        _images.fashion_mnist(tmp_path)


def test_fashion_mnist_in_the_place_of_mnist_is_told(small_fashion):
    with pytest.raises(DataError, match=r"expects the data set 'mnist', .* is of 'fashion_mnist'"):
        _images.mnist(small_fashion)


def test_fashion_mnist_needs_all_four_files(tmp_path, small_fashion):
    (small_fashion / "train-labels-idx1-ubyte").unlink()

    with pytest.raises(DataError, match=r"found no train-labels-idx1-ubyte .* fetch fashion_mnist"):
        _images.fashion_mnist(tmp_path)


def test_the_checksums_are_those_that_data_fetch_verifies():
    for name, sums in _images.CONTENTS.items():
        assert tuple(file.unpacked.sha256 for file in DATA_SETS[name].files) == sums
        assert tuple(file.unpacked.name for file in DATA_SETS[name].files) == _images.NAMES


# --- digits ---


def test_the_embedded_digits_are_all_there_once():
    digits = _images.digits()

    everything = np.concatenate(list(digits.pixels.values()))
    assert everything.shape == (1797, 8, 8) and everything.max() == digits.white == 16
    assert [len(digits.labels[split]) for split in ("train", "valid", "test")] == [1297, 200, 300]
    counts = np.bincount(np.concatenate(list(digits.labels.values())))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # the data set's own description


def test_every_split_of_the_digits_has_every_class():
    assert all(set(labels.tolist()) == set(range(10)) for labels in _images.digits().labels.values())
