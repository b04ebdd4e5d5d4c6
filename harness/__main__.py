"""The command line, `harness` and `python -m harness`: supervised from its first import on."""

import signal

from harness import _supervisor
from harness._files import occupy_streams


def main() -> None:
    """Run the command line and exit with its code."""
    occupy_streams()
    _supervisor.supervised(_command)


def _command() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until a command is begun there is nothing to keep, nor to tell
    from harness.cli import main as command

    command()


if __name__ == "__main__":
    main()
