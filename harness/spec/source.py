"""YAML text as plain values, with the line and column of each: read as YAML 1.2, every problem collected."""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from harness.api import JsonValue, SpecError, yaml12
from harness.api.yaml import check_yaml_size

MAX_BYTES = 1_000_000
"""A larger file is refused before it is parsed."""

MAX_NODES = 100_000
"""Values of a document with every alias written out; more are refused ("billion laughs")."""

WHOLE = "(document)"
"""The path of a problem of the file as a whole."""

_MAX_DEPTH = 40  # enough for any experiment, far from Python's recursion limit
_UNSEEN = ("Zs", "Zl", "Zp", "Cf")  # categories of characters that separate, or that show nothing
_CORE = "tag:yaml.org,2002:"

Path = tuple[str | int, ...]
"""Keys and indices that lead to a value, e.g. ("matrix", "seed", 0)."""


@dataclass(frozen=True, order=True)
class Place:
    """A position in the file, counted from 1."""

    line: int
    column: int


@dataclass
class Problems:
    """Everything wrong with one file, to be told at once."""

    filename: str
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    lines: dict[str, Place] = field(default_factory=dict)
    refused: set[Path] = field(default_factory=set)  # values that could not even be read: nothing more is said of them

    def add(self, path: Path, message: str, *, at: str = "value") -> None:
        """Note a problem with the value, or with the key (`at="key"`), that lies at a path.

        A path that the file does not spell out (a single value read as a list, say) is told by its nearest parent.
        """
        # A path may lead below what the file has, to a missing key: the message goes to the nearest value above.
        known = path
        while known and known not in self.values:
            known = known[:-1]
        places = self.keys if at == "key" else self.values
        place = places.get(known) or self.values.get(known) or Place(1, 1)
        if known not in self.refused:
            self.add_at(place, shown(known if at == "value" else path), message)

    def add_at(self, place: Place, path: str, message: str) -> None:
        """Note a problem at a position."""
        text = f"{self.filename}:{place.line}:{place.column} {path or WHOLE}: {' '.join(message.split())}"
        # By its text: a model and a reader that note the same thing note it once.
        self.lines.setdefault(text, place)

    def line(self, path: Path) -> int:
        """The line of the value at a path."""
        return self.values.get(path, Place(1, 1)).line

    def finish(self) -> None:
        """Raise what was noted.

        Raises:
            SpecError: one line per problem, in the order of the file.
        """
        if self.lines:
            # In the order of the file, as an editor walks through them.
            raise SpecError("\n".join(sorted(self.lines, key=lambda text: (self.lines[text], text))))


def shown(path: Path) -> str:
    """A path as a reader writes it: `matrix.pattern[1].banks`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def got(value: object) -> str:
    """A value as it is quoted in a message: YAML-like, short."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, str):
        text = f"'{value}'"
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def read(text: str, filename: str) -> tuple[JsonValue, Problems]:
    """Read a YAML document.

    Args:
        text: the document.
        filename: what messages call it.

    Returns:
        Its value in JSON types (timestamps stay text), and the problems found so far, which know every position.

    Raises:
        SpecError: it is no YAML at all, or larger than the limits.
    """
    problems = Problems(filename)
    size = len(text.encode("utf-8", "surrogatepass"))  # a shell's word may hold half a character
    if size > MAX_BYTES:
        problems.add_at(Place(1, 1), WHOLE, f"expected at most {MAX_BYTES} bytes, got {size}")
        problems.finish()
    try:
        check_yaml_size(text)
    except ValueError as error:
        problems.add_at(Place(1, 1), WHOLE, f"expected {error}")
        problems.finish()
    root = _compose(text, problems)
    if root is None:
        problems.add_at(Place(1, 1), WHOLE, "expected an experiment with at least `name` and `task`, got nothing")
        problems.finish()
        return None, problems
    try:
        value = _Converter(problems).value(root, (), ())
    except _TooLargeError as error:
        problems.add(error.path, error.message)
        problems.finish()
        raise  # not reached: `finish` raises
    return value, problems


