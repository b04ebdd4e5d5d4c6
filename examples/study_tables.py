"""Makes tables and pictures of the study's pages from committed records: `python examples/study_tables.py [--write]`.

docs/study.md is the language model, docs/study_cnn.md the convolutional side. `--take FOLDER NAME` copies the report
and the records of a large run to docs/results/NAME, without those details of costs that no table has: most of the file.

Each table stands between two marks, `<!-- table: NAME -->` and `<!-- end -->`. Without --write the tables are printed.
With it the pictures are drawn, too (extra `plots`), each with its numbers beside it as CSV.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean

from harness._outputs import write_output
from harness.report import tabular
from harness.report.charts import Chart
from harness.report.figures import drawn
from harness.report.pictures import charts
from harness.report.tables import tables as tables_of
from harness.results.records import Record, read, write
from harness.results.statistics import Comparison, Interaction, compare, holm, interaction, standings, verdicts

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "ptb_small"
KERAS = RESULTS.with_name("ptb_small_keras")
BESIDE = {name: RESULTS.with_name(f"ptb_small_{name}") / "records.json" for name in ("extras", "whole")}
CNN_RESULTS = ROOT / "docs" / "results" / "study_cnn"
REFERENCE = "unstructured"
DEVICES = ("Arria 10", "ZU9EG")
PICTURES = ("metric", "difference", "pareto")

LENGTHY = "layers logic ram memory_system limits dense fixed engine_dense energy energy_events".split()
"""Details of a cost that no table of the pages has."""

Row = list[str]
Cell = tuple[str, str, float]
Network = dict[Cell, dict[int, Record]]


def table(header: Row, rows: list[Row], left: int = 1) -> str:
    """A Markdown table; all but the first `left` columns are numbers."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def by_cell(records: tuple[Record, ...]) -> Network:
    """Finished cells by (pattern, strategy, sparsity), each by its seed."""
    cells: Network = defaultdict(dict)
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


def device_of(model: str) -> str | None:
    """The device of a simulated entry, by its label; the default device stands in none. None for other models."""
    if not model.startswith("cycle_simulator"):
        return None
    return "ZU9EG" if "device=xczu9eg" in model else "Arria 10"


def in_fixed_point(record: Record) -> float | None:
    """The test perplexity of the finished model in the numbers of the simulated engines, where it was evaluated."""
    value = next((found.get("value") for model, found in record.fixed_point.items() if device_of(model)), None)
    return None if value is None else float(str(value))


def compared(cells: Network) -> dict[Cell, Comparison]:
    """Every other pattern with unstructured under the same strategy at the same sparsity, paired by seed."""
    found: dict[Cell, Comparison] = {}
    for (pattern, strategy, sparsity), seeds in cells.items():
        reference = cells.get((REFERENCE, strategy, sparsity), {})
        ours, theirs = ({seed: record.value or 0.0 for seed, record in each.items()} for each in (seeds, reference))
        paired = None if pattern in (REFERENCE, "dense") else compare(ours, theirs)
        if paired is not None:
            found[pattern, strategy, sparsity] = paired
    return found


