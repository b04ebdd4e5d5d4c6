"""What the stages of a cell printed, and what they print now."""

import codecs
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from harness._files import open_at_once, plain_size
from harness.inspection.chain import Place, chain, ended_of, told
from harness.inspection.lookup import RECORDS, FoundCell, changed, runs, title
from harness.inspection.run_status import status
from harness.results import records
from harness.results.records import PENDING
from harness.store import Store

FOLLOW_S = 0.5
"""Between two looks at a log that is followed."""


_CHUNK = 1 << 16


@dataclass(frozen=True)
class Log:
    """What a stage printed.

    Args:
        stage: its key; name: what it is in its chain; state: as in `Place`.
        path: the file; None if there is none.
        run: id of the run that has the file; empty if there is none.
    """

    stage: str
    name: str
    state: str
    path: Path | None = None
    run: str = ""


def logs(store: Path, cell: FoundCell, places: Iterable[Place]) -> list[Log]:
    """What the stages of a cell printed: in its own run, or in the latest of the others that ran them.

    A file in which nothing stands is none, unless its stage is running: a run that was killed leaves such files behind.
    """
    # Only runs that trained a stage have its log; later ones found it in the store.
    others = [folder for folder in runs(store) if folder.name != cell.folder.name]
    return [_log(place, [cell.folder, *others]) for place in places]


def _log(place: Place, where: Iterable[Path]) -> Log:
    for folder in where:
        path = folder / "logs" / f"{place.key}.log"
        # An empty log is none, unless its stage is still writing.
        if path.is_file() and not path.is_symlink() and (place.state == "running" or path.stat().st_size):
            return Log(place.key, place.name, place.state, path, folder.name)
    return Log(place.key, place.name, place.state)


def why_no_log(store: Path, cell: FoundCell) -> str:
    """Why there is no log of a cell, in a sentence, and where else something of it stands."""
    record, run = cell.record, cell.folder.name
    name = f"cell {record.cell} ({title(record)})"
    numbers = f"its epochs and what they measured: `harness show {record.cell}`"
    match record.status:
        case "skipped":
            return f"{name} has no log: it is skipped, as {record.reason}"
        case "planned":
            return f"{name} has no log: run {run} has not begun with it, or it has printed nothing"
        case "running":
            return f"{name} has no log: it has printed nothing so far; how far it is: `harness status {run}`"
        case "cached":
            by = _computed_by(store, cell)
            told = f"run {by.name} computed it" if by else "no run that is still here computed it"
            return f"{name} has no log: run {run} found it in the store, {told}, and nothing was printed; {numbers}"
    return f"{name} has no log: no framework or plugin printed anything; {numbers}"


def _computed_by(store: Path, cell: FoundCell) -> Path | None:
    """The run that trained what a cell found in the store."""
    for folder in runs(store):
        if folder.name != cell.folder.name:
            for record in records.read(folder / RECORDS, details=False):
                if record.stage == cell.record.stage and record.status == "ok":
                    return folder
    return None


class Reader:
    """Reads logs on from where it stopped."""

    def __init__(self) -> None:
        self._offsets: Counter[Path] = Counter()
        self._decoders: dict[Path, codecs.IncrementalDecoder] = {}

    def more(self, path: Path) -> Iterator[str]:
        """What a log has beyond what was read of it, in pieces; bytes that are no UTF-8 are replaced."""
        # Incremental, since a piece may end within a character.
        decoder = self._decoders.setdefault(path, codecs.getincrementaldecoder("utf-8")("replace"))
        with suppress(OSError), os.fdopen(open_at_once(path), "rb") as file:
            plain_size(file.fileno())  # what is no plain file may never end
            file.seek(self._offsets[path])
            while chunk := file.read(_CHUNK):
                self._offsets[path] += len(chunk)
                text = decoder.decode(chunk)
                if text:
                    yield text


def follow(store: Path, cell: FoundCell, data_dir: Path | None = None) -> Iterator[tuple[Log, str]]:
    """Every log of a cell in pieces, as they are written; ends when nothing more will come.

    Args:
        store: the store's folder.
        cell: the cell.
        data_dir: as for `chain`.
    """
    reader, found = Reader(), chain(store, cell, data_dir)
    places = {place.key: place for place in found.places}
    while True:
        is_over = not _is_pending(cell)  # asked first: what it wrote before its end is still read
        if found.unknown:  # stages are known only while they run
            places |= {place.key: place for place in told(Store(store), cell, ended_of(cell))}
        for log in logs(store, cell, places.values()):
            if log.path is not None:
                yield from ((log, text) for text in reader.more(log.path))
        if is_over:
            return
        time.sleep(FOLLOW_S)


def _is_pending(cell: FoundCell) -> bool:
    """Whether a cell's run is alive and not done with it."""
    if status(cell.folder).state != "running":
        return False
    # By its time of change: whoever follows a log would else read all records twice a second.
    return _cell_status(cell.folder, cell.record.cell, changed(cell.folder, RECORDS)) in PENDING


@lru_cache(maxsize=8)
def _cell_status(folder: Path, cell: str, written: float) -> str:
    found = records.read(folder / RECORDS, details=False)
    return next((record.status for record in found if record.cell == cell), "planned")
