"""`hardware list`, `cost`, `sweep`, `validate`: what masks cost on accelerators, without any training."""

import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli._common import (
    EXIT_CELL_FAILED,
    EXIT_GATE,
    JsonOption,
    PluginOption,
    echo,
    guarded,
    print_document,
    print_json,
    stderr,
    write_text,
)
from harness.cli._searching import Searching, SearchProgress, ShowOption

if TYPE_CHECKING:
    from harness.api import JsonValue
    from harness.costing.costs import Report, Request
    from harness.costing.entries import Entry
    from harness.costing.workload import Given

app = typer.Typer(help="Cost masks on accelerators, sweep their designs, check the models.", no_args_is_help=True)


class Layout(StrEnum):
    """How matrices lie in a file."""

    auto = "auto"
    rows_out = "rows_out"
    rows_in = "rows_in"


class CostFormat(StrEnum):
    """The forms of costs, all from the same rows."""

    rich = "rich"
    md = "md"
    json = "json"
    csv = "csv"


class Inputs(StrEnum):
    """When the next input of a recurrent layer is known."""

    closed_loop = "closed_loop"
    known_ahead = "known_ahead"


FileArgument = Annotated[
    Path | None,
    typer.Argument(
        help="Masks or weights (.npz, .npy, .safetensors, .mtx, .smtx, .onnx), or layers by size (.yaml).",
        show_default=False,
    ),
]
WorkloadOption = Annotated[
    Path | None,
    typer.Option(
        "--workload", metavar="FILE", help="Layers by size and density (.yaml); no masks.", show_default=False
    ),
]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="NAME[:k=v,...]|FILE",
        help="An engine with its parameters, or a YAML file that has them; may be repeated.",
        show_default="all engines",
    ),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="A hardware model, or `all`; may be repeated.",
        show_default="the first that can: exact with masks, else from statistics",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME|FILE", help="A device of `hardware list`, or a file.", show_default=False),
]
LayoutOption = Annotated[Layout, typer.Option("--layout", help="How matrices lie where the file does not say.")]
BanksOption = Annotated[
    int | None,
    typer.Option("--banks", min=1, help="Equally filled banks per row of every pruned matrix.", show_default=False),
]
OutputSizeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--output-size",
        metavar="LAYER=HxW",
        help="Output of a convolution, or positions of a matrix; * for all convolutions of unknown size; "
        "may be repeated.",
        show_default=False,
    ),
]
ActivationOption = Annotated[
    list[str] | None,
    typer.Option(
        "--activation-density",
        metavar="[LAYER=]D",
        help="Fraction of inputs that are not zero, of all layers or of one; may be repeated.",
        show_default="1",
    ),
]
MultipliersOption = Annotated[
    int | None, typer.Option("--multipliers", help="Budget of multipliers.", show_default=False)
]
WeightBitsOption = Annotated[
    int | None, typer.Option("--weight-bits", help="Bits of a weight.", show_default="the model's")
]
ActBitsOption = Annotated[
    int | None, typer.Option("--act-bits", help="Bits of a vector element.", show_default="the model's")
]
AccBitsOption = Annotated[int | None, typer.Option("--acc-bits", help="Bits of a sum.", show_default="the model's")]
BandwidthOption = Annotated[
    float | None,
    typer.Option("--bandwidth", help="Off-chip bandwidth reached, GB/s.", show_default="the device's"),
]
InputsOption = Annotated[
    Inputs | None,
    typer.Option("--inputs", help="Whether the next input waits for the last output.", show_default="closed_loop"),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Any other parameter of the model; may be repeated.", show_default=False
    ),
]


@app.command("list")
@guarded
def list_hardware(plugin: PluginOption = None, as_json: JsonOption = False) -> None:
    """List engines and devices, every figure with its origin."""
    from harness.costing.costs import device_rows, engine_rows
    from harness.discovery.finding import discover_given

    registry = discover_given(plugin or ())
    engines, devices = engine_rows(registry), device_rows(registry)
    if as_json:
        print_json({"engines": engines, "devices": devices})
        return
    from harness.costing import tables

    print_document(tables.list_document(engines, devices))


