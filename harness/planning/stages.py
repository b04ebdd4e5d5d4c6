"""Programs lowered to stages: values with content-addressed keys, so that equal beginnings are the same stages."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from harness import _files
from harness.api import (
    Backend,
    Epoch,
    JsonValue,
    MaskUpdate,
    NumberFormat,
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
from harness.masks.updates import Allocation
from harness.planning import code_digest

KEY_FORMAT = 2
"""Raise this when stages are run differently from before: every key changes, and everything is run again."""

StageKind = Literal["init", "train", "prune", "rewind", "test"]


@dataclass(frozen=True)
class Step:
    """One lowered piece of a program, before it has a place in a chain."""

    kind: Literal["train", "prune", "rewind"]
    epoch: Epoch | None = None
    update: MaskUpdate | None = None
    to: int | None = None
    is_new: bool = False


@dataclass(frozen=True)
class Masking:
    """What turns a mask update into masks: enters a key with the first update of a chain."""

    pattern: Pattern
    allocation: Allocation
    scope: tuple[str, ...]
    target: float

    def identity(self) -> dict[str, JsonValue]:
        """What a key needs. The target matters only where tensors have sparsities of their own."""
        # Sorted, since two files that list the tensors in another order ask for the same masks.
        allocation = self.allocation if isinstance(self.allocation, str) else dict(sorted(self.allocation.items()))
        values: dict[str, JsonValue] = {
            "pattern": self.pattern.identity(),
            "allocation": allocation,  # type: ignore[dict-item]  # a dict of floats is a JSON value
            "scope": list(self.scope),
        }
        # Under one sparsity for all it would only part equal stages: a gradual chain to 90 % begins like one to 95 %.
        if not isinstance(allocation, str):
            values["target"] = self.target
        return values


@dataclass(frozen=True, slots=True)
class Stage:
    """One epoch, prune, rewind or test: what is run once, kept and shared.

    Args:
        key: digest of `inputs` and of the keys of its parent and source; versions of code are told and do not enter.
        parent: key of the stage whose state this one starts from; None for the initial weights.
        kind: what is done.
        inputs: everything but the parent that decides the result, in clear.
        epoch_index: epochs trained in the chain before this stage.
        epoch: rates and updates of a `train` stage.
        update: the update of a `prune` stage.
        source: key of the stage whose weights a `rewind` takes.
        masking: what makes masks, where there are updates.
        is_dense: no mask update has happened up to and including this stage.
        number_format: in which numbers a `test` stage computes; None: as the model was trained.
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
    number_format: NumberFormat | None = None


@dataclass(frozen=True, slots=True)
class StageTemplate:
    """A stage before it is known from which initial weights its chain starts: the same for every seed.

    Args:
        work: digest of kind and inputs, the code among them.
        source: place in the chain of the stage that a `rewind` goes back to, the initial weights being 0.
    """

    work: str
    kind: StageKind
    inputs: Mapping[str, JsonValue]
    epoch_index: int
    epoch: Epoch | None
    update: MaskUpdate | None
    source: int | None
    masking: Masking | None
    is_dense: bool


def digest(value: JsonValue | Mapping[str, JsonValue]) -> str:
    """A 32-digit name for a JSON value: the same for equal content, whatever the order of its keys."""
    return _files.digest(value)[:32]


def work_digest(kind: str, inputs: Mapping[str, JsonValue], *, with_code: bool = True) -> str:
    """A digest of what a stage does, apart from where it starts.

    Args:
        kind: of the stage.
        inputs: of the stage; of the code only the digests count, and `source` counts as a place, in `key_of`.
        with_code: whether the code counts at all.
    """
    # The source enters by its key, in `key_of`: its place in the chain would be the same for other weights.
    values = {name: value for name, value in inputs.items() if name not in ("code", "source")}
    code = inputs.get("code")
    if with_code and isinstance(code, dict):
        values["code"] = {place: found["digest"] for place, found in code.items() if isinstance(found, dict)}
    return digest({"kind": kind, "inputs": values})


def key_of(work: str, parent: str | None, source: str | None = None) -> str:
    """The key of a stage from what it does and where it starts."""
    return _files.sha256(f"{work}:{parent or ''}:{source or ''}")[:32]


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
            steps.append(Step("rewind", to=phase.to, is_new=phase.weights == "new"))
            trained = phase.to
    return tuple(steps)


