"""Makes the tables of docs/study.md from the committed records alone: `python examples/study_tables.py [--write]`.

Each table stands between two marks, `<!-- table: NAME -->` and `<!-- end -->`. Without --write the tables are printed.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from harness.results.records import Record, read
from harness.results.statistics import compare

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "ptb_small"
PAGE = ROOT / "docs" / "study.md"
REFERENCE = "unstructured"
DEVICES = {"cycle_simulator": "Arria 10", "cycle_simulator(device=xczu9eg)": "ZU9EG"}
"""Names of devices, by the label of the hardware entry that has them: the first entry's device is the default one."""

Row = list[str]


def table(header: Row, rows: list[Row], left: int = 1) -> str:
    """A Markdown table; all but the first `left` columns are numbers."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def by_cell(records: tuple[Record, ...]) -> dict[tuple[str, str, float], dict[int, Record]]:
    """Finished cells by (pattern, strategy, sparsity), each by its seed."""
    cells: dict[tuple[str, str, float], dict[int, Record]] = defaultdict(dict)
    for record in records:
        if record.is_done and record.value is not None:
            cells[record.pattern, record.strategy, record.target_sparsity][record.seed] = record
    return cells


def perplexity(records: tuple[Record, ...]) -> str:
    """Test perplexity of every finished cell, in float32 and in 16-bit fixed point, the mean over its seeds."""
    rows = []
    for (pattern, strategy, sparsity), seeds in by_cell(records).items():
        values = [record.value for record in seeds.values() if record.value is not None]
        validation = [record.valid_value for record in seeds.values() if record.valid_value is not None]
        epochs = max(record.total_epochs for record in seeds.values())
        fixed = [in_fixed_point(record) for record in seeds.values()]
        found = [value for value in fixed if value is not None]
        rows.append([pattern, strategy, f"{sparsity:.0%}", f"{mean(values):.2f}",
                     f"{mean(found):.2f}" if len(found) == len(fixed) else "", f"{mean(validation):.2f}",
                     str(epochs), str(len(values))])  # fmt: skip
    header = ["pattern", "strategy", "sparsity", "test", "test, 16 bits", "validation", "epochs", "seeds"]
    return table(header, rows, left=2)


def in_fixed_point(record: Record) -> float | None:
    """The test perplexity of the finished model in the numbers of the simulated engines, where it was evaluated."""
    value = record.fixed_point.get("cycle_simulator", {}).get("value")
    return None if value is None else float(str(value))


def differences(records: tuple[Record, ...]) -> str:
    """Bank-balanced minus unstructured under one strategy, paired by seed; an interval only where seeds allow one."""
    cells = by_cell(records)
    rows = []
    for (pattern, strategy, sparsity), seeds in cells.items():
        reference = cells.get((REFERENCE, strategy, sparsity), {})
        ours, theirs = ({seed: record.value or 0.0 for seed, record in each.items()} for each in (seeds, reference))
        found = None if pattern in (REFERENCE, "dense") else compare(ours, theirs)
        if found is None:
            continue
        half = found.difference.half
        within = "one seed: no interval" if half is None else f"± {half:.2f}"
        rows.append([strategy, f"{sparsity:.0%}", f"{found.difference.mean:+.2f}", within, str(found.difference.n)])
    return table(["strategy", "sparsity", "difference", "95 % interval", "seeds"], rows)


def fastest(record: Record) -> dict[str, tuple[str, int, float]]:
    """By device: the engine that simulates one step in the fewest cycles and fits, these cycles, and microseconds."""
    found: dict[str, list[tuple[int, str, float]]] = {device: [] for device in DEVICES.values()}
    for name, cost in record.hardware.items():
        model, _, engine = name.partition("[")
        if model in DEVICES and cost.get("fits") and cost.get("cycles"):
            found[DEVICES[model]].append((int(str(cost["cycles"])), engine.rstrip("]"), float(str(cost["latency_us"]))))
    best = {device: min(costs) for device, costs in found.items() if costs}
    return {device: (engine, cycles, latency) for device, (cycles, engine, latency) in best.items()}


def hardware(records: tuple[Record, ...]) -> str:
    """Simulated cycles and latency of one step of the lowest seed, on each device's fastest engine that fits."""
    rows = []
    for (pattern, strategy, sparsity), seeds in by_cell(records).items():
        costs = fastest(seeds[min(seeds)])
        shown = [costs.get(device) for device in DEVICES.values()]
        told = [[cost[0], f"{cost[1]:,}", f"{cost[2]:.2f}"] if cost else ["none fits", "", ""] for cost in shown]
        rows.append([pattern, strategy, f"{sparsity:.0%}", *(text for each in told for text in each)])
    columns = [f"{device}: {what}" for device in DEVICES.values() for what in ("engine", "cycles", "µs")]
    return table(["pattern", "strategy", "sparsity", *columns], rows, left=2)


def front(records: tuple[Record, ...]) -> str:
    """What no other row beats in both test perplexity and latency, by device; perplexity is the mean over seeds."""
    points: dict[str, list[tuple[float, float, Row]]] = {device: [] for device in DEVICES.values()}
    for (pattern, strategy, sparsity), seeds in by_cell(records).items():
        value = mean(record.value for record in seeds.values() if record.value is not None)
        for device, (engine, _, latency) in fastest(seeds[min(seeds)]).items():
            row = [device, f"{latency:.2f}", f"{value:.2f}", pattern, strategy, f"{sparsity:.0%}", engine]
            points[device].append((latency, value, row))
    rows = []
    for of_device in points.values():
        best = float("inf")
        for _, value, row in sorted(of_device, key=lambda point: point[:2]):
            if value < best:
                best = value
                rows.append(row)
    return table(["device", "µs", "perplexity", "pattern", "strategy", "sparsity", "engine"], rows)


def rates(records: tuple[Record, ...]) -> str:
    """Validation perplexity after each epoch of fine-tuning, for both candidate rates."""
    rows = [
        [record.pattern, record.strategy, *(f"{value:.2f}" for value in record.valid_history[-record.retrain_epochs :])]
        for record in records
        if record.retrain_epochs
    ]
    return table(["pattern", "strategy", *(f"epoch {n}" for n in range(1, 6))], rows, left=2)


def tables() -> dict[str, str]:
    """Every table of the page, by the name in its mark."""
    grid = read(RESULTS / "records.json")
    return {
        "perplexity": perplexity(grid),
        "differences": differences(grid),
        "hardware": hardware(grid),
        "front": front(grid),
        "rates": rates(read(RESULTS / "fine_tuning_rate.json")),
    }


def filled(page: str) -> str:
    """The page with each table between its marks."""
    for name, text in tables().items():
        pattern = rf"(<!-- table: {name} -->\n).*?(\n?<!-- end -->)"
        page = re.sub(pattern, lambda found, text=text: f"{found[1]}{text}\n<!-- end -->", page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(filled(PAGE.read_text()))
    else:
        for name, text in tables().items():
            print(f"{name}\n\n{text}\n")
