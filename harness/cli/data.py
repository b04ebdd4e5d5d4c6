"""`data list`, `data fetch`, `data verify`: the data sets that tasks read from files."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli._common import EXIT_GATE, JsonOption, echo, guarded, print_document, print_json, stderr

if TYPE_CHECKING:
    from harness.data import FileStatus
    from harness.report.page import Document

app = typer.Typer(help="List, fetch and verify data sets.", no_args_is_help=True)

STYLES = {"ok": "green", "missing": "yellow", "wrong": "red"}

FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="The data folder.", show_default="$HARNESS_DATA, else the user's data folder"
    ),
]


@app.command("list")
@guarded
def list_sets(data_dir: FolderOption = None, as_json: JsonOption = False) -> None:
    """List the data sets and which of their files are there, judged by size."""
    from harness import data

    folder = data.target_folder(data_dir)
    files = data.survey(folder)
    if as_json:
        print_json([file.model_dump(mode="json") for file in files])
        return
    about = [f"{each.name}: {each.description}" for each in data.DATA_SETS.values()]
    print_document(files_document(files, folder, about))


@app.command("fetch")
@guarded
def fetch(
    name: Annotated[str, typer.Argument(help="The data set: ptb, mnist or fashion_mnist.")],
    data_dir: FolderOption = None,
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", metavar="URL", help="Another address of the files.", show_default="the usual one"),
    ] = None,
) -> None:
    """Download what is missing or wrong of a data set and check it by SHA-256; right files are left alone."""
    from rich.progress import Progress

    from harness import data

    folder = data.target_folder(data_dir)
    console = stderr()
    # Elsewhere than in a terminal it would leave an empty line behind.
    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        bars = {file.name: shown.add_task(file.name, total=file.size) for file in data.data_set(name).files}
        before = data.fetch(
            name, folder, base_url=base_url, progress=lambda file, done, size: shown.update(bars[file], completed=done)
        )
    # What was right before is told as it was; the others have been fetched to their usual place.
    for file in before:
        state = "was there already" if file.state == "ok" else "fetched"
        path = file.path if file.state == "ok" else folder / name / file.file.name
        echo(f"{file.file.name}: {state}, {path}")


@app.command("verify")
@guarded
def verify(
    name: Annotated[
        str | None, typer.Argument(help="The data set: ptb, mnist or fashion_mnist.", show_default="all")
    ] = None,
    data_dir: FolderOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check data sets by SHA-256; a file that is missing or wrong ends with exit code 6."""
    from harness import data

    folder = data.target_folder(data_dir)
    names = [name] if name is not None else list(data.DATA_SETS)
    files = [file for each in names for file in data.verify(each, folder)]
    if as_json:
        print_json([file.model_dump(mode="json") for file in files])
    else:
        print_document(files_document(files, folder))
    return 0 if all(file.state == "ok" for file in files) else EXIT_GATE


def files_document(files: "Iterable[FileStatus]", folder: Path, about: "Iterable[str]" = ()) -> "Document":
    """The files of data sets with their state and place, seen from the data folder."""
    from harness.cli.store import size
    from harness.report.page import Column, Document, Section, table

    def place(file: "FileStatus") -> str:
        # Below the folder, which is said once: whole paths are wider than terminals.
        return str(file.path.relative_to(folder) if file.path.is_relative_to(folder) else file.path)

    columns: list[Column[FileStatus]] = [
        Column("data set", lambda file: file.data_set, kind="label", matters="key"),
        Column("file", place, kind="label", matters="key"),
        Column("size", lambda file: size(file.file.size)),
        Column("state", lambda file: file.state, kind="label", style=lambda file: STYLES[file.state]),
    ]
    return Document("", (Section("", (f"in {folder}",), table(columns, list(files), notes=list(about))),))
