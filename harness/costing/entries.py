"""What a command line says of engines and parameters, as the entries that the registry makes components from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api import JsonValue, SpecError, read_plain_text

if TYPE_CHECKING:
    from harness.spec.source import Problems

Entry = dict[str, JsonValue]
"""A `name` with parameters, or parameters alone."""


def scalar(text: str, what: str) -> JsonValue:
    """A value as YAML reads it: 8, 0.5, true, null, [1, 2], text.

    Raises:
        SpecError: it is no YAML.
    """
    from harness.spec.source import read  # with it comes the reader of YAML: only where there is something to read

    if not text.strip():
        raise SpecError(f"{what}: expected a value after '=', got nothing; write it, or leave the parameter out")
    value, problems = read(text, what)
    problems.finish()
    return value


def assignments(text: str, what: str) -> Entry:
    """Parameters from `a=1,b=[2, 3]`; a comma inside a value does not end it.

    Raises:
        SpecError: a part has no '=', or a name comes twice.
    """
    found: Entry = {}
    # A comma parts parameters only where the next one begins, so that `b=[2, 3]` stays whole.
    for part in re.split(r",(?=\s*\w+\s*=)", text):
        name, sign, value = part.partition("=")
        if not sign or not name.strip().isidentifier():
            raise SpecError(f"{what}: expected parameters like pes=64,lanes=16, got {part!r}; write name=value")
        if name.strip() in found:
            raise SpecError(f"{what}: expected every parameter once, got {name.strip()!r} twice; remove one")
        found[name.strip()] = scalar(value, what)
    return found


def engine_entry(text: str) -> Entry:
    """An engine from `name`, `name:parameter=value,...` or a YAML file with the same.

    Raises:
        SpecError: the text or the file says something else.
    """
    if text.endswith((".yaml", ".yml")):
        return _engine_file(Path(text))
    name, colon, parameters = text.partition(":")
    if not name.strip() or (colon and not parameters.strip()):
        raise SpecError(f"--engine: expected NAME or NAME:parameter=value,..., got {text!r}; name an engine first")
    return {"name": name.strip(), **(assignments(parameters, f"--engine {name}") if colon else {})}


def read_description(path: Path, what: str) -> tuple[JsonValue, Problems]:
    """The YAML value in a file, and what knows the place of every part of it.

    Args:
        path: the file.
        what: what it should describe, for messages.

    Raises:
        SpecError: it cannot be read, is empty or no YAML.
    """
    from harness.spec.source import MAX_BYTES, read

    text = read_plain_text(path, f"a description of {what}", most=MAX_BYTES)
    if not text.strip():
        raise SpecError(f"{path}: expected a description of {what}, got an empty file; examples/ has some")
    value, problems = read(text, str(path))
    problems.finish()
    return value, problems


def _engine_file(path: Path) -> Entry:
    value, _ = read_description(path, "an engine")
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise SpecError(f"{path}: expected an engine's `name` and its parameters, got {value!r:.60}; write `name: ...`")
    return value