@app.command()
@guarded
def cost(
    file: FileArgument = None,
    workload: WorkloadOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    layout: LayoutOption = Layout.auto,
    banks: BanksOption = None,
    output_size: OutputSizeOption = None,
    activation_density: ActivationOption = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Inputs, one after another or over streams.")] = 1,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Time steps of every input.")] = 1,
    multipliers: MultipliersOption = None,
    weight_bits: WeightBitsOption = None,
    act_bits: ActBitsOption = None,
    acc_bits: AccBitsOption = None,
    clock: Annotated[
        float | None, typer.Option("--clock", help="Clock of every engine, MHz.", show_default="each engine's own")
    ] = None,
    bandwidth: BandwidthOption = None,
    inputs: InputsOption = None,
    pipelined: Annotated[
        bool, typer.Option("--pipelined", help="Also layers on engines of their own, all at the same time.")
    ] = False,
    settings: SetOption = None,
    form: Annotated[
        CostFormat, typer.Option("--format", "-f", help="Form of the costs; csv has a line per engine.")
    ] = CostFormat.rich,
    perfetto: Annotated[
        Path | None,
        typer.Option(
            "--perfetto",
            metavar="FILE",
            help="Also write products and loads of the PEs as a trace for ui.perfetto.dev.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Draw cycles, loads, roofline and masks to .html, .svg, .png or .pdf; may be repeated.",
            show_default=False,
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Print clocks, resources, layers and storage, too.")] = False,
    breakdown: Annotated[
        list[str] | None,
        typer.Option(
            "--breakdown",
            metavar="ENGINE",
            help="Layers of an engine: where its cycles go; may be repeated.",
            show_default="with --full, the best engine's",
        ),
    ] = None,
    plugin: PluginOption = None,
    show: ShowOption = SearchProgress.auto,
    as_json: JsonOption = False,
) -> int:
    """Cost masks, weights or a description of layers on every engine that can run them."""
    from harness.costing import costs
    from harness.discovery.finding import discover_given

    if output:
        from harness.costing import pictures

        for path in output:  # before anything is computed
            pictures.check_output(path)
    given = _given(file, workload, layout, banks, output_size, activation_density)
    parameters = parameters_of(
        settings, device=device, multipliers=multipliers, weight_bits=weight_bits, activation_bits=act_bits,
        accumulator_bits=acc_bits, clock_mhz=clock, bandwidth_gbytes_per_s=bandwidth, inputs=inputs,
        pipelined=pipelined or None,
    )  # fmt: skip
    registry = discover_given(plugin or ())
    request = request_of(registry.names("hardware"), model, engine, parameters)
    with Searching("searching shapes", show, is_summed_up=True) as progress:
        report = costs.report(registry, given.workload, request, costs.Load(batch, steps), given.told(), progress.told)
    if breakdown:
        report.require(breakdown)
    for path in output or ():
        from harness.costing import cost_tables

        pictures.write(report, given.workload.masks, path, cost_tables.cost_document(report, "page"))
        stderr().print(f"wrote {path}", soft_wrap=True)
    if perfetto is not None:
        _write_trace(perfetto, report)
    _print_costs(report, CostFormat.json if as_json else form, full=full, breakdown=tuple(breakdown or ()))
    return 0 if report.is_costed else EXIT_CELL_FAILED


def _write_trace(file: Path, report: "Report") -> None:
    import json

    from harness.costing.trace import trace

    write_text(file, json.dumps(trace(report), ensure_ascii=False, separators=(",", ":")) + "\n")
    stderr().print(f"wrote {file}; open it at https://ui.perfetto.dev", markup=False, soft_wrap=True)


def _print_costs(report: "Report", form: CostFormat, *, full: bool, breakdown: tuple[str, ...]) -> None:
    from harness.costing import cost_tables
    from harness.report import markdown, tabular

    match form:
        case CostFormat.json:
            print_json(report.plain())
        case CostFormat.rich:
            if full:
                print_document(cost_tables.cost_document(report, breakdown=breakdown))
            else:
                print_document(cost_tables.first_page(report, breakdown))
        case CostFormat.md:
            echo(markdown.text(cost_tables.cost_document(report, "page")), nl=False)
        case CostFormat.csv:
            echo(tabular.text(cost_tables.cost_document(report, "data")), nl=False)


@app.command()
@guarded
def sweep(
    file: FileArgument = None,
    workload: WorkloadOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    layout: LayoutOption = Layout.auto,
    banks: BanksOption = None,
    output_size: OutputSizeOption = None,
    activation_density: ActivationOption = None,
    multipliers: Annotated[
        str, typer.Option("--multipliers", "--sizes", metavar="N,...", help="Budgets; each has its own best shape.")
    ] = "256,512,1024,2048,4096",
    fifo_depth: Annotated[
        str, typer.Option("--fifo-depth", metavar="D,...", help="FIFO depths, for engines that have a FIFO.")
    ] = "1,2,4,8,16",
    clock: Annotated[
        str | None,
        typer.Option("--clock", metavar="MHZ,...", help="Clocks of every engine.", show_default="each engine's own"),
    ] = None,
    weight_bits: WeightBitsOption = None,
    act_bits: ActBitsOption = None,
    acc_bits: AccBitsOption = None,
    bandwidth: BandwidthOption = None,
    inputs: InputsOption = None,
    settings: SetOption = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write every design to .csv or .json, or draw them to .svg, .png or .pdf; may be repeated.",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print every design, not only the best ones.")] = False,
    plugin: PluginOption = None,
    show: ShowOption = SearchProgress.auto,
    as_json: JsonOption = False,
) -> int:
    """Vary budget, FIFO depth and clock; print the designs that no other beats."""
    from harness.costing import sweep as designs
    from harness.discovery.finding import discover_given

    grid = designs.Grid(
        designs.whole_numbers(multipliers, "--multipliers"),
        designs.whole_numbers(fifo_depth, "--fifo-depth"),
        () if clock is None else designs.numbers(clock, "--clock"),
    )
    # Before anything is computed: a sweep takes minutes, a wrong suffix is told at once.
    for path in output or ():
        designs.check_output(path)
    given = _given(file, workload, layout, banks, output_size, activation_density)
    parameters = parameters_of(
        settings, device=device, weight_bits=weight_bits, activation_bits=act_bits, accumulator_bits=acc_bits,
        bandwidth_gbytes_per_s=bandwidth, inputs=inputs,
    )  # fmt: skip
    registry = discover_given(plugin or ())
    request = request_of(registry.names("hardware"), model, engine, parameters)
    with Searching("costing designs", show) as progress:
        points = designs.sweep(registry, given.workload, request, grid, progress.told)
    for path in output or ():
        designs.write(points, path)
        stderr().print(f"wrote {path}", soft_wrap=True)
    if as_json:
        print_json([designs.point_json(point) for point in points])
    else:
        from harness.costing import tables

        print_document(tables.sweep_document(points, everything=everything))
    return 0 if any(point.row.cost for point in points) else EXIT_CELL_FAILED