def _compose(text: str, problems: Problems) -> Node | None:
    # Before parsing: YAML 1.1 reads `no` as false and 010 as 8, and ruamel would obey the directive.
    directive = re.search(r"^%YAML[ \t]+(?!1\.2\b)(\S+)", text, re.MULTILINE)
    if directive:
        line = text.count("\n", 0, directive.start()) + 1
        problems.add_at(Place(line, 1), WHOLE, f"expected YAML 1.2, got a %YAML {directive[1]} directive; remove it")
        problems.finish()
    try:
        return yaml12().compose(text)  # type: ignore[no-any-return]  # ruamel leaves it untyped
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        problems.add_at(place, WHOLE, _syntax(error, place) + _unseen(text, place.line))
    except RecursionError:
        problems.add_at(Place(1, 1), WHOLE, f"expected at most {_MAX_DEPTH} levels of nesting, got many more")
    except YAMLError as error:
        reason = str(error).splitlines()[0]
        problems.add_at(_first(text, error), WHOLE, f"expected printable text, got an {reason}")
    problems.finish()
    raise AssertionError  # `finish` raises after an error


def _first(text: str, error: YAMLError) -> Place:
    """Where the character stands that a reader stumbled over: the first one of its kind, as all before it were read."""
    character = getattr(error, "character", "")
    position = text.find(chr(character) if isinstance(character, int) else character or "\0")
    return (
        Place(text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position))
        if position > 0
        else Place(1, 1)
    )


def _syntax(error: MarkedYAMLError, place: Place) -> str:
    problem = str(error.problem or "")
    if "'\\t'" in problem:
        return "expected spaces for indentation, got a tab"
    if "another document" in problem:
        return "expected a single document, got a second one after '---'"
    if "undefined alias" in problem:
        return f"expected an alias of an anchor that is set above it, got {problem.removeprefix('found ')}"
    context = f" {error.context}" if error.context else ""
    return f"expected YAML, got a syntax error{context}: {problem}"


def _unseen(text: str, line: int) -> str:
    """A clause on the first character, up to a line, that looks like a space or like nothing and is neither to YAML."""
    for number, each in enumerate(text.split("\n")[:line], start=1):
        # Pasted from a page or a word processor, and not to be found by looking.
        found = next((char for char in each if unicodedata.category(char) in _UNSEEN and char != " "), None)
        if found is not None:
            name = unicodedata.name(found, "character").lower()
            return f"; line {number} has a {name} (U+{ord(found):04X}), which is no space to YAML: replace or remove it"
    return ""


class _TooLargeError(Exception):
    def __init__(self, path: Path, message: str) -> None:
        super().__init__(path, message)
        self.path, self.message = path, message