def of_p(p: float) -> str:
    """A probability to three places, never as 0."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def differences(records: tuple[Record, ...]) -> str:
    """Bank-balanced minus unstructured under one strategy, paired by seed; an interval only where seeds allow one."""
    found = compared(by_cell(records))
    adjusted = holm({cell: each.p_difference for cell, each in found.items() if each.p_difference is not None})
    rows = []
    for (pattern, strategy, sparsity), each in found.items():
        half = each.difference.half
        within = "one seed: no interval" if half is None else f"± {half:.2f}"
        p = [
            "" if value is None else of_p(value)
            for value in (each.p_difference, adjusted.get((pattern, strategy, sparsity)))
        ]
        rows.append([strategy, f"{sparsity:.0%}", f"{each.difference.mean:+.2f}", within, *p, str(each.difference.n)])
    return table(["strategy", "sparsity", "difference", "95 % interval", "p", "p (Holm)", "seeds"], rows)


def strategies(records: tuple[Record, ...]) -> str:
    """Strategies by test perplexity under one pattern and sparsity; a common letter: not told apart (Holm, paired)."""
    cells = by_cell(records)
    names = list(dict.fromkeys(strategy for _, strategy, _ in cells if strategy != "dense"))
    rows = []
    for pattern, sparsity in dict.fromkeys((pattern, sparsity) for pattern, _, sparsity in cells if sparsity):
        found = {name: cells[pattern, name, sparsity] for name in names if (pattern, name, sparsity) in cells}
        values = {
            name: {seed: record.value for seed, record in seeds.items() if record.value is not None}
            for name, seeds in found.items()
        }
        placed = standings(values, "lower")
        shown = [
            f"{mean(values[name].values()):.2f} {placed[name].letters}" if name in values else "" for name in names
        ]
        rows.append([pattern, f"{sparsity:.0%}", *shown, str(min(map(len, values.values())))])
    return table(["pattern", "sparsity", *names, "seeds"], rows)


def depends(records: tuple[Record, ...]) -> str:
    """Whether the difference of the patterns depends on the strategy, by sparsity: a test of their interaction."""
    cells = by_cell(records)
    found: dict[float, Interaction | None] = {}
    for sparsity in sorted({sparsity for *_, sparsity in cells} - {0.0}):
        values: dict[str, dict[str, dict[int, float]]] = defaultdict(dict)
        for (pattern, strategy, at), seeds in cells.items():
            if at == sparsity:
                values[strategy][pattern] = {seed: record.value or 0.0 for seed, record in seeds.items()}
        found[sparsity] = interaction(values)
    adjusted = holm({sparsity: tested.p for sparsity, tested in found.items() if tested})
    rows = []
    for sparsity, tested in found.items():
        said = ["one seed: no test", "", "", ""]
        if tested:
            degrees = f"{tested.degrees[0]:.2f}, {tested.degrees[1]:.2f}"
            said = [f"{tested.f:.2f}", degrees, of_p(tested.p), of_p(adjusted[sparsity])]
        rows.append([f"{sparsity:.0%}", *said, str(tested.n if tested else 1)])
    return table(["sparsity", "F", "degrees of freedom", "p", "p (Holm)", "seeds"], rows)


def fastest(record: Record) -> dict[str, tuple[str, int, float]]:
    """By device: the engine that simulates one step in the fewest cycles and fits, these cycles, and microseconds."""
    found: dict[str, list[tuple[int, str, float]]] = {device: [] for device in DEVICES}
    for name, cost in record.hardware.items():
        model, _, engine = name.partition("[")
        device = device_of(model)
        if device and cost.get("fits") and cost.get("cycles"):
            found[device].append((int(str(cost["cycles"])), engine.rstrip("]"), float(str(cost["latency_us"]))))
    best = {device: min(costs) for device, costs in found.items() if costs}
    return {device: (engine, cycles, latency) for device, (cycles, engine, latency) in best.items()}


ON_DEVICES = tuple(f"{device}: {what}" for device in DEVICES for what in ("engine", "cycles", "µs"))


def on_devices(record: Record) -> Row:
    """What it costs on each device's fastest engine that fits, under the columns `ON_DEVICES`."""
    costs = [fastest(record).get(device) for device in DEVICES]
    told = [[cost[0], f"{cost[1]:,}", f"{cost[2]:.2f}"] if cost else ["none fits", "", ""] for cost in costs]
    return [text for each in told for text in each]


def unbeaten(points: list[tuple[float, float, Row]]) -> list[Row]:
    """The rows that no other beats in both of their numbers, the lower the better, by the first."""
    rows = []
    best = float("inf")
    for _, value, row in sorted(points):
        if value < best:
            best = value
            rows.append(row)
    return rows


def hardware(records: tuple[Record, ...]) -> str:
    """Simulated cycles and latency of one step of the lowest seed, on each device's fastest engine that fits."""
    rows = [
        [pattern, strategy, f"{sparsity:.0%}", *on_devices(seeds[min(seeds)])]
        for (pattern, strategy, sparsity), seeds in by_cell(records).items()
    ]
    return table(["pattern", "strategy", "sparsity", *ON_DEVICES], rows, left=2)


def front(records: tuple[Record, ...]) -> str:
    """What no other row beats in both test perplexity and latency, by device; perplexity is the mean over seeds."""
    points: dict[str, list[tuple[float, float, Row]]] = {device: [] for device in DEVICES}
    for (pattern, strategy, sparsity), seeds in by_cell(records).items():
        value = mean(record.value for record in seeds.values() if record.value is not None)
        for device, (engine, _, latency) in fastest(seeds[min(seeds)]).items():
            row = [device, f"{latency:.2f}", f"{value:.2f}", pattern, strategy, f"{sparsity:.0%}", engine]
            points[device].append((latency, value, row))
    rows = [row for of_device in points.values() for row in unbeaten(of_device)]
    return table(["device", "µs", "perplexity", "pattern", "strategy", "sparsity", "engine"], rows)


