"""Reading device descriptions: YAML in, checked values out, every mistake with its file and place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from harness.api import Frozen, JsonValue, SpecError, load_yaml, read_plain_text

FigureOrigin = Literal["read", "recalled", "derived", "assumed", "measured"]
Read = TypeVar("Read", bound=Frozen)

_MOST_MISTAKES = 8
"""Mistakes of one file that a message names; the rest is counted."""


MAX_BYTES = 1_000_000
"""A larger file describes no device."""


MOST = 1e18
"""No chip has so much of anything, whatever it is counted in."""


class DeviceFileError(SpecError, ValueError):
    """A device file that cannot be used; a ValueError too, so that a spec reports it with its line."""


class Figure(Frozen):
    """A number with its origin and its source, cited in full; `via` says that somebody else quoted the source."""

    value: float = Field(ge=0, le=MOST, allow_inf_nan=False)
    origin: FigureOrigin
    source: str
    via: Literal["secondary"] | None = None
    check: str | None = None
    note: str | None = None

    def plain(self) -> dict[str, JsonValue]:
        """Value, origin and source, for a report."""
        secondary = " (as quoted by somebody else)" if self.via else ""
        return {"value": self.value, "origin": self.origin, "source": self.source + secondary}


def read_yaml(path: Path) -> dict[str, JsonValue]:
    """The mapping in a file.

    Raises:
        DeviceFileError: no such file, no YAML, or no mapping.
    """
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    text = read_plain_text(path, "a device file", most=MAX_BYTES, error=DeviceFileError)
    try:
        content = load_yaml(text)
    except ValueError as error:
        raise DeviceFileError(f"{path}: a device file must be plain YAML, got {error}; mend it") from None
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        line = "" if mark is None else f" in line {mark.line + 1}"
        what = error.problem if isinstance(error, MarkedYAMLError) else "unreadable"
        raise DeviceFileError(f"{path}: a device file must be YAML, got{line}: {what}; correct the syntax") from None
    if not isinstance(content, dict):
        raise DeviceFileError(
            f"{path}: a device file must be a mapping, got {type(content).__name__}; begin with `version: 1`"
        )
    _refuse_truths(content, path)
    return content


def _refuse_truths(node: JsonValue, path: Path, place: str = "") -> None:
    """Refuse true and false: nothing here is one, and to Python `true` is the number 1.

    Raises:
        DeviceFileError: there is one.
    """
    if isinstance(node, bool):
        told = str(node).lower()
        raise DeviceFileError(f"{path}: {place or 'the file'}: expected a number or a text, got {told}; correct it")
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in inside:
        _refuse_truths(child, path, f"{place}.{key}" if place else str(key))


def cited(node: JsonValue, sources: Mapping[str, str], path: Path, place: str = "") -> JsonValue:
    """The same content with every key of a source replaced by its citation.

    Raises:
        DeviceFileError: a key that `sources` does not have.
    """
    if isinstance(node, list):
        return [cited(child, sources, path, f"{place}{index}.") for index, child in enumerate(node)]
    if not isinstance(node, dict):
        return node
    replaced = {key: cited(child, sources, path, f"{place}{key}.") for key, child in node.items()}
    for key in ("source", "shapes_source"):
        source = node.get(key)
        if source is None:
            continue
        # Free text is refused: a citation that nobody listed cannot be followed.
        if not isinstance(source, str) or source not in sources:
            raise DeviceFileError(
                f"{path}: {place}{key} must be a key of `sources`, got {source!r}; add it there with what it stands for"
            )
        replaced[key] = sources[source]
    return replaced


def checked(model: type[Read], content: JsonValue, path: Path) -> Read:
    """The content as a model.

    Raises:
        DeviceFileError: it does not fit; all mistakes (the first eight of them) in one message.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise DeviceFileError(f"{path}: {_mistakes(error)}; examples/devices/ has a whole file") from None


def _mistakes(error: ValidationError) -> str:
    found = error.errors(include_url=False)
    lines = []
    for mistake in found[:_MOST_MISTAKES]:
        place = ".".join(map(str, mistake["loc"])) or "the file"
        got = "" if mistake["type"] == "missing" else f", got {mistake['input']!r:.60}"
        message = mistake["msg"].removeprefix("Value error, ")
        lines.append(f"{place}: {message[0].lower()}{message[1:]}{got}")
    more = f"; and {len(found) - _MOST_MISTAKES} more" if len(found) > _MOST_MISTAKES else ""
    return "; ".join(lines) + more
