"""What a run loses when it is killed, interrupted, or let down by its disk or its clock: nothing, this shows.

Run: `python -m benchmarks.kill_matrix [--instants 50] [--seed N] [--only NAMES] [--jobs N]`, on Linux. A grid of a few
dozen stages, with a backend in NumPy that an installed package offers, is run undisturbed once. Then it is run on fresh
stores, each disturbed in one way: the run or one of its workers is killed at random instants, the run is interrupted,
its disk is full or cannot be written, its files are damaged, its clock is set back. After each disturbance the same
command is given again, three times at most, and then

    every record and every stage equals that of the undisturbed run, times aside;
    no stage was computed again once it was finished, but for damaged ones and what they start from;
    no process, no claim and no temporary file is left.

Instants are drawn evenly over the undisturbed run, from the moment its store is there until its end, and are tied to
what the run tells of itself, so that a busy machine does not move them. Exits 1 if any case fails.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path

from harness.api import JsonValue, StoreError
from harness.execution.machine import cores
from harness.results import records
from harness.store import MASKS, STAGE, STATE, Store

SUPPORT = Path(__file__).parents[1] / "tests" / "support"

SPEC = """
name: kill-matrix
task: [{name: toy, learning_rate: 0.02}, {name: toy, learning_rate: 0.05}]
scope: [softmax]
tolerance: 0.05
matrix:
  backend: numpy
  pattern: [unstructured, {name: bank_balanced, banks: 5}]
  strategy: [{name: fine_tuning, epochs: 2}, {name: weight_rewinding, epochs: 1}]
  sparsity: [0.5]
  seed: [0]
hardware: [{name: fpga_analytic, engine: bank}]
"""

PLUGINS = '''
"""The NumPy plugins of the tests, offered as an installed package would."""

from numpy_plugins import NumpyBackend, ToyTask

from harness.api import hookimpl


@hookimpl
def register_task():
    return ToyTask


@hookimpl
def register_backend():
    return NumpyBackend
'''

EPOCH_S = 0.04
"""How long an epoch takes, for the grid to last some seconds."""

AGAIN = 3
"""How often the command is given again at most."""

ORPHAN_S = 5.0
"""A process that is left later than this is an orphan. The kernel ends workers with their parent; one that is still
importing what it needs learns of it as soon as it has done so, which takes a while on a busy machine."""

COMMAND_S = 120.0
"""A command that takes longer hangs."""

DAY_S = 86_400.0

_VARYING = {"status", "reason", "trained_epochs", "train_seconds", "train_processor_seconds"}
"""Of a record: how and when it came about, not what it says."""

_FOUND = "computed by another run"


class FaultError(Exception):
    """A case in which something went wrong, in a sentence."""


# --- the runs -------------------------------------------------------------------------------------------------------


class Run:
    """A run of the grid as a command, and what it tells while it runs."""

    def __init__(
        self, bench: "Bench", store: Path, *options: str, prefix: Sequence[str] = (), **variables: str
    ) -> None:
        self.store = store
        self._new = threading.Condition()
        self._times = [time.monotonic()]
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "harness", "run", str(bench.spec), "--store", str(store), "--workers", "2",
             "--progress", "json", *options],
            cwd=bench.folder, env=bench.environment(store, variables), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                with self._new:
                    self.lines.append(line)
                    if _event(line).get("event") in ("begin", "started", "finished", "end"):
                        self._times.append(time.monotonic())
                        self._new.notify_all()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def computed(self) -> list[str]:
        """Keys of the stages that it told to have computed."""
        events = map(_event, tuple(self.lines))
        return [str(e["stage"]) for e in events if e.get("event") == "finished" and e.get("outcome") != _FOUND]

    def errors(self) -> str:
        """What it printed on stderr besides events."""
        return "".join(line for line in tuple(self.lines) if not _event(line)).strip()

    def rhythm(self) -> list[float]:
        """Seconds since its start of: its start, its store being there, everything it told, its end."""
        assert self._wait_for_store(), "a run makes its store"
        made = time.monotonic()
        self.wait()
        return [at - self._times[0] for at in (self._times[0], made, *self._times[1:], time.monotonic())]

    def reach(self, place: int, seconds: float) -> bool:
        """Wait until so many things have happened, and then for so many seconds; whether it still runs then."""
        if place > 0:
            self._wait_for_store()
        with self._new:
            while len(self._times) < place and self.is_alive:
                self._new.wait(0.1)
        time.sleep(seconds)
        return self.is_alive

    def _wait_for_store(self) -> bool:
        while not (self.store / "format").exists():
            if not self.is_alive:
                return False
            time.sleep(0.005)
        return True

    def workers(self) -> list[int]:
        """Its worker processes; above each is a keeper that was started in the same way."""
        spawned = {pid: parent for pid, parent, line in _processes() if b"spawn_main" in line}
        above = {pid: parent for pid, parent, _ in _processes()}
        return [pid for pid, keeper in spawned.items() if keeper in spawned and self.pid in _chain(pid, above)]

    def kill(self) -> None:
        """End it as the kernel does, without a word."""
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals, *, whole_group: bool = False) -> None:
        """Send a signal; a terminal's go to the whole group of processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number) if whole_group else self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end.

        Raises:
            FaultError: it does not end.
        """
        try:
            return self._process.wait(COMMAND_S)
        except subprocess.TimeoutExpired:
            self.end()
            raise FaultError(f"a command did not end within {COMMAND_S:.0f} s") from None

    def end(self) -> None:
        """End it and all its processes, if it still runs."""
        if self.is_alive:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()


def _chain(pid: int, above: Mapping[int, int]) -> Iterator[int]:
    """The processes above one, by the parent of each."""
    while pid in above:
        pid = above[pid]
        yield pid


def _event(line: str) -> dict[str, JsonValue]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _processes() -> Iterator[tuple[int, int, bytes]]:
    """Number, parent and command line of every process."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it has ended
                # The name of the program may hold anything: fields are counted from its end.
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                yield int(folder.name), parent, (folder / "cmdline").read_bytes()


