"""What a store has of a plan's stages: which are there and whole, why each of the others has to run."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.planning.older_code import OlderCode, TrustedStages
from harness.planning.stages import Stage
from harness.store import DamagedStageError, StageRecord, Store

Shapes = Mapping[str, tuple[int, ...]]
"""Of tensors or masks, by name."""


@dataclass(frozen=True)
class CacheState:
    """What the store says of a plan's stages: as in `Plan`."""

    stages: Mapping[str, Stage]
    cached: Mapping[str, StageRecord]
    to_run: Mapping[str, str]
    damaged: Mapping[str, str]


class StoreSnapshot:
    """A store that is looked into: what is there is listed once, every record is read once.

    Args:
        store: the store.
        shapes: of the tensors that may have masks after a stage, by the stage's key and their names; a stage that is
            not among them has what masks it has. A checksum tells that a file is the one that was written, not that
            it was written for this model.
    """

    def __init__(self, store: Store, shapes: Mapping[str, Shapes] | None = None) -> None:
        self.store = store
        self._shapes = shapes or {}
        self.present = frozenset(store.keys())
        self._read: dict[str, StageRecord | DamagedStageError | None] = {}

    def look(self, stages: Mapping[str, Stage]) -> CacheState:
        """What is there, and what has to run."""
        cached: dict[str, StageRecord] = {}
        damaged: dict[str, str] = {}
        for key in stages:
            found = self._record(key) if key in self.present else None
            if isinstance(found, DamagedStageError):
                damaged[key] = str(found)
            elif found is not None:
                cached[key] = found
        to_run = _to_run(self.store, stages, cached, damaged)
        return CacheState(stages, cached, to_run, damaged)

    def _record(self, key: str) -> StageRecord | DamagedStageError | None:
        """A stage's record, if it is there and whole, its masks included."""
        if key not in self._read:
            try:
                record = self.store.read(key)
                if record is not None:
                    # Masks are read now: a stage whose masks are damaged cannot be costed, however whole its record is.
                    self._check(key, {name: mask.shape for name, mask in self.store.masks(record).items()})
                self._read[key] = record
            except DamagedStageError as error:
                self._read[key] = error
        return self._read[key]

    def _check(self, key: str, found: Shapes) -> None:
        """Refuse masks that are none of the model's, though they are the ones that were written."""
        if key not in self._shapes:
            # Dense stages have no masks, and those of cells that were skipped are nobody's.
            return
        expected = self._shapes[key]
        wrong = next((name for name, shape in found.items() if expected.get(name) != shape), None)
        if wrong is not None:
            wanted = expected.get(wrong, "no mask of that name")
            raise DamagedStageError(
                f"store: stage {key} has a mask of another model: {wrong[:80]!r} has shape {found[wrong]}, expected "
                f"{wanted}"
            )


def _to_run(
    store: Store, stages: Mapping[str, Stage], cached: Mapping[str, StageRecord], damaged: dict[str, str]
) -> dict[str, str]:
    """Why each stage has to run, in topological order; states that turn out damaged are added to `damaged`.

    A stage runs if it was never finished, or if something that starts from it runs and its state is not kept.
    """
    reasons: dict[str, str] = {}
    state_wanted: set[str] = set()
    # Children before parents: whether a state is wanted depends on what starts from it.
    for key in reversed(list(stages)):
        stage = stages[key]
        if key in cached and key in state_wanted and store.has_state(key):
            try:
                # Only states that something starts from are verified: they are large, and most are never read again.
                store.verify_state(cached[key])
            except DamagedStageError as error:
                damaged[key] = str(error)
        if key in damaged:
            reasons[key] = "damaged: run again"
        elif key not in cached:
            reasons[key] = "not run yet"
        elif key in state_wanted and not store.has_state(key):
            reasons[key] = "metrics cached, state missing"
        if key in reasons:
            # A missing state reaches upwards: its stage runs again, for which its parent's state is needed, and so on.
            state_wanted.update(other for other in (stage.parent, stage.source) if other)
    # Back in topological order, in which it could be run.
    return {key: reasons[key] for key in stages if key in reasons}


def with_trusted_stages(stages: Mapping[str, Stage], snapshot: StoreSnapshot) -> tuple[TrustedStages, CacheState]:
    """Stages of a plan with those of older code in their places, and what the store has of them.

    None of the older ones is ever run: that would put new results under old keys.
    """
    older, refused = OlderCode(snapshot.store), set[str]()
    while True:
        replaced = TrustedStages.of(stages, snapshot.present, older, refused)
        found = snapshot.look({stage.key: stage for stage in replaced.stages.values()})
        unusable = replaced.trusted & found.to_run.keys()
        if not unusable:
            return replaced, found
        # Its state is gone: a chain of present code takes its place, which may make others unnecessary, so again.
        refused |= unusable
