"""Files that users name for results: there whole or not at all."""

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness._outputs import write_output
from harness.api import SpecError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["nameless", "by name"])
def way(request, monkeypatch):
    """Both ways of making a file: without a name at first, where the file system can, and under another name."""
    if request.param == "by name":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)


def test_a_file_is_written_and_written_again_with_the_rights_it_has(tmp_path, way):
    path = tmp_path / "out.csv"
    write_output(path, "first\n")
    usual = stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o640)
    write_output(path, b"second\n")

    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"second\n", 0o640)
    (tmp_path / "other").touch()
    assert usual == stat.S_IMODE((tmp_path / "other").stat().st_mode)
    assert names(tmp_path) == ["other", "out.csv"]


def test_a_new_file_replaces_none(tmp_path, way):
    path = tmp_path / "experiment.yaml"
    write_output(path, "mine", is_new=True)

    with pytest.raises(SpecError, match="exists already and was left as it is"):
        write_output(path, "theirs", is_new=True)
    assert path.read_text() == "mine" and names(tmp_path) == ["experiment.yaml"]


def test_a_link_stays_a_link(tmp_path, way):
    (tmp_path / "there").write_text("old")
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "dangling").symlink_to("new")
    write_output(tmp_path / "link", "1")
    write_output(tmp_path / "dangling", "2")

    assert (tmp_path / "link").is_symlink() and (tmp_path / "dangling").is_symlink()
    assert ((tmp_path / "there").read_text(), (tmp_path / "new").read_text()) == ("1", "2")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.mkdir(), "it is a folder"),
        (lambda path: path.symlink_to(path.name), "a link that leads back to itself"),
        (os.mkfifo, "a pipe that nobody reads"),
        (Path.touch, "its folder is a file"),
    ],
)
def test_what_cannot_be_written_is_told_by_what_it_is_and_not_waited_for(tmp_path, make, reason):
    path = tmp_path / "out"
    make(path)

    with pytest.raises(SpecError, match=reason):
        write_output(path / "below" if path.is_file() else path, "text")


def test_folders_that_are_missing_are_made(tmp_path, way):
    write_output(tmp_path / "a" / "b" / "out", "text")

    assert (tmp_path / "a" / "b" / "out").read_text() == "text"


def test_names_that_no_file_can_have_are_refused(tmp_path):
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(SpecError, match="cannot be written"):
            write_output(tmp_path / name, "text")


def test_the_longest_name_that_a_file_can_have_is_written(tmp_path, way):
    path = tmp_path / ("ä" * 127)
    write_output(path, "text")

    assert path.read_text() == "text" and len(names(tmp_path)) == 1


def test_a_pipe_that_is_read_gets_everything(tmp_path):
    path, got = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    open_until_all_is_written = os.open(path, os.O_WRONLY)

    def read():
        with os.fdopen(reader, "rb") as file:
            got.append(file.read())

    thread = threading.Thread(target=read)
    thread.start()
    write_output(path, "x" * 300_000)
    os.close(open_until_all_is_written)
    thread.join(60)

    assert len(got[0]) == 300_000 and stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize("before", [None, "what was there"])
def test_a_file_that_would_grow_too_large_leaves_what_was_there(tmp_path, way, before):
    path = tmp_path / "out"
    if before is not None:
        path.write_text(before)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(SpecError, match=r"cannot be written: File too large"):
            write_output(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert names(tmp_path) == ([] if before is None else ["out"])
    assert before is None or path.read_text() == before


KILLED = """
import os, sys, signal
from pathlib import Path
from harness import _outputs
if sys.argv[2] == "by name" and hasattr(os, "O_TMPFILE"):
    del os.O_TMPFILE
_outputs._fill = lambda handle, data: (os.write(handle, data), os.kill(os.getpid(), signal.SIGKILL))
_outputs.write_output(Path(sys.argv[1]), "half")
"""


@pytest.mark.parametrize("how", ["nameless", "by name"])
def test_what_a_killed_command_was_writing_is_gone_after_the_next(tmp_path, how):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a"), how], check=False)
    assert done.returncode == -signal.SIGKILL

    write_output(tmp_path / "b", "text")

    assert names(tmp_path) == ["b"]


def test_what_another_command_is_writing_stays(tmp_path):
    import fcntl

    part = tmp_path / ".a.0123abcd.harness-part"
    with part.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_output(tmp_path / "b", "text")

        assert part.exists()
    write_output(tmp_path / "b", "text")
    assert not part.exists()


def test_an_output_of_the_process_is_added_to(tmp_path):
    program = "from pathlib import Path; from harness._outputs import write_output; print('a', flush=True); "
    program += "write_output(Path('/dev/stdout'), 'b\\n'); print('c', flush=True)"
    if not Path("/dev/stdout").exists():
        pytest.skip("the system has no name for stdout")
    with (tmp_path / "all").open("ab") as all_of_it:
        subprocess.run([sys.executable, "-c", program], stdout=all_of_it, check=True)

    assert (tmp_path / "all").read_text() == "a\nb\nc\n"
