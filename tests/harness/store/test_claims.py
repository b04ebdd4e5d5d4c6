"""Claims: one run at a time has a stage, and no dead run has any."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import StoreError
from harness.store import Store
from harness.store import claims as module
from harness.store.claims import SILENCE_S, Claims

KEY = "ab" + 30 * "0"

HOLDER = """
import sys, time
from pathlib import Path
from harness.store.claims import Claims
from harness.store import Store

claims = Claims(Store(Path(sys.argv[1])))
print(claims.acquire(sys.argv[2]), flush=True)
time.sleep(600)
"""

HAMMER = """
import os, random, signal, sys, time
from pathlib import Path
from harness.store.claims import Claims
from harness.store import Store

folder, seed, keys = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
rng = random.Random(seed)

def is_alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"

with Claims(Store(folder)) as claims:
    done = 0
    while done < 40:  # not for a time: a slow machine would do too little to tell
        key = rng.choice(keys)
        if not claims.acquire(key):
            time.sleep(0.001)
            continue
        done += 1
        busy = folder / f"busy-{key}"
        if busy.exists() and is_alive(int(busy.read_text())):
            print("twice", flush=True)
        part = folder / f"part-{os.getpid()}"
        part.write_text(str(os.getpid()))
        part.replace(busy)
        time.sleep(rng.random() * 0.002)
        if busy.read_text() != str(os.getpid()):
            print("stolen", flush=True)
        if rng.random() < 0.02 or (seed == 0 and done == 10):
            os.kill(os.getpid(), signal.SIGKILL)
        busy.unlink()
        claims.release(key)
        print("done", flush=True)
