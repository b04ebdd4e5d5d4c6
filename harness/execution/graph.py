"""What is left to run, in which order, and what happens to a stage that ends: the part that every executor shares.

An executor knows processes, machines and devices; a `Schedule` knows stages. An executor asks it for the next job of a
free worker (`next`), tells it every message of a worker (`tell`), and goes on until it `is_over`.
"""

import heapq
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from harness.api import SpecError
from harness.execution.worker import Done, Failed, Job, Message
from harness.results.records import Status
from harness.store import DamagedStageError, StageRecord, Store

_LOOK_AGAIN_S = 0.5
"""How often a stage that another run holds is looked at."""

_SAME_ERROR = 3
"""As many first stages as the same error may end before the run stops."""


@dataclass
class Graph:
    """What is left to run.

    Args:
        jobs: by stage key, every parent before its children.
        passing: keys of stages whose state is dropped once everything that starts from them has run.
    """

    jobs: Mapping[str, Job]
    passing: frozenset[str] = frozenset()
    waiting: dict[str, int] = field(init=False)
    children: dict[str, list[str]] = field(init=False)
    length: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        """Count what each stage waits for and how long a path hangs on it."""
        self.waiting, self.length = {}, {}
        self.children = {key: [] for key in self.jobs}
        for key, job in self.jobs.items():
            sources = {source for source in needed(job) if source in self.jobs}
            self.waiting[key] = len(sources)
            for source in sources:
                self.children[source].append(key)
        # Backwards, as children come after what they start from.
        for key in reversed(list(self.jobs)):
            below = max((self.length[child] for child in self.children[key]), default=0)
            # Only training takes long: other stages do not make a path longer.
            self.length[key] = below + (self.jobs[key].stage.kind == "train")

    def readers(self) -> dict[str, int]:
        """How many jobs read the state of a stage, by the stage's key."""
        return dict(Counter(key for job in self.jobs.values() for key in needed(job)))


def needed(job: Job) -> tuple[str, ...]:
    """Keys of the stages whose states a job reads."""
    return tuple(key for key in (job.stage.parent, job.stage.source) if key is not None)


@dataclass(frozen=True)
class Policy:
    """What happens after failures.

    Args:
        retry: statuses after which a stage is tried again.
        retries: how often each stage is, at most.
        max_failures: failed stages after which nothing new is begun; None for no limit.
        stage_timeout: seconds that a stage may take, or None. The executor keeps it.
    """

    retry: frozenset[Status] = frozenset()
    retries: int = 1
    max_failures: int | None = None
    stage_timeout: float | None = None


RETRIABLE: tuple[Status, ...] = ("oom", "killed", "timeout", "crashed", "failed")
"""Statuses after which another attempt may end otherwise; a model that diverged would diverge again."""


