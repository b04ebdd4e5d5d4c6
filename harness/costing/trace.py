"""Costs as a trace that trace viewers open: products one after another, where their cycles go, how busy the PEs are.

A process of the trace is an engine under a hardware model, a microsecond stands for a cycle. Products follow each other
as the model has them. Within a product the cycles of its parts stand one after another, and the work of the PEs begins
with it: models tell how many cycles there are, not which comes first.

Perfetto counts in nanoseconds, cuts off what is less, and drops a slice that ends after one that it begins within: ends
and begins are set on that grid, in numbers from which its reader gets them exactly. Threads have numbers of their own
in the whole trace, since it names them by these alone.

Source:
    "Trace Event Format", Google: complete events (`X`), names of processes and threads (`M`).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from harness.api import JsonValue, SpecError
from harness.costing.costs import Report, Row

Event = dict[str, Any]

_TOLD = ("rows", "cols", "runs", "nonzeros", "stored_bits")

_LAYERS, _PARTS, _PES = 1, 2, 3
"""Threads: the products, where their cycles go, and from here on the PEs by their load."""

_MOST_THREADS = 1000
"""Of a process: the numbers of the next one's begin after them."""


def trace(report: Report) -> dict[str, Any]:
    """The trace of every engine that could be costed, one input and one time step.

    Raises:
        SpecError: no engine tells of its products.
    """
    events = [event for place, row in enumerate(report.rows, start=1) for event in _of_engine(place, row)]
    if not events:
        raise SpecError("hardware: no engine could be costed, or none tells of its products; there is nothing to trace")
    return {"traceEvents": events, "otherData": {"unit": "1 us stands for 1 cycle"}}


def _of_engine(process: int, row: Row) -> Iterator[Event]:
    layers = row.cost.details.get("layers") if row.cost is not None else None
    if row.cost is None or not isinstance(layers, dict):
        return
    told = {name: each for name, each in layers.items() if isinstance(each, dict) and _number(each.get("cycles"))}
    if not told:
        return
    engine = f"{row.model}, {row.engine}" if row.engine else row.model
    name = f"{engine}, {row.cost.shape}: {row.cost.cycles:,} cycles"
    yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": process, "name": "process_sort_index", "args": {"sort_index": process}}
    yield from _thread(process, _LAYERS, "products, 1 µs = 1 cycle")
    yield from _thread(process, _PARTS, "where their cycles go")
    start, loads = 0.0, 0
    for layer, each in told.items():
        cycles = _number(each["cycles"])
        args: dict[str, JsonValue] = {key: each[key] for key in _TOLD if key in each}
        yield _slice(process, _LAYERS, layer, start, start + cycles, args)
        yield from _parts(process, each, start, cycles)
        work = list(_work(process, each, start, cycles))
        loads = max(loads, len(work))
        yield from work
        start += cycles
    for place in range(loads):
        yield from _thread(process, _PES + place, f"PEs, the {'busiest' if not place else f'{place + 1}. by load'}")


def _parts(process: int, layer: Mapping[str, JsonValue], start: float, cycles: float) -> Iterator[Event]:
    """The parts of a product, where they are all of it."""
    parts = layer.get("parts")
    found = {name: _number(value) for name, value in parts.items()} if isinstance(parts, dict) else {}
    if not math.isclose(math.fsum(found.values()), cycles, rel_tol=1e-3, abs_tol=0.01):
        return
    end = start + cycles
    for name, length in found.items():
        # Rounded parts may be a little more than their product, which the next one begins after.
        stop = min(start + length, end)
        if stop > start:
            yield _slice(process, _PARTS, name, start, stop, {})
            start = stop


def _work(process: int, layer: Mapping[str, JsonValue], start: float, cycles: float) -> Iterator[Event]:
    """The PEs of a product by the cycles in which they work, the busiest first, as the histogram has them."""
    busy = layer.get("busy")
    counts = busy.get("pes") if isinstance(busy, dict) else None
    if not isinstance(busy, dict) or not isinstance(counts, list) or not counts:
        return
    low, high, runs = _number(busy.get("from")), _number(busy.get("to")), _number(layer.get("runs")) or 1.0
    step = (high - low) / len(counts)
    filled = [(place, _number(count)) for place, count in enumerate(counts) if _number(count)]
    # All equal: a histogram of one value has a bin around it.
    is_even = len(filled) == 1
    total = math.fsum(count for _, count in filled)
    for at, (place, count) in enumerate(reversed(filled)):
        least, most = (low + high) / 2 if is_even else low + place * step, low + (place + 1) * step
        most = least if is_even else most
        span = f"{most:.4g}" if is_even else f"{least:.4g} to {most:.4g}"
        each = f" of each of {runs:,.0f} runs" if runs > 1 else ""
        name = f"{count:,.0f} of {total:,.0f} PEs work in {span} cycles{each}"
        yield _slice(process, _PES + at, name, start, min(start + most * runs, start + cycles), {"pes": count})


def _slice(process: int, thread: int, name: str, start: float, stop: float, args: Mapping[str, JsonValue]) -> Event:
    begin, end = round(1000 * start), round(1000 * stop)
    return {
        "ph": "X", "pid": process, "tid": _number_of(process, thread), "name": name, "cat": "cycles",
        "ts": _microseconds(begin), "dur": _microseconds(end - begin), "args": dict(args),
    }  # fmt: skip


def _microseconds(nanoseconds: int) -> float:
    """The least number that is no less than these nanoseconds when it is multiplied by 1000 and cut off."""
    value = nanoseconds / 1000
    # 1.001 * 1000 is 1000.9999999999999, of which a reader keeps 1000.
    return value if int(value * 1000.0) >= nanoseconds else math.nextafter(value, math.inf)


def _thread(process: int, thread: int, name: str) -> Iterator[Event]:
    number = _number_of(process, thread)
    yield {"ph": "M", "pid": process, "tid": number, "name": "thread_name", "args": {"name": name}}
    yield {"ph": "M", "pid": process, "tid": number, "name": "thread_sort_index", "args": {"sort_index": thread}}


def _number_of(process: int, thread: int) -> int:
    return _MOST_THREADS * (process - 1) + thread


def _number(value: JsonValue) -> float:
    """A number of a model's, which may be somebody else's; 0 where it is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    return float(value) if is_number else 0.0  # type: ignore[arg-type]  # checked
