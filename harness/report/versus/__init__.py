"""Two runs, experiments, backends or machines side by side, paired by seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from harness._text import listed, plural
from harness.api import JsonValue
from harness.report import formats, page
from harness.report.formats import MARKS
from harness.report.page import Column, Document, Noted, Section
from harness.report.versus.gates import OF_ZERO, Gate, Judged, judge, parse
from harness.report.versus.pairing import CONDITIONS, LABELS, Paired, Pairing, Side, joined, paired
from harness.results.records import Record
from harness.results.statistics import ALPHA, CONFIDENCE, Comparison, Verdict, compare, verdicts

__all__ = ["CONDITIONS", "LABELS", "Gate", "Judged", "Side", "Versus", "joined", "parse", "versus"]

_EQUAL = 1e-12


@dataclass(frozen=True)
class _Line:
    """One setting of both sides.

    Args:
        row: the paired records.
        comparison: second minus first, over common seeds.
        verdict: on the second, None for one seed; without a margin never "equivalent".
        cycles: of both, on the engine that is fastest for the first, where both have it.
        storage: stored bits of both, by the width of a weight, where both have it.
    """

    row: Paired
    comparison: Comparison
    verdict: Verdict | None
    cycles: tuple[float, float] | None
    storage: Mapping[str, tuple[float, float]]

    @property
    def first(self) -> Record:
        """One of the records."""
        return next(iter(self.row.a.values()))


@dataclass(frozen=True)
class Versus:
    """A comparison, and what gates say of it."""

    pairing: Pairing
    lines: tuple[_Line, ...]
    gates: tuple[Judged, ...]
    comparisons: int
    margin: float | None

    @property
    def holds(self) -> bool:
        """Whether every gate holds; a cell that lost its result fails every gate."""
        return not self.gates or (all(gate.holds for gate in self.gates) and not self.pairing.lost)

    def values(self) -> dict[str, JsonValue]:
        """The comparison for programs."""
        return {
            "a": self.pairing.a.name,
            "b": self.pairing.b.name,
            "holds": self.holds,
            "differing": {name: list(values) for name, values in self.pairing.differing.items()},
            "lost": self.pairing.lost,
            "rows": [_values(line) for line in self.lines],
            "gates": [
                {
                    "gate": each.gate.text, "holds": each.holds, "failed": list(each.failed),
                    "undecided": list(each.undecided),
                }
                for each in self.gates
            ],
        }  # fmt: skip

    def document(self) -> Document:
        """The comparison for people."""
        return Document(f"{self.pairing.b.name} against {self.pairing.a.name}", tuple(_sections(self)))


def versus(
    a: Side, b: Side, *, across: Sequence[str] = (), gates: Sequence[Gate] = (), margin: float | None = None
) -> Versus:
    """Compare two sides.

    Args:
        a: what is compared with.
        b: what is compared.
        across: labels that differ between the sides, and conditions that may.
        gates: what may not be so.
        margin: largest difference, in the unit of the metric, that counts as equivalent.

    Raises:
        EmptySelectionError, SpecError, StoreError: see `pairing.paired` and `gates.judge`.
    """
    pairing = paired(a, b, across)
    compared = {place: compare(row.values[1], row.values[0], margin) for place, row in enumerate(pairing.common)}
    known = {place: comparison for place, comparison in compared.items() if comparison is not None}
    # All together, whichever way is better, as the number of comparisons that is told is one.
    judged = verdicts(known, {place: next(iter(pairing.common[place].a.values())).better for place in known})
    lines = [
        _Line(
            pairing.common[place],
            comparison,
            judged[place] if comparison.difference.n > 1 else None,
            _cycles(pairing.common[place]),
            _storage(pairing.common[place]),
        )
        for place, comparison in known.items()
    ]
    count = sum(comparison.p_difference is not None for comparison in known.values())
    return Versus(pairing, tuple(lines), tuple(judge(gate, pairing) for gate in gates), count, margin)


def _cycles(row: Paired) -> tuple[float, float] | None:
    """Mean cycles of both on the engine on which the first is fastest, of those that fit if any does."""
    found: list[tuple[bool, tuple[float, float]]] = []
    labels = next(iter(row.a.values())).hardware
    for label in labels:
        both = [(row.a[seed].hardware.get(label, {}), row.b[seed].hardware.get(label, {})) for seed in row.a]
        pairs = [(one.get("cycles"), other.get("cycles")) for one, other in both]
        numbers = [(float(x), float(y)) for x, y in pairs if isinstance(x, int | float) and isinstance(y, int | float)]
        # On an engine that lacks a cost for one seed the means would be of different seeds.
        if len(numbers) == len(row.a):
            means = (sum(x for x, _ in numbers) / len(numbers), sum(y for _, y in numbers) / len(numbers))
            found.append((any(one.get("fits") is False for one, _ in both), means))
    return min(found, key=lambda each: (each[0], each[1][0]), default=(False, None))[1]


def _storage(row: Paired) -> dict[str, tuple[float, float]]:
    """Mean stored bits of both, by the width of a weight; only of widths that every common seed has on both sides."""
    pairs = [(row.a[seed].storage, row.b[seed].storage) for seed in row.a]
    widths = [width for width in pairs[0][0] if all(width in one and width in other for one, other in pairs)]
    return {
        width: (
            sum(one[width].bits for one, _ in pairs) / len(pairs),
            sum(other[width].bits for _, other in pairs) / len(pairs),
        )
        for width in widths
    }


def _values(line: _Line) -> JsonValue:
    difference = line.comparison.difference
    setting: dict[str, JsonValue] = {**line.row.setting._asdict(), "scope": list(line.row.setting.scope)}
    first, second = line.row.values
    return {
        **setting,
        "metric": line.first.metric,
        "seeds": list(first),
        "a": sum(first.values()) / len(first),
        "b": sum(second.values()) / len(second),
        "difference": asdict(difference),
        "p": line.comparison.p_difference,
        "verdict": line.verdict,
        "cycles": None if line.cycles is None else list(line.cycles),
        "storage": {width: list(bits) for width, bits in line.storage.items()},
    }


# --- for people -----------------------------------------------------------------------------------------------------


def _sections(found: Versus) -> list[Section]:
    pairing = found.pairing
    same = sum(line.row.values[0] == line.row.values[1] for line in found.lines)
    sentences = [
        f"{plural(len(found.lines), 'setting')} of both, paired by seed"
        + (f"; {same} of them with the same values to the last digit." if same else "."),
    ]
    only_b = sum(row.only_b for row in pairing.rows)
    warnings = []
    if pairing.lost:
        warnings.append(
            f"{plural(pairing.lost, 'cell')} with a result in {pairing.a.name} have none in {pairing.b.name}."
        )
    if only_b:
        sentences.append(f"{plural(only_b, 'cell')} have a result in {pairing.b.name} alone.")
    if pairing.across:
        sentences.append(f"By request they may differ in {listed(sorted(pairing.across))}.")
    sections = [Section("", tuple(sentences), warnings=tuple(warnings))]
    if found.gates:
        sections.append(_gate_section(found))
    sections.append(Section("Side by side", (), page.table(_columns(found), found.lines, caption=_caption(found))))
    if pairing.differing:
        columns: tuple[Column[tuple[str, tuple[str, str]]], ...] = (
            Column("", lambda each: each[0], kind="label", matters="key"),
            Column(pairing.a.name, lambda each: each[1][0], kind="text"),
            Column(pairing.b.name, lambda each: each[1][1], kind="text"),
        )
        sections.append(Section("What else differs", (), page.table(columns, list(pairing.differing.items()))))
    return sections


def _gate_section(found: Versus) -> Section:
    warnings, sentences = [], []
    for each in found.gates:
        decided = each.count - len(each.undecided)
        how = f", each with {100 * each.gate.confidence:g} % (Holm over {decided})" if each.gate.confidence else ""
        # What cannot be judged is in no count, so it is told beside it.
        if each.undecided and decided:
            how += f"; {len(each.undecided)} more cannot be judged ({each.undecided[0]})"
        if each.failed:
            # The first few: a gate that fails everywhere would fill the screen.
            shown = "; ".join(each.failed[:5]) + (f"; and {len(each.failed) - 5} more" if len(each.failed) > 5 else "")
            warnings.append(f"FAILED: {each.gate.text} in {len(each.failed)} of {decided}{how}: {shown}.")
        elif not decided:
            way = "leave the % out" if each.undecided[0].endswith(OF_ZERO) else "add seeds, or leave the @ out"
            warnings.append(f"CANNOT BE JUDGED: {each.gate.text}: {each.undecided[0]}; {way}.")
        else:
            # A test that does not show it does not show its contrary.
            is_shown = " is shown" if each.gate.confidence else ""
            sentences.append(f"holds: {each.gate.text}{is_shown} in none of {decided}{how}.")
    if found.pairing.lost:
        warnings.append("FAILED: results are missing, see above.")
    return Section("Gates", tuple(sentences), warnings=tuple(warnings))


def _columns(found: Versus) -> list[Column[_Line]]:
    digits = max((line.first.digits for line in found.lines), default=2)
    labels = [
        Column[_Line](name, partial(_label, name), kind="label", matters="key")
        for name in LABELS
        if len({getattr(line.row.setting, name) for line in found.lines}) > 1
    ]
    # What is pruned tells rows apart where several scopes were tried.
    if len({line.row.setting.scope for line in found.lines} - {()}) > 1:
        labels.append(
            Column[_Line]("scope", lambda line: " ".join(line.row.setting.scope), kind="label", matters="key")
        )
    names = dict.fromkeys(line.first.metric for line in found.lines)
    return [
        *labels,
        Column("asked\n%", lambda line: formats.asked(line.row.setting.sparsity), matters="key"),
        Column(f"{listed(names)}\n{found.pairing.a.name}", lambda line: _mean(line, 0)),
        Column(f"\n{found.pairing.b.name}", lambda line: _mean(line, 1)),
        Column("difference", lambda line: formats.difference(line.comparison, digits, line.verdict)),
        Column("%", _percent),
        Column("n", lambda line: str(line.comparison.difference.n)),
        Column("cycles", _cycles_text, when=lambda lines: any(line.cycles for line in lines)),
        *_stored(found.lines),
    ]


def _stored(lines: Sequence[_Line]) -> Iterator[Column[_Line]]:
    """What the masks take in storage on both sides, and the difference in percent, for every width of a weight."""
    widths = list(dict.fromkeys(width for line in lines for width in line.storage))
    for width in widths:
        name = f"stored, w{width}" if len(widths) > 1 else "stored"
        about = (
            f"{name}: 1000 bits of the pruned matrices with weights of {width} bits, each in the format that is "
            "smallest for its mask."
        )
        yield Column(f"{name}\nkbit", partial(_stored_text, width), about=about)


def _stored_text(width: str, line: _Line) -> str | Noted:
    if width not in line.storage:
        return page.missing("its storage was not counted on both sides")
    one, other = line.storage[width]
    if one == other:
        return formats.kilobits(one)
    part = f" ({formats.signed(100 * (other - one) / one, 2)} %)" if one else ""
    return f"{formats.kilobits(one)} → {formats.kilobits(other)}{part}"


def _label(name: str, line: _Line) -> str:
    return str(getattr(line.row.setting, name))


def _mean(line: _Line, side: int) -> str:
    values = line.row.values[side]
    return f"{sum(values.values()) / len(values):.{line.first.digits}f}"


def _percent(line: _Line) -> str:
    first, _ = line.row.values
    mean = sum(first.values()) / len(first)
    # Of a mean of nothing no part can be told.
    return "" if abs(mean) < _EQUAL else formats.signed(100 * line.comparison.difference.mean / abs(mean), 2)


def _cycles_text(line: _Line) -> str | Noted:
    if line.cycles is None:
        return page.missing("no hardware model has a cost on both sides")
    one, other = line.cycles
    return f"{one:,.0f}" if one == other else f"{one:,.0f} → {other:,.0f}"


def _caption(found: Versus) -> list[str]:
    better = {line.first.better for line in found.lines}
    lines = [
        f"Difference: {found.pairing.b.name} minus {found.pairing.a.name}"
        + (f", {better.pop()} is better" if len(better) == 1 else "")
        + f"; ± its {100 * CONFIDENCE:g} % interval over common seeds."
    ]
    marked = dict.fromkeys(line.verdict for line in found.lines if line.verdict)
    if marked:
        within = f" within {found.margin:g}" if found.margin is not None else ""
        told = [f"{MARKS[each]} {each}{within if each == 'equivalent' else ''}" for each in marked]
        lines.append(f"Verdicts at p below {ALPHA:.2g}, Holm over {found.comparisons}: {listed(told)}.")
    return lines
