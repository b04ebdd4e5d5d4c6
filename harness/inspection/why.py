"""Why a cell runs, or does not: every stage of its chain, and which part of a key is not what it was."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from harness.api import EmptySelectionError, JsonValue
from harness.planning.lowering import PlannedCell
from harness.planning.plan import Plan
from harness.planning.stages import Stage
from harness.planning.stored import StoredStage, stored

Status = Literal["cached", "trusted", "run", "skipped", "failed"]

NOTHING_LIKE_IT = "nothing like it was ever run"


@dataclass(frozen=True)
class Line:
    """One stage of a cell.

    Args:
        stage: its key; empty for a cell that is skipped or has failed.
        place: what it is in the chain: `initial weights`, `epoch 3`, `prune`, `rewind`, `test score`.
        status: `cached`, `trusted` (cached, made by older code), `run`, `skipped`, or `failed` for what a plugin's code
            did wrong before anything could run.
        reason: why, in words; empty for what is simply there.
        nearest: key of the stored stage that the reason compares with.
    """

    stage: str
    place: str
    status: Status
    reason: str = ""
    nearest: str | None = None


def why(plan: Plan, cell_id: str) -> tuple[Line, ...]:
    """What becomes of every stage of a cell, and why.

    The first stage of a chain that is not in the store is compared with the nearest one that is; what follows runs
    because of it.

    Args:
        plan: of the experiment; a `trust_code` plan names what it trusts.
        cell_id: the cell's id or the beginning of it.

    Raises:
        EmptySelectionError: no cell has the id, or several do.
    """
    planned = _cell(plan, cell_id)
    if planned.skip is not None:
        return (Line("", "cell", "skipped", planned.skip),)
    if planned.failure is not None:
        return (Line("", "cell", "failed", planned.failure),)
    lines: list[Line] = []
    cause: Line | None = None
    for stage in planned.stages:
        line = _line(plan, stage, cause)
        # A cached stage whose state is missing runs again without being the cause of anything new.
        if cause is None and line.status == "run" and stage.key not in plan.cached:
            cause = line
        lines.append(line)
    return tuple(lines)


def stage_reasons(plan: Plan) -> dict[str, str]:
    """Why every stage of a plan runs, by its key, in the words of `why`; the plan's own where nothing like it ever ran.

    A stage that runs because of another one has that one's reason: a bill counts what changed, not what follows.

    Args:
        plan: of the experiment.
    """
    found: dict[str, str] = {}
    there = tuple(stored(plan.store))  # read once for all stages
    known = plan.cached.keys() | plan.damaged.keys()
    for key, said in plan.to_run.items():  # parents first
        stage = plan.stages[key]
        # Below a stage that is new everything is new, for that one reason.
        cause = next((each for each in (stage.parent, stage.source) if each in found and each not in known), None)
        if key in known:
            found[key] = said
        elif cause is not None:
            found[key] = found[cause]
        else:
            changed = _line(plan, stage, None, there).reason
            found[key] = said if changed == NOTHING_LIKE_IT else changed
    return found


def bill(plan: Plan) -> tuple[dict[str, JsonValue], list[JsonValue]]:
    """A plan's summary and its run list, every reason in the words of `why`.

    Args:
        plan: of the experiment.
    """
    said = stage_reasons(plan)
    counts = Counter(said.values())
    details: list[JsonValue] = []
    summary = plan.summary()
    cells = summary["cells_detail"]
    assert isinstance(cells, list)
    for planned, cell in zip(plan.cells, cells, strict=True):
        assert isinstance(cell, dict)
        # What is only missing from the store, and mended on the way, is not what the cell's new stages run for.
        first = [stage.key for stage in planned.stages if stage.key in said]
        first.sort(key=lambda key: key in plan.cached or key in plan.damaged)
        details.append(cell if not first else {**cell, "reason": said[first[0]]})
    summary |= {"why": dict(sorted(counts.items())), "cells_detail": details}
    listed = [{**each, "reason": said[str(each["stage"])]} for each in plan.run_list() if isinstance(each, dict)]
    return summary, [*listed]


def _cell(plan: Plan, cell_id: str) -> PlannedCell:
    fitting = [planned for planned in plan.cells if planned.cell.id.startswith(cell_id)]
    if len(fitting) != 1 or not cell_id:
        found = "none" if not fitting else f"{len(fitting)} of them"
        raise EmptySelectionError(
            f"why: expected the id of one cell of {plan.experiment.run_id}, got '{cell_id}', which fits {found}; "
            "`harness plan --json` lists the cells"
        )
    return fitting[0]


def _line(plan: Plan, stage: Stage, cause: Line | None, there: Iterable[StoredStage] | None = None) -> Line:
    key, place = stage.key, place_of(stage.kind, stage.epoch_index)
    if key not in plan.to_run:
        if key not in plan.trusted:
            return Line(key, place, "cached")
        # Against its own code alone: the rest of the chain is told by the stages that it is of.
        changed = differences(plan.cached[key].inputs, _with_code(stage, plan.cached[key].inputs), stage.epoch_index)
        return Line(key, place, "trusted", "; ".join(changed) or "it starts from a stage of older code")
    if key in plan.damaged or key in plan.cached:
        return Line(key, place, "run", plan.to_run[key])
    if cause is not None:
        return Line(key, place, "run", f"because of {cause.place}")
    nearest = _nearest(stage, stored(plan.store) if there is None else there)
    if nearest is None:
        return Line(key, place, "run", NOTHING_LIKE_IT)
    changed = differences(nearest.inputs, stage.inputs, stage.epoch_index)
    # A stage with the same inputs under another key starts from another one, in a chain that is no longer whole.
    return Line(key, place, "run", "; ".join(changed) or NOTHING_LIKE_IT, nearest.key)


def _with_code(stage: Stage, older: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """A stage's inputs as they are to be compared: a chain on top of older code names more code than it would."""
    code, before = stage.inputs.get("code"), older.get("code")
    if not isinstance(code, dict):
        return {**stage.inputs, "code": before} if isinstance(before, dict) else stage.inputs
    # A stage with masks names more code than its dense neighbour: without masks there is nothing to compare.
    if not isinstance(before, dict):
        return {name: value for name, value in stage.inputs.items() if name != "code"}
    return {**stage.inputs, "code": {place: code.get(place, value) for place, value in before.items()}}


