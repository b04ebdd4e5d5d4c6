"""Do costs follow from their own parts, and from the masks they are said to be of?"""

from collections.abc import Mapping

from harness.api import JsonValue
from harness.results.records import Record
from harness.verification.masks import Mask
from harness.verification.outcome import Outcome, close

_Cost = Mapping[str, JsonValue]

_ROUNDED = 1e-3
"""Nonzeros of a layer are counted exactly, and sparsities to this part of themselves."""


_MULTIPLIES_ZEROS = frozenset({
    "bank", "block", "csr_stream", "dense_compact", "dense_mvm", "dense_packed", "dense_systolic", "mcbbs_systolic",
    "n_m",
})  # fmt: skip
"""Engines that do one product for every weight kept; others may leave out those with a vector's zeros."""


def check_costs(record: Record, masks: Mapping[str, Mask] | None, outcome: Outcome) -> None:
    """Every cost of a record.

    Args:
        record: of a finished cell.
        masks: its masks, where a store has them; without them costs are compared with the sparsity alone.
        outcome: where findings go.
    """
    for label, cost in record.hardware.items():
        if not isinstance(cost.get("cycles"), int | float):
            continue
        place = f"{record.cell} on {label}"
        _check_arithmetic(cost, place, outcome)
        _check_memories(cost, place, outcome)
        _check_work(record, cost, masks, place, outcome)


def _check_arithmetic(cost: _Cost, place: str, outcome: Outcome) -> None:
    """Time, speed-up and bounds from the cycles."""
    cycles, clock, latency = (_of(cost, name) for name in ("cycles", "clock_mhz", "latency_us"))
    assert cycles is not None
    if clock is not None and latency is not None:
        outcome.hold(
            close(latency, cycles / clock, 1e-6), "hardware", place,
            f"expected {cycles:g} cycles at {clock:g} MHz to take {cycles / clock:.6g} µs, got {latency:.6g}",
        )  # fmt: skip
    dense, speedup, streams = _of(cost, "dense_cycles"), _of(cost, "speedup"), _of(cost, "streams") or 1.0
    if dense is not None and speedup is not None:
        # As many inputs as there are streams are served in the same cycles.
        wanted = streams * dense / cycles
        outcome.hold(
            close(speedup, wanted, 1e-6), "hardware", place,
            f"expected a speed-up of {wanted:.6g} from {dense:g} dense cycles, got {speedup:.6g}",
        )  # fmt: skip
    details = cost.get("details")
    parts = details.get("parts") if isinstance(details, dict) else None
    if isinstance(parts, dict) and parts:
        total = sum(float(part) for part in parts.values() if isinstance(part, int | float))
        # Cycles are parts rounded up to a whole one.
        outcome.hold(
            total - 1e-3 <= cycles <= total + 1 + 1e-3, "hardware", place,
            f"expected the {total:.6g} cycles that the parts add up to, got {cycles:g}",
        )  # fmt: skip


def _check_memories(cost: _Cost, place: str, outcome: Outcome) -> None:
    """The memory blocks of the kind that decides are those of all its memories together."""
    details = cost.get("details")
    ram, blocks = details.get("ram") if isinstance(details, dict) else None, _of(cost, "ram_blocks")
    memories = ram.get(str(cost.get("ram_kind"))) if isinstance(ram, dict) else None
    if not isinstance(memories, dict) or blocks is None:
        return
    total = sum(float(each) for each in memories.values() if isinstance(each, int | float))
    outcome.hold(
        close(blocks, total), "hardware", place,
        f"expected the {total:g} {cost.get('ram_kind')} of its memories together, got {blocks:g}",
    )  # fmt: skip


def _check_work(record: Record, cost: _Cost, masks: Mapping[str, Mask] | None, place: str, outcome: Outcome) -> None:
    """The products that a cost counts are those of the cell's masks."""
    details = cost.get("details")
    layers = details.get("layers") if isinstance(details, dict) else None
    if not isinstance(layers, dict) or not layers:
        outcome.skip("costs that do not tell their layers: what they were counted on is not known")
        return
    kept, size, multiplied = 0.0, 0.0, 0.0
    for name, layer in layers.items():
        if not isinstance(layer, dict):
            return
        rows, cols, nonzeros = (_of(layer, each) for each in ("rows", "cols", "nonzeros"))
        if rows is None or cols is None or nonzeros is None:
            return
        kept, size = kept + nonzeros, size + rows * cols
        multiplied += nonzeros if _does_all(record, cost, name) else 0.0
        if masks:
            # Of a layer's tensors all matrices count: both of an LSTM layer share one product.
            mine = [mask for tensor, mask in masks.items() if tensor.rpartition(".")[0] == name]
            counted = sum(int(mask.sum()) for mask in mine)
            outcome.hold(
                not mine or counted == nonzeros, "hardware", place,
                f"expected the {counted} weights that the masks of {name} keep, got a cost of {nonzeros:g}",
            )  # fmt: skip
    if record.sparsity is not None and size:
        outcome.hold(
            abs(kept / size - (1 - record.sparsity)) <= _ROUNDED, "hardware", place,
            f"expected a cost of {100 * (1 - record.sparsity):.4g} % of the weights, got {100 * kept / size:.4g} %",
        )  # fmt: skip
    multipliers, streams = _of(cost, "multipliers"), _of(cost, "streams") or 1.0
    if multipliers and multiplied:
        cycles = _of(cost, "cycles") or 0.0
        # No multiplier does two products in a cycle: fewer cycles than that are impossible, however clever the engine.
        outcome.hold(
            cycles * multipliers >= multiplied * streams * (1 - 1e-9), "hardware", place,
            f"expected at least {multiplied * streams / multipliers:.6g} cycles for {multiplied:g} products on "
            f"{multipliers:g} multipliers, got {cycles:g}",
        )  # fmt: skip


def _does_all(record: Record, cost: _Cost, layer: str) -> bool:
    """Whether an engine has to multiply every weight that a layer keeps."""
    measured = record.facts.get("activation_density")
    density = measured.get(layer, 1.0) if isinstance(measured, dict) else 1.0
    engine = str(cost.get("engine")).partition("(")[0]  # its parameters tell its shape
    return engine in _MULTIPLIES_ZEROS or not isinstance(density, int | float) or density >= 1


def _of(values: Mapping[str, JsonValue], name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
