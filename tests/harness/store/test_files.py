"""The store: whole files or none, and damage is found."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness._files import sha256, write_atomic
from harness.api import EmptySelectionError, Evaluation, State, StoreError
from harness.store import DamagedStageError, StageRecord, Store, metered, stage_record, state_digest

KEY = "ab" + 30 * "0"


def state():
    rng = np.random.default_rng(0)
    return State(
        weights={"a.kernel": rng.normal(size=(3, 5)).astype(np.float32), "a.bias": np.zeros(3, np.float32)},
        masks={"a.kernel": rng.random((3, 5)) < 0.5},
        slots={"m/a.kernel": np.ones((3, 5), np.float32), "t": np.array(4.0, np.float32)},
        extra={"pruning_step/a": np.array(7, np.int64)},
    )


def record(**changes):
    values = {
        "key": KEY,
        "parent": None,
        "kind": "train",
        "inputs": {"rates": 0.1},
        "valid": Evaluation(nats=1.5, items=3),
    }
    return StageRecord(**(values | changes))


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def test_a_state_comes_back_as_it_was_written(store):
    written = store.write(record(), state())
    found = store.state(store.read(KEY))

    assert store.read(KEY) == written
    assert state_digest(found) == state_digest(state()) == written.digest
    for part in ("weights", "masks", "slots", "extra"):
        before, after = getattr(state(), part), getattr(found, part)
        assert {name: (array.shape, array.dtype) for name, array in before.items()} == {
            name: (array.shape, array.dtype) for name, array in after.items()
        }


@settings(deadline=None)  # it writes to a disk that others use, too
@given(mask=hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 17))))
def test_masks_are_packed_to_bits_and_come_back(tmp_path_factory, mask):
    store = Store(tmp_path_factory.mktemp("store"))
    written = store.write(record(), State({}, {"a": mask}))

    assert np.array_equal(store.masks(written)["a"], mask)


def test_a_dropped_state_leaves_record_and_masks(store):
    written = store.write(record(), state())
    store.drop_state(KEY)

    assert not store.has_state(KEY)
    assert store.read(KEY) == written
    assert np.array_equal(store.masks(written)["a.kernel"], state().masks["a.kernel"])


def test_a_stage_without_its_record_does_not_exist(store):
    store.write(record(), state())
    (store.stage_folder(KEY) / "stage.json").unlink()

    assert store.read(KEY) is None


@pytest.mark.parametrize("name", ["state.safetensors", "masks.safetensors"])
def test_one_flipped_bit_is_found(store, name):
    written = store.write(record(), state())
    path = store.stage_folder(KEY) / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(DamagedStageError, match="damaged"):
        store.state(written)


@pytest.mark.parametrize("change", [lambda text: text[:40], lambda text: text.replace("1.5", "1.4"), lambda text: "[]"])
def test_a_changed_record_is_found(store, change):
    store.write(record(), state())
    path = store.stage_folder(KEY) / "stage.json"
    path.write_text(change(path.read_text()))

    with pytest.raises(DamagedStageError):
        store.read(KEY)


def test_a_stage_set_aside_is_kept_for_a_look_but_does_not_exist(store, caplog):
    store.write(record(), state())
    store.set_aside(KEY, "it is no good", "all is well")

    assert store.read(KEY) is None
    assert (store.stage_folder(KEY) / "stage.damaged").exists()
    assert caplog.messages == [
        f"moved aside: {store.stage_folder(KEY) / 'stage.json'}, as it is no good; it is kept there as stage.damaged, "
        "and all is well"
    ]


def test_what_is_moved_aside_a_second_time_is_kept_beside_the_first_and_told_by_its_own_name(store, caplog):
    path = store.stage_folder(KEY) / "stage.json"
    for _ in range(2):
        path.mkdir(parents=True)
        (path / "inside").touch()
        store.write(record(), state())
        path.unlink()

    kept = sorted(each.name for each in path.parent.iterdir() if each.name.endswith(".damaged"))
    assert len(kept) == len(caplog.messages) == 2
    assert all(f"is kept there as {name}, and the file is written" in "".join(caplog.messages) for name in kept)


def test_nothing_that_is_moved_has_nothing_told(store, caplog):
    store.set_aside(KEY)

    assert not caplog.messages


def test_nothing_in_a_store_is_absolute_or_pickled(store):
    store.write(record(), state())
    files = [path for path in store.folder.rglob("*") if path.is_file()]

    assert all(str(store.folder).encode() not in path.read_bytes() for path in files)
    assert {path.suffix for path in files} <= {"", ".json", ".safetensors"}


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_swept_away_on_its_way_is_written_again(tmp_path, monkeypatch):
    path, real, swept = tmp_path / "file", os.replace, []

    def replace(source, target):
        if not swept:
            swept.append(source)
            os.unlink(source)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    write_atomic(path, b"content")

    assert path.read_bytes() == b"content"
    assert list(tmp_path.iterdir()) == [path] and swept


def test_a_folder_that_is_gone_cannot_be_written_to(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "gone" / "file", b"content")


def test_what_a_kill_leaves_of_a_dropped_state_is_found(store, monkeypatch):
    store.write(record(), state())

    def killed(path, missing_ok=False):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", killed)
        store.drop_state(KEY)

    assert not store.has_state(KEY)
    assert [path.name for path in store.on_their_way()] == [f".dropping.{KEY}.state.safetensors"]


def test_a_full_disk_is_one_sentence_and_leaves_no_stage(store, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        store.write(record(), state())

    assert store.read(KEY) is None


def test_a_store_of_another_layout_is_refused(store):
    (store.folder / "format").write_text("99\n")

    with pytest.raises(StoreError, match="layout '99'"):
        store.prepare()


def test_a_store_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "file" / "store").prepare()


def test_there_is_no_latest_run_in_an_empty_store(store):
    with pytest.raises(EmptySelectionError, match="no run"):
        store.latest_run()


def test_the_latest_run_is_the_one_written_last(store):
    for name, time in (("one", 5), ("two", 9), ("three", 7)):
        folder = store.run_folder(name)
        folder.mkdir(parents=True)
        (folder / "records.json").write_text(json.dumps([]))
        os.utime(folder / "records.json", (time, time))

    assert store.latest_run().name == "two"


def test_a_state_somebody_wants_stays(store):
    store.write(record(), state())

    assert not store.drop_state(KEY, wanted=lambda: True)
    assert store.has_state(KEY)
    assert store.drop_state(KEY, wanted=lambda: False)
    assert not store.has_state(KEY)
    assert not store.drop_state(KEY)


@pytest.mark.parametrize("drop", [Store.drop_state, Store.drop_stage])
def test_who_comes_while_something_is_dropped_gets_it_back(store, drop):
    store.write(record(), state())
    answers = iter([False, True])
    seen = []

    def wanted():
        seen.append((store.has_state(KEY), store.has_stage(KEY)))
        return next(answers)

    assert not drop(store, KEY, wanted)
    # Out of sight when asked again: a run that came later would not count on it.
    assert seen[0] == (True, True)
    assert not all(seen[1])
    assert (store.has_state(KEY), store.has_stage(KEY)) == (True, True)
    store.verify_state(store.read(KEY))


def test_a_stage_written_anew_while_it_is_read_is_no_damage(store, monkeypatch):
    before = store.write(record(), state())
    other = State(weights={"a.kernel": np.ones((3, 5), np.float32)}, masks={"a.kernel": np.ones((3, 5), bool)})
    elsewhere = Store(store.folder.parent / "elsewhere")
    elsewhere.prepare()
    elsewhere.write(record(), other)
    for name in ("state.safetensors", "masks.safetensors"):
        (elsewhere.stage_folder(KEY) / name).replace(store.stage_folder(KEY) / name)

    def finish(seconds):
        (elsewhere.stage_folder(KEY) / "stage.json").replace(store.stage_folder(KEY) / "stage.json")

    monkeypatch.setattr("time.sleep", finish)

    assert state_digest(store.state(before)) == state_digest(other)


def test_files_of_writers_that_died_long_ago_are_swept_when_a_run_begins(store):
    store.write(record(), state())
    old, new = store.folder / "tmp" / ".old.abcdefgh", store.folder / "tmp" / ".new.abcdefgh"
    for path, age in ((old, 90_000), (new, 80_000)):
        path.write_text("half")
        then = store.now() - age
        os.utime(path, (then, then))

    store.prepare()

    assert [path.name for path in (store.folder / "tmp").iterdir()] == [new.name]


def test_a_folder_removed_while_a_stage_is_written_is_made_again(store, monkeypatch):
    real, tries = os.replace, []

    def removed(source, target):
        if not tries:
            tries.append(target)
            store.stage_folder(KEY).rmdir()
        real(source, target)

    monkeypatch.setattr(os, "replace", removed)
    store.write(record(), state())

    assert tries
    store.verify_state(store.read(KEY))


def test_keys_are_those_of_all_stages(store):
    other = "cd" + 30 * "1"
    for key in (KEY, other):
        store.write(record(key=key), None)
    (store.folder / "stages" / "ab" / "not a key").mkdir()
    (store.folder / "stages" / "xy" / KEY).mkdir(parents=True)

    assert sorted(store.keys()) == [KEY, other]


def test_there_are_no_keys_without_a_store(tmp_path):
    assert list(Store(tmp_path / "none").keys()) == []


def test_a_store_is_readable_once_it_was_made(store, tmp_path):
    store.check_readable()

    with pytest.raises(StoreError, match="no store"):
        Store(tmp_path / "none").check_readable()


@pytest.mark.skipif(not hasattr(os, "fchmod"), reason="this system has no such rights")
def test_others_may_read_what_the_umask_lets_them_read(tmp_path):
    path = tmp_path / "file"

    write_atomic(path, b"content")

    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_stage_says_what_processor_time_its_process_used_for_it(store, monkeypatch):
    """A process that is stopped, or waits for others, uses none: its clock is the processor's."""
    clock = iter((100.0, 102.5, 103.0, 107.25))
    monkeypatch.setattr(stage_record.time, "process_time", lambda: next(clock))
    other = "cd" + 30 * "0"

    with metered():
        store.write(record(), None)
    with metered():
        store.write(record(key=other), state())

    assert store.read(KEY).processor_seconds == 2.5
    assert store.read(other).processor_seconds == 4.25
    store.write(record(), None)
    assert store.read(KEY).processor_seconds is None


def test_a_stage_of_before_it_was_measured_is_still_the_one_that_was_written(store):
    store.write(record(), None)
    path = store.stage_folder(KEY) / "stage.json"

    content = json.loads(path.read_text())

    # What an earlier version wrote, and the checksum that it gave it.
    assert "processor_seconds" not in content
    checksum = content.pop("checksum")
    assert checksum == sha256(json.dumps(content, sort_keys=True))
    assert store.read(KEY).processor_seconds is None
    path.write_text(json.dumps({**content, "processor_seconds": 1.0, "checksum": checksum}))
    with pytest.raises(DamagedStageError):
        store.read(KEY)
