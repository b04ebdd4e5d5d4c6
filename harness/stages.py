"""Programs lowered to stages: values with content-addressed keys, so that equal beginnings are the same stages."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.api import (
    Backend,
    Epoch,
    JsonValue,
    MaskUpdate,
    Pattern,
    Phase,
    Problem,
    Prune,
    Recipe,
    Rewind,
    Score,
    Settings,
    SpecError,
    Task,
    Train,
)

KEY_FORMAT = 1
"""Raise this when stages are run differently from before: every key changes, and everything is run again."""

Allocation = Literal["uniform", "global"] | Mapping[str, float]

StageKind = Literal["init", "train", "prune", "rewind", "test"]


@dataclass(frozen=True)
class Step:
    """One lowered piece of a program, before it has a place in a chain."""

    kind: Literal["train", "prune", "rewind"]
    epoch: Epoch | None = None
    update: MaskUpdate | None = None
    to: int | None = None


@dataclass(frozen=True)
class Masking:
    """What turns a mask update into masks: enters a key with the first update of a chain."""

    pattern: Pattern
    allocation: Allocation
    scope: tuple[str, ...]
    target: float

    def identity(self) -> dict[str, JsonValue]:
        """What a key needs. The target matters only where tensors have sparsities of their own."""
        allocation = self.allocation if isinstance(self.allocation, str) else dict(sorted(self.allocation.items()))
        values: dict[str, JsonValue] = {
            "pattern": self.pattern.identity(),
            "allocation": allocation,  # type: ignore[dict-item]  # a dict of floats is a JSON value
            "scope": list(self.scope),
        }
        if not isinstance(allocation, str):
            values["target"] = self.target
        return values


@dataclass(frozen=True)
class Stage:
    """One epoch, prune, rewind or test: what is run once, kept and shared.

    Args:
        key: digest of the parent's key and of `inputs`.
        parent: key of the stage whose state this one starts from; None for the initial weights.
        kind: what is done.
        inputs: everything but the parent that decides the result, in clear.
        epoch_index: epochs trained in the chain before this stage.
        epoch: rates and updates of a `train` stage.
        update: the update of a `prune` stage.
        source: key of the stage whose weights a `rewind` takes.
        masking: what makes masks, where there are updates.
        is_dense: no mask update has happened up to and including this stage.
    """

    key: str
    parent: str | None
    kind: StageKind
    inputs: Mapping[str, JsonValue]
    epoch_index: int = 0
    epoch: Epoch | None = None
    update: MaskUpdate | None = None
    source: str | None = None
    masking: Masking | None = None
    is_dense: bool = True


def digest(value: JsonValue | Mapping[str, JsonValue]) -> str:
    """A 32-digit name for a JSON value: the same for equal content, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def lower(program: Sequence[Phase], recipe: Recipe) -> tuple[Step, ...]:
    """Turn phases into steps of plain numbers.

    Raises:
        SpecError: a mask update or a rewind lies outside its phase.
    """
    steps: list[Step] = []
    trained = 0
    for phase in program:
        if isinstance(phase, Train):
            steps += _epochs(phase, recipe.steps_per_epoch)
            trained += phase.epochs
        elif isinstance(phase, Prune):
            update = MaskUpdate(step=0, sparsity=phase.sparsity, score=phase.score)
            steps.append(Step("prune", update=update))
        else:
            _check_rewind(phase, trained)
            steps.append(Step("rewind", to=phase.to))
            trained = phase.to
    return tuple(steps)


