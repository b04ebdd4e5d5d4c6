"""What nothing needs goes; what a run may want, and what a live run has seen, stays."""

import json
import os

import numpy as np
import pytest
from toy import FineTuning, Rewinding, bytes_below, experiment
from typer.testing import CliRunner

from harness.api import State, StoreError
from harness.cli import app
from harness.cli.store import size
from harness.execution.run import run
from harness.results import records
from harness.results.records import Record
from harness.store import DAY_S, MASKS, STAGE, STATE, StageRecord, Store
from harness.store.claims import SILENCE_S, Claims
from harness.store.collection import collect
from harness.store.stage_record import STORE_FORMAT

ROOT, DENSE, PRUNED, FIRST, SECOND, LAST, TEST = (f"{letter}{letter}" + 30 * "0" for letter in "abcdef9")


@pytest.fixture
def store(tmp_path):
    """A chain: initial weights, dense, pruned, three more epochs, tested; every state still there."""
    made = Store(tmp_path / "store")
    made.prepare()
    masks = {"w": np.array([[True, False, True]])}
    stages = (
        (ROOT, None, "init", {}), (DENSE, ROOT, "train", {}), (PRUNED, DENSE, "prune", masks),
        (FIRST, PRUNED, "train", masks), (SECOND, FIRST, "train", masks), (LAST, SECOND, "train", masks),
    )  # fmt: skip
    for key, parent, kind, mask in stages:
        record = StageRecord(key=key, parent=parent, kind=kind, inputs={})
        made.write(record, State(weights={"w": np.ones((1, 3), np.float32)}, masks=mask))
    made.write(StageRecord(key=TEST, parent=LAST, kind="test", inputs={}), None)
    return made


def recorded(store, *ends, status="ok", run="run-1"):
    found = [Record(cell=end, task="t", backend="b", stage=end, status=status) for end in ends]
    records.write(store.run_folder(run) / "records.json", found)


def states(store):
    return {key for key in store.keys() if store.has_state(key)}


def found(collected):
    return {(item.kind, item.path.as_posix()) for item in collected.items}


def aged(store, path, age):
    then = store.now() - age
    os.utime(path, (then, then))
    return path


def test_states_go_that_no_run_starts_from_again(store):
    recorded(store, LAST)

    collected = collect(store.folder)

    assert states(store) == {ROOT, DENSE, LAST}
    assert {item.kind for item in collected.items} == {"state"}
    assert all(store.masks(store.read(key)) for key in (PRUNED, FIRST, SECOND))


def test_what_is_told_beforehand_is_what_goes(store):
    recorded(store, LAST)
    before = bytes_below(store.folder)
    told = collect(store.folder, dry_run=True)

    assert bytes_below(store.folder) == before
    done = collect(store.folder)
    assert told == done
    assert done.size_bytes == sum(map(len, before.values())) - sum(map(len, bytes_below(store.folder).values())) > 0
    assert collect(store.folder).items == []


def test_the_last_state_of_a_chain_without_an_end_stays(store):
    recorded(store, "0" * 32, status="failed")
    for key in (TEST, LAST):
        store.drop_stage(key)

    collect(store.folder)

    assert SECOND in states(store)
    assert FIRST not in states(store)


def test_a_rewind_target_stays(store):
    recorded(store, LAST)
    store.write(StageRecord(key="7" * 32, parent=LAST, kind="rewind", inputs={"source": FIRST}), None)

    collect(store.folder)

    assert FIRST in states(store)


@pytest.mark.parametrize("status", ["planned", "running"])
def test_an_unfinished_run_may_want_every_state(store, status):
    recorded(store, LAST, "0" * 32, status=status)

    collected = collect(store.folder)

    assert collected.items == []
    assert "run-1 is not finished" in collected.kept[0]


def test_a_finished_run_leaves_nothing_to_collect_and_its_cache_survives(tmp_path):
    grid = experiment((FineTuning(), Rewinding()))
    run(grid, store=tmp_path, workers=1)

    assert collect(tmp_path, unreferenced=True).items == []
    assert {record.status for record in run(grid, store=tmp_path, workers=1).records} == {"cached"}


def test_a_live_run_keeps_stages_and_states(store):
    recorded(store, LAST)
    with Claims(store):
        collected = collect(store.folder, unreferenced=True)

    assert collected.items == []
    assert f"process {os.getpid()}" in collected.kept[0]


