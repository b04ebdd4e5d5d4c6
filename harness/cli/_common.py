"""What every command shares: consoles, options, and the one place where an error becomes an exit code."""

import errno
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TextIO

import typer

from harness import _supervisor
from harness._text import clean, plural

if TYPE_CHECKING:
    from rich.console import Console

    from harness.discovery.columns import GuardedColumn
    from harness.report.page import Document
    from harness.spec import Experiment

P = ParamSpec("P")

EXIT_CELL_FAILED, EXIT_BUG, EXIT_GATE, EXIT_FULL, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 3, 6, 7, 130, 143
EXIT_UNREAD = 141
"""Of a command whose reader went before all was printed: what a shell says of one that SIGPIPE ended."""

_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))
_product = ContextVar[TextIO | None]("_product", default=None)  # stdout while a command runs; `sys.stdout` is stderr

PLAIN_WIDTH = 120
"""Columns of a table that goes into a file or a pipe, where no terminal says how wide it is."""

DEFAULT_STORE = Path(".harness")

SpecArgument = Annotated[Path, typer.Argument(help="The experiment file (YAML).", show_default=False)]
StoreOption = Annotated[
    Path, typer.Option("--store", metavar="DIR", envvar="HARNESS_STORE", help="Where stages and runs are kept.")
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where the data sets lie; otherwise the spec's `data_dir`, $HARNESS_DATA, then the user's data folder.",
        show_default=False,
    ),
]
OnlyOption = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="FILTER",
        help="Only these cells, e.g. 'pattern=bank_balanced,seed<2' (their dense baselines stay).",
        show_default=False,
    ),
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="A Python file that offers plugins, beside those installed; may be repeated.",
        show_default=False,
    ),
]
SmokeOption = Annotated[
    bool, typer.Option("--smoke", help="Cut task, seeds and sparsities so short that the whole grid takes seconds.")
]
FullOption = Annotated[bool, typer.Option("--full", help="All tables, not only the answer.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def stdout() -> "Console":
    """The console of the product."""
    return _console(stderr=False)


def stderr() -> "Console":
    """The console of progress, warnings and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console

    class Unread(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the process with the code of a failed cell

    console = Unread(stderr=stderr, highlight=False) if stderr else Unread(file=_product.get(), highlight=False)
    # Rich would take 80 columns where nobody says how many there are.
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PLAIN_WIDTH
    return console


def echo(text: str = "", *, nl: bool = True) -> None:
    """Print a line of the product."""
    typer.echo(text, file=_product.get(), nl=nl)


@contextmanager
def _product_alone() -> Iterator[None]:
    """Keep stdout for the product, perhaps JSON: what plugins print meanwhile goes to stderr."""
    before, sys.stdout = sys.stdout, sys.stderr
    product = before or open(os.devnull, "w", encoding="utf-8")  # it may be closed
    token = _product.set(product)
    try:
        yield
        product.flush()  # a full disk is told here, not while the interpreter ends
    finally:
        sys.stdout = before
        _product.reset(token)


def print_json(value: object) -> None:
    """Print a value as indented JSON, without colour, whatever stdout is."""
    import json

    echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_document(document: "Document") -> None:
    """Print a document for people; nothing of it is cut, however narrow the terminal."""
    from harness.report import rich

    rich.show(document, stdout())


def warn_of(columns: "Iterable[GuardedColumn]") -> None:
    """Say on stderr which third parties' columns are left empty, and why: one line each."""
    from harness.report.added import faults

    for fault in faults(columns):
        stderr().print(f"warning: {fault}", style="yellow", markup=False, soft_wrap=True)


def give(text: str, output: Path | None) -> None:
    """Print a text, or write it to the file that the user asked for; with one end of line in either.

    Raises:
        SpecError: it cannot be written; the sentence says why.
    """
    if output is None:
        echo(text.rstrip("\n"))
    else:
        write_text(output, text.rstrip("\n") + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file that the user asked for.

    Raises:
        SpecError: it cannot be written; the sentence says why.
    """
    from harness._outputs import write_output

    write_output(path, text)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a binary file that the user asked for: whole, or not at all.

    Raises:
        SpecError: it cannot be written; the sentence says why.
    """
    from harness._outputs import write_output

    write_output(path, content)


def load_experiment(
    spec: Path, *, only: str | None = None, smoke: bool = False, plugins: list[Path] | None = None
) -> "Experiment":
    """The experiment in a file, cut down as the options say.

    Raises:
        SpecError: the file or the filter is wrong.
        EmptySelectionError: the filter leaves no cell.
    """
    from harness.discovery.finding import discover_given
    from harness.spec import load

    experiment = load(spec, discover_given(plugins or ()))
    if only is not None:
        experiment = experiment.select(only)
    experiment = experiment.smoke() if smoke else experiment
    wanted = experiment.targets_to_solve()
    if wanted:
        # Said beforehand: large models with many engines are costed for minutes.
        told = f"{plural(wanted, 'target')} to solve for a sparsity, each for one pattern; a store keeps what is found"
        stderr().print(told, style="dim", markup=False, soft_wrap=True)
    return experiment


def data_folder(option: Path | None, experiment: "Experiment") -> Path | None:
    """The folder of the data sets: the option, the spec's, the environment's, the user's; None if there is none."""
    from harness import data

    return data.data_folder(option or experiment.data_dir)


_AGAIN_S = 0.02
"""Between attempts to send an interrupt again that Python ignored."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM: ends a run like Ctrl-C, so that whatever keeps finished work on Ctrl-C keeps it here too."""


class _Signals:
    """While entered, Ctrl-C and SIGTERM interrupt; afterwards `exit_code` says which of the two it was.

    One of them often comes twice, as a terminal and `timeout` reach every process of a group: that is one interrupt.
    One that arrives while Python calls something whose exceptions it ignores (`__del__`, a weak reference's callback)
    would be printed and forgotten: it is sent again.
    """

    exit_code = EXIT_INTERRUPTED

    def __enter__(self) -> "_Signals":
        self._previous: dict[int, Any] = {}
        self._last = -math.inf
        self._number: int = signal.SIGINT
        self._is_ignoring, self._is_heard = False, True
        self._again: list[threading.Thread] = []
        self._unraisable = sys.unraisablehook
        # Only the main thread may handle signals; elsewhere somebody else does.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # A job in the background ignores Ctrl-C, which is meant for the one in front.
                if signal.getsignal(number) is not signal.SIG_IGN:  # as for a job in the background
                    self._previous[number] = signal.signal(number, self._interrupt)
            if self._previous:
                sys.unraisablehook = self._ignored
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous:
            sys.unraisablehook = self._unraisable
        # Nothing is sent any more when signals mean again what they meant before.
        self._is_heard = True
        for sending in self._again:
            sending.join()
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_ignoring:
            return
        now = time.monotonic()
        # A terminal and a supervisor may both hand on one Ctrl-C: it is one.
        if now - self._last < _supervisor.ONE_S:
            return
        self._last, self._number, self._is_heard = now, number, True
        if number == signal.SIGTERM:
            self.exit_code = EXIT_TERMINATED
            raise _Terminated
        raise KeyboardInterrupt

    def _ignored(self, ignored: "sys.UnraisableHookArgs") -> None:
        if not isinstance(ignored.exc_value, KeyboardInterrupt):
            self._unraisable(ignored)
            return
        # Meanwhile no interrupt is raised: here it would be ignored once more.
        self._is_ignoring = True
        try:
            self._last, self._is_heard = -math.inf, False
            # A new one each time: another may just have seen that the one before was heard.
            self._again.append(threading.Thread(target=self._send_again, daemon=True))
            self._again[-1].start()
        finally:
            self._is_ignoring = False

    def _send_again(self) -> None:
        """Until it is raised where it counts; more of them than needed are one, as from a terminal."""
        while True:
            time.sleep(_AGAIN_S)
            if self._is_heard:
                return
            os.kill(os.getpid(), self._number)


def guarded(command: Callable[P, int | None]) -> Callable[P, None]:
    """A command that exits with the code it returns (None is 0) and turns every error into its code.

    An interrupted command ends with 130 or 143, also if it raises KeyboardInterrupt itself after saving what it has.
    """

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        signals = _Signals()
        try:
            # The signals inside and the product around them: what a late interrupt prints must still find stdout.
            with signals, _product_alone():
                code = command(*args, **kwargs) or 0
        except KeyboardInterrupt:
            _supervisor.taken()
            if _supervisor.is_supervised():  # nothing is left that another one could end sooner
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            stderr().print("interrupted; everything finished is kept, and the same command continues", style="yellow")
            code = signals.exit_code
        except typer.Exit:
            raise
        except BrokenPipeError:  # a reader such as `head` has what it wanted, and nobody is left to be told anything
            _give_up_stdout()
            code = EXIT_UNREAD
        except Exception as error:
            code = explained(error)
        raise typer.Exit(code)

    # The wrapper returns nothing to click, which would print it.
    run.__annotations__ = {**command.__annotations__, "return": None}
    return run


def _place_told(error: OSError) -> str:
    """What is wrong with a place that was found out only where it was used, in a sentence; empty if it is none."""
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return f"{clean(str(error.filename), 200)}: {error.strerror}; name another file"
    if isinstance(error, FileNotFoundError):
        try:
            Path.cwd()  # whatever asks for a folder that was removed fails, with the name of no file
        except OSError:
            return "the folder in which this command stands is gone; change to another one"
    return ""


def explained(error: Exception) -> int:
    """Print an error and return its exit code."""
    from rich.text import Text

    from harness.api import HarnessError

    if isinstance(error, HarnessError):
        lines = str(error).splitlines() or [type(error).__name__]
        text = lines[0] if len(lines) == 1 else "\n".join([f"{len(lines)} mistakes, nothing was run", *lines])
        stderr().print(Text.assemble(("error: ", "bold red"), (text, "red")), soft_wrap=True)
        return error.exit_code
    # Without a file name it is stdout that could not be written: files of ours are named by who writes them.
    if isinstance(error, OSError) and error.errno in _NO_SPACE and error.filename is None:
        # No file has a name here: it is stdout, or a disk that filled up under it.
        with suppress(OSError):
            sys.stderr.write(f"error: stdout cannot be written: {error.strerror}; make room and run it again\n")
        _give_up_stdout()
        return EXIT_FULL
    if isinstance(error, OSError) and (told := _place_told(error)):
        stderr().print(f"error: {told}", style="red", markup=False, soft_wrap=True)
        return HarnessError.exit_code
    if isinstance(error, MemoryError):
        what = clean(str(error), 200) or "what is asked for does not fit into it"
        sys.stderr.write(f"error: this machine has too little memory: {what}; ask for less at once\n")
        return HarnessError.exit_code
    import traceback

    from harness.discovery.guard import blame, is_foreign

    traceback.print_exception(error)
    if is_foreign(error):
        sys.stderr.write(f"error: a plugin: {blame(error)}; everything finished is kept\n")
        return EXIT_CELL_FAILED
    sys.stderr.write(
        "error: this is a bug in harness, not in your experiment; everything finished is kept. "
        "Please report it with the lines above and the experiment file (CONTRIBUTING.md says where).\n"
    )
    return EXIT_BUG


def _give_up_stdout() -> None:
    """Drop what could not be printed, or the interpreter would try once more and end with its own code."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
