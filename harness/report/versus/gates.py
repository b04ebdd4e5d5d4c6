"""Gates: conditions on a comparison that a script can act on, such as `perplexity > +1% @95%`."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from harness._text import listed, plural
from harness.api import SpecError
from harness.report.versus.pairing import Paired, Pairing
from harness.results.records import Record
from harness.results.statistics import exceeds_p, holm, is_beyond, paired_differences

_GATE = re.compile(
    r"\s*(?P<what>[A-Za-z_]\w*)\s*(?P<above>[<>])\s*(?P<sign>[+-])?\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<percent>%)?"
    r"\s*(?:@\s*(?P<confidence>\d+(?:\.\d+)?)\s*%)?\s*"
)

_OF_RECORDS = ("sparsity", "total_epochs", "retrain_epochs", "train_seconds")
_STORED = "stored_bits"

ONE_SEED, OF_ZERO = "one seed", "there is no part of 0"
"""Why a gate says nothing of a setting."""

_OF_COSTS = ("cycles", "latency_us", "energy_uj", "ram_blocks", "dsp", "lut", "ff")


@dataclass(frozen=True)
class Gate:
    """What may not be so.

    Args:
        text: as written.
        what: the metric, or a quantity of records or costs.
        is_above: whether it fails above the bound, or below it.
        bound: what it fails beyond; a difference, a relative one in percent, or the value itself.
        kind: which of the three.
        confidence: with which it has to be shown, None for the mean alone.
    """

    text: str
    what: str
    is_above: bool
    bound: float
    kind: str
    confidence: float | None


@dataclass(frozen=True)
class Judged:
    """What a gate says of a comparison.

    Args:
        gate: the gate.
        failed: settings in which it does not hold, with the number found.
        undecided: settings of which it can say nothing, with the reason.
        count: settings that it was asked of.
    """

    gate: Gate
    failed: tuple[str, ...]
    undecided: tuple[str, ...]
    count: int

    @property
    def holds(self) -> bool:
        """Whether nothing failed and something was decided: what cannot be judged is no success."""
        return not self.failed and self.count > len(self.undecided)


def parse(text: str) -> Gate:
    """A gate from its text.

    Raises:
        SpecError: it cannot be read.
    """
    match = _GATE.fullmatch(text)
    if match is None:
        raise SpecError(
            "compare: expected a gate such as 'perplexity > +1% @95%', 'accuracy < -0.5' or 'cycles > 900', "
            f"got {text!r}"
        )
    number = float(match["number"]) * (-1 if match["sign"] == "-" else 1)
    kind = "relative" if match["percent"] else "difference" if match["sign"] else "value"
    confidence = float(match["confidence"]) / 100 if match["confidence"] else None
    if confidence is not None and not 0.5 <= confidence < 1:
        raise SpecError(
            f"compare: expected a confidence from 50 to below 100 %, got {match['confidence']} % in {text!r}"
        )
    return Gate(" ".join(text.split()), match["what"], match["above"] == ">", number, kind, confidence)


def judge(gate: Gate, pairing: Pairing) -> Judged:
    """What a gate says.

    Raises:
        SpecError: nothing in the records has its name.
    """
    every = [each for row in pairing.common for each in _numbers(gate, row)]
    # What had a cost and has none any more is worse than any bound, and no reason to leave a setting out.
    lost = [f"{each.name}: none any more with {plural(each.lost, 'seed')}" for each in every if each.lost]
    found = [(each.name, each.numbers) for each in every if each.numbers]
    undecided = tuple(f"{each.name}: {OF_ZERO}" for each in every if not each.numbers and not each.lost)
    if not every:
        metrics = dict.fromkeys(record.metric for row in pairing.common for record in row.a.values())
        raise SpecError(
            f"compare: expected one of {listed((*metrics, *_OF_RECORDS, _STORED, *_OF_COSTS))} in a gate, got "
            f"{gate.what!r}; name what these records have"
        )
    if gate.confidence is None:
        # Without a confidence a gate is a plain threshold on the mean.
        means = [(name, math.fsum(numbers) / len(numbers)) for name, numbers in found]
        failed = [_told(name, mean, gate) for name, mean in means if _is_beyond(gate, mean)]
        return Judged(gate, (*lost, *failed), undecided, len(every))
    # Both directions by one test: "below" is "above" of the negatives.
    sign = 1 if gate.is_above else -1
    p = [exceeds_p([sign * each for each in numbers], sign * gate.bound) for _, numbers in found]
    undecided += tuple(f"{name}: {ONE_SEED}" for (name, _), each in zip(found, p, strict=True) if each is None)
    # By place and not by name: two settings may be called alike.
    corrected = holm({place: each for place, each in enumerate(p) if each is not None})
    failed = [
        _told(found[place][0], math.fsum(found[place][1]) / len(found[place][1]), gate) + f", p = {each:.2g}"
        for place, each in corrected.items()
        # A p of exactly the level passes for rounding's sake.
        if each <= 1 - gate.confidence + 1e-12
    ]
    return Judged(gate, (*lost, *failed), undecided, len(every))


def _is_beyond(gate: Gate, number: float) -> bool:
    # On the bound but for rounding is not beyond it: 91.3 - 90.8 is not 0.5 in floats.
    return is_beyond(number, gate.bound) if gate.is_above else is_beyond(-number, -gate.bound)


def _told(name: str, number: float, gate: Gate) -> str:
    text = {"relative": f"{number:+.3g} %", "difference": f"{number:+.4g}", "value": f"{number:.6g}"}[gate.kind]
    return f"{name}: {text}"


@dataclass(frozen=True)
class _Found:
    """What a gate is about in one setting: numbers over its seeds, and how many seeds have none on the second side."""

    name: str
    numbers: list[float]
    lost: int


def _numbers(gate: Gate, row: Paired) -> Iterator[_Found]:
    """What a gate is about in one setting, over its seeds; once for every hardware label or width that has it."""
    name = in_words(row)
    first, second = next(iter(row.a.values())), next(iter(row.b.values()))
    if gate.what in ("value", first.metric):
        yield from _differences(gate, name, row, lambda record: record.value)
    elif gate.what in _OF_RECORDS:
        yield from _differences(gate, name, row, lambda record: getattr(record, gate.what))
    elif gate.what == _STORED:
        for width in (width for width in first.storage if width in second.storage):
            yield from _differences(gate, f"{name}, weights of {width} bits", row, partial(_bits, width))
    elif gate.what in _OF_COSTS:
        for label in (label for label in first.hardware if label in second.hardware):
            yield from _differences(gate, f"{name}, {label}", row, partial(_cost, label, gate.what))


def _differences(gate: Gate, name: str, row: Paired, of: Callable[[Record], float | None]) -> Iterator[_Found]:
    both = [(of(record), of(row.b[seed])) for seed, record in row.a.items()]
    lost = sum(before is not None and after is None for before, after in both)
    pairs = [(before, after) for before, after in both if before is not None and after is not None]
    numbers = [after for _, after in pairs]
    if gate.kind != "value":
        numbers = paired_differences(numbers, [before for before, _ in pairs])
    if gate.kind == "relative":
        # A relative change from zero is none.
        numbers = [100 * each / abs(before) for each, (before, _) in zip(numbers, pairs, strict=True) if before]
    if pairs or lost:
        yield _Found(name, numbers, lost)


def _bits(width: str, record: Record) -> float | None:
    found = record.storage.get(width)
    return None if found is None else float(found.bits)


def _cost(label: str, what: str, record: Record) -> float | None:
    cost: Mapping[str, object] = record.hardware.get(label, {})
    value = cost.get(what)
    return float(value) if isinstance(value, int | float) else None


def in_words(row: Paired) -> str:
    """A setting in words."""
    setting = row.setting
    labels = [setting.task, setting.backend, " ".join(setting.scope), setting.pattern, setting.allocation,
              setting.strategy]  # fmt: skip
    is_dense = setting.sparsity == 0
    parts = [label for label in labels if label and not (is_dense and label in ("", "dense"))]
    return " · ".join([*parts[:2], "dense"] if is_dense else [*parts, f"{100 * setting.sparsity:g} %"])
