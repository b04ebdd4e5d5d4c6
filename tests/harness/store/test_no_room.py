"""A store and files of results on a disk without room: one sentence, and nothing half-written."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness._outputs import write_output
from harness.api import SpecError, State, StoreError
from harness.store import StageRecord, Store

KEY = "ab" + 30 * "0"


def mounted(folder, options):
    """A small disk at a folder, or a skip where none can be mounted."""
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("no `mount` here")
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()[:100]}")


@pytest.fixture(params=["size=64k,nr_inodes=1000", "size=16m,nr_inodes=9"], ids=["no space", "no inodes"])
def disk(request, tmp_path):
    """A disk that is full but for what a store needs to begin."""
    if not sys.platform.startswith("linux"):
        pytest.skip("a small disk is made with what Linux has")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted(folder, request.param)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder):
    """Leave no room: as many files as there may be, and as many bytes."""
    try:
        for number in range(400):
            (folder / f"filling{number}").write_bytes(b"x" * 65_536)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return
    pytest.skip("this system's small disks have no limit")


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("filling"))


def test_a_stage_is_there_whole_or_not_at_all(disk):
    store = Store(disk / "store")
    store.prepare()
    fill(disk)
    before = files(disk)

    with pytest.raises(StoreError, match=r"cannot be written below .*; free some space") as raised:
        store.write(
            StageRecord(key=KEY, parent=None, kind="train", inputs={}),
            State(weights={"w": np.ones((300, 300), np.float32)}, masks={}),
        )

    assert raised.value.exit_code == 7
    assert files(disk) == before and store.read(KEY) is None


def test_a_file_of_results_is_there_whole_or_not_at_all(disk):
    (disk / "before.csv").write_text("what was there")
    fill(disk)
    before = files(disk)

    for name in ("new.csv", "before.csv"):
        with pytest.raises(SpecError, match="No space left on device; name another file, or make room"):
            write_output(disk / name, "x" * 1_000_000)

    assert files(disk) == before and (disk / "before.csv").read_text() == "what was there"


def test_a_new_store_on_a_full_disk_ends_with_a_sentence(disk):
    fill(disk)

    with pytest.raises(StoreError, match=r"store cannot be written \(No space left on device\); name another folder"):
        Store(disk / "store").prepare()
    assert not files(disk)


@pytest.fixture
def closed(tmp_path):
    """A folder in which nothing can be made: immutable for the superuser, read-only for everybody else."""
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "before.csv").write_text("what was there")
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        try:
            done = subprocess.run(["chattr", "+i", str(folder)], capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("no `chattr` here, and the superuser may write everywhere")
        if done.returncode:
            pytest.skip("this file system has no immutable folders, and the superuser may write everywhere")
    try:
        try:
            (folder / "probe").touch()
        except OSError:
            yield folder
        else:
            pytest.skip("this system lets anybody write everywhere")
    finally:
        if os.access(Path("/"), os.W_OK):
            subprocess.run(["chattr", "-i", str(folder)], capture_output=True, check=False)
        folder.chmod(0o755)


def test_in_a_closed_folder_nothing_is_made_and_a_file_that_may_be_written_is(closed):
    with pytest.raises(StoreError, match=r"cannot be written .*; name another folder with --store") as raised:
        Store(closed / "store").prepare()
    with pytest.raises(SpecError, match=r"new\.csv cannot be written"):
        write_output(closed / "new.csv", "text")
    write_output(closed / "before.csv", "new")

    assert raised.value.exit_code == 7
    assert [path.name for path in closed.iterdir()] == ["before.csv"]
    assert (closed / "before.csv").read_text() == "new"