def parse_retry(text: str) -> frozenset[Status]:
    """The statuses of an option, e.g. `oom,killed`.

    Raises:
        SpecError: one of them is none after which a stage can be tried again.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in RETRIABLE:
            raise SpecError(
                f"retry: expected some of {', '.join(RETRIABLE)}, got {name!r}; write e.g. `--retry oom,killed`"
            )
    # In the order of the table, and each once, however they were written.
    return frozenset(status for status in RETRIABLE if status in names)


class Claiming(Protocol):
    """Who computes which stage, among all runs on one store (`harness.store.claims.Claims`)."""

    def acquire(self, key: str) -> bool:
        """Whether the stage is ours to compute now."""

    def holder(self, key: str) -> str | None:
        """Who computes it, as part of a sentence; None if nobody alive does."""

    def release(self, key: str) -> None:
        """Let others have it."""

    def others_alive(self) -> bool:
        """Whether another run works on this store."""


class Executor(Protocol):
    """Somewhere that stages are run: processes of this machine, or a cluster."""

    def run(self, schedule: "Schedule") -> None:
        """Run what the schedule hands out until it is over.

        Every job that `schedule.next` returned ends with one `Done` or `Failed` told to the schedule, whatever happens
        to its worker. Interrupts (KeyboardInterrupt) pass through.
        """

    def close(self) -> None:
        """End every worker; nothing runs afterwards."""


class Schedule:
    """Which stage is next; the longest path goes first.

    Args:
        graph: the jobs; their other inputs are in the store.
        store: where stages are kept.
        policy: what happens after failures.
        claims: who computes what, where several runs share the store.
        on_start: called with a stage's key when it is handed out.
        on_message: called with every progress, result and failure; results found in the store come as `Done` with
            `is_found`, failures that will be tried again as `Failed` with `again`.
        on_wait: called with who computes a stage that this run waits for, once for each.
    """

    def __init__(
        self,
        graph: Graph,
        store: Store,
        *,
        policy: Policy | None = None,
        claims: Claiming | None = None,
        on_start: Callable[[str], None] = lambda key: None,
        on_message: Callable[[Message], None] = lambda message: None,
        on_wait: Callable[[str], None] = lambda holder: None,
    ) -> None:
        self.graph, self.policy = graph, policy or Policy()
        self.stopped: str | None = None
        self._store, self._claims = store, claims
        self._on_start, self._on_message, self._on_wait = on_start, on_message, on_wait
        self._holders: set[str] = set()
        # Ties go by the order of the experiment, so that equal runs do equal things.
        self._order = {key: place for place, key in enumerate(graph.jobs)}
        self._waiting = dict(graph.waiting)
        # How many stages still read each state: at none it may go.
        self._readers = graph.readers()
        self._ready: set[str] = set()
        self._heaps: dict[str, list[tuple[int, int, str]]] = {}
        self._held: dict[str, float] = {}
        self._running: set[str] = set()
        self._alone: set[str] = set()
        self._attempts: Counter[str] = Counter()
        self._failures = 0
        self._first_errors: list[tuple[str, str]] | None = []
        for key, count in self._waiting.items():
            if count == 0:
                self._make_ready(key)

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing can be begun."""
        return not self._running and (self.stopped is not None or not (self._ready or self._held))

    @property
    def look_again_s(self) -> float | None:
        """Seconds after which `next` may have more to hand out though no message came; None if it will not."""
        return _LOOK_AGAIN_S if self._held and self.stopped is None else None

    def is_alone(self, key: str) -> bool:
        """Whether a stage is to run with no other beside it: it ran out of memory before."""
        return key in self._alone

    def stop(self, reason: str) -> None:
        """Begin nothing new; what runs may end."""
        self.stopped = self.stopped or reason

    def next(self, backend: str | None = None, stands_at: str | None = None) -> Job | None:
        """The job that a free worker should run now; it counts as running.

        Args:
            backend: name of the backend that the worker has loaded; None for one that is still to be started.
            stands_at: key of the stage whose state the worker has loaded: a worker goes on with its chain, where it
                can, so that no state has to be read back.
        """
        self._look_again()
        # What runs alone keeps everybody else waiting, also those that would be ready.
        while self.stopped is None and not self._running & self._alone:
            key = self._pick(backend, stands_at)
            if key is None:
                return None
            job = self.take(key)
            if job is not None:
                return job
        return None

    def following(self, key: str) -> tuple[str, ...]:
        """Stages that one worker could go on with after another, none of which waits for anything else.

        Scores of a model come right after it, then the child with the longest path, and so on to the end of the chain.
        """
        waiting: dict[str, int] = {}
        found: list[str] = []
        place: str | None = key
        while place is not None:
            for child in self.graph.children[place]:
                waiting[child] = waiting.get(child, self._waiting[child]) - 1
            free = [child for child in self.graph.children[place] if waiting[child] == 0 and child not in self._alone]
            longer = [child for child in free if self.graph.jobs[child].stage.kind != "test"]
            place = max(longer, key=lambda child: (self.graph.length[child], -self._order[child]), default=None)
            found += [child for child in free if child not in longer]
            found += [place] if place is not None else []
        return tuple(found)

    def take(self, key: str, *, is_under_way: bool = False) -> Job | None:
        """The job of one stage, if it can be run now and is ours to compute; it counts as running.

        Args:
            key: the stage's.
            is_under_way: whether a worker of ours has gone on to it by itself, so that it may be in the store by now.
        """
        if key not in self._ready or self.stopped is not None:
            return None
        self._ready.remove(key)
        if not self._is_ours(key, is_under_way=is_under_way):
            return None
        self._running.add(key)
        self._on_start(key)
        return self.graph.jobs[key]

    def tell(self, message: Message) -> None:
        """Take a message of a worker: a result makes other stages ready, a failure may be tried again."""
        if isinstance(message, Done):
            self._end(message.record.key)
            # A success ends the count: then the mistake is not one that meets everybody. Initial weights prove nothing.
            self._first_errors = self._first_errors if message.record.kind == "init" else None
            self._finished(message.record.key)
        elif isinstance(message, Failed):
            self._end(message.key)
            # A failure may become another attempt, which is told in its place.
            message = self._failed(message)
        self._on_message(message)

    def _end(self, key: str) -> None:
        self._running.discard(key)
        if self._claims is not None:
            self._claims.release(key)

    def _make_ready(self, key: str) -> None:
        self._ready.add(key)
        # By backend, as a worker keeps the framework that it has loaded.
        heap = self._heaps.setdefault(self.graph.jobs[key].backend.name, [])
        heapq.heappush(heap, (-self.graph.length[key], self._order[key], key))

    def _look_again(self) -> None:
        now = time.monotonic()
        for key in [key for key, at in self._held.items() if at <= now]:
            del self._held[key]
            self._make_ready(key)

    def _pick(self, backend: str | None, stands_at: str | None) -> str | None:
        following = [
            key for key in self.graph.children.get(stands_at or "", ()) if key in self._ready and key not in self._alone
        ]
        if following:
            # A score of the model that is loaded comes first: a result early, and no state read back for it later.
            return min(following, key=lambda key: (self.graph.jobs[key].stage.kind != "test", -self.graph.length[key]))
        heaps = [self._heaps.get(backend, [])] if backend is not None else list(self._heaps.values())
        for heap in heaps:
            # Entries are not removed when a stage is taken another way; they are dropped when they come to the top.
            while heap and (heap[0][2] not in self._ready or heap[0][2] in self._alone):
                heapq.heappop(heap)
        best = min((heap[0] for heap in heaps if heap), default=None)
        if best is not None:
            return best[2]
        # What needs the machine for itself waits until all else is done or waits for it.
        alone = self._alone & self._ready
        if self._running or alone != self._ready:
            return None
        fitting = [key for key in alone if backend in (None, self.graph.jobs[key].backend.name)]
        return min(fitting, key=lambda key: (-self.graph.length[key], self._order[key]), default=None)

    def _is_ours(self, key: str, *, is_under_way: bool = False) -> bool:
        """Whether a stage is to be computed by this run: not if another run does, or has done so meanwhile."""
        if self._claims is None:
            return True
        if not self._claims.acquire(key):
            # Not waited for: other stages are handed out meanwhile.
            self._held[key] = time.monotonic() + _LOOK_AGAIN_S
            holder = self._claims.holder(key)
            if holder is not None and holder not in self._holders:
                self._holders.add(holder)
                self._on_wait(holder)
            return False
        # Only now: between the plan and the claim another run may have finished it.
        found = None if is_under_way else self._found(key)
        if found is None:
            return True
        self._claims.release(key)
        self._finished(key)
        self._on_message(Done(found, is_found=True))
        return False

    def _found(self, key: str) -> StageRecord | None:
        """The stage as another run left it in the store since this one was planned; None if it has to be run."""
        # The record alone tells that a stage is finished; its files may be damaged.
        if not self._store.has_stage(key):
            return None
        try:
            record = self._store.read(key)
            if record is not None:
                self._store.masks(record)
                # Nothing reads the state of a last stage, which may be gone on purpose.
                if self.graph.children[key]:
                    self._store.verify_state(record)
        except DamagedStageError:
            return None
        return record

    def _finished(self, key: str) -> None:
        for child in self.graph.children[key]:
            self._waiting[child] -= 1
            if self._waiting[child] == 0:
                self._make_ready(child)
        for source in (*needed(self.graph.jobs[key]), key):
            if source != key:
                self._readers[source] -= 1
            # Another run may start from it: then it stays, for `harness gc`.
            if self._readers.get(source, 0) == 0 and source in self.graph.passing:
                self._store.drop_state(source, None if self._claims is None else self._claims.others_alive)

    def _failed(self, failed: Failed) -> Failed:
        # Fatal ones are of the store, and would meet every other stage as well.
        if failed.is_fatal:
            self.stop(failed.reason)
            return failed
        self._attempts[failed.key] += 1
        if failed.status in self.policy.retry and self._attempts[failed.key] <= self.policy.retries:
            # Memory of a GPU is not freed by other workers being idle; that of the machine is.
            if failed.status == "oom" and self.graph.jobs[failed.key].settings.device == "cpu":
                self._alone.add(failed.key)
            self._make_ready(failed.key)
            return replace(failed, again=True)
        self._failures += 1
        if self._failures == self.policy.max_failures:
            self.stop(f"{self._failures} failed stages, which --max-failures allows")
        # A model that diverges is a result, and others may not; any other error that meets everybody is a mistake.
        if self._first_errors is not None and failed.status != "diverged":
            # Numbers differ from stage to stage in what is one and the same mistake.
            self._first_errors.append((failed.status, re.sub(r"\d+", "#", failed.reason)))
            if len(self._first_errors) == _SAME_ERROR and len(set(self._first_errors)) == 1:
                self.stop(f"the first {_SAME_ERROR} stages ended alike: {failed.status}: {failed.reason}")
        return failed