def rates(records: tuple[Record, ...]) -> str:
    """Validation perplexity after each epoch of fine-tuning, for both candidate rates."""
    rows = [
        [record.pattern, record.strategy, *(f"{value:.2f}" for value in record.valid_history[-record.retrain_epochs :])]
        for record in records
        if record.retrain_epochs
    ]
    return table(["pattern", "strategy", *(f"epoch {n}" for n in range(1, 6))], rows, left=2)


def effort(records: tuple[Record, ...]) -> str:
    """What each strategy asks for: epochs, prunings, a finished dense model, and what its user has to choose."""
    rows = []
    for strategy, record in {record.strategy: record for record in records if record.strategy != "dense"}.items():
        dense = "yes" if record.needs_dense_model else "no"
        chosen = ", ".join(record.hyper_parameters)
        rows.append([strategy, dense, chosen, str(record.total_epochs), str(record.mask_updates)])
    return table(["strategy", "needs a dense model", "to choose", "epochs in all", "prunings"], rows, left=3)


def cost(records: tuple[Record, ...]) -> str:
    """Epochs and hours of each seed, if every cell were trained by itself and with equal beginnings trained once."""
    rows = []
    for seed in sorted({record.seed for record in records}):
        cells = [record for record in records if record.seed == seed and record.is_done]
        alone = sum(record.total_epochs for record in cells)
        # Fine-tuning and rewinding go on from the dense model, gradual pruning from its own first epoch of pruning.
        own = [
            record.total_epochs if record.pattern == "dense"
            else record.retrain_epochs if record.needs_dense_model
            else record.total_epochs - int(str(record.strategy_params["begin_epoch"]))
            for record in cells
        ]  # fmt: skip
        seconds = sum(record.train_seconds or 0.0 for record in cells) / alone
        hours = [f"{epochs * seconds / 3600:.1f}" for epochs in (alone, sum(own))]
        rows.append([str(seed), str(alone), str(sum(own)), f"{seconds:.0f}", *hours])
    header = ["seed", "epochs alone", "epochs shared", "seconds an epoch", "hours alone", "hours shared"]
    return table(header, rows)


def alike(record: Record, other: Record) -> bool:
    """Whether both prune the same scope of the same model by one plugin for the strategy, to one sparsity and seed."""
    names = ("backend", "scope", "strategy_name", "target_sparsity", "seed")
    return all(getattr(record, each) == getattr(other, each) for each in names)


def beside(records: tuple[Record, ...], grid: tuple[Record, ...]) -> str:
    """Cells beside the study: each against unstructured sparsity by its strategy, and against its like in the study.

    Unstructured sparsity has the same strategy with the same parameters, here or in the study; the like in the study
    has the same plugins with the study's parameters, and the study's scope.
    """
    rows = []
    for record in records:
        if record.value is None or record.pattern == "dense":
            continue
        reference = [
            other.value
            for other in (*records, *grid)
            if other.pattern == REFERENCE != record.pattern
            and alike(record, other)
            and record.strategy_params == other.strategy_params
        ]
        like = [
            other.value
            for other in grid
            if record.pattern_name == other.pattern_name
            and alike(record.model_copy(update={"scope": other.scope}), other)
        ]
        minus = ["" if not of or of[0] is None else f"{record.value - of[0]:+.2f}" for of in (reference, like)]
        told = [f"{record.value:.2f}", f"{record.valid_value:.2f}"]
        rows.append([record.pattern, record.strategy, f"{record.target_sparsity:.0%}", *told, *minus])
    header = ["pattern", "strategy", "sparsity", "test", "validation", "minus unstructured", "minus the study's"]
    return table(header, rows, left=2)


def frameworks(records: tuple[Record, ...]) -> str:
    """Test perplexity of the same cells by backend, and by how much the last lies above the first."""
    found: dict[Cell, dict[str, float]] = defaultdict(dict)
    for record in records:
        if record.is_done and record.value is not None:
            found[record.pattern, record.strategy, record.target_sparsity][record.backend] = record.value
    backends = list(dict.fromkeys(record.backend for record in records))
    rows = []
    for (pattern, strategy, sparsity), cell in found.items():
        first, last = (cell.get(backends[place]) for place in (0, -1))
        above = "" if first is None or last is None else f"{last - first:+.2f}"
        shown = [f"{cell[each]:.2f}" if each in cell else "" for each in backends]
        rows.append([pattern, strategy, f"{sparsity:.0%}", *shown, above])
    return table(["pattern", "strategy", "sparsity", *backends, "difference"], rows, left=2)