def place_of(kind: str, epoch_index: int) -> str:
    """What a stage is called in a chain."""
    if kind == "train":
        return f"epoch {epoch_index + 1}"
    return {"init": "initial weights", "test": "test score"}.get(kind, kind)


def _nearest(stage: Stage, there: Iterable[StoredStage]) -> StoredStage | None:
    """The stored stage that could have been this one: in the same place of a chain, with most inputs in common."""
    mine = dict(_flat(stage.inputs))
    fewest, nearest = len(mine), None
    for other in _comparable(stage, there):
        theirs = dict(_flat(other.inputs))
        apart = sum(mine.get(name) != theirs.get(name) for name in mine.keys() | theirs.keys())
        # By key where several are equally near, so that the answer does not depend on the order of files.
        if (apart, other.key) < (fewest, nearest.key if nearest else ""):
            fewest, nearest = apart, other
    return nearest


def _comparable(stage: Stage, others: Iterable[StoredStage]) -> Iterator[StoredStage]:
    """Stages of the same start; for initial weights of the same task, backend and seed, for masks of the same pattern.

    Another seed or another pattern is another cell, not one that changed; a score in an engine's numbers is another
    score than the framework's.
    """
    for other in others:
        if (other.kind, other.parent) == (stage.kind, stage.parent) and _names(other.inputs) == _names(stage.inputs):
            yield other


def _names(inputs: Mapping[str, JsonValue]) -> tuple[JsonValue, ...]:
    masking = inputs.get("masking")
    pattern = masking.get("pattern") if isinstance(masking, dict) else None
    parts = (inputs.get("task"), inputs.get("backend"), pattern)
    names = (part.get("name") if isinstance(part, dict) else None for part in parts)
    return (*names, inputs.get("seed"), "number_format" in inputs)


