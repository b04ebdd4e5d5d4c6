"""Checks of trackers: they are told of runs as the harness tells of them, and hold none of them up."""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.api import JsonValue, PluginUnavailableError, RunInfo, RunState, StageInfo, Tracker
from harness.api.promises import broken, demand
from harness.results.records import Finding, Record, dump

_METHODS = ("run_started", "stage_started", "stage_finished", "cell_finished", "run_finished")

_STATES: tuple[RunState, ...] = ("ended", "interrupted", "stopped")

_ENDS_WITHIN_S = 60.0
"""How long a thread that it started may go on after the end of a run: as long as a busy machine may take."""


def check_tracker(tracker: Tracker) -> None:
    """What a tracker promises, told of runs that ended, were interrupted and stopped, in a folder of their own.

    Args:
        tracker: the tracker, with any parameters; each run is told to a new one with these, as a run makes its own.

    Raises:
        PluginContractError: the first promise it breaks.
        PluginUnavailableError: it cannot be used here, as it says itself.
    """
    where = tracker.label()
    why = tracker.why_unavailable()
    demand(why is None or (isinstance(why, str) and why.strip()), where, f"a sentence or None, got {why!r}")
    if why is not None:
        raise PluginUnavailableError(f"{where}: {why}")
    heard = [name for name in _METHODS if getattr(type(tracker), name) is not getattr(Tracker, name)]
    demand(heard, where, f"at least one of {', '.join(_METHODS)}: it hears of nothing")
    before = set(threading.enumerate())
    for state in _STATES:
        # The folder is there, as in a run, and goes with all that was written into it: what is written where the
        # process stands, as MLflow does by default, is written there as well.
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder, chdir(folder):
            told = type(tracker).model_validate(tracker.parameters())
            for name, arguments in _events(Path(folder), state):
                _tell(told, name, arguments, f"{where}, {name} of a run that {_words(state)}")
    _check_threads(before, where)


def _words(state: RunState) -> str:
    return "ended" if state == "ended" else f"was {state}"


def _tell(tracker: Tracker, name: str, arguments: tuple[object, ...], at: str) -> None:
    """One call, with what everybody else is told as well."""
    kept = copy.deepcopy(arguments)
    try:
        answer = getattr(tracker, name)(*arguments)
    except (Exception, SystemExit) as error:
        raise broken(
            at, f"no exception, after which it would hear no more, got {type(error).__name__}: {error}"
        ) from error
    demand(answer is None, at, f"no answer, got {answer!r:.60}")
    demand(arguments == kept, at, "what it was told to be left as it was: other trackers are told the same")


def _check_threads(before: set[threading.Thread], where: str) -> None:
    """Nothing that it started keeps the process alive."""
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in left:
        thread.join(_ENDS_WITHIN_S)
    names = ", ".join(thread.name for thread in left if thread.is_alive())
    demand(not names, where, f"every thread of its own to end with the run, or to be a daemon, got {names}")


def _events(folder: Path, state: RunState) -> Iterator[tuple[str, tuple[object, ...]]]:
    """What a run tells, in order; one that did not end leaves a stage without its end, and cells without a result."""
    experiment: dict[str, JsonValue] = {"name": "checked", "matrix": {"seed": [0]}, "scope": ["lstm"]}
    run = RunInfo("checked-1a2b3c4d", folder, cells=4, epochs=2, experiment=experiment)
    yield "run_started", (run,)
    yield "cell_finished", (_record("cccccccccccc", status="cached"),)  # before any stage: nothing of it was to run
    yield from _stage("train", epoch=1, metrics={"train/loss": 2.5, "valid/perplexity": 12.25}, seconds=1.5)
    yield from _stage("prune", epoch=1, metrics={"valid/perplexity": 40.0}, seconds=0.25)
    if state == "ended":
        yield from _stage("train", epoch=2, metrics={}, seconds=None, failure="the loss became nan at step 7")
        yield from _stage("test", epoch=1, metrics={"test/perplexity": 39.5}, seconds=0.5)
        yield "cell_finished", (_record("aaaaaaaaaaaa"),)
        yield "cell_finished", (_record("bbbbbbbbbbbb", status="diverged", reason="the loss became nan at step 7"),)
        yield "cell_finished", (_record("dddddddddddd", status="skipped", reason="4 does not divide 10"),)
    else:
        yield "stage_started", (_info("train", epoch=2),)
    yield "run_finished", (run, state)


def _stage(kind: str, **told: object) -> Iterator[tuple[str, tuple[object, ...]]]:
    yield "stage_started", (_info(kind, epoch=told["epoch"]),)
    yield "stage_finished", (_info(kind, **told),)


def _info(kind: str, **told: object) -> StageInfo:
    make: Callable[..., StageInfo] = StageInfo
    return make(key=f"{kind:0<32}", kind=kind, cell="aaaaaaaaaaaa", label=f"torch · dense · {kind}", seed=0, **told)


def _record(cell: str, *, status: str = "ok", reason: str = "") -> dict[str, JsonValue]:
    """A record as in `records.json`, with and without a result; labels are as hostile as their authors'."""
    done = status in ("ok", "cached")
    values: dict[str, object] = {
        "run": "checked-1a2b3c4d", "cell": cell, "task": "lstm_lm(size=small)", "backend": "torch",
        "pattern": "bank_balanced(banks=10)", "strategy": "fine-tuning, 5 epochs / ρ = ½", "scope": ("lstm",),
        "target_sparsity": 0.9, "metric": "perplexity", "status": status, "reason": reason, "total_epochs": 2,
    }  # fmt: skip
    if done:
        costs = {"cycle_simulator[bank(pes=2)]": {"cycles": 42, "latency_us": 0.2}, "slow [x]": {"reason": "no masks"}}
        finding = Finding(code="SPN007", severity="warning", title="one seed", text="one seed gives no interval")
        values |= {
            "value": 39.5, "valid_value": 40.0, "valid_history": (12.25, None), "sparsity": 0.9,
            "model_sparsity": 0.45, "tensor_sparsity": {"lstm_0.kernel": 0.9}, "hardware": costs, "checks": (finding,),
            "facts": {"corpus": "checked", "not_finite": {"train": "epoch 2"}},
        }  # fmt: skip
    return dump([Record.model_validate(values)])[0]
