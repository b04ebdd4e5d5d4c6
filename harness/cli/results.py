"""`report`, `figures`, `records`, `export`: what is made of a finished or running run."""

import os
import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness._text import plural
from harness.cli._common import (
    DEFAULT_STORE,
    FullOption,
    OutputOption,
    PluginOption,
    StoreOption,
    echo,
    give,
    guarded,
    stderr,
    stdout,
    warn_of,
    write_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.results.records import Record


class ExportFormat(StrEnum):
    """The forms of an exported cell."""

    safetensors = "safetensors"
    csb = "csb"
    csr = "csr"
    bitmap = "bitmap"
    n_m = "n_m"
    block = "block"


class ReportFormat(StrEnum):
    """The forms of a report, all from the same rows."""

    rich = "rich"
    md = "md"
    html = "html"
    latex = "latex"
    json = "json"
    csv = "csv"
    tidy = "tidy"
    parquet = "parquet"


_FORMS = {
    ".md": ReportFormat.md, ".html": ReportFormat.html, ".htm": ReportFormat.html, ".tex": ReportFormat.latex,
    ".json": ReportFormat.json, ".csv": ReportFormat.csv, ".parquet": ReportFormat.parquet,
}  # fmt: skip
"""The form that a file is written in, by the end of its name, where nobody says another."""


class PictureStyle(StrEnum):
    """What pictures are for."""

    thesis = "thesis"
    slides = "slides"


class PictureForm(StrEnum):
    """The forms of pictures."""

    pdf = "pdf"
    svg = "svg"
    png = "png"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(report)
    app.command()(figures)
    app.command()(records)
    app.command()(export)


@guarded
def report(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            help="Run id, the beginning of one, or a run's folder; several are joined.", show_default="the latest run"
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    given: Annotated[
        ReportFormat | None,
        typer.Option("--format", "-f", help="Form of the report.", show_default="as the file ends, else rich"),
    ] = None,
    output: OutputOption = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", min=0, help="Equivalence margin, in the metric's unit.", show_default="the spec's"),
    ] = None,
    full: FullOption = False,
    plugin: PluginOption = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            metavar="FILE",
            help="Draw metric against sparsity to a .svg or .png file instead (needs the extra `plots`).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the report of a run again, from its records alone; a run under way is marked partial.

    A terminal gets the answer, on one screen, and with --full every table; a file always has them all.
    """
    from harness import report
    from harness.api import SpecError
    from harness.inspection.columns import checked, columns_of
    from harness.inspection.lookup import find_run
    from harness.results import records

    form = given or _form_of(output)
    found = [find_run(store, each) for each in (dict.fromkeys(run) if run else (None,))]
    read = [records.read(each / "records.json", details=form is ReportFormat.json) for each in found]
    folder, rows = found[0], read[0] if len(read) == 1 else _joined(found, read)
    rows = checked(rows, folder, plugin or ())
    if picture is not None:
        report.picture(rows, picture)
        echo(f"wrote {picture}")
        return
    margin = _common_margin(found) if margin is None else margin
    title, columns = " + ".join(each.name for each in found), columns_of(folder, plugin or ())
    if form is ReportFormat.rich and output is None:
        places = where(folder) if len(found) == 1 else [("all tables", f"harness report {' '.join(run or ())} --full")]
        report.render(rows, title=title, margin=margin, console=stdout(), full=full, where=places, columns=columns)
        return
    if form is ReportFormat.parquet:
        if output is None:
            raise SpecError("report: a Parquet file is no text to print; name it with -o FILE")
        write_bytes(output, report.parquet(rows, columns))
        warn_of(columns)
        return
    name: report.Format = form.value  # type: ignore[assignment]  # parquet has been dealt with
    text = report.render(rows, format=name, title=title, margin=margin, columns=columns)
    give(text, output)
    if output is not None or form in (ReportFormat.json, ReportFormat.csv, ReportFormat.tidy):  # a page says it itself
        warn_of(columns)


def _form_of(output: Path | None) -> ReportFormat:
    """The form that the end of a file's name asks for; refuses one that no form has, as `.pdf`."""
    from harness.api import SpecError

    suffix = output.suffix.lower() if output else ""
    # No suffix, and what is for people anyway, is a text as a terminal shows it.
    if suffix in _FORMS or suffix in ("", ".txt", ".log"):
        return _FORMS.get(suffix, ReportFormat.rich)
    raise SpecError(
        f"report: expected a file ending in {', '.join(_FORMS)} or .txt, got {str(output)!r}; rename it, or say the "
        "form with --format"
    )


def _joined(folders: "list[Path]", read: "Sequence[Sequence[Record]]") -> "Sequence[Record]":
    """The cells of several runs as one study."""
    from harness.report.versus import Side, joined

    return joined([Side(folder.name, rows) for folder, rows in zip(folders, read, strict=True)])


def _common_margin(folders: "list[Path]") -> float | None:
    """The equivalence margin of the experiments; where they disagree there is none."""
    from harness.api import SpecError
    from harness.inspection.lookup import margin_of

    margins = list(dict.fromkeys(margin_of(folder) for folder in folders))
    if len(margins) > 1:
        raise SpecError(
            f"report: the experiments name different margins ({', '.join(map(str, margins))}); give one with --margin"
        )
    return margins[0]


@guarded
def figures(
    run: Annotated[
        str | None,
        typer.Argument(help="Run id, the beginning of one, or a run's folder.", show_default="the latest run"),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder, made where it is not there.")
    ] = Path("figures"),
    style: Annotated[PictureStyle, typer.Option("--style", help="Sizes for a page or for a projector.")] = (
        PictureStyle.thesis
    ),
    form: Annotated[
        list[PictureForm] | None,
        typer.Option("--format", "-f", help="Form of the files; may be repeated.", show_default="all"),
    ] = None,
) -> None:
    """Draw the pictures of a run as files, each with its data as CSV beside it (needs the extra `plots`)."""
    from harness import report
    from harness.inspection.lookup import find_run, margin_of
    from harness.results import records

    folder = find_run(store, run)
    rows = records.read(folder / "records.json", details=False)
    forms: list[Literal["pdf", "svg", "png"]] = [each.value for each in form or PictureForm]
    written = report.figures(rows, output, style=style.value, forms=forms, margin=margin_of(folder))
    echo(f"wrote {len(written)} files to {output}: {', '.join(dict.fromkeys(path.stem for path in written))}")


@guarded
def records(
    run: Annotated[str, typer.Argument(help="A file of records, or a run: its id, the beginning of one, its folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file; it may be the same one.")],
    store: StoreOption = DEFAULT_STORE,
    plain: Annotated[
        bool, typer.Option("--plain", help="Write every record whole, however large the file becomes.")
    ] = False,
) -> None:
    """Write the records of a run again: in a large file what they have in common is said once, with --plain nothing is.

    What the records say is the same in both.
    """
    from harness.cli.store import size
    from harness.inspection.lookup import find_run
    from harness.results.records import content, read

    source = Path(run) if os.path.isfile(run) else find_run(store, run) / "records.json"
    before, found = source.stat().st_size, read(source)
    written = content(found, plain=plain)
    write_bytes(output, written)
    told = f"wrote {output}: {plural(len(found), 'record')}, {size(len(written))}; what was read had {size(before)}"
    stderr().print(told, markup=False, soft_wrap=True)


def where(folder: Path) -> list[tuple[str, str]]:
    """Where more about a run is to be found."""
    pages = [(name, folder / file) for name, file in (("page", "report.html"), ("report", "report.md"))]
    return [
        *[(name, str(path)) for name, path in pages if path.exists()][:1],
        ("all tables", f"harness report {shlex.quote(str(folder))} --full"),
    ]


@guarded
def export(
    cell: Annotated[str, typer.Argument(help="Id of a cell, as records.json and `harness plan --json` give it.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file.", show_default="CELL.safetensors or CELL.npz"),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[
        ExportFormat, typer.Option("--format", "-f", help="safetensors, or how pruned matrices are packed (.npz).")
    ] = ExportFormat.safetensors,
    banks: Annotated[
        int | None,
        typer.Option("--banks", min=1, help="Banks per row of csb.", show_default="what each mask has"),
    ] = None,
    memories: Annotated[
        Path | None,
        typer.Option("--hex", metavar="DIR", help="Write memory files for RTL ($readmemh), too.", show_default=False),
    ] = None,
    weight_bits: Annotated[int, typer.Option("--weight-bits", min=2, max=32, help="Bits of a weight there.")] = 16,
    pes: Annotated[
        int | None,
        typer.Option("--pes", min=1, help="PEs of the bank engine: one memory file for each.", show_default=False),
    ] = None,
    lanes: Annotated[int | None, typer.Option("--lanes", min=1, help="Lanes of each PE.", show_default=False)] = None,
) -> None:
    """Write the pruned weights of a cell: as safetensors with masks, or packed."""
    from harness.api import SpecError
    from harness.execution import export as exporting
    from harness.formats.packing import FORMATS

    suffix = ".safetensors" if form is ExportFormat.safetensors else ".npz"
    if output is not None and output.suffix.lower() != suffix:
        # Whoever loads a file goes by its name.
        raise SpecError(f"export: expected a file ending in {suffix} for {form.value}, got {str(output)!r}; rename it")
    if form is ExportFormat.safetensors:
        given = {"--banks": banks, "--hex": memories, "--pes": pes, "--lanes": lanes}
        extra = ", ".join(option for option, value in given.items() if value is not None)
        if extra:
            raise SpecError(f"export: {extra} are for packed formats, got safetensors; add e.g. --format csb")
        path = output or Path(f"{cell}.safetensors")
        exporting.export(store, cell, path)
    else:
        if memories is None and (pes is not None or lanes is not None):
            raise SpecError("export: --pes and --lanes shape memory files, got no folder for them; add --hex DIR")
        path = output or Path(f"{cell}.npz")
        packed = next(name for name in FORMATS if name == form.value)
        how = exporting.Packing(packed, banks, memories, weight_bits, pes, lanes)
        exporting.export_packed(store, cell, path, how)
    echo(f"wrote {path}" + (f" and memory files in {memories}" if memories is not None else ""))
