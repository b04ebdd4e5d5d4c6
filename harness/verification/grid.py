"""Is every cell there? The records of a study are a grid, and what is missing from it needs a declared reason."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import product

from harness.api import JsonValue
from harness.results.records import Record
from harness.verification.outcome import Outcome, several

_AXES = ("task", "backend", "pattern", "allocation", "strategy", "target_sparsity")

_SPEC_AXIS = {"target_sparsity": "sparsity"}


def check_grid(records: Sequence[Record], spec: Mapping[str, JsonValue] | None, outcome: Outcome) -> None:
    """Cells are unique, every combination of the axes is there with all seeds, and dense baselines with it.

    Args:
        records: all of a file.
        spec: the experiment that they are of, if it is known; what it excludes or adds may be missing or alone.
        outcome: where findings go.
    """
    names = Counter(record.cell for record in records)
    for cell, count in names.items():
        outcome.hold(count == 1, "grid", cell, f"expected one record of the cell, got {count}")
    pruned = [record for record in records if not record.is_dense]
    seeds: dict[tuple[object, ...], set[int]] = defaultdict(set)
    for record in pruned:
        labels = [getattr(record, axis) for axis in _AXES[:-1]]
        for level in _levels(record):
            seeds[(tuple(record.scope), *labels, level)].add(record.seed)
    dense: dict[tuple[str, str], set[int]] = defaultdict(set)
    for record in records:
        if record.is_dense:
            dense[record.task, record.backend].add(record.seed)
    _combinations(seeds, spec, outcome)
    _seeds(seeds, dense, spec, outcome)


def _levels(record: Record) -> list[object]:
    """What the grid has in the place of a record's sparsity: itself, or the targets that it was solved for."""
    told = record.facts.get("targets")
    targets = [str(each["target"]) for each in told if isinstance(each, dict)] if isinstance(told, list) else []
    is_asked = not targets or record.facts.get("asked_sparsity") is True
    return [*([record.target_sparsity] if is_asked else []), *targets]


def _combinations(
    seeds: Mapping[tuple[object, ...], set[int]], spec: Mapping[str, JsonValue] | None, outcome: Outcome
) -> None:
    """Every combination of the values that occur, within one scope."""
    for scope in dict.fromkeys(key[0] for key in seeds):
        present = {key[1:] for key in seeds if key[0] == scope}
        axes = [list(dict.fromkeys(key[place] for key in present)) for place in range(len(_AXES))]
        # A list of single cells promises no combinations.
        if spec and spec.get("include"):
            outcome.skip("combinations: the experiment adds single cells (`include`), so that it has no full grid", 1)
            continue
        for key in product(*axes):
            named = " · ".join(str(value) for value in key)
            if key in present:
                outcome.checked["grid"] += 1
            # A failed or skipped cell has a record: only what was never planned has none.
            elif not _is_excluded(key, spec):
                outcome.hold(
                    False, "grid", named,
                    "expected a record of every combination, got none; a cell that failed or was skipped has one too"
                    + ("" if spec else " (give the run's folder, if its spec.yaml excludes the cell)"),
                )  # fmt: skip


def _seeds(
    seeds: Mapping[tuple[object, ...], set[int]],
    dense: Mapping[tuple[str, str], set[int]],
    spec: Mapping[str, JsonValue] | None,
    outcome: Outcome,
) -> None:
    """Every setting has the seeds of its study, and so have the baselines."""
    every = set().union(*seeds.values(), *dense.values()) if seeds or dense else set()
    if spec is not None:
        nowhere = _declared_seeds(spec) - every
        if nowhere:
            outcome.skip(f"seeds {several(sorted(nowhere))} of the experiment are in no record: a part of it was run")
    for key, found in seeds.items():
        named = " · ".join(str(value) for value in key[1:])
        missing = sorted(seed for seed in every - found if not _is_excluded((*key[1:], seed), spec))
        outcome.hold(
            not missing, "seeds", named, f"expected the seeds {several(sorted(every))}, {several(missing)} missing"
        )
        # By task and backend: baselines have neither pattern nor scope.
        where = (str(key[1]), str(key[2]))
        lacking = sorted(found - dense.get(where, set()))
        outcome.hold(
            not lacking, "seeds", f"{where[0]} · {where[1]} · dense",
            f"expected a dense baseline of every seed, none of {several(lacking)}",
        )  # fmt: skip


def _declared_seeds(spec: Mapping[str, JsonValue]) -> set[int]:
    matrix = spec.get("matrix")
    given = matrix.get("seed", [0]) if isinstance(matrix, dict) else []
    return {seed for seed in (given if isinstance(given, list) else [given]) if isinstance(seed, int)}


def _is_excluded(key: Sequence[object], spec: Mapping[str, JsonValue] | None) -> bool:
    """Whether an entry of `exclude` names these values on every axis that it has."""
    entries = spec.get("exclude") if spec else None
    every = entries if isinstance(entries, list) else [entries] if entries else []
    axes = (*_AXES, "seed")
    values = {_SPEC_AXIS.get(axis, axis): value for axis, value in zip(axes, key, strict=False)}
    for entry in every:
        if not isinstance(entry, dict):
            continue
        asked = {
            axis: given if isinstance(given, list) else [given] for axis, given in entry.items() if given is not None
        }
        targets = asked.pop("target", [])
        # Without a seed the key stands for all of them: an entry that names seeds does not take it away.
        met = {
            axis: axis in values and any(_names(each, values[axis]) for each in given) for axis, given in asked.items()
        }
        if targets:
            # Sparsities and targets are one axis: of an entry that names both, either will do.
            is_named = any(_means(each, str(values["sparsity"])) for each in targets)
            met["sparsity"] = is_named or met.get("sparsity", False)
        if all(met.values()):
            return True
    return False


def _names(entry: object, value: object) -> bool:
    """Whether an entry of a spec means a value of a record: a number, a label, or a name before its parameters."""
    if isinstance(entry, int | float) or isinstance(value, int | float):
        return entry == value
    if isinstance(entry, dict):
        label = entry.get("label")
        return label == value if label else str(value).partition("(")[0] == entry.get("name")
    return str(entry) in (str(value), str(value).partition("(")[0])


def _means(entry: object, label: str) -> bool:
    """Whether an entry of a spec means a target of a record: a whole target, a label or the beginning of one."""
    what_and_limit, _, place = label.partition(" on ")
    what, _, limit = what_and_limit.partition(" ")
    if not isinstance(entry, dict):
        return entry in (label, what_and_limit, what)
    on, given = entry.get("on"), entry.get(what)
    if given is None or on not in (None, place):
        return False
    return given is True if not limit else f"{given:.12g}" == limit
