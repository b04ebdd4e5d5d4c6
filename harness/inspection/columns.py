"""The columns that third parties add to the reports of a run."""

from collections.abc import Iterable
from pathlib import Path

from harness.discovery.columns import GuardedColumn, report_columns
from harness.inspection.pages import plugin_files


def columns_of(folder: Path, files: Iterable[Path] = ()) -> tuple[GuardedColumn, ...]:
    """Those of installed packages, of the run's own plugin files that are still there, and of further files.

    Args:
        folder: of the run; what it once had and is gone is a column less, and no error.
        files: given by the user, who means them to be there.

    Raises:
        SpecError: one of `files` is not there, or the run's list of plugin files cannot be read.
    """
    its_own = [file for file in plugin_files(folder) or () if file.is_file()]
    return report_columns([*its_own, *files])
