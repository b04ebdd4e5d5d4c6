"""Files that somebody made to do harm: nothing is loaded as code, nothing leaves the store, memory stays bounded."""

import hashlib
import json
import os
import pickle
import re
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from harness.api import SpecError, State, StoreError
from harness.spec.document import validate
from harness.spec.source import MAX_NODES, read
from harness.store import MASKS, MAX_HEADER_BYTES, MAX_RECORD_BYTES, STAGE, STATE, DamagedStageError, StageRecord, Store

KEY = "ab" + 30 * "0"

SOURCES = Path(__file__).parents[3]

NAMES = [
    "..", ".", "../outside", "a/b", "/etc", "a\0b", "", "-rf", ".hidden", "a\\b", "x" * 300, "a\n", "ä", "a b", "~",
    "C:x",
]  # fmt: skip


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def written(store):
    masks = {"w": np.array([[True, False, True]])}
    return store.write(
        StageRecord(key=KEY, parent=None, kind="train", inputs={}),
        State(weights={"w": np.ones((1, 3), np.float32)}, masks=masks),
    )


def forged(store, name, content):
    """A stage whose file is somebody else's, with a checksum that fits."""
    record = written(store)
    (store.stage_folder(KEY) / name).write_bytes(content)
    record = record.model_copy(update={"checksums": record.checksums | {name: hashlib.sha256(content).hexdigest()}})
    store.write_record(record)
    return record


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_run_cannot_leave_the_store_by_its_name(store, name):
    with pytest.raises(StoreError, match="run's id"):
        store.run_folder(name)


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_cannot_have_such_a_name(name):
    _, problems = read("name: x\n", "spec.yaml")

    assert validate({"name": name, "task": "t"}, problems) is None
    with pytest.raises(SpecError, match="name"):
        problems.finish()


@pytest.mark.parametrize("key", [*NAMES, "a.b"])
def test_a_stage_cannot_leave_the_store_by_its_key(store, key):
    if re.fullmatch("[0-9A-Za-z_-]+", key) and len(key) <= 128:
        assert store.stage_folder(key).parents[2] == store.folder
        return
    for use in (store.read, store.has_state, store.drop_state, store.set_aside):
        with pytest.raises(StoreError, match="key"):
            use(key)


def test_a_stage_cannot_be_written_outside(store, tmp_path):
    with pytest.raises(StoreError, match="key"):
        store.write(StageRecord(key="../../../x", parent=None, kind="init", inputs={}), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["stages", "stages/ab", f"stages/ab/{KEY}"])
def test_a_linked_folder_is_neither_written_nor_deleted_in(store, tmp_path, link):
    outside = tmp_path / "outside"
    stage = outside / Path(f"stages/ab/{KEY}").relative_to(link)
    stage.mkdir(parents=True)
    (stage / STATE).write_text("precious")
    (stage / STAGE).write_text("precious")
    (store.folder / link).parent.mkdir(parents=True, exist_ok=True)
    (store.folder / link).symlink_to(outside)

    for act in (written, lambda store: store.drop_state(KEY), lambda store: store.set_aside(KEY)):
        with pytest.raises(StoreError, match="link"):
            act(store)
    assert {path.name: path.read_text() for path in stage.iterdir()} == {STATE: "precious", STAGE: "precious"}


