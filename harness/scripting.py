"""The same work from Python: what `import harness` offers, for scripts, notebooks and tests.

experiment = harness.load("experiment.yaml")
harness.plan(experiment)
found = harness.run(experiment)
found.to_frame()
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.api import JsonValue
from harness.execution.progress import Progress
from harness.planning.plan import Plan as FullPlan
from harness.results.records import Record
from harness.spec import Experiment

if TYPE_CHECKING:
    import pandas

    from harness.discovery.columns import GuardedColumn

DEFAULT_STORE = Path(".harness")

PathLike = str | Path
ProgressName = Literal["auto", "plain", "json", "none"]


@dataclass(frozen=True, repr=False)
class Plan:
    """What a run would do; a notebook shows it as a table.

    Args:
        title: the experiment's name.
        summary: the bill as plain values, a mapping per cell in `cells_detail`.
        details: cells and stages as the planner has them.
    """

    title: str
    summary: Mapping[str, JsonValue]
    details: FullPlan = field(compare=False)

    def table(self) -> str:
        """The bill as Markdown."""
        from harness.report import markdown
        from harness.report.plan_table import plan_document

        return markdown.text(plan_document(self.summary, title=self.title))

    def __repr__(self) -> str:
        told = self.summary
        return (
            f"<plan of {self.title}: {told['cells']} cells, {told['stages_to_run']} of {told['stages']} stages to run, "
            f"{told['epochs_to_run']} epochs>"
        )

    def _repr_html_(self) -> str:
        from harness.report import html
        from harness.report.plan_table import plan_document

        return html.fragment(plan_document(self.summary, title=self.title))


@dataclass(frozen=True, repr=False)
class Results:
    """What a run left behind; a notebook shows it as its report.

    Args:
        run_id: name and digest of the experiment.
        folder: where spec, records and logs lie.
        records: one for every planned cell, those that failed or were skipped included.
        margin: differences that count as equivalent, in the metric's unit; None if the experiment says none.
        interrupted: whether the run was stopped before its end.
        stopped: why it stopped by itself, or could no longer be written; None if it did neither.
    """

    run_id: str
    folder: Path
    records: Sequence[Record]
    margin: float | None = None
    interrupted: bool = False
    stopped: str | None = None

    def table(self, format: Literal["md", "html", "latex", "csv", "tidy", "json", "rich"] = "md") -> str:
        """The report as text, from the same rows as `harness report`."""
        from harness import report

        columns = self._columns()
        text = report.render(self.records, format=format, title=self.run_id, margin=self.margin, columns=columns)
        # CSV, tidy and JSON have no place for what was wrong with a column.
        if format in ("csv", "tidy", "json"):  # the others say it themselves
            _warn_of(columns)
        return text

    def to_frame(self) -> "pandas.DataFrame":
        """A tidy data frame: a row per cell and seed, a column per quantity with its unit and split.

        Units stand in brackets: `test perplexity`, `sparsity [fraction]`, `train time [s]`. What a cell has no value
        for is NaN; its `status` and `reason` say why.

        Raises:
            PluginUnavailableError: pandas is not installed.
        """
        from harness.report import tidy

        columns = self._columns()
        found = tidy.frame(self.records, columns)
        _warn_of(columns)
        return found

    def picture(self, path: PathLike) -> Path:
        """Draw metric against sparsity to a `.svg` or `.png` file; needs the extra `plots`."""
        from harness import report

        report.picture(self.records, Path(path))
        return Path(path)

    def figures(
        self,
        folder: PathLike,
        *,
        style: Literal["thesis", "slides"] = "thesis",
        forms: Sequence[Literal["pdf", "svg", "png"]] = ("pdf", "svg", "png"),
    ) -> list[Path]:
        """Draw every picture of the run into a folder, each with its data as CSV beside it; needs the extra `plots`.

        Args:
            folder: made where it is not there.
            style: sizes for a page or for a projector.
            forms: of the files.
        """
        from harness import report

        return report.figures(self.records, Path(folder), style=style, forms=forms, margin=self.margin)

    def page(self, path: PathLike) -> Path:
        """Write the report as one HTML file, which needs nothing else.

        Raises:
            SpecError: it cannot be written.
        """
        from harness._outputs import write_output

        write_output(Path(path), self.table("html"))
        return Path(path)

    def _columns(self) -> "Sequence[GuardedColumn]":
        """Those of third parties that are installed here, or lie in plugin files of the run."""
        from harness.inspection.columns import columns_of

        return columns_of(self.folder)

    def __repr__(self) -> str:
        done = sum(record.is_done for record in self.records)
        return f"<results of {self.run_id}: {done} of {len(self.records)} cells done, in {self.folder}>"

    def _repr_html_(self) -> str:
        from harness import report

        return report.fragment(self.records, title=self.run_id, margin=self.margin, columns=self._columns())


def load(experiment: PathLike | Mapping[str, JsonValue], *, plugins: Sequence[PathLike] = ()) -> Experiment:
    """An experiment from its file, or from a mapping that says the same.

    Code of plugins that was edited since the last call is read again.

    Args:
        experiment: the file, or the mapping; folders in a mapping are seen from the current one.
        plugins: Python files of plugins, beside those that the experiment lists.

    Raises:
        SpecError: every mistake with its place; nothing was run.
        PluginUnavailableError: a plugin it names is broken.
    """
    from harness.discovery.finding import discover_given
    from harness.planning import code_digest
    from harness.spec import load as read
    from harness.spec import loads

    # Files of plugins may have been edited since the last call of this process.
    code_digest.forget()
    registry = discover_given([Path(file) for file in plugins], option="plugins")
    if isinstance(experiment, str | Path):
        return read(Path(experiment), registry)
    # As text: mistakes are told with lines, in a mapping too.
    return loads(json.dumps(dict(experiment), indent=2), registry, filename="experiment")


def plan(
    experiment: Experiment | PathLike | Mapping[str, JsonValue],
    *,
    store: PathLike = DEFAULT_STORE,
    data_dir: PathLike | None = None,
    only: str | None = None,
    smoke: bool = False,
) -> Plan:
    """What `run` would do with these arguments: cells, stages, what is cached and why the rest runs.

    Args:
        experiment: loaded, or what `load` takes.
        store: where stages are kept; it need not exist.
        data_dir: where the data sets lie; by default the experiment's, then HARNESS_DATA.
        only: a filter such as `pattern=bank_balanced,seed<2`.
        smoke: whether everything is cut so short that it takes seconds.

    Raises:
        SpecError, DataError: the experiment does not fit its tasks, or their data is not there.
    """
    from harness.inspection.why import bill
    from harness.planning.plan import make_plan

    chosen = _chosen(experiment, only, smoke=smoke)
    made = make_plan(chosen, store=Path(store), data_dir=_path(data_dir))
    return Plan(chosen.name, bill(made)[0], made)


def run(
    experiment: Experiment | PathLike | Mapping[str, JsonValue],
    *,
    store: PathLike = DEFAULT_STORE,
    data_dir: PathLike | None = None,
    workers: int | None = None,
    only: str | None = None,
    smoke: bool = False,
    progress: ProgressName | Progress = "auto",
) -> Results:
    """Run an experiment; what the store has is not run again. A cell that fails is a record with its reason.

    Args:
        experiment: loaded, or what `load` takes.
        store: the folder that keeps stages and runs.
        data_dir: where the data sets lie; by default the experiment's, then HARNESS_DATA.
        workers: processes at most; by default as many as fit.
        only: a filter such as `pattern=bank_balanced,seed<2`.
        smoke: whether everything is cut so short that it takes seconds.
        progress: how progress is shown on stderr, or an object that is told of it.

    Raises:
        SpecError, DataError, PluginUnavailableError: nothing was run.
        StoreError: the store cannot be written.
    """
    from harness.execution.run import run as run_experiment

    chosen = _chosen(experiment, only, smoke=smoke)
    told = _progress(progress) if isinstance(progress, str) else progress
    done = run_experiment(chosen, store=Path(store), data_dir=_path(data_dir), workers=workers, progress=told)
    # Either stops a run before its end.
    stopped = done.store_error or done.stopped
    return Results(done.run_id, done.folder, done.records, chosen.margin, done.interrupted, stopped)


def results(run: PathLike | None = None, *, store: PathLike = DEFAULT_STORE) -> Results:
    """The results of a run that was made before, or that is under way.

    Args:
        run: its id, the beginning of one, or its folder; the latest by default.
        store: the folder that keeps it.

    Raises:
        SpecError, EmptySelectionError: there is no such run.
    """
    from harness.inspection.lookup import find_run, margin_of
    from harness.results import records

    folder = find_run(Path(store), None if run is None else str(run))
    return Results(folder.name, folder, records.read(folder / "records.json"), margin_of(folder))


def _chosen(
    experiment: Experiment | PathLike | Mapping[str, JsonValue], only: str | None, *, smoke: bool
) -> Experiment:
    loaded = experiment if isinstance(experiment, Experiment) else load(experiment)
    chosen = loaded if only is None else loaded.select(only)
    return chosen.smoke() if smoke else chosen


def _progress(name: ProgressName) -> Progress:
    """Progress of that kind; `auto` draws in the notebook where there is one."""
    from rich.console import Console

    from harness.execution.displays import make
    from harness.execution.notebook import NotebookProgress, is_notebook

    # An explicit kind is a wish, in a notebook too.
    return NotebookProgress() if name == "auto" and is_notebook() else make(name, Console(stderr=True))


def _path(given: PathLike | None) -> Path | None:
    return None if given is None else Path(given)


def _warn_of(columns: "Sequence[GuardedColumn]") -> None:
    from harness.report.added import faults

    for fault in faults(columns):
        warnings.warn(fault, stacklevel=3)
