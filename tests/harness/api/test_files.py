"""Files that users name: plain ones are read, everything else is told by what it is."""

import os
import socket
import stat

import pytest
from harness_plugins.hardware._devices import device
from harness_plugins.hardware._validation import checks

from harness.api import DataError, SpecError, data_places, open_plain, read_plain, read_plain_text
from harness.costing.entries import engine_entry
from harness.costing.workload import read_given
from harness.discovery.finding import discover
from harness.spec import load

posix = pytest.mark.skipif("sys.platform == 'win32'", reason="pipes, devices and links of POSIX")


def make(kind, path):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "dangling":
        path.symlink_to(path.with_name("gone"))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "large":
        path.touch()
        os.truncate(path, 1 << 40)  # a hole: no block is written


SAID = {
    "pipe": "a pipe", "folder": "a folder", "socket": "a socket", "loop": "a link that leads back to itself",
    "dangling": "a link to nothing", "device": "a device", "missing": "no such file",
    "large": "1099511627776 bytes, more than 9",
}  # fmt: skip


@posix
@pytest.mark.parametrize("reader", [open_plain, read_plain, read_plain_text])
@pytest.mark.parametrize("kind", SAID)
def test_what_is_no_plain_file_is_told_by_what_it_is(tmp_path, monkeypatch, kind, reader):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    path = tmp_path / "it"
    make(kind, path.relative_to(tmp_path) if kind == "socket" else path)

    with pytest.raises(DataError, match=rf"it: expected a corpus, got {SAID[kind]}; check the path"):
        reader(path, "a corpus", most=9, error=DataError)


@posix
def test_a_link_to_a_plain_file_is_followed(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")

    assert read_plain(tmp_path / "link", "a file", most=3) == b"abc"


@posix
@pytest.mark.skipif("os.geteuid() == 0", reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path):
    (tmp_path / "file").touch(mode=0)

    with pytest.raises(SpecError, match="a file that you may not read"):
        read_plain(tmp_path / "file", "a file", most=3)


@posix
def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path, monkeypatch):
    """Between the look and the opening."""
    os.mkfifo(tmp_path / "file")
    looked = os.stat_result((stat.S_IFREG | 0o600, 1, 1, 1, 0, 0, 3, 0, 0, 0))
    monkeypatch.setattr(type(tmp_path), "stat", lambda self: looked)

    with pytest.raises(SpecError, match="no plain file"):
        read_plain(tmp_path / "file", "a file", most=3)


@pytest.mark.parametrize("name", ["a\0b", "a\udc80\ud800b"])
def test_a_name_that_no_file_can_have_is_one_sentence(tmp_path, name):
    with pytest.raises(SpecError, match=r"expected a file, got (a name that no file has|no such file)"):
        read_plain(tmp_path / name, "a file", most=3)


def test_an_offset_counts_from_the_beginning_of_the_file(tmp_path):
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfab\xff")

    with pytest.raises(SpecError, match=r"as UTF-8 text, got another byte at offset 5; convert it"):
        read_plain_text(tmp_path / "file", "a file", most=99)


def test_a_data_set_is_looked_for_in_its_folder_first_then_under_other_spellings(tmp_path):
    for name in ("FashionMNIST", "fashion-mnist", "mnist"):
        (tmp_path / name).mkdir()
    folders = ["fashion_mnist", "FashionMNIST", "fashion-mnist", "."]

    assert data_places(tmp_path, "fashion_mnist") == tuple(
        place for folder in folders for place in (tmp_path / folder, tmp_path / folder / "raw")
    )
    assert data_places(tmp_path / "gone", "ptb")[0] == tmp_path / "gone" / "ptb"


# --- every command that reads a file somebody names ---


def experiment(path):
    load(path, discover([]))


READERS = {
    "experiment": experiment,
    "workload": read_given,
    "engine": lambda path: engine_entry(str(path)),
    "device": lambda path: device(str(path)),
    "targets": checks,
}


@posix
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "dangling", "device", "large"])
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_of_yaml_opens_what_is_no_plain_file(tmp_path, kind, reader):
    path = tmp_path / "it.yaml"
    make(kind, path)
    said = "1099511627776 bytes, more than 1000000" if kind == "large" else SAID[kind]

    with pytest.raises(SpecError, match=rf"it\.yaml: expected .*, got {said}; check the path"):
        READERS[reader](path)