def left_running(store: Path) -> list[int]:
    """Processes that were started for a store, by their environment."""
    mark, found = f"HARNESS_KILL_MATRIX={store}\0".encode(), []
    for pid, _, _ in _processes():
        with suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes() + b"\0":
                found.append(pid)
    return found


# --- what is in a store ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contents:
    """What a store holds at a moment.

    Args:
        cells: the records of its only run, without what varies from run to run, by cell.
        undone: cells without a result, in words.
        stages: what each finished stage came to, by key.
        written: when the record of each was written, and what it is, which shows that it was written again.
        parents: the stages that each starts from.
        epochs: keys of the stages that trained.
        leftovers: claims and temporary files.
        told: when the records were written; trained: epochs that they tell of.
        state: how the last run says it ended.
    """

    cells: dict[str, str]
    undone: tuple[str, ...]
    stages: dict[str, str]
    written: dict[str, tuple[int, str]]
    parents: dict[str, tuple[str, ...]]
    epochs: frozenset[str]
    leftovers: tuple[str, ...]
    told: int
    trained: int
    state: str


def contents(folder: Path) -> Contents:
    """Look into a store, with its own reader."""
    store = Store(folder)
    stages, written, parents, epochs = {}, {}, {}, set()
    for key in sorted(store.keys()):
        path = store.stage_folder(key) / STAGE
        if not path.exists():
            continue
        written[key] = (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        with suppress(StoreError):  # damaged, which the run is to find out
            record = store.read(key)
            assert record is not None, "nobody removes stages"
            values = (record.train, record.valid, record.test)
            doubt = " not reproduced" if record.reproduced is False else ""
            stages[key] = f"{record.kind} {record.digest}{doubt} {values}"
            source = record.inputs.get("source")
            parents[key] = tuple(each for each in (record.parent, source) if isinstance(each, str))
            if record.kind == "train":
                epochs.add(key)
    found = next(iter((folder / "runs").glob("*/records.json")), None)
    cells = records.read(found) if found else ()
    return Contents(
        cells={cell.cell: cell.model_dump_json(exclude=_VARYING) for cell in cells},
        undone=tuple(f"{cell.cell} is {cell.status}: {cell.reason}" for cell in cells if not cell.is_done),
        stages=stages,
        written=written,
        parents=parents,
        epochs=frozenset(epochs),
        leftovers=leftovers(folder),
        told=found.stat().st_mtime_ns if found else 0,
        trained=sum(cell.trained_epochs for cell in cells),
        state=_state(found.with_name("status.json")) if found else "",
    )


def _state(path: Path) -> str:
    try:
        return str(json.loads(path.read_bytes())["state"])
    except (OSError, ValueError, KeyError):
        return ""


def leftovers(folder: Path) -> tuple[str, ...]:
    """Claims and temporary files in a store: files below `claims` and `tmp`, and those whose name begins with a dot."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return tuple(sorted(str(f) for f in files if f.parts[0] in ("claims", "tmp") or f.name.startswith(".")))


def ancestors(keys: set[str], parents: Mapping[str, Sequence[str]]) -> set[str]:
    """Some stages and all that they start from."""
    found, new = set(keys), set(keys)
    while new:
        new = {parent for key in new for parent in parents.get(key, ())} - found
        found |= new
    return found


# --- the cases ------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """The grid, and how it goes undisturbed.

    Args:
        folder: temporary; everything is below it.
        rhythm: of the undisturbed run, in seconds after its start.
        undisturbed: what it left behind.
    """

    folder: Path
    rhythm: list[float] = field(default_factory=list)
    undisturbed: Contents = field(init=False)

    def __post_init__(self) -> None:
        """Write the experiment and the installed package, and run it."""
        self._numbers = count()
        info = self.folder / "site" / "kill_plugins-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kill-plugins\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[harness.plugins]\nkill-plugins = kill_plugins\n")
        (self.folder / "site" / "kill_plugins.py").write_text(PLUGINS)
        self.spec.write_text(SPEC)
        Run(self, self.fresh()).wait()  # compiles what it imports, so that the next one is as fast as all others
        store = self.fresh()
        run = Run(self, store)
        self.rhythm = run.rhythm()
        self.undisturbed = contents(store)
        wrong = self.undisturbed.undone or self.undisturbed.leftovers
        if run.wait() or wrong or not self.undisturbed.cells:
            raise FaultError(f"the undisturbed run ended with {run.wait()}: {run.errors()} {wrong}")
        self.finished = store

    @property
    def spec(self) -> Path:
        """The experiment."""
        return self.folder / "grid.yaml"

    def fresh(self) -> Path:
        """A store that is not there yet, in a folder of its own."""
        folder = self.folder / "stores" / str(next(self._numbers))
        folder.mkdir(parents=True)
        return folder / "store"

    def environment(self, store: Path, variables: Mapping[str, str]) -> dict[str, str]:
        """Of a run: the package is on its path, nothing of the user's settings is in it, and bytecode is kept."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HARNESS_", "PYTHON"))}
        path = os.pathsep.join(map(str, (self.folder / "site", SUPPORT, SUPPORT / "clock")))
        settings = {"PYTHONPATH": path, "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"), "OMP_NUM_THREADS": "1"}
        toy = {"TOY_SECONDS_PER_EPOCH": str(EPOCH_S)}
        return {**kept, **settings, **toy, "HARNESS_KILL_MATRIX": str(store), **variables}


