"""The columns and named checks that third parties add to the reports of a run."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.discovery.checks import study_checks
from harness.discovery.columns import GuardedColumn, report_columns
from harness.discovery.finding import discover_given
from harness.inspection.experiments import plugin_files
from harness.report.checks import noted
from harness.results.records import Record


def columns_of(folder: Path, files: Iterable[Path] = ()) -> tuple[GuardedColumn, ...]:
    """Those of installed packages, of the run's own plugin files that are still there, and of further files.

    Args:
        folder: of the run; what it once had and is gone is a column less, and no error.
        files: given by the user, who means them to be there.

    Raises:
        SpecError: one of `files` is not there or cannot be used, or the run's list of plugin files cannot be read.
    """
    return report_columns(_files(folder, files))


def checked(records: Sequence[Record], folder: Path, files: Iterable[Path] = ()) -> Sequence[Record]:
    """The records of a run with what third parties' checks, found as `columns_of` finds columns, say of it today.

    What a check that is gone has once found stays. Without any check they are as they were.

    Raises:
        SpecError: as `columns_of`.
    """
    found = study_checks(_files(folder, files))
    return noted(records, found) if found else records


def _files(folder: Path, files: Iterable[Path]) -> list[Path]:
    # A file that has gone since takes its columns with it; the run's own numbers are in the records.
    given = list(files)
    if given:  # of theirs alone: what is installed is broken for every report alike, and listed by `harness plugins`
        discover_given(given, ())
    return [*(file for file in plugin_files(folder) or () if file.is_file()), *given]