# --- the convolutional side -----------------------------------------------------------------------------------------


def networks(records: tuple[Record, ...]) -> dict[str, Network]:
    """Finished cells of each network, by its name."""
    names = dict.fromkeys(str(record.task_params["model"]) for record in records)
    return {name: by_cell(tuple(each for each in records if each.task_params["model"] == name)) for name in names}


def accuracy(records: tuple[Record, ...]) -> str:
    """Test accuracy in %, the mean over seeds: in float32, and in 8-bit fixed point, at each sparsity."""
    sparsities = sorted({record.target_sparsity for record in records} - {0.0})
    rows = []
    for network, cells in networks(records).items():
        for pattern, strategy in dict.fromkeys((pattern, strategy) for pattern, strategy, _ in cells):
            told = [cells.get((pattern, strategy, sparsity), {}) for sparsity in sparsities]
            if pattern == "dense":
                told = [cells[pattern, strategy, 0.0], *({} for _ in sparsities[1:])]
            shown = [text for seeds in told for text in both_numbers(seeds)]
            rows.append([network, pattern, strategy, *shown, str(max(len(seeds) for seeds in told))])
    columns = [text for sparsity in sparsities for text in (f"{sparsity:.0%}", "8 bits")]
    return table(["network", "pattern", "strategy", *columns, "seeds"], rows, left=3)


def both_numbers(seeds: dict[int, Record]) -> Row:
    """Means over seeds, in float32 and in the numbers of the engines; empty where there is none."""
    found = [[record.value for record in seeds.values()], [in_fixed_point(record) for record in seeds.values()]]
    return [f"{mean(values):.2f}" if values and None not in values else "" for values in found]  # type: ignore[type-var]


def against_reference(records: tuple[Record, ...]) -> str:
    """Test accuracy minus that of unstructured under the same strategy, paired by seed, with Holm over all pairs."""
    found = {
        (network, cell): each for network, cells in networks(records).items() for cell, each in compared(cells).items()
    }
    said = verdicts(found, better="higher")
    sparsities = sorted({cell[2] for _, cell in found})
    rows = []
    for network, pattern, strategy in dict.fromkeys((network, cell[0], cell[1]) for network, cell in found):
        shown = [(network, (pattern, strategy, sparsity)) for sparsity in sparsities]
        rows.append([network, pattern, strategy, *(
            difference(found[key], said[key]) if key in found else "" for key in shown
        )])  # fmt: skip
    return table(["network", "pattern", "strategy", *(f"{each:.0%}" for each in sparsities)], rows, left=3)


def difference(found: Comparison, verdict: str) -> str:
    """A difference with its interval; in bold if it is significant."""
    half = found.difference.half
    text = f"{found.difference.mean:+.2f}" + ("" if half is None else f" ± {half:.2f}")
    return f"**{text}**" if verdict in ("better", "worse") else text


def kept(records: tuple[Record, ...]) -> str:
    """How many weights patterns keep at each sparsity against unstructured, in %, where it is not the same."""
    rows = []
    for network, cells in networks(records).items():
        sparsities = sorted({sparsity for _, _, sparsity in cells} - {0.0})
        for pattern in dict.fromkeys(pattern for pattern, _, _ in cells if pattern not in ("dense", REFERENCE)):
            row = []
            for sparsity in sparsities:
                strategy = next(each for name, each, at in cells if (name, at) == (pattern, sparsity))
                ours, theirs = (
                    next(iter(cells[name, strategy, sparsity].values())).sparsity or 0.0
                    for name in (pattern, REFERENCE)
                )
                row.append(f"{100 * ((1 - ours) / (1 - theirs) - 1):+.1f}")
            rows.append([network, pattern, *row])
    return table(["network", "pattern", *(f"{sparsity:.0%}" for sparsity in sparsities)], rows, left=2)


def cnn_hardware(records: tuple[Record, ...]) -> str:
    """Cycles of one image, of the lowest seed, on each device's fastest engine that fits."""
    rows = []
    for network, cells in networks(records).items():
        for (pattern, strategy, sparsity), seeds in cells.items():
            if strategy.startswith("lr_rewinding"):
                continue  # it prunes the same dense model as fine-tuning does, by the same scores
            rows.append([network, pattern, strategy, f"{sparsity:.0%}", *on_devices(seeds[min(seeds)])])
    return table(["network", "pattern", "strategy", "sparsity", *ON_DEVICES], rows, left=3)