def test_a_linked_file_is_replaced_and_not_written_through(store, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = store.stage_folder(KEY)
    folder.mkdir(parents=True)
    for name in (STATE, MASKS, STAGE):
        (folder / name).symlink_to(victim)

    written(store)

    assert victim.read_text() == "precious"
    assert store.read(KEY) is not None


@pytest.mark.parametrize("link", ["runs", "runs/run-1"])
def test_a_linked_run_is_not_written_to(store, tmp_path, link):
    (store.folder / link).parent.mkdir(exist_ok=True)
    (store.folder / link).symlink_to(tmp_path)

    with pytest.raises(StoreError, match="link"):
        store.run_folder("run-1")


def test_a_whole_store_may_be_a_link(store, tmp_path):
    (tmp_path / "link").symlink_to(store.folder)

    assert written(Store(tmp_path / "link")) == store.read(KEY)


# --- contents ---------------------------------------------------------------------------------------------------------


def test_no_module_can_load_code_from_a_file():
    ways = re.compile(
        r"^\s*(import|from) (pickle|cPickle|marshal|shelve|dill|joblib)\b|allow_pickle=True|\beval\(|\bexec\("
    )
    sources = [path for folder in ("harness", "plugins") for path in (SOURCES / folder).rglob("*.py")]

    found = [f"{path}: {line}" for path in sources for line in path.read_text().splitlines() if ways.search(line)]

    # A session or model in evaluation mode is not Python's eval of text. Jobs of Slurm are submitit's pickles, which a
    # run writes for itself, as processes and Ray do for theirs; nobody names such a file. Checkpoints raise its error.
    allowed = (
        ".eval()", "execution/slurm.py: import pickle", "execution/slurm_node.py: import pickle",
        "own/torch_checkpoints.py: from pickle import UnpicklingError",
    )  # fmt: skip
    assert [line for line in found if not any(each in line for each in allowed)] == []


@pytest.mark.parametrize("name", [STATE, MASKS])
def test_a_pickle_in_place_of_a_file_is_damage(store, tmp_path, name):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    record = forged(store, name, pickle.dumps(Bomb()))

    with pytest.raises(DamagedStageError):
        store.state(record)
    assert not (tmp_path / "executed").exists()


def header(length, text=b"{}"):
    return struct.pack("<Q", length) + text


def tensor(begin, end, shape=(4,)):
    text = json.dumps({"weights/w": {"dtype": "U8", "shape": shape, "data_offsets": [begin, end]}}).encode()
    return header(len(text), text)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"1234567", header(2**63), header(MAX_HEADER_BYTES + 1), header(200), header(2, b"[]"),
        header(2, b"\xff\xff"), header(8000, b"[" * 8000), tensor(0, 2**60), tensor(0, 5) + b"1234",
        tensor(0, 3) + b"1234", tensor(-4, 4) + b"1234", tensor(0, 4, [2**40]) + b"1234", tensor(0, 4, [-4]) + b"1234",
        header(40, b'{"w": {"dtype": "U8", "data_offsets": 5}'), header(24, b'{"w": {"data_offsets":""'),
        save({"strange/w": np.ones(3)}), save({"w": np.ones(3)}),
    ],
)  # fmt: skip
def test_a_state_that_lies_about_itself_is_damage(store, content):
    record = forged(store, STATE, content)

    with pytest.raises(DamagedStageError):
        store.state(record)


def test_a_file_larger_than_its_header_says_is_not_read(store, monkeypatch):
    record = written(store)
    os.truncate(store.stage_folder(KEY) / STATE, 1 << 42)  # a hole: it has no blocks on disk

    with pytest.raises(DamagedStageError, match="header"):
        store.state(record)


@pytest.mark.parametrize(
    ("bits", "shape"),
    [
        (1, [1 << 30, 1 << 30]), (1, [1 << 20, 1 << 20]), (1, [3, 3]), (2, [1, 8]), (1, [-1, -8]), (1, [8]), (0, []),
        (1, [1, 2, 4]), (1, [0, 5]),
    ],
)  # fmt: skip
def test_masks_are_as_large_as_their_bits(store, bits, shape):
    content = save({"bits/w": np.zeros(bits, np.uint8), "shape/w": np.array(shape, np.int64)})
    record = forged(store, MASKS, content)

    with pytest.raises(DamagedStageError):
        store.masks(record)


def test_masks_without_a_shape_are_damage(store):
    record = forged(store, MASKS, save({"bits/w": np.zeros(1, np.uint8)}))

    with pytest.raises(DamagedStageError, match="no masks"):
        store.masks(record)


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[" * 100_000, b'{"checksum": 1}', b"\xff", b'{"checksum": NaN, "key": []}']
)
def test_a_record_that_is_none_is_damage(store, content):
    written(store)
    (store.stage_folder(KEY) / STAGE).write_bytes(content)

    with pytest.raises(DamagedStageError):
        store.read(KEY)