class Case:
    """One disturbed store, and everything that was run on it."""

    def __init__(self, bench: Bench, rng: random.Random, number: int) -> None:
        self.bench, self.rng, self.number = bench, rng, number
        self.store = bench.fresh()
        self.runs: list[Run] = []
        self.damaged: set[str] = set()

    def start(self, *options: str, prefix: Sequence[str] = (), **variables: str) -> Run:
        """Give the command."""
        run = Run(self.bench, self.store, *options, prefix=prefix, **variables)
        self.runs.append(run)
        return run

    def disturb(self, act: Callable[[Run], bool], *options: str, early: bool = True, **variables: str) -> Run:
        """Give the command and do something at a random instant, in a run that has not ended by then.

        Args:
            act: what is done; False if it came too late, so that another instant is drawn.
            options: of the command.
            early: also before the first stage and after the last one.
            variables: for its environment.
        """
        rhythm = self.bench.rhythm
        first, last = (1, len(rhythm) - 1) if early else (3, len(rhythm) - 2)
        for _ in range(5):
            run = self.start(*options, **variables)
            at = self.rng.uniform(rhythm[first], rhythm[last])
            place = max(i for i, reached in enumerate(rhythm) if reached <= at)
            if run.reach(place, at - rhythm[place]) and act(run):
                return run
            run.wait()
            self.runs.clear()
            self.store = self.bench.fresh()
        raise FaultError("the run had ended at five instants drawn in a row")

    def settle(self) -> None:
        """See that no process is left, give the same command again, and see that everything is as it should be.

        Raises:
            FaultError: it is not.
        """
        self.see_no_orphans()
        for _ in range(AGAIN):
            before = contents(self.store)
            run = self.start()
            code = run.wait()
            self.see_no_orphans()
            after = contents(self.store)
            self.see_nothing_done_twice(before, after)
            self.see_epochs_told(before, after)
            if code == 0:
                break
        else:
            raise FaultError(f"{AGAIN} more runs ended with {code}: {run.errors()[-300:]}")
        if "Traceback" in "".join(each.errors() for each in self.runs):
            raise FaultError(f"a traceback: {''.join(each.errors() for each in self.runs)[-600:]}")
        raise_if(compare(after, self.bench.undisturbed))

    def see_no_orphans(self) -> None:
        """See that no process is left of what was run.

        Raises:
            FaultError: one is; it is ended.
        """
        end = time.monotonic() + ORPHAN_S
        while left := left_running(self.store):
            if time.monotonic() > end:
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                raise FaultError(f"{len(left)} processes left {ORPHAN_S:.0f} s after the end")
            time.sleep(0.05)

    def see_nothing_done_twice(self, before: Contents, after: Contents) -> None:
        """See that no finished stage was computed again.

        Raises:
            FaultError: one was that is not damaged, nor needed for one that is.
        """
        allowed = ancestors(self.damaged, self.bench.undisturbed.parents)
        again = {key for key, written in before.written.items() if after.written.get(key) != written}
        told = Counter(key for run in self.runs for key in run.computed)
        again |= {key for key, times in told.items() if times > 1}
        if again - allowed:
            raise FaultError(f"{len(again - allowed)} finished stages were computed again: {sorted(again - allowed)}")

    def see_epochs_told(self, before: Contents, after: Contents) -> None:
        """See that the records of the last run, if it wrote any, tell how many epochs it trained.

        Raises:
            FaultError: they do not.
        """
        written = {key for key, at in after.written.items() if before.written.get(key) != at}
        if after.told != before.told and after.trained != len(written & after.epochs):
            raise FaultError(f"records tell of {after.trained} epochs, {len(written & after.epochs)} were written")


