"""What a record says of itself, checked against itself: arithmetic, labels, budgets, sources, its own cell id."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import product

from harness.api import JsonValue
from harness.results.records import Record
from harness.verification.masks import RULES
from harness.verification.outcome import Outcome, close, several

_TOLERANCE = 0.02
"""Distance of a reached sparsity from the one asked for, unless the experiment says otherwise."""

_VERSIONS = range(1, 7)
"""Versions of results that a plugin may be at; they enter a cell's id and stand in no record."""

_ORIGINS = ("measured", "modelled", "published")


def check_cells(records: Sequence[Record], tolerance: float | None, outcome: Outcome) -> None:
    """Every record by itself, then what records have in common.

    Args:
        records: all of a file.
        tolerance: the experiment's, None for the usual one.
        outcome: where findings go.
    """
    identities = _Identities()
    for record in records:
        _check_result(record, _TOLERANCE if tolerance is None else tolerance, outcome)
        _check_labels(record, outcome)
        _check_sources(record, outcome)
        identities.check(record, outcome)
    identities.finish(outcome)
    _check_budgets(records, outcome)
    _check_shared(records, outcome)


def _check_result(record: Record, tolerance: float, outcome: Outcome) -> None:
    place = record.cell
    if not record.is_done:
        outcome.hold(record.value is None, "metric", place, f"expected no value of a cell that is {record.status}")
        return
    outcome.hold(record.value is not None, "metric", place, "expected a value of a cell that is done, got none")
    if not record.is_dense:
        reached, asked = record.sparsity, record.target_sparsity
        if outcome.hold(reached is not None, "sparsity", place, "expected the sparsity that was reached, got none"):
            assert reached is not None
            outcome.hold(
                # A billionth for decimals that are no binary numbers.
                abs(reached - asked) <= tolerance + 1e-9, "sparsity", place,
                f"expected a sparsity within {tolerance:g} of {asked:g}, got {reached:.6g}",
            )  # fmt: skip
            low, high = (
                min(record.tensor_sparsity.values(), default=reached),
                max(record.tensor_sparsity.values(), default=reached),
            )
            outcome.hold(
                # The whole is a weighted mean of its parts.
                low - 1e-9 <= reached <= high + 1e-9, "sparsity", place,
                f"expected a sparsity between those of the tensors, {low:.6g} and {high:.6g}, got {reached:.6g}",
            )  # fmt: skip
    if record.valid_history:
        outcome.hold(
            len(record.valid_history) == record.total_epochs, "budget", place,
            f"expected a validation value of each of {record.total_epochs} epochs, got {len(record.valid_history)}",
        )  # fmt: skip
        # A cell that was only pruned ends with the value after pruning, which is no epoch's.
        if record.retrain_epochs or record.is_dense:
            outcome.hold(
                close(record.valid_history[-1], record.valid_value), "metric", place,
                f"expected the last validation value {record.valid_history[-1]}, got {record.valid_value}",
            )  # fmt: skip


def _check_labels(record: Record, outcome: Outcome) -> None:
    """A label may be the author's own, but not the name of another plugin."""
    for kind, label, name in (
        ("pattern", record.pattern, record.pattern_name),
        ("strategy", record.strategy, record.strategy_name),
    ):
        head = label.partition("(")[0]
        if record.is_dense:
            outcome.hold(name == "", "labels", record.cell, f"expected no {kind} in a dense cell, got {name!r}")
        elif head == name:
            outcome.checked["labels"] += 1
        else:
            outcome.hold(
                # A made-up label is the author's right; the name of another plugin on it would deceive.
                head not in RULES and head != "dense", "labels", record.cell,
                f"expected a label of {kind} {name!r}, got {label!r}, which is another one's name",
            )  # fmt: skip
            outcome.skip(f"labels of an author's own are what they say: {kind} {label!r} for {name!r}")


def _check_sources(record: Record, outcome: Outcome) -> None:
    """Every number says where it comes from; what is published says where."""
    for name, origin in record.origin.items():
        outcome.hold(origin in _ORIGINS, "sources", record.cell, f"expected an origin of `{name}`, got {origin!r}")
    if record.is_done and record.stage:
        # A value of a model that this run finished was measured by it, whatever others published.
        origin = record.origin.get("value", "measured")
        outcome.hold(
            origin == "measured", "sources", record.cell,
            f"expected a value that was measured, as the cell has a finished model, got one that is {origin}",
        )  # fmt: skip
    for name, value in record.facts.items():
        if name.startswith("published") and isinstance(value, int | float):
            source = record.facts.get("published_in")
            outcome.hold(
                isinstance(source, str) and bool(source.strip()), "sources", record.cell,
                f"expected the source of `{name}` in `published_in`, got {source!r}",
            )  # fmt: skip
    for label, cost in record.hardware.items():
        if "cycles" in cost:
            outcome.hold(
                cost.get("origin") in _ORIGINS, "sources", record.cell,
                f"expected the origin of the cost on {label}, got {cost.get('origin')!r}",
            )  # fmt: skip