@pytest.mark.parametrize("unreferenced", [False, True])
def test_a_run_that_begins_meanwhile_keeps_what_it_may_have_seen(store, monkeypatch, unreferenced):
    if not unreferenced:
        recorded(store, LAST)
    calls = []

    def begins(self):
        calls.append(None)
        return len(calls) % 2 == 0  # nobody at first, somebody once the file is out of sight

    monkeypatch.setattr(Claims, "others_alive", begins)
    before = bytes_below(store.folder)

    collected = collect(store.folder, unreferenced=unreferenced)

    assert calls
    assert collected.items == []
    assert bytes_below(store.folder) == before


def test_a_stage_no_run_rests_on_goes_only_if_asked(store):
    store.write(StageRecord(key="8" * 32, parent=DENSE, kind="train", inputs={}), None)
    recorded(store, LAST)
    assert ("stage", f"stages/88/{'8' * 32}") not in found(collect(store.folder))

    collected = collect(store.folder, unreferenced=True)

    assert found(collected) == {("stage", f"stages/88/{'8' * 32}")}
    assert not store.stage_folder("8" * 32).exists()
    assert all(store.has_stage(key) for key in (ROOT, DENSE, PRUNED, FIRST, SECOND, LAST, TEST))


def test_a_chain_that_a_failed_cell_may_go_on_from_is_referenced(store):
    for key in (TEST, LAST):
        store.drop_stage(key)
    recorded(store, "0" * 32, status="oom")

    collect(store.folder, unreferenced=True)

    assert all(store.has_stage(key) for key in (ROOT, DENSE, PRUNED, FIRST, SECOND))


def spoil(store, key):
    (store.stage_folder(key) / STAGE).write_text("{")


@pytest.mark.parametrize("broken", [LAST, FIRST])
@pytest.mark.parametrize("how", [Store.set_aside, spoil])
def test_in_a_broken_chain_nothing_counts_as_unreferenced(store, broken, how):
    recorded(store, LAST)
    how(store, broken)

    collected = collect(store.folder, unreferenced=True)

    assert not [item for item in collected.items if item.kind == "stage"]
    assert any("lacks a stage" in line for line in collected.kept)


def test_leftovers_of_damaged_stages_go(store):
    recorded(store, LAST)
    store.set_aside(SECOND)

    collected = collect(store.folder)
    folder = f"stages/{SECOND[:2]}/{SECOND}"

    assert {path for kind, path in found(collected) if kind == "damaged"} == {
        f"{folder}/{name}" for name in (STATE, MASKS, "stage.damaged")
    }
    assert not (store.folder / folder).exists()


def test_half_written_files_go_when_they_are_old_enough(store):
    recorded(store, LAST)
    folder = store.stage_folder(LAST)
    old = [folder / ".state.safetensors.abcd1234", folder / ".dropping.stage.json", store.folder / "tmp/.x.y.abcd_123"]
    old.append(store.run_folder("run-1") / ".records.json.77.tmp")
    new = folder / ".stage.json.abcd1234"
    for path in old:
        path.write_text("half")
        aged(store, path, SILENCE_S + 5)
    new.write_text("half")

    collected = collect(store.folder)

    assert {path for kind, path in found(collected) if kind == "temporary"} == {
        path.relative_to(store.folder).as_posix() for path in old
    }
    assert new.exists()


def test_half_written_files_of_a_live_run_stay_for_a_day(store):
    recorded(store, LAST)
    path = store.folder / "tmp/.state.safetensors.abcd1234"
    path.write_text("half")
    with Claims(store):
        aged(store, path, SILENCE_S + 5)
        assert collect(store.folder).items == []

        aged(store, path, DAY_S + 5)
        assert len(collect(store.folder).items) == 1


def test_files_of_the_user_stay(store):
    for path in (store.folder / ".gitignore", store.folder / "notes.txt", store.stage_folder(LAST) / "notes.txt"):
        path.write_text("mine")
        aged(store, path, DAY_S * 9)

    collect(store.folder)

    assert (store.folder / ".gitignore").exists()
    assert (store.stage_folder(LAST) / "notes.txt").exists()


def test_claims_of_dead_runs_go(store):
    with Claims(store) as claims:
        owner = json.loads((store.folder / "claims/owners" / claims._me.run).read_text())
    dead = owner | {"run": "d" * 32, "started": 1}
    for path in (store.folder / "claims/owners" / ("d" * 32), store.folder / "claims/aa" / ROOT):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dead))

    collected = collect(store.folder)

    assert {path for kind, path in found(collected) if kind == "claim"} == {
        f"claims/owners/{'d' * 32}", f"claims/aa/{ROOT}"
    }  # fmt: skip
    assert not [path for path in (store.folder / "claims").rglob("*") if path.is_file()]


