"""How long a run still takes, from the stages that it has finished."""

import time
from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass

from harness._text import span
from harness.execution.graph import Graph


@dataclass(frozen=True)
class Tally:
    """How far a run is.

    Args:
        done: epochs finished by this run or meanwhile by another; epochs: those it had to run.
        left_s: seconds that the rest will take; None until an epoch is finished.
        basis: finished epochs that this rests on.
    """

    done: int = 0
    epochs: int = 0
    left_s: float | None = None
    basis: int = 0

    def words(self) -> str:
        """For a progress line."""
        text = f"{self.done}/{self.epochs} epochs"
        if self.left_s is None or self.done == self.epochs:
            return text
        return f"{text}, about {span(self.left_s)} left, from {self.basis} timed"


class Clock:
    """Counts epochs down. A stage is expected to take as long as the finished ones of its kind did.

    The time of a stage is that of its worker, without start-up. The rest takes as long as the epochs of the longest
    chain, or as all of it shared among the workers, whichever is longer. Epochs that nothing was timed of take the
    mean of the others; scores and prunes of which nothing was timed count as nothing.

    Args:
        graph: what was left to run at the start.
        kinds: of every stage that takes time, what those of equal cost have in common.
        workers: how many run at once.
        epochs: the stages that train; by default all of `kinds`.
    """

    def __init__(
        self, graph: Graph, kinds: Mapping[str, Hashable], workers: int, epochs: Collection[str] | None = None
    ) -> None:
        self._graph, self._kinds, self._workers = graph, kinds, workers
        self._epochs = frozenset(kinds if epochs is None else epochs)
        self._of_epochs = {kinds[key] for key in self._epochs}
        self._left = dict.fromkeys(kinds)
        self._count = Counter(kinds.values())
        self._seconds: Counter[Hashable] = Counter()
        self._timed: Counter[Hashable] = Counter()
        self._done = 0
        self._longest, self._looked = 0, -1.0

    def finished(self, key: str, seconds: float | None) -> None:
        """A stage is there; `seconds` is None if another run computed it."""
        if key not in self._left:
            return
        kind = self._drop(key)
        self._done += key in self._epochs
        if seconds is not None:
            self._seconds[kind] += seconds  # type: ignore[assignment]  # a Counter adds floats as well
            self._timed[kind] += 1

    def lost(self, key: str) -> None:
        """A stage will not be run, and nothing that starts from it."""
        pending = [key]
        # Down the graph: what starts from it cannot be run either.
        while pending:
            key = pending.pop()
            if key in self._left:
                self._drop(key)
            pending += self._graph.children[key]

    def tally(self) -> Tally:
        """As things stand."""
        basis = sum(self._timed[kind] for kind in self._of_epochs)
        if not basis:
            return Tally(self._done, len(self._epochs))
        mean = sum(self._seconds[kind] for kind in self._of_epochs) / basis
        work = sum(count * self._each(kind, mean) for kind, count in self._count.items())
        # The longest chain is looked for now and then only: a large plan has many stages.
        if time.monotonic() - self._looked > 1.0:
            self._longest = max((self._graph.length[key] for key in self._left), default=0)
            self._looked = time.monotonic()
        # Neither faster than all workers together nor than the longest chain of one.
        left = max(work / self._workers, self._longest * mean) if self._left else 0.0
        return Tally(self._done, len(self._epochs), left, basis)

    def _each(self, kind: Hashable, mean: float) -> float:
        """Seconds that a stage of a kind is expected to take."""
        if self._timed[kind]:
            return self._seconds[kind] / self._timed[kind]
        return mean if kind in self._of_epochs else 0.0

    def _drop(self, key: str) -> Hashable:
        del self._left[key]
        kind = self._kinds[key]
        self._count[kind] -= 1
        return kind
