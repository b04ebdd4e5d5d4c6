"""What a store has of a plan's stages: which are there and whole, why each of the others has to run."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.api import Mask
from harness.planning.genuine import ArrayTypes, Model, keeps_masks, last_update
from harness.planning.older_code import OlderCode, TrustedStages
from harness.planning.stages import Stage
from harness.store import MASKS, DamagedStageError, StageRecord, Store

STATE_MISSING = "metrics cached, state missing"
"""Why a stage runs whose results are known, where nobody but training itself goes on from it."""


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
        models: whose stages they are, by the stages' keys; of a stage that is not among them any file is taken that its
            checksum fits.
    """

    def __init__(self, store: Store, models: Mapping[str, Model] | None = None) -> None:
        self.store = store
        self._models = dict(models or {})
        self.present = frozenset(store.keys())
        self._read: dict[str, StageRecord | DamagedStageError | None] = {}
        self._made_by: dict[str, Stage] = {}

    def stands_for(self, key: str, other: str) -> None:
        """Let a stage take the place of another one, whose model is then its own."""
        if other in self._models:
            self._models[key] = self._models[other]

    def look(self, stages: Mapping[str, Stage]) -> CacheState:
        """What is there, and what has to run."""
        cached: dict[str, StageRecord] = {}
        damaged: dict[str, str] = {}
        for key, stage in stages.items():  # parents first
            made_by = stage if last_update(stage) else self._made_by.get(stage.parent or "")
            if made_by is not None:
                self._made_by[key] = made_by
            found = self._record(stage) if key in self.present else None
            if isinstance(found, DamagedStageError):
                damaged[key] = str(found)
            elif found is not None:
                cached[key] = found
        to_run = self._to_run(stages, cached, damaged)
        return CacheState(stages, cached, to_run, damaged)

    def _record(self, stage: Stage) -> StageRecord | DamagedStageError | None:
        """A stage's record, if it is there and whole, its masks included."""
        key = stage.key
        if key not in self._read:
            try:
                record = self.store.read(key)
                if record is not None:
                    # Masks are read now: a stage whose masks are damaged cannot be costed, however whole its record is.
                    self._check(stage, record, self.store.masks(record))
                self._read[key] = record
            except DamagedStageError as error:
                self._read[key] = error
        return self._read[key]

    def _check(self, stage: Stage, record: StageRecord, masks: Mapping[str, Mask]) -> None:
        """Refuse what this stage cannot have left, though its checksums fit."""
        model = self._models.get(stage.key)
        if model is None:
            return
        reason = model.why_not_record(stage, record)
        if not reason and stage.kind != "test":
            reason = model.why_not_masks(stage, self._made_by.get(stage.key), masks)
        # One of older code may follow on one that did not lead to it.
        if not reason and keeps_masks(stage) and record.parent == stage.parent:
            reason = self._why_not_kept(stage, record, masks)
        if reason:
            raise DamagedStageError(f"store: stage {stage.key} {reason}")

    def _why_not_kept(self, stage: Stage, record: StageRecord, masks: Mapping[str, Mask]) -> str:
        parent = self._read.get(stage.parent or "")
        # Equal masks are equal files; one that was written otherwise is compared mask by mask.
        if not isinstance(parent, StageRecord) or parent.checksums.get(MASKS) == record.checksums.get(MASKS):
            return ""
        before = self.store.masks(parent)
        same = before.keys() == masks.keys() and all(np.array_equal(before[name], masks[name]) for name in masks)
        return "" if same else "has other masks than the stage before it, though it makes none"

    def _check_state(self, record: StageRecord) -> None:
        def check(arrays: ArrayTypes) -> None:
            model = self._models.get(record.key)
            reason = "" if model is None else model.why_not_state(arrays)
            if reason:
                raise DamagedStageError(f"store: stage {record.key} {reason}")

        self.store.verify_state(record, check)

    def _to_run(
        self, stages: Mapping[str, Stage], cached: Mapping[str, StageRecord], damaged: dict[str, str]
    ) -> dict[str, str]:
        """Why each stage has to run, in topological order; states that turn out damaged are added to `damaged`.

        A stage runs if it was never finished, or if something that starts from it runs and its state is not kept.
        """
        reasons: dict[str, str] = {}
        wanted: dict[str, str] = {}  # the stages whose states are, and why they run if those are gone
        # Children before parents: whether a state is wanted depends on what starts from it.
        for key in reversed(list(stages)):
            stage = stages[key]
            if key in cached and key in wanted and self.store.has_state(key):
                try:
                    # Only states that something starts from: they are large, and most are never read again.
                    self._check_state(cached[key])
                except DamagedStageError as error:
                    damaged[key] = str(error)
            if key in damaged:
                reasons[key] = "damaged: run again"
            elif key not in cached:
                reasons[key] = "not run yet"
            elif key in wanted and not self.store.has_state(key):
                reasons[key] = wanted[key]
            if key in reasons:
                # A missing state reaches upwards: its stage runs again, for which its parent's is needed, and so on.
                for above in (stage.parent, stage.source):
                    if above and wanted.get(above) != STATE_MISSING:
                        wanted[above] = _why_wanted(stage, reasons[key])
        # Back in topological order, in which it could be run.
        return {key: reasons[key] for key in stages if key in reasons}


def _why_wanted(stage: Stage, reason: str) -> str:
    """Why a stage would run for its state, because of one that starts from it and runs for a reason."""
    if stage.number_format is not None:
        return f"{STATE_MISSING} for a score as {stage.number_format.label()}"
    # What leads to a model that is trained again for such a score alone runs for the same.
    return reason if reason.startswith(STATE_MISSING) else STATE_MISSING


def with_trusted_stages(stages: Mapping[str, Stage], snapshot: StoreSnapshot) -> tuple[TrustedStages, CacheState]:
    """Stages of a plan with those of older code in their places, and what the store has of them.

    None of the older ones is ever run: that would put new results under old keys.
    """
    older, refused = OlderCode(snapshot.store), set[str]()
    while True:
        replaced = TrustedStages.of(stages, snapshot.present, older, refused)
        for key, stage in replaced.stages.items():
            snapshot.stands_for(stage.key, key)
        found = snapshot.look({stage.key: stage for stage in replaced.stages.values()})
        unusable = replaced.trusted & found.to_run.keys()
        if not unusable:
            return replaced, found
        # Its state is gone: a chain of present code takes its place, which may make others unnecessary, so again.
        refused |= unusable
