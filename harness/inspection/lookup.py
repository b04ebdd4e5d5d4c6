"""Runs and cells as users name them: by an id, by its beginning, or by words of a cell's labels."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness._files import folders, read_file
from harness._text import listed
from harness.api import EmptySelectionError, SpecError
from harness.results import records
from harness.results.records import Record
from harness.spec import Cell, solved_for
from harness.spec.source import MAX_BYTES, read
from harness.store import Store

RECORDS, STATUS = "records.json", "status.json"

SHOWN = 6
"""Cells that a sentence names where several fit."""

_AXES = ("a task", "a backend", "a pattern", "an allocation", "a strategy", "a sparsity", "a seed")
"""What a cell's title is made of, as its reader would say it."""


@dataclass(frozen=True)
class FoundCell:
    """A cell of a run.

    Args:
        record: what became of it.
        folder: of the run.
    """

    record: Record
    folder: Path


def runs(store: Path) -> list[Path]:
    """The folders of a store's runs, the one that changed last first.

    Raises:
        EmptySelectionError: there is none.
    """
    found = [folder for folder in folders(store / "runs") if (folder / RECORDS).exists()]
    if not found:
        raise EmptySelectionError(
            f"store: no run in {store}; `harness run SPEC` makes one, --store names another folder"
        )
    # By name where times are equal: copies of a store may have lost theirs.
    return sorted(found, key=lambda folder: (-changed(folder), folder.name))


def _is_path(text: str) -> bool:
    """Whether text for a run says where a file or folder is: no id has a separator or such an ending."""
    return "/" in text or os.sep in text or text.endswith(".json")


def find_run(store: Path, run: str | None) -> Path:
    """The folder of a run.

    Args:
        store: the store's folder.
        run: its id, the beginning of one, its folder or the records in it; None for the run that was written last.

    Raises:
        SpecError: no run, or more than one, is called so.
        EmptySelectionError: the store has no run.
    """
    if run is None:
        return Store(store).latest_run()
    if os.path.exists(Path(run) / RECORDS):  # of names that are too long it says no, as of all that are not there
        return Path(run)
    if Path(run).name == RECORDS and os.path.exists(run):
        return Path(run).parent
    if _is_path(run):
        # The runs of the store are no answer to that.
        wrong = "which is none of them" if os.path.exists(run) else "which is not there"
        raise SpecError(f"expected a run id, a run's folder or the records.json in it, got {run!r}, {wrong}")
    every = runs(store)
    found = [folder for folder in every if folder.name == run]
    # The whole name first: one run may be called like the beginning of another.
    found = found or [folder for folder in every if run and folder.name.startswith(run)]
    if len(found) == 1:
        return found[0]
    if found:
        raise SpecError(f"{len(found)} runs begin with {run!r}: {_names(found)}; write more of the name")
    raise SpecError(f"expected a run id in {store} or a run's folder, got {run!r}; there are {_names(every)}")


def _names(found: Iterable[Path]) -> str:
    return ", ".join(folder.name for folder in found)


def changed(folder: Path, *names: str) -> float:
    """When one of these files of a folder changed last, in seconds since the epoch; 0 if none is there.

    Args:
        folder: the folder.
        names: of files; default: those that a run writes while it runs.
    """
    times = [0.0]
    for name in names or (RECORDS, STATUS):
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times)


def title(record: Record) -> str:
    """A cell in words: its labels, in the order of the axes."""
    return _title(
        record.task, record.backend, record.pattern, record.allocation, record.strategy, _level(record), record.seed,
    )  # fmt: skip


def planned_titles(cells: Iterable[Cell]) -> dict[str, str]:
    """Cells in words, by id; one whose target is not solved yet is called by the target."""
    found: dict[str, str] = {}
    for cell in cells:
        name = cell.labels()
        found[cell.id] = _title(
            name["task"], name["backend"], name["pattern"], name["allocation"], name["strategy"], _planned_level(cell),
            cell.seed,
        )  # fmt: skip
    return found


def _level(record: Record) -> str:
    """What a record was asked for: a sparsity, or the targets that have none."""
    if record.has_sparsity:
        return f"{record.target_sparsity:g}"
    return _unreached(solved_for(record.facts, reached=False))


def _planned_level(cell: Cell) -> str:
    """What a cell is asked for: a sparsity, a target that has none yet, or those that have none."""
    if cell.goal is None:
        return f"{cell.sparsity:g}"
    # A goal that was looked at and is still there is one that was missed.
    return _unreached([each.goal for each in cell.solved]) if cell.solved else cell.goal.label()


def _unreached(targets: Sequence[str]) -> str:
    # Some are too far, some the dense model meets: either way there is none.
    return f"no sparsity for {listed(targets) or 'a target'}"