def differences(old: Mapping[str, JsonValue], new: Mapping[str, JsonValue], epoch_index: int = 0) -> list[str]:
    """What changed between the inputs of two stages, in words, one entry per change.

    Args:
        old: inputs of the stage that is there.
        new: inputs of the stage that is wanted.
        epoch_index: epochs trained before the stages, to name their epoch.
    """
    before, after = dict(_flat(old)), dict(_flat(new))
    found: dict[str, None] = {}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name, _MISSING) != after.get(name, _MISSING):
            text = _change(name, before, after, epoch_index)
            if text:
                found[text] = None
    return list(found)


_MISSING = ("missing",)
_PLAIN = {
    "format": "the way stages are run (key format)", "data": "data fingerprint", "clip_norm": "clip norm",
    "task.result_version": "result version of the task", "backend.result_version": "result version of the backend",
    "masking.pattern.result_version": "result version of the pattern", "epoch_index": "epochs trained before",
    "masking.scope": "scope", "masking.target": "target sparsity", "source": "what is rewound to",
}  # fmt: skip
_PREFIXES = {
    "backend.parameters.": "backend ", "masking.pattern.parameters.": "pattern ", "optimiser.": "optimiser ",
    "metric.": "metric ", "masking.allocation": "allocation", "versions.": "",
}  # fmt: skip


def _change(name: str, before: Mapping[str, JsonValue], after: Mapping[str, JsonValue], epoch_index: int) -> str:
    """One change in words; empty where another one tells it."""
    old, new = before.get(name), after.get(name)
    if name.startswith("code."):
        return _code_change(name, before, after)
    if name == "data" or name.startswith("network."):
        return f"{'data fingerprint' if name == 'data' else 'network'} changed"
    if name == "rates":
        return f"strategy rates changed: epoch {epoch_index + 1} {_rates_change(old, new)}"
    if name == "updates":
        return f"strategy mask updates changed: {_updates_change(old, new)}"
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
    word = _PLAIN.get(name) or (name if prefix is None else _PREFIXES[prefix] + name.removeprefix(prefix)).strip()
    return f"{word} {_said(old)} -> {_said(new)}"


def _code_change(name: str, before: Mapping[str, JsonValue], after: Mapping[str, JsonValue]) -> str:
    place, _, part = name.removeprefix("code.").rpartition(".")
    # Distribution, version and digest of one piece of code change together: one line tells it.
    if part != "digest":
        return ""  # told with the digest; a version alone changes nothing
    old, new = (_version(place, values) for values in (before, after))
    # A digest that changed under one version was edited in place.
    if old == new:
        return f"{place} digest changed: {new}, edited"
    return f"{place} digest changed: {old} -> {new}"


def _version(place: str, values: Mapping[str, JsonValue]) -> str:
    """Distribution and version of a piece of code."""
    if f"code.{place}.digest" not in values:
        return "none"
    told = f"{values.get(f'code.{place}.distribution')} {values.get(f'code.{place}.version')}".strip()
    return told or "code of no package"


def _rates_change(old: JsonValue, new: JsonValue) -> str:
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        step = next(step for step in range(len(old)) if old[step] != new[step])
        return f"lr from step {step} on {_said(old[step])} -> {_said(new[step])}"
    return f"lr {_said(old)} -> {_said(new)}"


def _updates_change(old: JsonValue, new: JsonValue) -> str:
    """The first update that differs; each is (step, sparsity, score)."""
    theirs, mine = (value if isinstance(value, list) else [] for value in (old, new))
    for one, other in zip(theirs, mine, strict=False):
        if one != other and isinstance(one, list) and isinstance(other, list):
            parts = zip(("step", "sparsity", "score"), one, other, strict=True)
            return ", ".join(f"{word} {_said(a)} -> {_said(b)}" for word, a, b in parts if a != b)
    return f"{len(theirs)} -> {len(mine)} updates"


def _said(value: JsonValue) -> str:
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        parameters = value.get("parameters")
        inner = (
            ", ".join(f"{key}={_said(each)}" for key, each in parameters.items())
            if isinstance(parameters, dict)
            else ""
        )
        return f"{value['name']}({inner})" if inner else str(value["name"])
    if isinstance(value, list):
        return _short(f"[{', '.join(_said(each) for each in value)}]")
    return "none" if value is None else _short(str(value))


def _short(text: str, width: int = 60) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _flat(inputs: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Nested values by dotted name; lists stay whole."""
    for name, value in inputs.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
