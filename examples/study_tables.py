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
    """Test perplexity of every finished cell, the mean over its seeds and how many there are."""
    rows = []
    for (pattern, strategy, sparsity), seeds in by_cell(records).items():
        values = [record.value for record in seeds.values() if record.value is not None]
        validation = [record.valid_value for record in seeds.values() if record.valid_value is not None]
        epochs = max(record.total_epochs for record in seeds.values())
        rows.append([pattern, strategy, f"{sparsity:.0%}", f"{mean(values):.2f}", f"{mean(validation):.2f}",
                     str(epochs), str(len(values))])  # fmt: skip
    return table(["pattern", "strategy", "sparsity", "test", "validation", "epochs", "seeds"], rows, left=2)


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


def hardware(records: tuple[Record, ...]) -> str:
    """Simulated cycles and latency of one step of the lowest seed, on the fastest engine that fits the device."""
    rows = []
    for (pattern, strategy, sparsity), seeds in by_cell(records).items():
        costs = [
            (int(str(cost["cycles"])), name, cost)
            for name, cost in seeds[min(seeds)].hardware.items()
            if name.startswith("cycle_simulator") and cost.get("fits") and cost.get("cycles")
        ]
        if costs:
            cycles, name, cost = min(costs, key=lambda each: each[:2])
            engine = name.partition("[")[2].rstrip("]")
            rows.append([pattern, strategy, f"{sparsity:.0%}", engine, f"{cycles:,}", f"{cost['latency_us']:.2f}"])
    return table(["pattern", "strategy", "sparsity", "engine", "cycles", "µs"], rows, left=2)


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
