"""Data folders: resolved, surveyed, verified and filled, against a local HTTP server."""

import gzip
import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness import data
from harness.api import DataError
from harness.data import DataFile, DataSet

CONTENTS = {"a.txt": b"one two three\n" * 9000, "b.gz": gzip.compress(b"four", mtime=0)}


class QuietHandler(SimpleHTTPRequestHandler):
    served = None

    def do_GET(self):
        self.served.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A data set `toy` and a server that has its files; yields (folder of the server, its address, paths asked for)."""
    served = tmp_path / "mirror"
    served.mkdir()
    for name, content in CONTENTS.items():
        (served / name).write_bytes(content)
    files = tuple(
        DataFile(name=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in CONTENTS.items()
    )
    toy = DataSet(name="toy", description="two files", base_url="http://127.0.0.1:9/", files=files)
    monkeypatch.setitem(data.DATA_SETS, "toy", toy)
    monkeypatch.setattr(QuietHandler, "served", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(served)))
    server.handle_error = lambda *_: None  # a client that hangs up is part of a test
    server.daemon_threads = False  # server_close() then waits for them, and no socket outlives the test
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield served, f"http://127.0.0.1:{server.server_port}", QuietHandler.served
    server.shutdown()
    thread.join()
    server.server_close()


def states(statuses):
    return [status.state for status in statuses]


def left_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_fetched_files_are_complete_and_right(mirror, tmp_path):
    _, address, _ = mirror
    folder = tmp_path / "new" / "data"

    data.fetch("toy", folder, base_url=address)

    assert {path.name: path.read_bytes() for path in (folder / "toy").iterdir()} == CONTENTS
    assert states(data.verify("toy", folder)) == ["ok", "ok"]


def test_right_files_are_not_fetched_again(mirror, tmp_path):
    _, address, asked = mirror
    (tmp_path / "a.txt").write_bytes(CONTENTS["a.txt"])

    before = data.fetch("toy", tmp_path, base_url=address)

    assert states(before) == ["ok", "missing"]
    assert asked == ["/b.gz"]


def test_a_file_with_another_checksum_is_replaced(mirror, tmp_path):
    _, address, asked = mirror
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "a.txt").write_bytes(b"?" * len(CONTENTS["a.txt"]))

    data.fetch("toy", tmp_path, base_url=address)

    assert (tmp_path / "toy" / "a.txt").read_bytes() == CONTENTS["a.txt"]
    assert "/a.txt" in asked


def test_progress_ends_at_the_size_of_the_file(mirror, tmp_path):
    _, address, _ = mirror
    seen = {}

    data.fetch("toy", tmp_path, base_url=address, progress=lambda name, done, size: seen.update({name: (done, size)}))

    assert seen == {name: (len(content), len(content)) for name, content in CONTENTS.items()}


@pytest.mark.parametrize(
    "wrong",
    [b"", CONTENTS["a.txt"][:-1], CONTENTS["a.txt"].replace(b"two", b"owt"), CONTENTS["a.txt"] * 40],
    ids=["empty", "truncated", "altered", "too long"],
)
def test_a_wrong_download_is_refused_and_leaves_nothing_behind(mirror, tmp_path, wrong):
    served, address, _ = mirror
    (served / "a.txt").write_bytes(wrong)
    folder = tmp_path / "data"

    with pytest.raises(DataError, match=r"a\.txt should have 126000 bytes with SHA-256 .*; nothing was kept"):
        data.fetch("toy", folder, base_url=address)

    assert left_in(folder) == []


def test_a_download_far_too_long_is_cut_off(mirror, tmp_path):
    served, address, _ = mirror
    (served / "b.gz").write_bytes(b"0" * 50_000_000)
    (tmp_path / "a.txt").write_bytes(CONTENTS["a.txt"])

    with pytest.raises(DataError, match=f"got {data.CHUNK} bytes"):
        data.fetch("toy", tmp_path, base_url=address)


def test_a_file_that_a_mirror_does_not_have_is_one_sentence(mirror, tmp_path):
    served, address, _ = mirror
    (served / "b.gz").unlink()

    with pytest.raises(DataError, match=r"could not fetch http://.*/b\.gz: the server answered 404 .* by hand"):
        data.fetch("toy", tmp_path, base_url=address)

    assert left_in(tmp_path / "toy") == ["a.txt"]


def test_no_answer_is_one_sentence(mirror, tmp_path):
    with pytest.raises(DataError, match=r"could not fetch http://127\.0\.0\.1:9/a\.txt .*; check network"):
        data.fetch("toy", tmp_path)


def test_a_folder_that_cannot_be_made_is_one_sentence(mirror, tmp_path):
    _, address, _ = mirror
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(DataError, match="could not fetch"):
        data.fetch("toy", tmp_path / "file", base_url=address)


def test_only_http_is_fetched_from(mirror, tmp_path):
    with pytest.raises(DataError, match="by http or https, got the address 'file:///etc/'"):
        data.fetch("toy", tmp_path, base_url="file:///etc")


def test_an_unknown_data_set_names_those_there_are(tmp_path):
    with pytest.raises(DataError, match="unknown data set 'imagenet'; there are fashion_mnist, mnist, ptb"):
        data.verify("imagenet", tmp_path)


def test_verify_sees_an_altered_byte_that_a_survey_does_not(mirror, tmp_path):
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a.txt").write_bytes(b"x" + CONTENTS["a.txt"][1:])

    quick = [status for status in data.survey(tmp_path) if status.data_set == "toy"]

    assert states(quick) == ["ok", "ok"]
    assert states(data.verify("toy", tmp_path)) == ["wrong", "ok"]


def test_a_survey_of_an_empty_folder_says_where_files_would_be(tmp_path):
    statuses = data.survey(tmp_path)

    assert set(states(statuses)) == {"missing"}
    assert tmp_path / "ptb" / "ptb.train.txt" in [status.path for status in statuses]


def test_the_folder_given_goes_before_the_environment(tmp_path, monkeypatch):
    (tmp_path / "given").mkdir()
    (tmp_path / "environment").mkdir()
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "environment"))

    assert data.data_folder(tmp_path / "given") == tmp_path / "given"
    assert data.data_folder() == tmp_path / "environment"


@pytest.mark.skipif("sys.platform == 'win32'")
def test_the_users_own_folder_counts_only_if_it_exists(tmp_path, monkeypatch):
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    assert data.data_folder() is None
    assert data.target_folder() == tmp_path / "harness" / "data"
    (tmp_path / "harness" / "data").mkdir(parents=True)
    assert data.data_folder() == tmp_path / "harness" / "data"


def test_a_folder_that_does_not_exist_is_an_error_for_reading_only(tmp_path):
    nowhere = tmp_path / "nowhere"

    with pytest.raises(DataError, match=r"the data folder .*nowhere \(as given\) does not exist"):
        data.data_folder(nowhere)
    with pytest.raises(DataError, match="a variable in it is not filled in"):
        data.data_folder(tmp_path / "$NOWHERE")
    assert data.target_folder(nowhere) == nowhere


def test_an_environment_that_names_no_folder_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "gone"))

    with pytest.raises(DataError, match=r"gone \(from HARNESS_DATA\) does not exist"):
        data.data_folder()


def test_the_addresses_are_https_and_the_checksums_sha256():
    for each in data.DATA_SETS.values():
        assert each.base_url.startswith("https://")
        assert each.base_url.endswith("/")
        assert all(len(bytes.fromhex(file.sha256)) == hashlib.sha256().digest_size for file in each.files)


def test_real_data_have_the_checksums_listed():
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no data beside the repository")
    present = [status for name in data.DATA_SETS for status in data.verify(name, folder) if status.state != "missing"]

    assert present
    assert set(states(present)) == {"ok"}


# --- files that are fetched packed ---


@pytest.fixture
def packed(mirror, monkeypatch):
    """The data set `toy` with one file that is packed with gzip; yields its content and how the mirror packs it."""
    served, address, _ = mirror
    content, wire = b"images" * 1000, gzip.compress(b"images" * 1000, mtime=0)
    (served / "c.gz").write_bytes(wire)
    file = DataFile(
        name="c.gz",
        size=len(wire),
        sha256=hashlib.sha256(wire).hexdigest(),
        unpacked=DataFile(name="c", size=len(content), sha256=hashlib.sha256(content).hexdigest()),
    )
    toy = DataSet(name="toy", description="one packed file", base_url=address, files=(file,))
    monkeypatch.setitem(data.DATA_SETS, "toy", toy)
    return served, content, wire


@pytest.mark.parametrize("place", ["toy", "toy/raw", "Toy/raw", "TOY", ".", "raw"])
@pytest.mark.parametrize("form", ["as fetched", "packed again", "unpacked", "unpacked under the name of the packed"])
def test_a_packed_file_counts_by_its_content_wherever_and_however_it_lies(packed, tmp_path, place, form):
    _, content, wire = packed
    folder = tmp_path / "data" / place
    folder.mkdir(parents=True)
    name = "c" if form == "unpacked" else "c.gz"
    stored = {"as fetched": wire, "packed again": gzip.compress(content, 1)}.get(form, content)
    (folder / name).write_bytes(stored)

    (status,) = data.verify("toy", tmp_path / "data")

    assert (status.state, status.path) == ("ok", folder / name)
    assert [each.state for each in data.survey(tmp_path / "data") if each.data_set == "toy"] == ["ok"]


@pytest.mark.parametrize("wrong", [b"?" * 6000, gzip.compress(b"?" * 6000), gzip.compress(b"images" * 1000)[:-9], b""])
def test_another_content_is_wrong_packed_or_not(packed, tmp_path, wrong):
    (tmp_path / "c.gz").write_bytes(wrong)

    assert states(data.verify("toy", tmp_path)) == ["wrong"]


def test_a_mirror_may_pack_the_same_content_in_its_own_way(packed, tmp_path):
    served, content, _ = packed
    (served / "c.gz").write_bytes(gzip.compress(content, 1))

    data.fetch("toy", tmp_path / "data")

    assert gzip.decompress((tmp_path / "data" / "toy" / "c.gz").read_bytes()) == content


def test_files_of_one_name_in_the_data_folder_itself_are_of_one_data_set(tmp_path, monkeypatch):
    """MNIST and Fashion-MNIST have the same file names."""
    one, other = (hashlib.sha256(content).hexdigest() for content in (b"one", b"other"))
    for name, sum_of in (("first", one), ("second", other)):
        file = DataFile(name="images", size=5 if name == "second" else 3, sha256=sum_of)
        toy = DataSet(name=name, description="", base_url="https://x/", files=(file,))
        monkeypatch.setitem(data.DATA_SETS, name, toy)
    (tmp_path / "images").write_bytes(b"other")

    assert [states(data.verify(name, tmp_path)) for name in ("first", "second")] == [["missing"], ["ok"]]