"""


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    made.prepare()
    return made


@pytest.fixture
def claims(store):
    with Claims(store) as ours:
        yield ours


def lay(store, owner, *, age=0.0, key=KEY):
    """Leave a claim as a run elsewhere would have, its last heartbeat so many seconds ago."""
    path = store.folder / "claims" / key[:2] / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(owner)))
    then = store.now() - age
    os.utime(path, (then, then))
    return path


@pytest.fixture
def elsewhere(claims):
    return replace(claims._me, run="f" * 32, host="elsewhere", machine="another", boot="another", pid=7)


def test_a_stage_is_claimed_by_one_run_at_a_time(store, claims):
    with Claims(store) as other:
        assert claims.acquire(KEY)
        assert not other.acquire(KEY)
        assert claims.acquire(KEY)

        claims.release(KEY)

        assert other.acquire(KEY)


def test_a_claim_that_is_not_held_cannot_be_given_back(store, claims):
    with Claims(store) as other:
        claims.acquire(KEY)
        other.release(KEY)

        assert not other.acquire(KEY)


def test_the_holder_is_named(store, claims):
    with Claims(store) as other:
        assert other.holder(KEY) is None
        claims.acquire(KEY)

        assert other.holder(KEY) == f"process {os.getpid()} on {os.uname().nodename}"


def test_the_end_of_a_run_gives_everything_back_and_leaves_no_file(store):
    with Claims(store) as ours:
        ours.acquire(KEY)
        ours.acquire("cd" + KEY)

    assert not [path for path in (store.folder / "claims").rglob("*") if path.is_file()]


@settings(max_examples=25, deadline=None)
@given(moves=st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.booleans()), max_size=30))
def test_whatever_runs_do_nobody_has_what_another_one_has(tmp_path_factory, moves):
    store = Store(tmp_path_factory.mktemp("store"))
    runs = [Claims(store) for _ in range(3)]
    held = {}
    for run, letter, takes in moves:
        key = letter * 32
        if takes:
            assert runs[run].acquire(key) == (held.setdefault(key, run) == run)
        else:
            runs[run].release(key)
            if held.get(key) == run:
                del held[key]


def test_another_run_is_alive_until_it_ends(store, claims):
    assert not claims.others_alive()
    with Claims(store) as other:
        assert claims.others_alive()
        assert claims.others() == (f"process {os.getpid()} on {os.uname().nodename}",)
        assert other.others_alive()

    assert not claims.others_alive()


def test_a_killed_run_holds_nothing(store, claims):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, store.folder, KEY], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout.readline() == "True\n"
        assert not claims.acquire(KEY)
        assert claims.others_alive()

        holder.send_signal(signal.SIGKILL)
        # Not waited for: a zombie is dead, too.
        until = time.monotonic() + 300
        while claims.others_alive() and time.monotonic() < until:
            time.sleep(0.01)

        assert claims.holder(KEY) is None
        assert claims.acquire(KEY)


def test_processes_that_are_killed_at_random_never_have_a_stage_at_the_same_time(store):
    keys = [f"{number:02x}" * 16 for number in range(3)]
    command = [sys.executable, "-c", HAMMER, store.folder]
    processes = [subprocess.Popen([*command, str(seed), *keys], stdout=subprocess.PIPE, text=True) for seed in range(4)]
    said = "".join(process.communicate()[0] for process in processes)

    assert "twice" not in said
    assert "stolen" not in said
    assert said.count("done") > 20
    assert any(process.returncode == -signal.SIGKILL for process in processes)
    with Claims(store) as ours:
        assert all(ours.acquire(key) for key in keys)


def test_a_run_on_another_machine_lives_as_long_as_its_heart_beats(store, claims, elsewhere):
    lay(store, elsewhere, age=SILENCE_S - 20)
    assert not claims.acquire(KEY)
    assert claims.holder(KEY) == "process 7 on elsewhere"

    lay(store, elsewhere, age=SILENCE_S + 20)
    assert claims.holder(KEY) is None
    assert claims.acquire(KEY)


def test_a_heart_may_beat_in_a_file_of_its_own(store, claims, elsewhere):
    """Without hard links a claim is a file apart, and its run touches the file that it is known by."""
    lay(store, elsewhere, age=SILENCE_S + 20)
    beacon = store.folder / "claims" / "owners" / elsewhere.run
    beacon.write_text(json.dumps(asdict(elsewhere)))
    assert not claims.acquire(KEY) and claims.others() == ("process 7 on elsewhere",)

    then = store.now() - SILENCE_S - 20
    os.utime(beacon, (then, then))
    assert claims.acquire(KEY) and claims.others() == ()


def test_a_process_number_says_nothing_of_another_host(store, claims):
    lay(store, replace(claims._me, run="f" * 32, host="elsewhere", pid=2**22))

    assert not claims.acquire(KEY)


@pytest.mark.parametrize("error_s", [-86_400, 86_400])
def test_a_wrong_clock_of_this_machine_does_not_matter(store, claims, elsewhere, monkeypatch, error_s):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + error_s)
    lay(store, elsewhere, age=SILENCE_S - 20)
    assert not claims.acquire(KEY)

    lay(store, elsewhere, age=SILENCE_S + 20)
    assert claims.acquire(KEY)


def test_a_heartbeat_from_the_future_that_stands_still_is_found_out(store, claims, elsewhere, monkeypatch):
    path = lay(store, elsewhere, age=-86_400)  # the clock of the file system was set back since
    assert not claims.acquire(KEY)

    monkeypatch.setattr(module, "SILENCE_S", 0.3)
    os.utime(path, (store.now() + 86_000,) * 2)
    assert not claims.acquire(KEY)
    time.sleep(0.35)

    assert claims.acquire(KEY)


def test_a_reboot_ends_every_run_of_the_machine(store, claims):
    lay(store, replace(claims._me, run="f" * 32, boot="an earlier one", machine=claims._me.machine))

    assert claims.acquire(KEY) == bool(claims._me.machine)


def test_a_process_number_used_again_is_another_process(store, claims):
    lay(store, replace(claims._me, run="f" * 32, started=claims._me.started - 1))

    assert claims.acquire(KEY)


def test_a_container_cannot_see_processes_of_another_one(store, claims):
    lay(store, replace(claims._me, run="f" * 32, namespace="pid:[1]", pid=2**22))

    assert not claims.acquire(KEY)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run": 5}', '{"run": "../../../etc"}', "[" * 4000])
def test_an_unreadable_claim_counts_by_its_age(store, claims, content):
    path = store.folder / "claims" / KEY[:2] / KEY
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert not claims.acquire(KEY)
    assert claims.holder(KEY) == "a process that is just beginning"

    os.utime(path, (store.now() - SILENCE_S - 1,) * 2)
    assert claims.acquire(KEY)


def test_a_process_that_died_while_taking_over_is_taken_over(store, claims):
    dead = replace(claims._me, run="d" * 32, started=1)
    path = lay(store, replace(dead, run="e" * 32))
    lay(store, dead, key=f"{KEY}.{'e' * 12}")

    assert claims.acquire(KEY)
    assert [file.name for file in path.parent.iterdir()] == [KEY]


def test_who_loses_the_race_for_a_dead_claim_has_nothing(store, claims, monkeypatch):
    path = lay(store, replace(claims._me, run="e" * 32, started=1))
    with Claims(store) as other:
        real = Claims._create

        def slow(self, wanted):
            # The other one takes it over between our look at the claim and our right to replace it.
            if self is claims and wanted.name != KEY:
                assert other.acquire(KEY)
            return real(self, wanted)

        monkeypatch.setattr(Claims, "_create", slow)

        assert not claims.acquire(KEY)
        assert other.acquire(KEY)
        assert [file.name for file in path.parent.iterdir()] == [KEY]


def test_without_hard_links_claims_are_files_of_their_own(store, claims, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with Claims(store) as other:
        assert claims.acquire(KEY)
        assert not other.acquire(KEY)
        claims.release(KEY)
        assert other.acquire(KEY)


def test_a_run_that_was_swept_away_by_mistake_comes_back(store, claims):
    (file,) = (store.folder / "claims" / "owners").iterdir()
    file.unlink()

    claims.refresh()

    assert file.exists()
    assert claims.acquire(KEY)


def test_what_dead_runs_left_is_found_and_cleared(store, claims, elsewhere):
    dead = lay(store, elsewhere, age=SILENCE_S + 1)
    right = lay(store, elsewhere, age=SILENCE_S + 1, key=f"{KEY}.eeeeeeeeeeee")
    claims.acquire("cd" + KEY)
    with Claims(store) as other:
        other.acquire("ef" + KEY)
        stale = list(claims.stale())

        assert stale == [dead, right]
        assert all(claims.clear(path) for path in stale)
        assert not dead.exists()
        assert list(claims.stale()) == []


def test_a_claim_that_somebody_took_over_is_not_cleared(store, claims, elsewhere):
    path = lay(store, elsewhere, age=SILENCE_S + 1)
    with Claims(store) as other:
        assert list(claims.stale()) == [path]
        assert other.acquire(KEY)

        assert not claims.clear(path)
        assert not claims.acquire(KEY)


def half_written(store):
    """Files as writers leave them that are killed: wherever one writes, and a state that was about to be dropped."""
    places = ("tmp/.state.safetensors.abcd_123", "tmp/.dropping.abab.state.safetensors", ".format.abcd_123")
    places += ("claims/owners/.ffff.abcd_123", "runs/toy-1/.records.json.abcd_123", "runs/toy-1/.status.json.abcd_123")
    paths = [store.folder / place for place in places]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    return paths


def test_what_dead_runs_left_is_tidied_up(store, claims, elsewhere):
    dead, paths = lay(store, elsewhere, age=SILENCE_S + 1), half_written(store)
    mine = [store.folder / place for place in ("notes.txt", ".gitignore", "runs/toy-1/.gitignore", "runs/toy-1/a.txt")]
    for path in mine:
        path.write_text("mine")
    claims.acquire("cd" + KEY)

    claims.tidy()

    assert not any(path.exists() for path in (dead, *paths))
    assert all(path.exists() for path in mine)
    assert claims.holder("cd" + KEY) is not None


def test_what_somebody_may_be_writing_is_not_tidied_up(store, claims, elsewhere):
    dead, paths = lay(store, elsewhere, age=SILENCE_S + 1), half_written(store)
    with Claims(store) as other:
        other.acquire("ef" + KEY)

        claims.tidy()

        assert not dead.exists()
        assert other.holder("ef" + KEY) is not None
        assert all(path.exists() for path in paths)


def test_what_cannot_be_removed_stays(store, claims, monkeypatch):
    paths = half_written(store)

    def refused(path, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        claims.tidy()

    assert all(path.exists() for path in paths)


@pytest.mark.parametrize("key", ["../../outside", "/etc/passwd", "a\0b", "", "x" * 300, "ab.cd", "ab\n"])
def test_a_hostile_key_claims_nothing(claims, key):
    with pytest.raises(StoreError, match="key"):
        claims.acquire(key)


def test_a_link_in_place_of_a_folder_is_not_followed(store, claims, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (store.folder / "claims" / KEY[:2]).symlink_to(outside)

    with pytest.raises(StoreError, match="link"):
        claims.acquire(KEY)
    assert list(outside.iterdir()) == []


def test_a_store_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="claims cannot be written"):
        Claims(Store(tmp_path / "file" / "store"))


def test_claims_hold_nothing_absolute(store, claims):
    claims.acquire(KEY)

    assert all(
        str(store.folder) not in path.read_text() for path in Path(store.folder / "claims").rglob("*") if path.is_file()
    )


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.mkdir()], ids=["pipe", "folder"])
def test_what_is_no_file_in_a_claims_place_is_moved_aside_and_never_waited_for(store, claims, make):
    path = store.folder / "claims" / KEY[:2] / KEY
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)

    assert claims.acquire(KEY)
    assert path.is_file() and not path.is_symlink()


@pytest.mark.parametrize("there", ["/nowhere", KEY, "victim"])
def test_a_link_in_a_claims_place_is_told_with_its_place_and_not_followed(store, claims, there):
    path = store.folder / "claims" / KEY[:2] / KEY
    path.parent.mkdir(parents=True, exist_ok=True)
    victim = path.with_name("victim")
    victim.write_text("precious")
    path.symlink_to(there)

    with pytest.raises(StoreError, match=f"got the link {re.escape(str(path))}; replace it"):
        claims.acquire(KEY)
    assert path.is_symlink() and victim.read_text() == "precious"
