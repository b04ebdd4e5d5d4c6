"""The command line: parse, call, print. Nothing here knows how anything is computed.

stdout carries the product, stderr the progress and the errors. Exit codes:

    0         every planned cell is ok, cached or skipped for a declared reason
    1         finished and saved, but a cell failed
    2         a mistake in the experiment file or on the command line; nothing was run
    3         a bug of the harness
    4         a needed plugin is broken or not installed
    5         nothing is selected
    6         a check failed
    7         the store, or a file of records, cannot be written or read
    130, 143  interrupted; everything finished is kept
    141       whoever reads stdout stopped before all was printed
"""

import inspect as introspection
import io
import os
import re
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer

import harness
from harness import _text
from harness.cli import data, emit, experiment, hardware, inspect, judgement, plugins, results, status, store
from harness.cli._common import EXIT_UNREAD, explained

EPILOG = (
    "Exit codes: 0 done, 1 a cell failed, 2 a mistake in the spec or the command, 3 a bug, 4 a plugin is broken or "
    "missing, 5 nothing selected, 6 a check failed, 7 the store cannot be written or read, 130/143 interrupted, 141 "
    "stdout was closed before all was printed."
)

app = typer.Typer(
    name="harness",
    help="Which sparsity pattern, pruned by which strategy, costs how much accuracy and buys how much hardware speed?",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: no boxes in a pipe, and rich is not imported for it
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"harness {harness.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


experiment.register(app)
results.register(app)
judgement.register(app)
status.register(app)
inspect.register(app)
store.register(app)
app.add_typer(data.app, name="data")
hardware.app.command()(emit.emit)
app.add_typer(hardware.app, name="hardware")
app.add_typer(plugins.app, name="plugins")


def _with_whole_summaries(typed: typer.Typer) -> None:
    """Give every command its first sentence as its summary: Typer would cut it where a line ends."""
    for command in typed.registered_commands:
        paragraph = " ".join(introspection.cleandoc(command.callback.__doc__ or "").partition("\n\n")[0].split())
        command.short_help = re.match(r".*?\.(?= |$)|.*", paragraph)[0]  # type: ignore[index]  # it matches anything
    for group in typed.registered_groups:
        assert group.typer_instance is not None
        group.short_help = group.typer_instance.info.help
        _with_whole_summaries(group.typer_instance)


_with_whole_summaries(app)


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        # Tables have signs that a C locale cannot write, and their bytes should not depend on who asks. A file name
        # that is no UTF-8 is printed with escapes, which JSON can hold too.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    # Before the command imports any library: one in C may print while it loads.
    _take_stdout()
    _keep_stderr()
    try:
        code = app(prog_name="harness", standalone_mode=False)
    except OSError as error:  # a help page that nobody takes
        code = explained(error)
    except SystemExit as leaving:
        # Typer leaves so where a reader of a help page has gone, with the code of a failed cell.
        code = EXIT_UNREAD if type(sys.stdout).__name__ == "PacifyFlushWrapper" else leaving.code
    except Exception as error:
        if not isinstance(getattr(error, "message", None), str) or not hasattr(error, "format_message"):
            raise
        code = _usage(error)
    sys.exit(code)


def _usage(error: Any) -> int:
    """Print what is wrong with a command line, whose words may be anything; its exit code."""
    text = _text.lines(error.format_message(), most=500)  # a help page is one of these, too
    error.format_message = lambda: text
    error.show()
    return int(error.exit_code)


class _Unheard(io.FileIO):
    """stderr that takes everything: a run of hours does not end because nobody hears of its progress any more.

    Its terminal may have been closed, the other end of its pipe have gone, the disk under its file be full.
    """

    def write(self, text: Any, /) -> int:
        try:
            written = super().write(text)
        except OSError:
            written = None
        return len(text) if written is None else written  # None where it would have to wait


def _keep_stderr() -> None:
    with suppress(OSError, ValueError, AttributeError):  # it is closed, or replaced by somebody's own
        raw = _Unheard(sys.stderr.fileno(), "w", closefd=False)
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True
        )


def _take_stdout() -> None:
    """Keep stdout for the product: what libraries in C, or programs that a plugin starts, print goes to stderr."""
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of them is closed
        return
    # Line by line for a terminal, in blocks for anything else, as Python itself does.
    buffering = 1 if os.isatty(kept) else -1
    sys.stdout = open(kept, "w", buffering, encoding="utf-8", errors="backslashreplace")  # for good