def test_a_record_of_absurd_size_is_not_read(store):
    written(store)
    os.truncate(store.stage_folder(KEY) / STAGE, MAX_RECORD_BYTES + 1)

    with pytest.raises(DamagedStageError):
        store.read(KEY)


@pytest.mark.parametrize("name", [STATE, STAGE])
def test_a_pipe_or_folder_in_place_of_a_file_keeps_nobody_waiting(store, name):
    record = written(store)
    path = store.stage_folder(KEY) / name
    for make in (os.mkfifo, os.mkdir):
        path.unlink()
        make(path)

        with pytest.raises(DamagedStageError):
            store.read(KEY) if name == STAGE else store.state(record)
        if make is os.mkdir:
            path.rmdir()


def test_a_marker_of_absurd_size_is_not_read(store):
    os.truncate(store.folder / "format", 1 << 42)

    with pytest.raises(StoreError, match="store"):
        store.prepare()
    with pytest.raises(StoreError, match="store"):
        store.check_readable()


# --- YAML -------------------------------------------------------------------------------------------------------------


def laughs(first, line):
    nine = {name: ",".join([f"*{before}"] * 9) for before, name in pairwise("abcdefghij")}
    return first + "".join(line.format(name=name, nine=nine[name]) for name in nine)


WIDE = (
    "m: &m {" + ", ".join(f"k{index}: 1" for index in range(1000)) + "}\nx:\n  <<: [" + ",".join(["*m"] * 5000) + "]\n"
)


@pytest.mark.parametrize(
    "text",
    [
        laughs("a: &a [x, x, x]\n", "{name}: &{name} [{nine}]\n"),
        laughs("a: &a {k: 1}\n", "{name}: &{name} {{<<: [{nine}]}}\n"),
        WIDE,
    ],
    ids=["lists", "merges", "wide merges"],
)
def test_aliases_cannot_explode(text):
    with pytest.raises(SpecError, match=f"at most {MAX_NODES} values"):
        read(text, "spec.yaml")


def test_half_a_character_in_a_document_is_refused():
    with pytest.raises(SpecError, match="printable"):
        read("a: \ud800\n", "spec.yaml")


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: &a {b: *a}\n", "a: &a\n  <<: *a\n"])
def test_an_alias_of_what_it_stands_in_is_refused(text):
    with pytest.raises(SpecError, match="tree of values"):
        read(text, "spec.yaml")


@pytest.mark.parametrize(
    "text", ["a: !!python/object/apply:os.system [id]\n", "a: !!python/name:os.system\n", "a: !x 1\n"]
)
def test_a_tag_is_never_code(text):
    _, problems = read(text, "spec.yaml")

    with pytest.raises(SpecError, match="tagged"):
        problems.finish()


# --- a store that cannot be written -----------------------------------------------------------------------------------

READING = """
import os, sys
from pathlib import Path
from harness.api import StoreError
from harness.store import Store

if os.geteuid() == 0:  # nothing is read-only for root
    os.setuid(65534)
store = Store(Path(sys.argv[1]))
record = store.read(sys.argv[2])
print(record.kind, sorted(store.state(record).weights), store.latest_run().name)
try:
    store.prepare()
except StoreError as error:
    print(error.exit_code, error)
"""


def test_a_store_that_cannot_be_written_can_be_read(store):
    written(store)
    store.run_folder("run-1").mkdir(parents=True)
    (store.run_folder("run-1") / "records.json").write_text("{}")
    for folder in store.folder.parents[:3]:  # pytest's, which only their owner may enter
        folder.chmod(0o755)
    for path in store.folder.rglob("*"):
        path.chmod(0o755)
    store.folder.chmod(0o555)

    done = subprocess.run(
        [sys.executable, "-c", READING, store.folder, KEY], capture_output=True, text=True, check=False
    )
    store.folder.chmod(0o755)

    assert done.stdout.splitlines()[0] == "train ['w'] run-1", done.stderr
    assert done.stdout.splitlines()[1].startswith("7 store:")
    assert "cannot be written" in done.stdout