def compare(found: Contents, expected: Contents) -> list[str]:
    """What is not as after the undisturbed run, in sentences; empty if all is."""
    faults = list(found.undone)
    faults += [f"{what} left behind" for what in found.leftovers]
    for name, ours, theirs in (("cell", found.cells, expected.cells), ("stage", found.stages, expected.stages)):
        faults += [f"{name} {key} is missing" for key in theirs.keys() - ours.keys()]
        faults += [f"{name} {key} is one too many" for key in ours.keys() - theirs.keys()]
        faults += [
            f"{name} {key} differs: {ours[key]}" for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]
        ]
    if found.state != expected.state:
        faults.append(f"the run says that it {found.state or 'said nothing'}")
    return faults


def raise_if(faults: Sequence[str]) -> None:
    """Raise what went wrong, if anything did."""
    if faults:
        raise FaultError(
            "; ".join(fault[:400] for fault in faults[:4]) + (f"; {len(faults)} in all" if faults[4:] else "")
        )


def expect(run: Run, *codes: int) -> None:
    """Wait for a run and see that it ends with one of some codes.

    Raises:
        FaultError: it does not.
    """
    code = run.wait()
    if code not in codes:
        raise FaultError(f"the disturbed run ended with {code}, not {codes}: {run.errors()[-600:]}")