class _Converter:
    """Turns nodes into values; notes positions and whatever has no place in an experiment file."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.nodes = 0

    def value(self, node: Node, path: Path, above: tuple[int, ...]) -> JsonValue:
        # Counted with aliases written out: nine levels of nine aliases are 400 million values from a few lines.
        self.count(path)
        if id(node) in above:
            raise _TooLargeError(path, "expected a tree of values, got an alias of what it stands in")
        if len(path) > _MAX_DEPTH:
            raise _TooLargeError(path[:1], f"expected at most {_MAX_DEPTH} levels of nesting, got more")
        self.problems.values.setdefault(path, _place(node))
        above = (*above, id(node))
        if isinstance(node, SequenceNode) and node.tag == f"{_CORE}seq":
            return [self.value(item, (*path, index), above) for index, item in enumerate(node.value)]
        if isinstance(node, MappingNode) and node.tag == f"{_CORE}map":
            return self.mapping(node, path, above)
        if isinstance(node, ScalarNode):
            return self.scalar(node, path)
        return self.refuse(path, f"expected a plain value, got one tagged {node.tag}")

    def count(self, path: Path) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _TooLargeError(path, f"expected at most {MAX_NODES} values once aliases are written out, got more")

    def mapping(self, node: MappingNode, path: Path, above: tuple[int, ...]) -> JsonValue:
        found: dict[str, JsonValue] = {}
        for key, value in self.pairs(node, path):
            inner = (*path, key.value)
            # Pairs are walked in their order: a second one of the same name would silently win in a dictionary.
            if inner in self.problems.keys and key.value in found:
                first = self.problems.keys[inner].line
                self.problems.add_at(
                    _place(key),
                    shown(inner),
                    f"expected every key once, got '{key.value}' again (first in line {first})",
                )
                continue
            self.problems.keys[inner] = _place(key)
            if (empty := _place_of_nothing(key, value)) is not None:
                self.problems.values.setdefault(inner, empty)
            found[key.value] = self.value(value, inner, above)
        # Merged pairs after the mapping's own, which win over them.
        merged = [pair for other in self.merges(node, path, above) for pair in self.merged(other, path, above)]
        for key, value in merged:
            if key.value not in found:
                self.problems.keys[(*path, key.value)] = _place(key)
                found[key.value] = self.value(value, (*path, key.value), above)
        return found

    def pairs(self, node: MappingNode, path: Path) -> Iterator[tuple[ScalarNode, Node]]:
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self.problems.add_at(_place(key), shown(path), "expected a name as a key, got a list or mapping")
            elif key.tag != f"{_CORE}merge":
                yield key, value

    def merges(self, node: MappingNode, path: Path, above: tuple[int, ...]) -> Iterator[MappingNode]:
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or key.tag != f"{_CORE}merge":
                continue
            for other in value.value if isinstance(value, SequenceNode) else [value]:
                if not isinstance(other, MappingNode):
                    self.problems.add_at(
                        _place(other), shown(path), "expected `<<` to name mappings, got another value"
                    )
                elif id(other) in above:
                    raise _TooLargeError(path, "expected a tree of values, got a mapping merged into itself")
                else:
                    yield other

    def merged(self, node: MappingNode, path: Path, above: tuple[int, ...]) -> Iterator[tuple[ScalarNode, Node]]:
        """What a merged mapping brings in, its own merges last: a key that is nearer wins."""
        self.count(path)
        for pair in self.pairs(node, path):
            self.count(path)  # a key that is not taken over is work all the same
            yield pair
        for other in self.merges(node, path, (*above, id(node))):
            yield from self.merged(other, path, (*above, id(node)))

    def scalar(self, node: ScalarNode, path: Path) -> JsonValue:
        text, kind = str(node.value), str(node.tag).removeprefix(_CORE)
        if kind not in _SCALARS:
            return self.refuse(path, f"expected a plain value, got one tagged {node.tag}")
        try:
            value = _SCALARS[kind](text)
        # KeyError: a word that YAML 1.2 does not take for a truth value, under an explicit tag.
        except (ValueError, KeyError):
            if kind == "int" and len(text) > _DIGITS:
                return self.refuse(path, f"expected a number of at most {_DIGITS} digits, got {len(text):,}")
            return self.refuse(path, f"expected a value of type {kind}, got {got(text)}")
        # JSON has no infinity, and no parameter means one.
        if isinstance(value, float) and not math.isfinite(value):
            return self.refuse(path, f"expected a finite number, got {text}")
        return value

    def refuse(self, path: Path, message: str) -> JsonValue:
        self.problems.add(path, message)
        self.problems.refused.add(path)
        return None


_DIGITS = 100
"""Of a number: none in an experiment has more, and reading some hundred thousand takes long."""


def _integer(text: str) -> int:
    digits = text.replace("_", "").lower()
    return int(_short(digits), {"0x": 16, "0o": 8, "0b": 2}.get(digits.lstrip("+-")[:2], 10))


def _short(digits: str) -> str:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of more than {_DIGITS} digits")
    return digits


def _number(text: str) -> float:
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _nothing(text: str) -> None:
    return None


_SCALARS: Mapping[str, Callable[[str], JsonValue]] = {
    "str": str, "timestamp": str, "null": _nothing, "bool": _truth, "int": _integer, "float": _number,
}  # fmt: skip
"""Scalars of an experiment, by tag; a date stays the text it is."""


def _place(node: Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _place_of_nothing(key: ScalarNode, value: Node) -> Place | None:
    """Where a value would stand that was left out: behind the colon of its key, not where the next token begins."""
    if value.start_mark.index != value.end_mark.index:
        return None
    end = key.end_mark
    between = re.match(r"[ \t]*:", end.buffer[end.pointer :]) if hasattr(end, "buffer") else None
    return Place(end.line + 1, end.column + 1 + (between.end() if between else 0))
