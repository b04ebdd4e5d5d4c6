"""Two sets of records side by side: which cells are the same, and what may not differ for them to be comparable."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from harness._text import listed, plural
from harness.api import EmptySelectionError, JsonValue, SpecError, StoreError
from harness.results.records import OF_A_CELL, Record, comparable

LABELS = ("task", "backend", "pattern", "allocation", "strategy")
"""What names a cell, beside its sparsity and seed."""

Value = JsonValue | Mapping[str, JsonValue] | tuple[str, ...] | tuple[int, int]


def _data(record: Record) -> Value:
    return {
        name: value for name, value in record.facts.items()
        if name not in OF_A_CELL and not name.startswith("without_a_model")
    }  # fmt: skip


CONDITIONS: Mapping[str, Callable[[Record], Value]] = {
    "metric": lambda record: (
        f"{record.metric} ({record.better} is better){f' in {record.unit}' if record.unit else ''}"
    ),
    "data": _data,
    "recipe": lambda record: record.task_params,
    "parameters": lambda record: {**record.pattern_params, **record.strategy_params},
    "precision": lambda record: record.precision,
    "budget": lambda record: (record.total_epochs, record.retrain_epochs),
}
"""What paired cells have in common, by the name with which one says that it may differ."""

# Without these a label stands for something else, and so may what it stands for.
_FOLLOWS = {"task": ("data", "recipe"), "pattern": ("parameters",), "strategy": ("parameters", "budget")}

MACHINE: Mapping[str, Callable[[Record], str]] = {
    "run": lambda record: record.run,
    "backend": lambda record: record.backend,
    "device": lambda record: record.device,
    "processor": lambda record: str(record.facts.get("cpu", "")),
    "arithmetic": lambda record: str(record.facts.get("arithmetic", "")),
    "threads": lambda record: "" if record.threads is None else str(record.threads),
    "versions": lambda record: listed(f"{name} {version}" for name, version in record.versions.items()),
}
"""What may differ, and is told."""


class Setting(NamedTuple):
    """What the seeds of a row of the comparison have in common; a label that differs between the sides is empty."""

    scope: tuple[str, ...]
    task: str
    backend: str
    pattern: str
    allocation: str
    strategy: str
    sparsity: float


@dataclass(frozen=True)
class Side:
    """One of the two.

    Args:
        name: what tables call it.
        records: its cells.
    """

    name: str
    records: Sequence[Record]


@dataclass(frozen=True)
class Paired:
    """The cells of a setting that both sides have a result for, by seed.

    Args:
        setting: of both.
        a, b: the records, by seed.
        only_a, only_b: number of cells of the setting without a result on the other side.
    """

    setting: Setting
    a: Mapping[int, Record]
    b: Mapping[int, Record]
    only_a: int = 0
    only_b: int = 0

    @property
    def values(self) -> tuple[dict[int, float], dict[int, float]]:
        """The metric of both, by seed."""
        return _values(self.a), _values(self.b)


@dataclass(frozen=True)
class Pairing:
    """Two sides, paired.

    Args:
        a, b: the sides.
        rows: one per setting that either has, in the order of the first.
        across: labels and conditions that may differ.
        differing: what of `MACHINE` differs: its values on both sides.
    """

    a: Side
    b: Side
    rows: tuple[Paired, ...]
    across: frozenset[str] = frozenset()
    differing: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def common(self) -> tuple[Paired, ...]:
        """The rows that can be compared."""
        return tuple(row for row in self.rows if row.a)

    @property
    def lost(self) -> int:
        """Cells that have a result on the first side and none on the second."""
        return sum(row.only_a for row in self.rows)


def paired(a: Side, b: Side, across: Collection[str] = ()) -> Pairing:
    """Pair the cells of two sides by their labels, sparsity and seed.

    Args:
        a: what is compared with.
        b: what is compared.
        across: labels that differ between the sides, and conditions that may.

    Raises:
        EmptySelectionError: no cell is common.
        SpecError: paired cells differ in something that was not named, or a name is none.
        StoreError: several cells of one side are the same for the comparison.
    """
    unknown = [name for name in across if name not in (*LABELS, *CONDITIONS)]
    if unknown:
        raise SpecError(
            f"compare: expected some of {listed((*LABELS, *CONDITIONS))} in --across, got {unknown[0]!r}; name what "
            "differs"
        )
    # A pattern that differs brings its parameters along: naming it allows what follows from it.
    free = frozenset(across) | {each for label in across for each in _FOLLOWS.get(label, ())}
    # An overflowed metric is no result here, as it is none in a table.
    a, b = (replace(side, records=[comparable(record) for record in side.records]) for side in (a, b))
    ours, theirs = _by_setting(a, free), _by_setting(b, free)
    rows = [
        _row(setting, ours.get(setting, {}), theirs.get(setting, {})) for setting in dict.fromkeys((*ours, *theirs))
    ]
    pairing = Pairing(a, b, tuple(rows), frozenset(across), _differing(a, b))
    if not pairing.common:
        raise EmptySelectionError(f"compare: {a.name} and {b.name} have no cell in common{_hint(a, b, free)}")
    _refuse_unlike(pairing, free)
    return pairing


def _by_setting(side: Side, free: Collection[str]) -> dict[Setting, dict[int, Record]]:
    found: dict[Setting, dict[int, Record]] = {}
    for record in side.records:
        labels = {name: "" if name in free else str(getattr(record, name)) for name in LABELS}
        setting = Setting(scope=() if record.is_dense else record.scope, **labels, sparsity=record.target_sparsity)
        seeds = found.setdefault(setting, {})
        # Two cells under one name could be paired in two ways.
        if record.seed in seeds:
            raise StoreError(
                f"compare: {side.name} has two cells for {_named(setting)}, seed {record.seed} "
                f"({seeds[record.seed].cell}, {record.cell}); name fewer labels in --across, or take --between"
            )
        seeds[record.seed] = record
    return found


def _row(setting: Setting, ours: Mapping[int, Record], theirs: Mapping[int, Record]) -> Paired:
    mine, yours = _values(ours), _values(theirs)
    common = [seed for seed in mine if seed in yours]
    return Paired(
        setting,
        {seed: ours[seed] for seed in common},
        {seed: theirs[seed] for seed in common},
        only_a=len(mine) - len(common),
        only_b=len(yours) - len(common),
    )


def _values(records: Mapping[int, Record]) -> dict[int, float]:
    return {seed: r.value for seed, r in records.items() if r.is_done and r.value is not None}


def _refuse_unlike(pairing: Pairing, free: Collection[str]) -> None:
    """Refuse to compare what was made under other conditions; every one that differs is named at once."""
    told: dict[str, str] = {}
    for row in pairing.common:
        for seed, one in row.a.items():
            for name, of in CONDITIONS.items():
                mine, yours = of(one), of(row.b[seed])
                if mine != yours and name not in told and (name not in free or name == "metric"):
                    told[name] = f"{name} of {_named(row.setting)}: {_apart(mine, yours)}"
    if told:
        may = [name for name in told if name != "metric"]
        way = (
            f"name what may differ: {' '.join(f'--across {name}' for name in may)}"
            if may
            else "they have no common unit"
        )
        raise SpecError(f"compare: {pairing.a.name} and {pairing.b.name} differ in {'; '.join(told.values())}. {way}")


def _apart(one: Value, other: Value) -> str:
    """How two values differ, in words: of two mappings only the keys that do."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        return listed(f"{key} {_short(one.get(key))} and {_short(other.get(key))}" for key in keys[:3])
    return f"{_short(one)} and {_short(other)}"


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _named(setting: Setting) -> str:
    labels = [getattr(setting, name) for name in ("backend", "pattern", "strategy")]
    parts = [label for label in labels if label]
    return " · ".join([*dict.fromkeys(parts), f"{100 * setting.sparsity:g} %"])


