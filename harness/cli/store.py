"""`merge`, `gc`: stores joined, and cleared of what nothing needs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness._text import plural
from harness.cli._common import (
    DEFAULT_STORE,
    EXIT_CELL_FAILED,
    JsonOption,
    StoreOption,
    echo,
    guarded,
    print_json,
    stderr,
)

if TYPE_CHECKING:
    from harness.store.collection import Collected

KINDS = {
    "state": "states that no run starts from again",
    "stage": "stages that no run rests on",
    "damaged": "files of damaged or unfinished stages",
    "temporary": "half-written files",
    "claim": "claims of dead runs",
}

SHOWN = 10
"""Files listed of each kind; --json has all."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(merge)
    app.command()(gc)


@guarded
def merge(
    sources: Annotated[list[Path], typer.Argument(metavar="SRC...", help="Stores to bring over; they are only read.")],
    store: StoreOption = DEFAULT_STORE,
) -> int:
    """Bring every stage and run of other stores into this one, checked on the way.

    What is there already stays. Exits with 1 if something was left out: damaged, or with another result than here.
    """
    from harness.store.merging import merge as merge_stores

    merged = merge_stores(sources, store)
    console = stderr()
    for line in (*merged.damaged, *merged.differing):
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    parts = [f"{plural(merged.stages, 'stage')} brought over", f"{merged.equal} there already"]
    parts += [f"{plural(merged.states, 'state')} added"] if merged.states else []
    parts += [f"{merged.unfinished} unfinished passed over"] if merged.unfinished else []
    parts += [f"{plural(merged.runs, 'run')} joined", f"{size(merged.size_bytes)} copied"]
    parts += [f"{len(merged.differing)} not reproducible"] if merged.differing else []
    parts += [f"{len(merged.damaged)} left out as damaged"] if merged.damaged else []
    echo(f"{store}: {', '.join(parts)}")
    return 0 if merged.is_complete else EXIT_CELL_FAILED


@guarded
def gc(
    store: StoreOption = DEFAULT_STORE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    unreferenced: Annotated[
        bool,
        typer.Option("--unreferenced", help="Stages, too, that no run in the store rests on: metrics, masks and all."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what nothing in the store needs: passing states, damaged and half-written files, claims of dead runs."""
    from harness.store.collection import collect

    found = collect(store, dry_run=dry_run, unreferenced=unreferenced)
    console = stderr()
    for line in found.kept:
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    if as_json:
        items = [
            {"kind": item.kind, "path": item.path.as_posix(), "size_bytes": item.size_bytes} for item in found.items
        ]
        print_json({"dry_run": dry_run, "size_bytes": found.size_bytes, "items": items, "kept": found.kept})
        return
    _print(found)
    echo(f"{store}: {size(found.size_bytes)} {'would be freed' if dry_run else 'freed'}")


def _print(found: "Collected") -> None:
    # By kind, in the order of the table above: what costs least to lose comes first.
    for kind, description in KINDS.items():
        items = [item for item in found.items if item.kind == kind]
        if items:
            echo(f"{len(items)} {description}, {size(sum(item.size_bytes for item in items))}")
            for item in items[:SHOWN]:
                echo(f"  {item.path.as_posix()}  {size(item.size_bytes)}")
            if len(items) > SHOWN:
                echo(f"  ... and {len(items) - SHOWN} more; --json lists them")


def size(count: int) -> str:
    """A number of bytes as people read it, in powers of ten."""
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{count} bytes" if units[0] == "bytes" else f"{value:.1f} {units[0]}"
