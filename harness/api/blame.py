"""Which line of a user's own code an error came from."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HarnessError, OwnCodeError

_MEMORY = ("out of memory", "can't allocate memory", "oom when allocating", "failed to allocate memory")

_MOST = 600
"""Letters of a message that are told."""

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
"""Where a framework that has compiled a user's code tells their lines: in its message, as Python would print them."""

_ERROR = re.compile(r"^\s*\w*(?:Error|Exception): (.+)$", re.MULTILINE)


def is_own(file: Path, folder: Path) -> bool:
    """Whether a file is one that the user wrote: below their folder, and not in an environment that lies there."""
    inside = file.is_relative_to(folder)
    # Installed packages of an environment inside the project are below its folder, too.
    return inside and not {"site-packages", "dist-packages", "__pycache__"} & set(file.relative_to(folder).parts)


@contextmanager
def theirs(folder: Path, what: str) -> Iterator[None]:
    """Turn whatever a user's code raises inside into an error that names its file and line.

    Args:
        folder: where the user's files lie.
        what: what was being done, such as `building the model`.

    Raises:
        OwnCodeError: anything was raised; MemoryError if it was for want of memory, which is another status.
    """
    try:
        yield
    except HarnessError:
        raise
    except SystemExit as error:
        # A script that reads the command line when it is imported reads the harness's.
        sentence = f"{_place(error, folder)}{what} ended the process by exit({error.code!r})"
        raise OwnCodeError(f"{sentence}; leave what a script does under `if __name__ == '__main__':`") from error
    except Exception as error:
        traceback.print_exc()  # the whole of it goes into the stage's log
        text = " ".join(_told(error).split()) or "no message"
        # Some messages show whole tensors; the log has all of it.
        text = text if len(text) <= _MOST else f"{text[:_MOST]} ..."
        sentence = f"{_place(error, folder)}{what} raised {type(error).__name__}: {text}"
        # Frameworks raise errors of their own where a device has no memory left: the run treats all of them alike.
        if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _MEMORY):
            raise MemoryError(sentence) from error
        raise OwnCodeError(sentence) from error


def _place(error: BaseException, folder: Path) -> str:
    """`file.py:12: ` of the innermost frame in the user's files; of a syntax error the line that is wrong."""
    if isinstance(error, SyntaxError) and error.filename and is_own(Path(error.filename), folder):
        return f"{Path(error.filename).relative_to(folder)}:{error.lineno}: "
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_own(Path(frame.filename), folder):
            return f"{Path(frame.filename).relative_to(folder)}:{frame.lineno}: "
    # Code that a framework has compiled has no frames of the user's: their lines are in its message.
    for file, line in reversed(_FRAME.findall(str(error))):
        if is_own(Path(file), folder):
            return f"{Path(file).relative_to(folder)}:{line}: "
    return ""


def _told(error: Exception) -> str:
    """The message; of one that lists lines of code, what comes after them, without hints."""
    text = str(error)
    frames = list(_FRAME.finditer(text))
    if not frames:
        return text
    said = _ERROR.search(text, frames[-1].end())
    rest = text[said.start(1) :] if said else text[frames[-1].end() :].partition("\n")[2]
    # Hints on the framework's own settings follow, of no use to whoever has to mend a line of theirs.
    return re.split(r"\n\s*(?:Hint:|Call arguments received|\[\[)", rest)[0]