def _hint(a: Side, b: Side, free: Collection[str]) -> str:
    """What the sides disagree in, if it is a label that all cells of a side share."""
    # The likeliest mistake: two runs on different backends, say, of the same cells.
    for name in LABELS:
        mine, yours = _labels(a, name), _labels(b, name)
        if name not in free and mine and yours and not mine & yours:
            return f": {name} {listed(sorted(mine))} and {listed(sorted(yours))}; compare them with --across {name}"
    return "; give two runs of the same cells"


def _labels(side: Side, name: str) -> set[str]:
    return {str(getattr(record, name)) for record in side.records if not record.is_dense or name in ("task", "backend")}


def _differing(a: Side, b: Side) -> dict[str, tuple[str, str]]:
    found = {name: (_several(a.records, of), _several(b.records, of)) for name, of in MACHINE.items()}
    return {name: values for name, values in found.items() if values[0] != values[1]}


def _several(records: Iterable[Record], of: Callable[[Record], str]) -> str:
    return "; ".join(sorted({text for record in records if (text := of(record))})) or "not recorded"


def joined(sides: Sequence[Side]) -> list[Record]:
    """The records of several runs as one study; cells that are in several of them once.

    Raises:
        StoreError: the same cell has other values in two runs, or equal labels stand for different things.
    """
    cells: dict[str, tuple[str, Record]] = {}
    named: dict[tuple[object, ...], tuple[str, Record]] = {}
    for side in sides:
        for record in side.records:
            known = cells.get(record.cell)
            if known is not None:
                # The first run's record stays, if it has a result.
                cells[record.cell] = (known[0], _same(known, side.name, record))
                continue
            key = (*(getattr(record, name) for name in LABELS), record.scope, record.target_sparsity, record.seed)
            if key in named:
                other, twin = named[key]
                raise StoreError(
                    f"report: {other} and {side.name} call two different cells alike ({twin.cell}, {record.cell}: "
                    f"{record.pattern} · {record.strategy} · seed {record.seed}); give one of them a `label`, or "
                    f"compare them: harness compare {other} {side.name}"
                )
            named[key] = cells[record.cell] = (side.name, record)
    records = [record for _, record in cells.values()]
    for task in dict.fromkeys(record.task for record in records):
        kinds = list({str(_data(record)): _data(record) for record in records if record.task == task}.values())
        if len(kinds) > 1:
            raise StoreError(
                f"report: {plural(len(kinds), 'data set')} are called {task!r}: {_apart(kinds[0], kinds[1])}; give one "
                "task a `label`"
            )
    return records


def _same(known: tuple[str, Record], name: str, record: Record) -> Record:
    """The record of a cell that two runs have: a result goes before none."""
    first, other = known
    if other.is_done and record.is_done and other.value != record.value:
        raise StoreError(
            f"report: cell {record.cell} ({record.pattern} · {record.strategy} · seed {record.seed}) has the value "
            f"{other.value} in {first} and {record.value} in {name}; compare the runs: harness compare {first} {name}"
        )
    return other if other.is_done else record