def cnn_front(records: tuple[Record, ...]) -> str:
    """What no other row beats in both accuracy (8 bits, mean over seeds) and latency, by network and device."""
    rows = []
    for network, cells in networks(records).items():
        for device in DEVICES:
            points = []
            for (pattern, strategy, sparsity), seeds in cells.items():
                value, cost = both_numbers(seeds)[1], fastest(seeds[min(seeds)]).get(device)
                if value and cost:
                    row = [network, device, f"{cost[2]:.2f}", value, pattern, strategy, f"{sparsity:.0%}", cost[0]]
                    points.append((cost[2], -float(value), row))
            rows += unbeaten(points)
    return table(["network", "device", "µs", "accuracy", "pattern", "strategy", "sparsity", "engine"], rows, left=2)


# --- the pages ------------------------------------------------------------------------------------------------------


def language_model() -> dict[str, str]:
    """Every table of docs/study.md, by the name in its mark."""
    grid = read(RESULTS / "records.json")
    return {
        "perplexity": perplexity(grid),
        "differences": differences(grid),
        "interaction": depends(grid),
        "strategies": strategies(grid),
        "effort": effort(grid),
        "cost": cost(grid),
        "hardware": hardware(grid),
        "front": front(grid),
        "rates": rates(read(RESULTS / "fine_tuning_rate.json")),
        "frameworks": frameworks(read(KERAS / "records.json")),
        **{name: beside(read(records), grid) for name, records in BESIDE.items()},
    }


def convolutional() -> dict[str, str]:
    """Every table of docs/study_cnn.md, by the name in its mark."""
    grid = read(CNN_RESULTS / "records.json")
    return {
        "accuracy": accuracy(grid),
        "differences": against_reference(grid),
        "kept": kept(grid),
        "hardware": cnn_hardware(grid),
        "front": cnn_front(grid),
    }


PAGES: dict[Path, Callable[[], dict[str, str]]] = {
    ROOT / "docs" / "study.md": language_model,
    ROOT / "docs" / "study_cnn.md": convolutional,
}


def pictures(folder: Path) -> list[Chart]:
    """What is drawn of the records of a folder, each in a file of its name: the pictures that a report has of them."""
    found = charts(tables_of(read(folder / "records.json")))
    return [chart for chart in found if chart.name.split("-")[0] in PICTURES]


def draw(folder: Path) -> None:
    """Draw them beside the records, each with its numbers as CSV."""
    for chart in pictures(folder):
        write_output(folder / f"{chart.name}.svg", drawn([chart], "svg"))
        write_output(folder / f"{chart.name}.csv", tabular.lines(chart.data()))


def filled(page: str, tables: dict[str, str]) -> str:
    """The page with each table between its marks."""
    for name, text in tables.items():
        pattern = rf"(<!-- table: {name} -->\n).*?(\n?<!-- end -->)"
        page = re.sub(pattern, lambda found, text=text: f"{found[1]}{text}\n<!-- end -->", page, flags=re.DOTALL)
    return page


def without_layers(record: Record) -> Record:
    """A record whose costs tell the parts of their cycles, and not those of every layer, nor energy."""
    costs = {}
    for name, cost in record.hardware.items():
        costs[name] = {what: told for what, told in cost.items() if what != "event_energy_uj"}
        details = cost.get("details")
        if isinstance(details, dict):
            costs[name]["details"] = {what: told for what, told in details.items() if what not in LENGTHY}
    return record.model_copy(update={"hardware": costs})


def take(folder: Path, name: str) -> None:
    """Copy what a large run came to."""
    place = ROOT / "docs" / "results" / name
    place.mkdir(exist_ok=True)
    write(place / "records.json", [without_layers(record) for record in read(folder / "records.json")])
    for beside in (
        "report.md",
        "spec.yaml",
    ):  # what was asked for: `verify` reads it where cells were added to the grid
        (place / beside).write_bytes((folder / beside).read_bytes())


def main(arguments: list[str]) -> None:
    """What the command line asks for."""
    if arguments[:1] == ["--take"]:
        take(Path(arguments[1]), arguments[2])
        return
    if "--write" in arguments:
        for folder in (RESULTS, CNN_RESULTS):
            draw(folder)
    for path, tables in PAGES.items():
        if "--write" in arguments:
            path.write_text(filled(path.read_text(), tables()))
        else:
            for name, text in tables().items():
                print(f"{path.name}: {name}\n\n{text}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
