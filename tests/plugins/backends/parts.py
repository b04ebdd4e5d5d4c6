"""Scripts of several checks: one that breaks fails the tests that ask for it, and no others.

The script wraps each check in `guarded` and prints its answers as JSON; the tests look them up in what `read` makes of
them.
"""

import json
import traceback
from contextlib import contextmanager

BROKEN = "broken"
"""The one entry of an answer that there is none of: a traceback."""


class Answers(dict):
    """Answers by part; looking up one that broke raises with the script's traceback."""

    def __getitem__(self, name):
        value = super().__getitem__(name)
        if isinstance(value, dict) and list(value) == [BROKEN]:
            raise AssertionError(f"{name}: {value.get(BROKEN)}")
        return value

    def __missing__(self, name):
        """A part that broke before it came to this answer says why there is none."""
        broken = [str(value.get(BROKEN)) for value in self.values() if isinstance(value, dict) and BROKEN in value]
        raise AssertionError("\n".join([f"the script has no answer to {name!r}, only to {list(self)}", *broken]))


@contextmanager
def guarded(answers, name):
    """Within, one check of a script: if it raises, that is its answer, and the script goes on."""
    try:
        yield
    except Exception:
        answers[name] = {BROKEN: traceback.format_exc()}


def read(text):
    """The answers of a script, from the JSON that it wrote."""
    return json.loads(text, object_hook=Answers)