def _epochs(phase: Train, steps_per_epoch: int) -> list[Step]:
    total = phase.epochs * steps_per_epoch
    updates: dict[int, list[MaskUpdate]] = {}
    for step, sparsity in phase.sparsity.updates(steps_per_epoch) if phase.sparsity else ():
        if not 0 <= step <= total:
            raise SpecError(
                f"the sparsity schedule has an update at step {step}, outside its phase of {phase.epochs} epochs "
                f"({total} steps); end it by epoch {phase.epochs}"
            )
        # The update at the very end belongs to the last epoch: there is no later one.
        epoch = min(step // steps_per_epoch, phase.epochs - 1)
        update = MaskUpdate(step=step - epoch * steps_per_epoch, sparsity=sparsity, score=phase.score)
        updates.setdefault(epoch, []).append(update)
    return [
        Step("train", epoch=Epoch(rates=phase.lr.at(epoch), updates=tuple(updates.get(epoch, ()))))
        for epoch in range(phase.epochs)
    ]


def _check_rewind(phase: Rewind, trained: int) -> None:
    if phase.to >= trained:
        raise SpecError(
            f"rewind: `to` counts trained epochs from the start and must be below the {trained} trained so far, "
            f"got {phase.to}; rewind to an earlier epoch"
        )


def root(task: Task, problem: Problem, backend: Backend, settings: Settings, versions: Mapping[str, str]) -> Stage:
    """Stage 0: the initial weights, with everything that all stages of a chain depend on."""
    inputs: dict[str, JsonValue] = {
        "format": KEY_FORMAT,
        "task": {"name": task.name, "result_version": task.result_version},
        "data": problem.fingerprint,
        "network": problem.network.model_dump(mode="json"),
        "optimiser": problem.recipe.optimiser.model_dump(mode="json"),
        "clip_norm": problem.recipe.clip_norm,
        "metric": problem.metric.model_dump(mode="json"),
        "backend": backend.identity(),
        "versions": dict(sorted(versions.items())),
        "seed": settings.seed,
        "precision": settings.precision,
        "device": settings.device.partition(":")[0],
        "threads": settings.threads,
    }
    return Stage(key=digest({"kind": "init", "inputs": inputs}), parent=None, kind="init", inputs=inputs)


def chain(start: Stage, steps: Sequence[Step], masking: Masking | None) -> list[Stage]:
    """The stages of one cell, from stage 0 to the trained, pruned model."""
    stages = [start]
    after_epochs = {0: start}  # trained epochs -> the stage that ends them, latest wins
    trained, is_dense = 0, True
    for step in steps:
        source = after_epochs[step.to] if step.to is not None else None
        is_dense = is_dense and step.update is None and not (step.epoch and step.epoch.updates)
        if source is not None:
            trained = source.epoch_index + (source.kind == "train")
        stage = _stage(stages[-1], step, trained, source, masking, is_dense=is_dense)
        stages.append(stage)
        if step.kind == "train":
            trained += 1
            after_epochs[trained] = stage
    return stages


def _stage(
    parent: Stage, step: Step, trained: int, source: Stage | None, masking: Masking | None, *, is_dense: bool
) -> Stage:
    inputs: dict[str, JsonValue] = {"epoch_index": trained}
    updates: tuple[MaskUpdate, ...] = ()
    if step.epoch is not None:
        updates = step.epoch.updates
        rates = step.epoch.rates
        inputs["rates"] = rates if isinstance(rates, float) else list(rates)
    if step.update is not None:
        updates = (step.update,)
    if updates:
        assert masking is not None, "a program without a pattern has no mask updates"
        inputs["updates"] = [[update.step, update.sparsity, _identity(update.score)] for update in updates]
        inputs["masking"] = masking.identity()
    if source is not None:
        inputs["source"] = source.key
    return Stage(
        key=digest({"kind": step.kind, "parent": parent.key, "inputs": inputs}),
        parent=parent.key,
        kind=step.kind,
        inputs=inputs,
        epoch_index=trained,
        epoch=step.epoch,
        update=step.update,
        source=source.key if source else None,
        masking=masking if updates else None,
        is_dense=is_dense,
    )


def _identity(score: Score) -> JsonValue:
    return json.loads(json.dumps(score.identity()))  # type: ignore[no-any-return]  # json.loads is untyped


def leaf(end: Stage) -> Stage:
    """The test score of a chain's last stage: a stage of its own, that no other stage starts from."""
    return Stage(
        key=digest({"kind": "test", "parent": end.key, "inputs": {}}),
        parent=end.key,
        kind="test",
        inputs={},
        epoch_index=end.epoch_index + (end.kind == "train"),
        is_dense=end.is_dense,
    )
