"""`verify`, `compare`: whether results hold, and whether two of them agree."""

import os
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness._text import plural
from harness.cli._common import (
    DEFAULT_STORE,
    EXIT_GATE,
    JsonOption,
    OutputOption,
    StoreOption,
    give,
    guarded,
    print_document,
    print_json,
)

if TYPE_CHECKING:
    from harness.report.page import Document
    from harness.report.versus import Side
    from harness.verification import Outcome, Problem


class CompareFormat(StrEnum):
    """The forms of a comparison."""

    rich = "rich"
    md = "md"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(compare)
    app.command()(verify)


@guarded
def compare(
    a: Annotated[str, typer.Argument(help="What is compared with: a run, its folder, or a records.json.")],
    b: Annotated[
        str | None, typer.Argument(help="What is compared; without it, see --between.", show_default=False)
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    between: Annotated[
        str | None,
        typer.Option(
            "--between",
            metavar="LABEL=A,B",
            help="Two values of a label, e.g. 'backend=torch,keras_tfmot', in place of two runs.",
            show_default=False,
        ),
    ] = None,
    across: Annotated[
        list[str] | None,
        typer.Option(
            "--across",
            metavar="NAME",
            help="What may differ: task, backend, pattern, allocation, strategy, data, recipe, parameters, precision, "
            "budget; may be repeated.",
            show_default=False,
        ),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="GATE",
            help="End with 6 if it is so anywhere, e.g. 'perplexity > +1% @95%' or 'cycles > +0%'; may be repeated.",
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", min=0, help="Equivalence margin, in the metric's unit.", show_default="A's spec's"),
    ] = None,
    given: Annotated[
        CompareFormat | None,
        typer.Option("--format", "-f", help="Form of the comparison.", show_default="as the file ends, else rich"),
    ] = None,
    output: OutputOption = None,
) -> int:
    """Compare two runs cell by cell, paired by seed; what is not comparable is refused unless named with --across."""
    import json

    from harness.api import SpecError
    from harness.inspection.lookup import margin_of
    from harness.report import markdown, rich
    from harness.report.versus import parse, versus

    form, gates = given or _form_of(output), [parse(text) for text in fail_if or ()]
    if (b is None) == (between is None):
        raise SpecError("compare: expected two runs, or one run and --between LABEL=A,B; give one of the two")
    free = list(across or ())
    folder, first = _side(a, store)
    if between is not None:
        label, first, second = _split(between, first)
        free.append(label)
    else:
        second = _side(str(b), store)[1]
    # The tables name both sides: two of one name could not be told apart.
    first, second = _told_apart(first, second, a, str(b))
    if margin is None and folder is not None:
        margin = margin_of(folder)
    found = versus(first, second, across=free, gates=gates, margin=margin)
    if form is CompareFormat.json:
        text = json.dumps(found.values(), indent=2, ensure_ascii=False)
    elif form is CompareFormat.md:
        text = markdown.text(found.document())
    elif output is not None:
        text = rich.text(found.document(), 120)
    else:
        print_document(found.document())
        return 0 if found.holds else EXIT_GATE
    give(text, output)
    return 0 if found.holds else EXIT_GATE


def _form_of(output: Path | None) -> CompareFormat:
    """The form that the end of a file's name asks for; refuses one that no form has."""
    from harness.api import SpecError

    forms = {"": "rich", ".txt": "rich", ".log": "rich", ".md": "md", ".json": "json"}
    suffix = output.suffix.lower() if output else ""
    if suffix not in forms:
        raise SpecError(
            f"compare: expected a file ending in .md, .json or .txt, got {str(output)!r}; rename it, or say the form "
            "with --format"
        )
    return CompareFormat(forms[suffix])


def _side(text: str, store: Path) -> "tuple[Path | None, Side]":
    """A run's folder, None for a file of records alone, and its records."""
    from harness.inspection.lookup import find_run
    from harness.report.versus import Side
    from harness.results import records

    if os.path.isfile(text):  # of names that are too long it says no
        return None, Side(Path(text).stem, records.read(Path(text), details=False))
    folder = find_run(store, text)
    return folder, Side(folder.name, records.read(folder / "records.json", details=False))


def _told_apart(first: "Side", second: "Side", a: str, b: str) -> "tuple[Side, Side]":
    """Two sides with names that differ: one run in two stores, or two files called alike, go by their paths."""
    from dataclasses import replace

    if first.name != second.name:
        return first, second
    one, other = _what_differs(Path(a).parts, Path(b).parts)
    return replace(first, name=one or "A"), replace(second, name=other or "B")


def _what_differs(one: "tuple[str, ...]", other: "tuple[str, ...]") -> tuple[str, str]:
    """Two paths without the folders that both begin with and the names that both end with; empty if they are equal."""
    if one == other:
        return "", ""
    both = min(len(one), len(other))
    start = next((place for place in range(both) if one[place] != other[place]), both)
    end = next((place for place in range(both - start) if one[-1 - place] != other[-1 - place]), both - start)
    first, second = ("/".join(path[start : len(path) - end] or path) for path in (one, other))
    # One of them may lie inside the other: then nothing of it is left, and its whole path may be what the other has.
    return (first, second) if first != second else ("/".join(one), "/".join(other))


def _split(between: str, side: "Side") -> "tuple[str, Side, Side]":
    """One side as two, by two values of a label; a value may be a name before its parameters."""
    from harness._text import listed, parted
    from harness.api import SpecError
    from harness.report.versus import LABELS, Side

    label, _, values = between.partition("=")
    names = [value.strip() for value in parted(values, ",")]
    if label not in LABELS or len(names) != 2:
        raise SpecError(
            f"compare: expected --between LABEL=A,B with one of {listed(LABELS)}, got {between!r}; write e.g. "
            "--between backend=torch,keras_tfmot"
        )
    sides = []
    for name in names:
        # The whole label first; a name before its parameters stands for all of that name only where no label is it.
        chosen = [record for record in side.records if name == str(getattr(record, label))]
        if not chosen:
            chosen = [record for record in side.records if str(getattr(record, label)).partition("(")[0] == name]
        if not chosen:
            known = dict.fromkeys(str(getattr(record, label)) for record in side.records)
            raise SpecError(f"compare: no cell of {side.name} has the {label} {name!r}; there is {listed(known)}")
        sides.append(Side(name, chosen))
    return label, sides[0], sides[1]


@guarded
def verify(
    run: Annotated[
        str | None,
        typer.Argument(help="Run id, a run's folder, or a records.json of anybody's.", show_default="the latest run"),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store", metavar="DIR", help="Where the stages behind the records are.", show_default="the run's own"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Check results by code that shares nothing with what made them; exit code 6 if something does not hold.

    Looked at: grid, seeds, labels and ids, sparsities, budgets, sources, costs; and with the store also checksums,
    keys, metrics from their totals, masks and weights, costs by their models. What could not be checked is said.
    """
    from harness.inspection.lookup import find_run
    from harness.verification import verify as check

    given = Path(run) if run is not None and os.path.exists(run) else find_run(store or DEFAULT_STORE, run)
    outcome = check(given, store)
    if as_json:
        print_json(
            {
                "checked": dict(outcome.checked),
                "problems": [asdict(problem) for problem in outcome.problems],
                "unchecked": dict(outcome.unchecked),
                "warnings": outcome.warnings,
            }
        )
    else:
        print_document(_verified(outcome, str(given)))
    return 0 if outcome.is_clean else EXIT_GATE


def _verified(outcome: "Outcome", what: str) -> "Document":
    """The outcome for people: problems first."""
    from harness.report.page import Column, Document, Section, table

    facts = ", ".join(f"{count} {kind}" for kind, count in outcome.checked.items())
    columns: list[Column[Problem]] = [
        Column("about", lambda each: each.about, kind="label", matters="key"),
        Column("where", lambda each: each.place, kind="text", matters="key"),
        Column("what", lambda each: each.text, kind="text"),
    ]
    problems = outcome.problems
    told = f"{len(problems)} of {outcome.checked.total()} facts do not hold" if problems else (
        f"clean: {outcome.checked.total()} facts hold"
    )  # fmt: skip
    unchecked = tuple(f"not checked: {why} ({plural(count, 'cell')})" for why, count in outcome.unchecked.items())
    return Document(
        "",
        (
            Section(f"{what}: {told}", (f"checked: {facts}",), table(columns, problems) if problems else None),
            *([Section(sentences=unchecked)] if unchecked else []),
            *([Section("Named checks", warnings=tuple(outcome.warnings))] if outcome.warnings else []),
        ),
    )
