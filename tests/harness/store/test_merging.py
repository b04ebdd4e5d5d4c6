"""Stores joined: everything that is finished comes over, once, and nothing that is damaged."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.api import Evaluation, SpecError, State, StoreError
from harness.cli import app
from harness.results import records
from harness.results.records import Record
from harness.store import MASKS, STAGE, STATE, StageRecord, Store, merging
from harness.store.merging import join, merge

A, B, C = ("ab" + 30 * "0", "cd" + 30 * "0", "ef" + 30 * "0")


def state(seed=0):
    rng = np.random.default_rng(seed)
    return State(weights={"w": rng.normal(size=(3, 5)).astype(np.float32)}, masks={"w": rng.random((3, 5)) < 0.5})


def made(folder, *keys, seed=0):
    store = Store(folder)
    store.prepare()
    for key in keys:
        store.write(StageRecord(key=key, parent=None, kind="train", inputs={}), state(seed))
    return store


def recorded(store, run, *cells, **changes):
    found = [Record(cell=cell, task="t", backend="b", **({"status": "ok", "value": 1.0} | changes)) for cell in cells]
    records.write(store.folder / "runs" / run / "records.json", found)


def content(store):
    """Every file of the store but the empty folders and what is under way, by name."""
    files = [path for path in store.folder.rglob("*") if path.is_file()]
    return {path.relative_to(store.folder).as_posix(): path.read_bytes() for path in files}


def test_stages_of_all_sources_are_there_afterwards(tmp_path):
    one, two = made(tmp_path / "one", A), made(tmp_path / "two", B)
    target = Store(tmp_path / "target")

    merged = merge([one.folder, two.folder], target.folder)

    assert (merged.stages, merged.equal, merged.is_complete) == (2, 0, True)
    assert content(target) == content(one) | content(two)
    assert np.array_equal(target.state(target.read(A)).weights["w"], state().weights["w"])


def test_merging_again_changes_nothing(tmp_path):
    one = made(tmp_path / "one", A, B)
    recorded(one, "run-1", "x")
    merge([one.folder], tmp_path / "target")
    before = content(Store(tmp_path / "target"))

    merged = merge([one.folder], tmp_path / "target")

    assert (merged.stages, merged.equal, merged.runs, merged.size_bytes) == (0, 2, 0, 0)
    assert content(Store(tmp_path / "target")) == before


def test_large_files_are_linked_where_that_is_possible(tmp_path):
    one = made(tmp_path / "one", A)

    merged = merge([one.folder], tmp_path / "target")

    assert merged.size_bytes == 0
    assert (Store(tmp_path / "target").stage_folder(A) / STATE).samefile(one.stage_folder(A) / STATE)


def test_without_links_files_are_copied(tmp_path, monkeypatch):
    one = made(tmp_path / "one", A)

    def refused(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    merged = merge([one.folder], tmp_path / "target")

    assert content(Store(tmp_path / "target")) == content(one)
    assert merged.size_bytes == sum((one.stage_folder(A) / name).stat().st_size for name in (STATE, MASKS))


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("name", [STATE, MASKS, STAGE])
def test_a_damaged_file_is_left_out_and_named(tmp_path, monkeypatch, name, links):
    one = made(tmp_path / "one", A, B)
    path = one.stage_folder(A) / name
    damaged = bytearray(path.read_bytes())
    damaged[-20] ^= 1
    path.write_bytes(damaged)
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: os.stat("/nowhere"))

    merged = merge([one.folder], tmp_path / "target")
    target = Store(tmp_path / "target")

    assert not merged.is_complete
    assert A in merged.damaged[0]
    assert target.has_state(B)
    assert not target.has_state(A)
    # Without its state a stage still has its metrics and masks; without these it is nothing.
    assert target.has_stage(A) == (name == STATE)


def test_a_state_that_was_dropped_here_and_is_there_is_added(tmp_path):
    one, target = made(tmp_path / "one", A), made(tmp_path / "target", A)
    target.drop_state(A)

    merged = merge([one.folder], target.folder)

    assert (merged.stages, merged.states) == (0, 1)
    target.verify_state(target.read(A))


def test_a_state_dropped_there_is_no_damage(tmp_path):
    one = made(tmp_path / "one", A)
    one.drop_state(A)

    merged = merge([one.folder], tmp_path / "target")

    assert (merged.stages, merged.is_complete) == (1, True)
    assert not Store(tmp_path / "target").has_state(A)


def test_another_result_for_the_same_stage_is_told_and_ours_stays(tmp_path):
    one, target = made(tmp_path / "one", A, seed=1), made(tmp_path / "target", A, seed=2)
    before = content(target)

    merged = merge([one.folder], target.folder)

    assert merged.differing[0].startswith("not reproducible: train stage ab00")
    assert not merged.is_complete
    assert content(target) == before


def test_another_test_score_is_told_too(tmp_path):
    one, target = made(tmp_path / "one"), made(tmp_path / "target")
    for store, nats in ((one, 1.0), (target, 2.0)):
        record = StageRecord(key=A, parent=B, kind="test", inputs={}, test=Evaluation(nats=nats, items=3))
        store.write(record, None)

    assert len(merge([one.folder], target.folder).differing) == 1


def test_a_stage_that_is_damaged_here_is_brought_anew(tmp_path):
    one, target = made(tmp_path / "one", A), made(tmp_path / "target", A)
    (target.stage_folder(A) / STAGE).write_text("{")

    merged = merge([one.folder], target.folder)

    assert merged.stages == 1
    target.verify_state(target.read(A))


def test_an_unfinished_stage_is_passed_over(tmp_path):
    one = made(tmp_path / "one", A, B)
    (one.stage_folder(A) / STAGE).unlink()

    merged = merge([one.folder], tmp_path / "target")

    assert (merged.stages, merged.unfinished, merged.is_complete) == (1, 1, True)
    assert not Store(tmp_path / "target").has_stage(A)


def test_an_interrupted_merge_goes_on(tmp_path, monkeypatch):
    one = made(tmp_path / "one", A, B, C)
    real, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", failing)
        with pytest.raises(KeyboardInterrupt):
            merge([one.folder], tmp_path / "target")

    merged = merge([one.folder], tmp_path / "target")

    assert 0 < merged.stages < 3
    assert content(Store(tmp_path / "target")) == content(one)


def test_runs_come_with_all_their_files(tmp_path):
    one = made(tmp_path / "one")
    recorded(one, "run-1", "x")
    (one.folder / "runs/run-1/logs").mkdir()
    (one.folder / "runs/run-1/logs/x.log").write_text("text")
    (one.folder / "runs/run-1/spec.yaml").write_text("name: x")
    (one.folder / "runs/run-1/.records.json.1.tmp").write_text("half")

    merged = merge([one.folder], tmp_path / "target")

    assert merged.runs == 1
    assert content(Store(tmp_path / "target")).keys() == content(one).keys() - {"runs/run-1/.records.json.1.tmp"}


def test_halves_of_one_run_are_joined_cell_by_cell(tmp_path):
    one, two = made(tmp_path / "one"), made(tmp_path / "two")
    recorded(one, "run-1", "x", value=1.0)
    recorded(two, "run-1", "y", value=2.0)

    merge([one.folder, two.folder], tmp_path / "target")

    found = records.read(tmp_path / "target/runs/run-1/records.json")
    assert {record.cell: record.value for record in found} == {"x": 1.0, "y": 2.0}


def test_a_result_wins_over_none_and_the_first_result_stays():
    planned, first, second = (
        Record(cell="x", task="t", backend="b", status=status, value=value)
        for status, value in (("planned", None), ("ok", 1.0), ("cached", 2.0))
    )

    assert join([planned], [first]) == [first]
    assert join([first], [planned]) == [first]
    assert join([first], [second]) == [first]


def test_unreadable_records_are_left_out_and_named(tmp_path):
    one = made(tmp_path / "one")
    recorded(one, "run-1", "x")
    (one.folder / "runs/run-1/records.json").write_text("{")

    merged = merge([one.folder], tmp_path / "target")

    assert "run-1" in merged.damaged[0]
    assert not (tmp_path / "target/runs/run-1").exists()


@pytest.mark.parametrize("name", [STATE, MASKS])
def test_gigabytes_of_nothing_are_left_out_by_their_header_and_not_read(tmp_path, name):
    one = made(tmp_path / "one", A, B)
    (one.stage_folder(A) / name).write_bytes(b"")
    os.truncate(one.stage_folder(A) / name, 3 << 30)  # sparse: no room is taken

    merged = merge([one.folder], tmp_path / "target")

    assert f"{name} of stage {A} is damaged (its header cannot be read)" in merged.damaged[0]
    assert Store(tmp_path / "target").has_state(B)


def test_a_file_of_a_run_beyond_all_reason_is_left_out_and_the_run_comes(tmp_path, monkeypatch):
    one = made(tmp_path / "one")
    recorded(one, "run-1", "x")
    (one.folder / "runs/run-1/report.md").write_text("x" * 11)
    (one.folder / "runs/run-1/spec.yaml").write_text("x" * 10)
    monkeypatch.setattr(merging, "MOST_RUN_BYTES", 10)

    merged = merge([one.folder], tmp_path / "target")

    assert "report.md has 11 bytes" in merged.damaged[0] and not merged.is_complete
    assert {path.name for path in (tmp_path / "target/runs/run-1").iterdir()} == {"records.json", "spec.yaml"}


def test_links_in_a_source_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    one = made(tmp_path / "one", A)
    recorded(one, "run-1", "x")
    (one.folder / "runs/run-1/note").symlink_to(secret)
    path = one.stage_folder(A) / STATE
    path.rename(tmp_path / "state")
    path.symlink_to(tmp_path / "state")

    merged = merge([one.folder], tmp_path / "target")

    assert STATE in merged.damaged[0]
    assert not any(b"secret" in each for each in content(Store(tmp_path / "target")).values())


def test_links_in_the_target_are_not_followed(tmp_path):
    one, target, outside = made(tmp_path / "one", A), made(tmp_path / "target"), tmp_path / "outside"
    outside.mkdir()
    (target.folder / "stages").symlink_to(outside)

    with pytest.raises(StoreError, match="link"):
        merge([one.folder], target.folder)
    assert list(outside.iterdir()) == []


def test_a_store_is_not_merged_into_itself(tmp_path):
    one = made(tmp_path / "one", A)

    with pytest.raises(SpecError, match="other stores"):
        merge([one.folder], Path(os.path.relpath(one.folder)))


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no store"):
        merge([tmp_path], tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_the_command_sums_up_and_exits_with_1_if_something_is_left_out(tmp_path):
    one, two = made(tmp_path / "one", A), made(tmp_path / "two", A, B, seed=1)
    command = ["merge", str(one.folder), str(two.folder), "--store", str(tmp_path / "target")]

    clean = CliRunner().invoke(app, [*command[:2], *command[3:]])
    differing = CliRunner().invoke(app, command)

    assert clean.exit_code == 0
    assert "1 stage brought over" in clean.stdout
    assert differing.exit_code == 1
    assert "1 stage brought over, 1 there already" in differing.stdout
    assert "1 not reproducible" in differing.stdout
    assert "not reproducible: train stage" in differing.stderr


def test_the_command_refuses_what_is_no_store_with_7(tmp_path):
    result = CliRunner().invoke(app, ["merge", str(tmp_path / "none"), "--store", str(tmp_path / "target")])

    assert result.exit_code == 7