@app.command()
@guarded
def validate(
    targets: Annotated[
        Path | None,
        typer.Option(
            "--targets", metavar="FILE", help="Targets to hold the models to.", show_default="the built-in ones"
        ),
    ] = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> int:
    """Hold the models to published accelerators, simulated hardware and each other; exit 6 if a gate fails."""
    from harness.costing import checks as checking
    from harness.discovery.finding import discover_given

    registry = discover_given(plugin or ())
    with stderr().status("running the rules; simulators build the Verilog once, which takes minutes"):  # in a terminal
        checks = checking.all_checks(registry, targets)
    counts, caveats = checking.summary(checks), checking.caveats(registry)
    if as_json:
        rows = [check.model_dump(mode="json") for check in checks]
        print_json({"checks": rows, "counts": counts, "caveats": list(caveats)})
    else:
        from harness.costing import tables

        print_document(tables.check_document(checks, caveats, counts))
    return EXIT_GATE if counts["failed"] else 0


def _given(
    file: Path | None,
    workload: Path | None,
    layout: Layout,
    banks: int | None,
    output_size: list[str] | None,
    activation_density: list[str] | None,
) -> "Given":
    """What is to be costed, from the one file that the command names."""
    from harness.api import SpecError
    from harness.costing.workload import read_given

    path = workload or file
    if path is None or (workload is not None and file is not None):
        got = "none" if path is None else f"{file} and {workload}"
        raise SpecError(f"expected one FILE of masks or weights, or one --workload, got {got}; name one of the two")
    return read_given(
        path,
        layout=layout.value,
        banks=banks,
        output_sizes={name: _size(name, text) for name, text in _by_layer(output_size, "--output-size").items()},
        activation_density={
            name: _fraction(text) for name, text in _by_layer(activation_density, "--activation-density").items()
        },
    )


def _by_layer(texts: list[str] | None, option: str) -> dict[str, str]:
    """`LAYER=value` texts by layer; a value alone is told under the empty name."""
    from harness.api import SpecError

    found: dict[str, str] = {}
    for text in texts or ():
        # A value without a layer has an empty name, which stands for all of them.
        name, _, value = text.rpartition("=")
        if name in found:
            raise SpecError(f"{option}: expected every layer once, got {text!r} again; remove one")
        found[name] = value
    return found


def _size(name: str, text: str) -> tuple[int, ...]:
    from harness.api import SpecError

    extents = text.split("x")
    if not (name and len(extents) <= 3 and all(each.isdecimal() and len(each) < 10 and int(each) for each in extents)):
        raise SpecError(
            f"--output-size: expected LAYER=HEIGHTxWIDTH, such as conv_0=28x28, got {f'{name}={text}'!r:.80}; one or "
            "three extents are for convolutions over so many axes"
        )
    return tuple(int(each) for each in extents)


def _fraction(text: str) -> float:
    from harness.api import SpecError

    try:
        return float(text)
    except ValueError:
        raise SpecError(
            f"--activation-density: expected a fraction such as 0.4, got {text!r}; write a number"
        ) from None


def parameters_of(settings: list[str] | None, **options: "JsonValue") -> "Entry":
    """The parameters of the models that the command names."""
    from harness.api import SpecError
    from harness.costing.entries import assignments

    given: Entry = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise SpecError(f"{name}: expected a finite number, got {value}; write another")
    for text in settings or ():
        for name, value in assignments(text, "--set").items():
            if name in given:
                raise SpecError(f"--set: expected every parameter once, got {name!r} twice; remove one")
            given[name] = value
    return given


def request_of(
    known: tuple[str, ...], models: list[str] | None, engines: list[str] | None, parameters: Mapping[str, "JsonValue"]
) -> "Request":
    """Which models and engines the command asks."""
    from harness.costing.costs import Request
    from harness.costing.entries import engine_entry

    # Every model in place of the first that can: `all` is no name of one.
    wanted = known if models and "all" in models else tuple(dict.fromkeys(models or ()))
    return Request(wanted, tuple(engine_entry(text) for text in engines or ()), parameters)