# --- the ways to disturb --------------------------------------------------------------------------------------------


def kill_parent(case: Case) -> None:
    """SIGKILL of the run."""
    case.disturb(_kill)


def _kill(run: Run) -> bool:
    run.kill()
    return True


def kill_worker(case: Case) -> None:
    """SIGKILL of a worker; every other run tries killed stages again by itself, and then ends well."""
    retries = case.number % 2 == 1
    options = ("--retry", "killed") if retries else ()

    def act(run: Run) -> bool:
        workers = run.workers()
        if not workers:
            return False
        with suppress(ProcessLookupError):
            os.kill(case.rng.choice(workers), signal.SIGKILL)
        return True

    expect(case.disturb(act, *options, early=False), *((0,) if retries else (0, 1)))


def kill_one_of_two(case: Case) -> None:
    """SIGKILL of one of two runs on a store; the other ends with everything."""
    others: list[Run] = []

    def act(run: Run) -> bool:
        others[:] = [case.start()]
        time.sleep(case.rng.uniform(0, case.bench.rhythm[-1] - case.bench.rhythm[1]))
        if not run.is_alive:
            others[0].wait()
            return False
        return _kill(run)

    # The first is slower, so that the second has started before its end.
    case.disturb(act, early=False, TOY_SECONDS_PER_EPOCH=str(5 * EPOCH_S))
    expect(others[0], 0)


_AT_ITS_END = (0,)
"""How a run may end, too, that is interrupted when all is done and printed: well, or, once Python has put the signals
back, by the signal itself, which a shell calls 130 and 143 like the harness."""


def terminate(case: Case) -> None:
    """SIGTERM."""

    def act(run: Run) -> bool:
        run.signal(signal.SIGTERM)
        return True

    expect(case.disturb(act), 143, *_AT_ITS_END, -signal.SIGTERM)


def interrupt(case: Case) -> None:
    """Ctrl-C."""

    def act(run: Run) -> bool:
        run.signal(signal.SIGINT, whole_group=True)
        return True

    expect(case.disturb(act), 130, *_AT_ITS_END, -signal.SIGINT)


def interrupt_twice(case: Case) -> None:
    """Ctrl-C, and again a moment later."""

    def act(run: Run) -> bool:
        run.signal(signal.SIGINT, whole_group=True)
        time.sleep(case.rng.uniform(0, 0.3))
        run.signal(signal.SIGINT, whole_group=True)
        return True

    expect(case.disturb(act), 130, *_AT_ITS_END, -signal.SIGINT)


# A mount namespace of its own: nothing is mounted outside, and what is in it goes with its last process.
_NAMESPACE = ("unshare", "--map-root-user", "--mount", "sh", "-c")
_FULL = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && "$@"; code=$?; cp -a "$STORE_IN" "$STORE_OUT"; exit $code'
_READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
_SMALL_FILES = 'ulimit -f "$1" && shift && exec "$@"'