def test_links_out_of_the_store_are_not_followed(store, tmp_path):
    recorded(store, LAST)
    outside = tmp_path / "outside"
    (outside / ("77" + 30 * "0")).mkdir(parents=True)
    victims = [outside / ".x.abcd1234", outside / ("77" + 30 * "0") / STATE]
    for path in victims:
        path.write_text("precious")
        aged(store, path, DAY_S * 9)
    for link in ("stages/77", f"stages/aa/aa{'7' * 30}", "claims/77", "runs/other"):
        (store.folder / link).parent.mkdir(parents=True, exist_ok=True)
        (store.folder / link).symlink_to(outside)
    (store.stage_folder(LAST) / ".x.abcd1234").symlink_to(victims[0])
    (store.folder / "tmp").rename(tmp_path / "tmp")
    (store.folder / "tmp").symlink_to(outside)

    with pytest.raises(StoreError, match="link"):
        collect(store.folder)
    (store.folder / "tmp").unlink()
    collect(store.folder, unreferenced=True)

    assert all(path.read_text() == "precious" for path in victims)


def test_a_file_shared_with_another_store_frees_nothing(store, tmp_path):
    recorded(store, LAST)
    os.link(store.stage_folder(FIRST) / STATE, tmp_path / "shared")

    sizes = {item.path.parent.name: item.size_bytes for item in collect(store.folder).items}

    assert sizes[FIRST] == 0
    assert sizes[SECOND] > 0


def test_the_command_lists_what_goes_and_how_much(store):
    recorded(store, LAST)
    command = ["gc", "--store", str(store.folder)]

    told = CliRunner().invoke(app, [*command, "--dry-run"])
    as_json = CliRunner().invoke(app, [*command, "--dry-run", "--json"])
    done = CliRunner().invoke(app, command)

    assert (told.exit_code, done.exit_code) == (0, 0)
    assert "3 states that no run starts from again" in told.stdout
    assert told.stdout.splitlines()[-1].endswith("would be freed")
    assert told.stdout.replace("would be freed", "freed") == done.stdout
    assert {item["kind"] for item in json.loads(as_json.stdout)["items"]} == {"state"}


def test_the_command_wants_a_store(tmp_path):
    result = CliRunner().invoke(app, ["gc", "--store", str(tmp_path / "none")])

    assert result.exit_code == 7
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("made", [(), (".format.abcdefgh",), ("format",), ("format", "claims/owners/")])
def test_beside_a_run_that_has_made_only_so_much_of_its_store_nothing_is_touched(tmp_path, made):
    folder = tmp_path / "store"
    folder.mkdir()
    for name in made:
        if name.endswith("/"):
            (folder / name).mkdir(parents=True)
        else:
            (folder / name).write_text(f"{STORE_FORMAT}\n")
    before = bytes_below(folder)

    result = CliRunner().invoke(app, ["gc", "--store", str(folder), "--unreferenced"])

    assert result.exit_code == (0 if "format" in made else 7)
    assert ("0 bytes freed" if "format" in made else "there is no store") in result.output
    assert bytes_below(folder) == before


def test_a_run_is_whole_though_its_store_is_cleared_at_every_move_of_its_beginning(tmp_path, monkeypatch):
    moves, is_clearing = [], []

    def cleared_before(move):
        def moved(*args, **options):
            if not is_clearing and len(moves) < 60:
                moves.append(move.__name__)
                is_clearing.append(True)
                try:
                    if (tmp_path / "store" / "format").exists():
                        collect(tmp_path / "store", unreferenced=True)
                    else:
                        with pytest.raises(StoreError, match="there is no store"):
                            collect(tmp_path / "store", unreferenced=True)
                finally:
                    is_clearing.clear()
            return move(*args, **options)

        return moved

    for name in ("mkdir", "replace", "link", "open"):
        monkeypatch.setattr(os, name, cleared_before(getattr(os, name)))
    done = run(experiment((FineTuning(),)), store=tmp_path / "store", workers=1)
    monkeypatch.undo()

    assert {record.status for record in done.records} == {"ok"}
    assert {"mkdir", "replace"} <= set(moves)
    assert {record.status for record in run(experiment((FineTuning(),)), store=tmp_path / "store").records} == {
        "cached"
    }


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2_500_000_000, "2.5 GB")]
)
def test_bytes_are_told_in_powers_of_ten(count, text):
    assert size(count) == text
