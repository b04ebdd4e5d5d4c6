"""`hardware emit`: one layer of a cell or a file as Verilog, with its memories and a bench that has been run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli._common import (
    DEFAULT_STORE,
    EXIT_GATE,
    DataDirOption,
    JsonOption,
    PluginOption,
    StoreOption,
    echo,
    guarded,
    print_json,
    stderr,
)
from harness.cli.hardware import (
    AccBitsOption,
    ActBitsOption,
    BanksOption,
    DeviceOption,
    Layout,
    LayoutOption,
    MultipliersOption,
    SetOption,
    WeightBitsOption,
    parameters_of,
    request_of,
)

if TYPE_CHECKING:
    from harness.api import HardwareModel, JsonValue, NumberFormat, Operands, Workload
    from harness.costing.costs import Request
    from harness.costing.emission import Draw, Emitted
    from harness.discovery.registry import Registry

_FILES = (".npz", ".npy", ".safetensors", ".json", ".mtx", ".smtx", ".onnx", ".yaml", ".yml")


@guarded
def emit(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CELL|FILE",
            help="A finished cell, as `harness show` takes it, or a file of masks or weights.",
            show_default=False,
        ),
    ],
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="NAME[:k=v,...]|FILE",
            help="bank or column_fifo, with its parameters, or a YAML file that has them.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="The design's folder; not there yet, or empty.", show_default=False
        ),
    ],
    layer: Annotated[
        str | None,
        typer.Option("--layer", metavar="NAME", help="Of several layers, which.", show_default="the only one"),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option("--whole-layer", help="An LSTM layer with its element-wise part, h fed back inside; on bank."),
    ] = False,
    vectors: Annotated[
        int, typer.Option("--vectors", min=1, max=1000, help="Vectors, or steps, that the bench runs.")
    ] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Draws what a file does not have.")] = 0,
    device: DeviceOption = None,
    multipliers: MultipliersOption = None,
    weight_bits: WeightBitsOption = None,
    act_bits: ActBitsOption = None,
    acc_bits: AccBitsOption = None,
    settings: SetOption = None,
    layout: LayoutOption = Layout.auto,
    banks: BanksOption = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN", help="Run of the cell.", show_default="the latest that has it"),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    data_dir: DataDirOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write the Verilog of an engine for one layer's mask, and run its bench; exit 6 if a product or a cycle differs.

    The shape is the one that `hardware cost` finds for this layer alone.
    """
    from harness.costing import emission
    from harness.discovery.finding import discover_given

    emission.check_folder(output)
    registry = discover_given(plugin or ())
    parameters = parameters_of(
        settings, device=device, multipliers=multipliers, weight_bits=weight_bits, activation_bits=act_bits,
        accumulator_bits=acc_bits,
    )  # fmt: skip
    model, numbers = _model(registry, request_of(registry.names("hardware"), None, [engine], parameters))
    draw = emission.Draw(vectors, seed)
    if _is_file(source):
        workload, operands = _of_file(Path(source), layout, banks, layer, numbers, draw, whole=whole)
    else:
        workload, operands = _of_cell(source, run, store, data_dir, layer, numbers, vectors, whole=whole)
    with stderr().status("making the design") as status:  # shown in a terminal only
        made = emission.emit(
            model, workload, operands, output,
            lambda circuit: status.update(f"running its bench: {circuit.told.get('bench', circuit.top)}"),
        )  # fmt: skip
    if as_json:
        print_json(_plain(made))
    else:
        for line in _told(made):
            echo(line)
    return 0 if made.holds else EXIT_GATE


def _is_file(source: str) -> bool:
    return source.lower().endswith(_FILES) or Path(source).is_file()


def _model(registry: "Registry", request: "Request") -> "tuple[HardwareModel, NumberFormat]":
    """The first hardware model, with the engine that was named, and the numbers that it computes in."""
    from harness.api import SpecError
    from harness.costing.costs import candidates, model_classes
    from harness.discovery.asking import number_format_of

    names = [model.name for model in model_classes(registry)]
    if not names:
        raise SpecError("expected a hardware model, got none installed; `harness plugins list hardware` tells why")
    (candidate,) = candidates(registry, names[0], request)
    numbers = number_format_of(candidate.component)
    if numbers is None:
        raise SpecError(f"{names[0]}: a design needs a number format, got evaluated=false; leave it out")
    return candidate.component, numbers


def _of_file(
    path: Path,
    layout: Layout,
    banks: int | None,
    layer: str | None,
    numbers: "NumberFormat",
    draw: "Draw",
    *,
    whole: bool,
) -> "tuple[Workload, Operands]":
    from harness.api import SpecError
    from harness.costing import emission
    from harness.costing.workload import DESCRIPTIONS, read_given

    if path.suffix.lower() in DESCRIPTIONS:
        raise SpecError(f"{path} describes layers by size: a design needs masks, expected a file of them; name one")
    # One product of a convolution is the same at every position, whose number does not matter here.
    sizes = {"*": (1, 1)}
    given = read_given(path, layout=layout.value, banks=banks, output_sizes=sizes)
    workload = emission.one_layer(given.workload, layer)
    return workload, emission.file_operands(path, workload, numbers, numbers.activation_bits, draw, whole=whole)


def _of_cell(
    text: str,
    run: str | None,
    store: Path,
    data_dir: Path | None,
    layer: str | None,
    numbers: "NumberFormat",
    most: int,
    *,
    whole: bool,
) -> "tuple[Workload, Operands]":
    from harness.execution.emitting import cell_model, layer_of, operands_of_cell

    found = cell_model(store, text, run, data_dir)
    workload = layer_of(found, layer)
    return workload, operands_of_cell(found, workload.tensors[0].layer, numbers, most, whole=whole)


def _told(made: "Emitted") -> list[str]:
    """The design, its bench, and what to do next."""
    circuit, folder, bench = made.circuit, made.folder, made.bench
    lines = [
        f"{circuit.top} in {folder}: {circuit.told.get('shape', circuit.cost.shape)}",
        f"{circuit.cycles} cycles from a vector to its results, {circuit.cost.cycles} in the cost model; "
        f"{circuit.cost.multipliers} multipliers, {'fits' if circuit.cost.fits else 'does not fit'} the device",
    ]
    if bench is None:
        return [
            *lines,
            "bench: NOT RUN, no simulator is installed; install Icarus (iverilog) or Verilator 5, then run "
            f"`make -C {folder}`",
        ]
    if bench.holds:
        return [
            *lines,
            f"bench: {bench.simulator} ran {bench.products} products: all {bench.values} beats of results as expected, "
            f"every product in {bench.cycles} cycles",
        ]
    return [
        *lines,
        f"bench: FAILED in {bench.simulator}: {bench.products} of {bench.wanted} products ran, {bench.wrong} beats of "
        f"results are wrong, {bench.off} products took other than {bench.expected} cycles; the design is kept to be "
        "looked at",
    ]


def _plain(made: "Emitted") -> "dict[str, JsonValue]":
    from dataclasses import asdict

    bench = None if made.bench is None else {**asdict(made.bench), "holds": made.bench.holds}
    return {
        "top": made.circuit.top,
        "folder": made.folder.as_posix(),
        "cycles": made.circuit.cycles,
        "told": dict(made.circuit.told),
        "files": [*sorted(made.circuit.files)],
        "bench": bench,
        "cost": made.circuit.cost.model_dump(mode="json"),
    }