def _title(task: str, backend: str, pattern: str, allocation: str, strategy: str, level: str, seed: int) -> str:
    pruned = [records.DENSE] if pattern == records.DENSE else [pattern, allocation, strategy, level]
    return " · ".join([task, backend, *pruned, f"seed {seed}"])


def meant(text: str, titles: Mapping[str, str], where: Mapping[str, str] | None = None) -> str:
    """The id of the one cell that a text means: an id, its beginning, or words that the labels hold.

    A word that is a whole label counts for more than one that is a part of several: `0.9` does not mean `0.95`.

    Args:
        text: what a user wrote, e.g. `3fa9` or `bank_balanced 0.9 seed 1`.
        titles: the cells in words, by id; those that are to be named first stand first.
        where: the runs that have them, by id.

    Raises:
        SpecError: several cells fit; the sentence names them.
        EmptySelectionError: none does.
    """
    found = [cell for cell in titles if text and cell.startswith(text)] or _by_words(text, titles)
    # A whole id is meant even where another one begins with it.
    if text in titles:
        return text
    if len(found) == 1:
        return found[0]
    if not found:
        raise EmptySelectionError(
            f"expected the id of a cell, its beginning, or words of its labels, got {text!r}, which fits none of "
            f"{len(titles)} cells; `harness report --format json` lists them"
        )
    raise SpecError(f"expected one cell, got {text!r}, which fits {len(found)}: {_few(found, titles, where or {})}")


def _few(found: Sequence[str], titles: Mapping[str, str], where: Mapping[str, str]) -> str:
    """Some of the cells, by what tells them apart, and what to write to mean one of them."""
    parts = [titles[cell].split(" · ") for cell in found]
    widest = max(map(len, parts))
    pruned = [each for each in parts if len(each) == widest]  # dense baselines have fewer labels
    apart = [place for place in range(widest) if len({each[place] for each in pruned}) > 1]
    has_runs = len({where.get(cell) for cell in found}) > 1
    shown = []
    for cell, each in list(zip(found, parts, strict=True))[:SHOWN]:
        # Only the labels in which they differ, or the sentence would repeat what all of them share.
        words = [each[place] for place in apart] if apart and len(each) == widest else each
        shown.append(f"{cell} ({' · '.join(words)}{f', run {where[cell]}' if has_runs else ''})")
    shown += [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    axes = (
        _AXES if widest == len(_AXES) else (*_AXES[:2], "", _AXES[-1])
    )  # a dense baseline has neither pattern nor more
    names = [axes[place] for place in apart] if widest == len(axes) else []
    ways = [f"add {' and '.join(filter(None, [', '.join(names[:-1]), *names[-1:]]))}"] if names else []
    ways += ["name the run with --run"] if has_runs else []
    return f"{'; '.join(shown)}; {', '.join([*ways, 'or write the id' if ways else 'write the id'])} of one"


def _by_words(text: str, titles: Mapping[str, str]) -> list[str]:
    words = text.casefold().replace("·", " ").replace("seed=", "seed ").split()
    if not words:
        return []
    scores: dict[str, int] = {}
    for cell, name in titles.items():
        whole = name.casefold()
        if all(word in whole for word in words):
            parts = whole.replace("·", " ").split()
            # Whole words count more than parts of words: `block` means the pattern `block`, not `density_bound_block`.
            scores[cell] = sum(word in parts for word in words)
    best = max(scores.values(), default=0)
    return [cell for cell, score in scores.items() if score == best]


def find_cell(store: Path, text: str, run: str | None = None) -> FoundCell:
    """A cell of a run, or of any run of a store: then as the latest run that has it left it.

    Args:
        store: the store's folder.
        text: as for `meant`.
        run: as for `find_run`; None for every run.

    Raises:
        SpecError: several cells or runs fit, or no run does.
        EmptySelectionError: no cell fits, or the store has no run.
        StoreError: records cannot be read.
    """
    found: dict[str, FoundCell] = {}
    for folder in runs(store) if run is None else [find_run(store, run)]:
        for record in records.read(folder / RECORDS, details=False):
            # The latest run that has a cell wins, since folders come newest first.
            found.setdefault(record.cell, FoundCell(record, folder))
    titles = {cell: title(each.record) for cell, each in found.items()}
    return found[meant(text, titles, {cell: each.folder.name for cell, each in found.items()})]


def margin_of(folder: Path) -> float | None:
    """The equivalence margin of the experiment that a run was made from; None where it names none.

    Raises:
        SpecError: the copy of the experiment cannot be read.
    """
    spec = folder / "spec.yaml"
    if not spec.exists():  # records alone were copied
        return None
    try:
        text = read_file(spec, MAX_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise SpecError(f"report: {spec} cannot be read ({error}); give the margin with --margin") from error
    value, problems = read(text, str(spec))
    problems.finish()
    margin = value.get("margin") if isinstance(value, dict) else None
    return float(margin) if isinstance(margin, int | float) else None