def _check_budgets(records: Sequence[Record], outcome: Outcome) -> None:
    """The same strategy at the same sparsity has one budget, whatever the pattern and the seed."""
    groups: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in records:
        # Skipped cells have no budget: zero epochs are no other recipe.
        if record.status != "skipped":
            groups[record.task, record.strategy, record.target_sparsity].append(record)
        outcome.hold(
            record.retrain_epochs <= record.total_epochs, "budget", record.cell,
            f"expected at most {record.total_epochs} epochs of retraining, got {record.retrain_epochs}",
        )  # fmt: skip
    for group in groups.values():
        budgets = {(each.total_epochs, each.retrain_epochs) for each in group}
        outcome.hold(
            len(budgets) == 1, "budget", f"{group[0].strategy} at {group[0].target_sparsity:g}",
            f"expected one number of epochs in all cells of the strategy, got {several(sorted(budgets))}",
        )  # fmt: skip


def _check_shared(records: Sequence[Record], outcome: Outcome) -> None:
    """What cells share is the same in all of them: a dense training, its history; and no two seeds share one."""
    owners: dict[str, int] = {}
    for record in records:
        for what in filter(None, (record.dense_digest, record.stage)):
            # One stage or dense training under two seeds would count one sample twice.
            first = owners.setdefault(what, record.seed)
            outcome.hold(
                first == record.seed, "seeds", record.cell,
                f"expected a training of its own for seed {record.seed}, got that of seed {first} ({what[:12]})",
            )  # fmt: skip
    dense = {(r.task, r.backend, r.seed): r for r in records if r.is_dense and r.is_done and r.valid_history}
    for record in records:
        base = dense.get((record.task, record.backend, record.seed))
        # Gradual strategies leave the dense training before its end, or never had one.
        if record.is_done and record.needs_dense_model and base is not None and record.valid_history:
            if base.dense_digest != record.dense_digest:
                continue  # it leaves the dense training before its end
            shared = len(base.valid_history)
            outcome.hold(
                record.valid_history[:shared] == base.valid_history, "metric", record.cell,
                "expected the validation history of the dense training that it starts from, got another",
            )  # fmt: skip


class _Identities:
    """Recomputes the id of cells: twelve digits of everything that decides a result.

    The versions of results are in no record; the same ones have to fit all cells, so those that fitted are tried first.
    """

    def __init__(self) -> None:
        self._fitting: list[tuple[int, ...]] = []
        self._fits: set[str] = set()
        self._misfits: dict[str, list[Record]] = defaultdict(list)

    def check(self, record: Record, outcome: Outcome) -> None:
        """Whether parameters, seed and sparsity of a record are those of its id."""
        task, backend = _name(record.task, record.task_params), _name(record.backend, record.backend_params)
        if task is None or backend is None:
            outcome.skip("cell ids: a task or backend has a label of its author's own, and no record has its name")
            return
        every = 2 if record.is_dense else 4
        tries: Iterator[tuple[int, ...]] = (each for each in product(_VERSIONS, repeat=every))
        # Versions that fitted once are tried first: the same plugins are in all cells.
        known = [each[:every] for each in self._fitting if len(each) >= every]
        for versions in (*known, *tries):
            if _cell_id(record, task, backend, versions) == record.cell:
                if versions not in known:
                    self._fitting.append(versions)
                outcome.checked["labels"] += 1
                self._fits.add(record.task)
                return
        self._misfits[record.task].append(record)

    def finish(self, outcome: Outcome) -> None:
        """Cells whose id fits nothing, beside others of their task whose ids fit."""
        for task, records in self._misfits.items():
            if task not in self._fits:
                # A task may tell the parameters that are in use, with the defaults of its presets filled in.
                outcome.skip(
                    "cell ids: the task tells other parameters than those that its cells are named by", len(records)
                )
                continue
            for record in records:
                outcome.hold(
                    False, "labels", record.cell,
                    f"expected the id of {record.pattern} · {record.strategy} · {record.target_sparsity:g} · seed "
                    f"{record.seed} with its parameters, got that of another cell",
                )  # fmt: skip


def _name(label: str, parameters: Mapping[str, JsonValue]) -> str | None:
    """The plugin's name that a label begins with; None where the label is the author's own."""
    head, bracket, rest = label.partition("(")
    if not head.isidentifier() or head != head.lower():
        return None
    inside = [part.partition("=")[0].strip() for part in rest.rstrip(")").split(", ")] if bracket else []
    return head if all(name in parameters for name in inside) else None


def _cell_id(record: Record, task: str, backend: str, versions: tuple[int, ...]) -> str:
    values: dict[str, object] = {
        "backend": _identity(backend, record.backend_params, versions[1]),
        "precision": record.precision,
        "seed": record.seed,
        "task": _identity(task, record.task_params, versions[0]),
    }
    if not record.is_dense:
        values |= {
            "allocation": _allocation(record.allocation),
            "pattern": _identity(record.pattern_name, record.pattern_params, versions[2]),
            "scope": list(record.scope),
            "sparsity": record.target_sparsity,
            "strategy": _identity(record.strategy_name, record.strategy_params, versions[3]),
        }
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:12]


def _identity(name: str, parameters: Mapping[str, JsonValue], version: int) -> dict[str, object]:
    return {"name": name, "parameters": dict(parameters), "result_version": version}


def _allocation(label: str) -> object:
    """A named rule, or sparsities by tensor, as tables write them."""
    if not label.startswith("{"):
        return label
    pairs = (part.rpartition(": ") for part in label.strip("{}").split(", "))
    return {name: float(value) for name, _, value in pairs}