@cache
def can_mount() -> bool:
    """Whether a file system can be mounted here, in a namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = [*_NAMESPACE, 'mount -t tmpfs -o size=64k tmpfs "$1"', "sh", folder]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def full_disk(case: Case) -> None:
    """A file system that is full after a while, then room; where none can be mounted, files that may not grow."""
    if not can_mount():
        # 512-byte blocks: one lets nothing large through, a hundred let everything but records through.
        limit = str(case.rng.choice([1, 2, 4, 8, 16]))
        expect(case.start(prefix=("sh", "-c", _SMALL_FILES, "sh", limit)), 7)
        return
    pages = sum(-(-path.stat().st_size // 4096) for path in case.bench.finished.rglob("*") if path.is_file())
    size = 4096 * case.rng.randint(1, int(0.9 * pages))
    mounted, room = case.store.parent, case.bench.fresh()
    prefix = (*_NAMESPACE, _FULL, "sh", str(size), str(mounted))
    run = case.start(prefix=prefix, STORE_IN=str(case.store), STORE_OUT=str(room))
    code = run.wait()
    case.see_no_orphans()
    case.store = room
    if code != 7:
        raise FaultError(f"with {size} bytes the run ended with {code}, not 7: {run.errors()[-600:]}")


def read_only(case: Case) -> None:
    """A store that cannot be written: a new one, one that is half done, and one that is finished."""
    how = case.number % 3
    if how == 1:
        case.disturb(_kill, early=False)
        case.see_no_orphans()
    elif how == 2:
        shutil.copytree(case.bench.finished, case.store)
    place = case.store.parent
    before = _bytes_below(place)
    with _unwritable(place) as prefix:
        run = case.start(prefix=prefix)
        expect(run, 7)
    if _bytes_below(place) != before:
        raise FaultError("a store that cannot be written was changed")


@contextmanager
def _unwritable(place: Path) -> Iterator[tuple[str, ...]]:
    """What to put before a command for which a folder is not to be written."""
    if can_mount():
        yield (*_NAMESPACE, _READ_ONLY, "sh", str(place))
        return
    folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        yield ()
    finally:
        for folder in folders:
            folder.chmod(0o755)


def _bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def damage(case: Case) -> None:
    """A file of a stage cut short, or a bit of it flipped, in a finished store or in that of a killed run."""
    name = (STAGE, MASKS, STATE)[case.number % 3]
    while True:
        if case.number // 6 % 2:
            case.disturb(_kill, early=False)
            case.see_no_orphans()
        else:
            shutil.copytree(case.bench.finished, case.store)
        paths = sorted(case.store.glob(f"stages/*/*/{name}"))
        if paths:
            break
        case.store = case.bench.fresh()
    path = case.rng.choice(paths)
    status, content = path.stat(), bytearray(path.read_bytes())
    if case.number // 3 % 2:
        del content[case.rng.randrange(len(content)) :]
    else:
        content[case.rng.randrange(len(content))] ^= 1 << case.rng.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # a disk that rots does not tell
    case.damaged.add(path.parent.name)


def set_clock_back(case: Case) -> None:
    """Files from the future; a clock that is set back while a run goes on; files that age while two runs share them."""
    how = case.number % 3
    if how == 0:
        case.disturb(_kill)
        case.see_no_orphans()
        _shift(case.store, case.rng.choice([60.0, DAY_S, 3650 * DAY_S]))
        return
    if how == 1:
        at = time.time() + case.rng.uniform(0, case.bench.rhythm[-1])
        expect(case.start(HARNESS_CLOCK=f"{at} {case.rng.choice([60.0, DAY_S])}"), 0)
        return
    others: list[Run] = []

    def act(run: Run) -> bool:
        others[:] = [case.start()]
        others[0].reach(3, 0)
        _shift(case.store / "claims", -DAY_S)
        _shift(case.store / "runs", -DAY_S)
        return True

    first = case.disturb(act, early=False, TOY_SECONDS_PER_EPOCH=str(5 * EPOCH_S))
    expect(first, 0)
    expect(others[0], 0)


def _shift(folder: Path, seconds: float) -> None:
    """Let files have been changed earlier or later than they were."""
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            status = path.stat()
            shift = int(1e9 * seconds)
            os.utime(path, ns=(status.st_atime_ns + shift, status.st_mtime_ns + shift))


@dataclass(frozen=True)
class Scenario:
    """A way to disturb.

    Args:
        title: for the table.
        disturb: does it.
        share: cases, as a share of the instants asked for; at least one.
    """

    title: str
    disturb: Callable[[Case], None]
    share: float


SCENARIOS = {
    "parent": Scenario("SIGKILL of the run", kill_parent, share=1.0),
    "worker": Scenario("SIGKILL of a worker", kill_worker, share=1.0),
    "two": Scenario("SIGKILL of one of two runs", kill_one_of_two, share=0.08),
    "term": Scenario("SIGTERM", terminate, share=0.16),
    "int": Scenario("Ctrl-C", interrupt, share=0.16),
    "int2": Scenario("Ctrl-C twice", interrupt_twice, share=0.16),
    "full": Scenario("full disk", full_disk, share=0.16),
    "readonly": Scenario("store not writable", read_only, share=0.06),
    "damage": Scenario("damaged file of a stage", damage, share=0.24),
    "clock": Scenario("clock set back", set_clock_back, share=0.12),
}


def attempt(bench: Bench, scenario: Scenario, seed: str, number: int) -> str:
    """Disturb one store and look what comes of it.

    Returns:
        What failed; empty if nothing did.
    """
    case = Case(bench, random.Random(seed), number)
    try:
        scenario.disturb(case)
        case.settle()
    except FaultError as fault:
        return f"case {number} ({case.store}): {fault}"
    finally:
        for run in case.runs:
            run.end()
    shutil.rmtree(case.store.parent)
    return ""


def why_not(name: str) -> str:
    """Why a scenario cannot be played here; empty if it can."""
    if name == "readonly" and not can_mount() and os.geteuid() == 0:
        return "root may write everywhere, and nothing can be mounted"
    return ""


def main() -> int:
    """Play every scenario; 1 if a case fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instants", type=int, default=50, help="random instants for the run and for the workers")
    parser.add_argument("--seed", type=int, default=None, help="of the instants; drawn and printed if not given")
    parser.add_argument("--only", default=",".join(SCENARIOS), help="names of scenarios, separated by commas")
    parser.add_argument("--jobs", type=int, default=cores() + 1, help="cases at a time")
    parser.add_argument("--keep", action="store_true", help="keep the stores of failed cases")
    given = parser.parse_args()
    names = given.only.split(",")
    if unknown := set(names) - set(SCENARIOS):
        parser.error(f"unknown scenarios {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    if not Path("/proc/self/environ").exists():
        parser.error("processes are looked for in /proc, which is not there; run it on Linux")
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and theirs, would ignore it
    folder = Path(tempfile.mkdtemp(prefix="kill-matrix-"))
    start, failed = time.monotonic(), list[str]()
    try:
        bench = Bench(folder)
        stages, seconds = len(bench.undisturbed.stages), bench.rhythm[-1]
        print(f"{stages} stages, {len(bench.undisturbed.cells)} cells, undisturbed in {seconds:.1f} s; seed {seed}")
        print(f"disk and permissions: {'mounts in a namespace' if can_mount() else 'file size limit, mode bits'}")
        failed = play(bench, names, given, seed)
    finally:
        if not (given.keep and failed):
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{time.monotonic() - start:.0f} s, {given.jobs} cases at a time")
    print(f"failed: {', '.join(failed)}" if failed else "nothing lost, nothing done twice, nothing left behind")
    return int(bool(failed))


def play(bench: Bench, names: Sequence[str], given: argparse.Namespace, seed: int) -> list[str]:
    """Play scenarios, printing a line for each; titles of those in which a case failed."""
    failed = []
    print(f"{'scenario':28} {'cases':>6} {'passed':>6}  what failed")
    with ThreadPoolExecutor(given.jobs) as pool:
        tries: dict[str, list[Future[str]]] = {}
        for name in names:
            cases = 0 if why_not(name) else max(1, round(SCENARIOS[name].share * given.instants))
            first = random.Random(f"{seed} {name}").randrange(12)  # variants go by numbers, and few cases see others
            tries[name] = [
                pool.submit(attempt, bench, SCENARIOS[name], f"{seed} {name} {i}", i)
                for i in range(first, first + cases)
            ]
        for name, each in tries.items():
            title, faults = SCENARIOS[name].title, [fault for one in each if (fault := one.result())]
            told = faults or ([f"not played: {why_not(name)}"] if why_not(name) else [""])
            print(f"{title:28} {len(each):6} {len(each) - len(faults):6}  {told[0]}", flush=True)
            for fault in told[1:]:
                print(f"{'':42}  {fault}", flush=True)
            if faults:
                failed.append(title)
    return failed


if __name__ == "__main__":
    sys.exit(main())