def _epochs(phase: Train, steps_per_epoch: int) -> list[Step]:
    total = phase.epochs * steps_per_epoch
    updates: dict[int, list[MaskUpdate]] = {}
    for given in phase.mask_updates(steps_per_epoch):
        step = given.step
        # The very end of a phase is allowed: a schedule that ends with its training has its last update there.
        if not 0 <= step <= total:
            raise SpecError(
                f"the sparsity schedule has an update at step {step}, outside its phase of {phase.epochs} epochs "
                f"({total} steps); end it by epoch {phase.epochs}"
            )
        # The update at the very end belongs to the last epoch: there is no later one.
        epoch = min(step // steps_per_epoch, phase.epochs - 1)
        # Progress enters only where a score looks at it, so that the keys of all others know nothing of it.
        progress = step / total if "progress" in given.score.needs else 1.0
        within = step - epoch * steps_per_epoch
        update = MaskUpdate(step=within, sparsity=given.sparsity, score=given.score, progress=progress)
        updates.setdefault(epoch, []).append(update)
    return [
        Step(
            "train", epoch=Epoch(rates=phase.lr.at(epoch), updates=tuple(updates.get(epoch, ())), through=phase.through)
        )
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
        # The kind alone: which of several equal GPUs it was decides nothing.
        "device": settings.device.partition(":")[0],
        "threads": settings.threads,
        "code": _code((*code_digest.parts(task), *code_digest.parts(backend), code_digest.stages())),
    }
    if settings.arithmetic:  # absent otherwise: most settings have one way of computing, and their keys stay
        inputs["arithmetic"] = settings.arithmetic
    return Stage(key=key_of(work_digest("init", inputs), None), parent=None, kind="init", inputs=inputs)


def _code(found: Iterable[code_digest.CodeDigest]) -> JsonValue:
    return {each.place: each.values() for each in found}


def stage_templates(steps: Sequence[Step], masking: Masking | None) -> tuple[StageTemplate, ...]:
    """The steps of a program with their places in a chain."""
    found: list[StageTemplate] = []
    after_epochs = {0: 0}  # trained epochs -> place in the chain of the stage that ends them, latest wins
    trained, is_dense = 0, True
    for place, step in enumerate(steps, start=1):
        if step.to is not None:
            trained = step.to
        updates = (step.update,) if step.update else step.epoch.updates if step.epoch else ()
        is_dense = is_dense and not updates and not (step.epoch and step.epoch.through)
        inputs: dict[str, JsonValue] = {"epoch_index": trained}
        if step.is_new:
            # "New weights" is all: which ones follows from the seed at the root.
            inputs["weights"] = "new"
        if step.epoch is not None:
            rates = step.epoch.rates
            inputs["rates"] = rates if isinstance(rates, float) else list(rates)
            if step.epoch.through is not None:
                inputs["through"] = step.epoch.through.model_dump(mode="json")
        if updates:
            assert masking is not None, "a program without a pattern has no mask updates"
            inputs["updates"] = [
                [
                    update.step,
                    update.sparsity,
                    _identity(update.score),
                    # 1 is left out, as for scores that never ask: their keys are older than progress is.
                    *([] if update.progress == 1 else [update.progress]),
                ]
                for update in updates
            ]
            inputs["masking"] = masking.identity()
            # A dictionary as an ordered set: digests must not depend on the order of hashes.
            scores = dict.fromkeys(update.score for update in updates)
            code = [*code_digest.parts(masking.pattern), *(part for each in scores for part in code_digest.parts(each))]
            inputs["code"] = _code((*code, code_digest.masks()))
        found.append(
            StageTemplate(
                work=work_digest(step.kind, inputs),
                kind=step.kind,
                inputs=inputs,
                epoch_index=trained,
                epoch=step.epoch,
                update=step.update,
                source=None if step.to is None else after_epochs[step.to],
                masking=masking if updates else None,
                is_dense=is_dense,
            )
        )
        if step.kind == "train":
            trained += 1
            # A rewind names epochs, not places: pruning between them moves the places.
            after_epochs[trained] = place
    return tuple(found)


def chain(start: Stage, steps: Sequence[Step], masking: Masking | None) -> list[Stage]:
    """The stages of one cell, from stage 0 to the trained, pruned model."""
    return extended([start], stage_templates(steps, masking), {})


def extended(stages: Sequence[Stage], following: Iterable[StageTemplate], known: dict[str, Stage]) -> list[Stage]:
    """A chain with further stages at its end.

    Args:
        stages: the chain from stage 0 on.
        following: what comes next; the places of rewinds count from the chain's start.
        known: stages by key, so that one that many chains share is one object; new ones are added.
    """
    # A copy: the beginning is shared by all chains that go on from it.
    found = list(stages)
    for template in following:
        parent = found[-1].key
        source = None if template.source is None else found[template.source].key
        key = key_of(template.work, parent, source)
        stage = known.get(key)
        if stage is None:
            inputs = template.inputs if source is None else {**template.inputs, "source": source}
            known[key] = stage = Stage(
                key, parent, template.kind, inputs, template.epoch_index, template.epoch, template.update, source,
                template.masking, template.is_dense,
            )  # fmt: skip
        found.append(stage)
    return found


def _identity(score: Score) -> JsonValue:
    # Tuples become lists, as they are once read from a file: a record's inputs compare equal to a plan's.
    return json.loads(json.dumps(score.identity()))  # type: ignore[no-any-return]  # json.loads is untyped


_TEST = work_digest("test", {})


@lru_cache(maxsize=64)
def _fixed_inputs(number_format: NumberFormat, own: type[Task] | None) -> Mapping[str, JsonValue]:
    code = [code_digest.fixed_point() if own is None else code_digest.own_fixed_point()]
    by_task = None if own is None else code_digest.evaluation_of(own)
    code += [] if by_task is None else [by_task]
    return {"number_format": number_format.model_dump(mode="json"), "code": _code(code)}


def scoring_stage(
    end: Stage,
    known: dict[str, Stage] | None = None,
    number_format: NumberFormat | None = None,
    own: type[Task] | None = None,
) -> Stage:
    """The test score of a chain's last stage: a stage of its own, that no other stage starts from.

    Args:
        end: the stage that is scored.
        known: as for `extended`.
        number_format: the numbers of a hardware entry, for a score in them.
        own: the task of a user's own model, whose layers alone are computed in them.
    """
    inputs: Mapping[str, JsonValue] = {} if number_format is None else _fixed_inputs(number_format, own)
    key = key_of(work_digest("test", inputs) if inputs else _TEST, end.key)
    if known is None or key not in known:
        index = end.epoch_index + (end.kind == "train")
        stage = Stage(
            key, end.key, "test", inputs, epoch_index=index, is_dense=end.is_dense, number_format=number_format
        )
        return stage if known is None else known.setdefault(key, stage)
    return known[key]
