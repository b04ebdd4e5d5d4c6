"""What the cells of a large file have in common, said once: a table of it, and in every line what is the cell's own.

    {"format": 2, "shared": {
    "0f1e2d3c4b5a6978": {"model": "cycle_simulator", "details": {"device": {"id": "zu9eg"}, "weight_bits": 8}},
    ...
    }, "records": [
    {"cell": "1a2b", "like": "...", "hardware": {"bank": {"like": "0f1e2d3c4b5a6978", "cycles": 41}}},
    ...
    ]}

One rule holds, for a record and for each of its costs: where it has a `like`, it is the shared object of that name with
its own fields put over it; where both have an object under a name, so are these. A shared object may itself be like one
before it. Its name is the beginning of its digest, so that an edited one shows. What a cell is and what became of it
(`OF_EVERY_LINE`) is always in its line.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic_core import from_json, to_json

from harness._files import digest
from harness.api import JsonValue

Object = dict[str, JsonValue]

OF_EVERY_LINE = frozenset(
    (
        "run", "cell", "task", "backend", "pattern", "strategy", "allocation", "target_sparsity", "sparsity", "seed",
        "metric", "value", "status", "reason", "stage", "storage",
    )
)  # fmt: skip
"""Fields that no line leaves to its shared object: what a reader looks for, and what the schema holds to be whole."""

LIKE = "like"
FIRST, MIDDLE, _LAST = b'{"format": 2, "shared": {\n', b'}, "records": [\n', b"]}\n"
_NAME_CHARS = 16
_SAMPLES = 32
"""Objects of a group that are asked what most of them say: what is said is exact with any number of them."""

_WORTH_BYTES = 60
"""A cost that is shorter than this is written where it is: its name would be as long."""

_PLAIN = frozenset((str, int, bool, type(None)))
"""Types whose equal values are written alike."""

_FIELD_BYTES = 16
"""What a field of a shared object counts for in each object that is like it: it takes about as much memory."""


class SharedError(ValueError):
    """A line refers to what is not there, or says more together than a file of its size can mean."""


@dataclass(frozen=True)
class Cell:
    """What is asked of a record to write it.

    Args:
        kind: records of one kind have much in common, e.g. their task and backend.
        setting: those of one setting have more, e.g. their strategy and sparsity.
        fields: gives all its fields but the costs.
        hardware: its costs by label.
    """

    kind: tuple[object, ...]
    setting: tuple[object, ...]
    fields: Callable[[], Object]
    hardware: Mapping[str, Object]


def lines(cells: Sequence[Cell]) -> Iterator[bytes]:
    """The lines of a file of records with a table of what they have in common."""
    shared = _Writer(cells)
    yield FIRST
    yield from _separated(to_json(name) + b":" + content for name, content in shared.entries.items())
    yield MIDDLE
    yield from _separated(shared.line(cell) for cell in cells)
    yield _LAST


def text(value: object) -> bytes:
    """A value as JSON; infinity is a missing value, and half a character the escape that it is."""
    try:
        return to_json(value, inf_nan_mode="null")
    # Half a surrogate pair is a text to Python and none to UTF-8; some name or text of a plugin may hold one.
    except ValueError:
        return to_json(_whole(value), inf_nan_mode="null")


def _whole(value: object) -> object:
    """A value whose texts can all be written as UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_whole(name): _whole(inner) for name, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list | tuple) else value


def _separated(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Each part on a line, with a comma after all but the last."""
    between = b""
    for part in parts:
        yield between + part
        between = b",\n"
    if between:
        yield b"\n"


class _Writer:
    """Finds what cells have in common, before the first line is written.

    Attributes:
        entries: the shared objects as JSON by name, each after the one that it is like.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.entries: dict[str, bytes] = {}
        self._costs: dict[int, bytes] = {}
        self._bases: dict[tuple[object, ...], tuple[str, Object]] = {}
        self._share_costs(cells)
        self._share_fields(cells)

    def line(self, cell: Cell) -> bytes:
        """A cell as its line."""
        fields = cell.fields()
        name, base = self._bases.get((cell.kind, cell.setting), ("", {}))
        inline = {field: value for field, value in fields.items() if field in OF_EVERY_LINE}
        own = difference(base, _to_share(fields))
        start = text({**inline, **own, **({LIKE: name} if name else {})})
        costs = b",".join(text(label) + b":" + self._costs[id(cost)] for label, cost in cell.hardware.items())
        return start[:-1] + b',"hardware":{' + costs + b"}}"

    def _enter(self, value: Object) -> str:
        """The name of a shared object."""
        content = text(value)
        # Of what a reader will find: there is no infinity in a file.
        whole = digest(from_json(content))
        name = whole[:_NAME_CHARS]
        if self.entries.setdefault(name, content) != content:
            # The same beginning, or the same object in another order: the whole digest, and the first to come stays.
            name = whole
            self.entries.setdefault(name, content)
        return name

    def _share_costs(self, cells: Sequence[Cell]) -> None:
        # Equal masks have one cost, as one object or read again: the first is found without a look inside.
        groups: dict[tuple[str, tuple[str, ...]], dict[int, Object]] = defaultdict(dict)
        uses: Counter[int] = Counter()
        for cell in cells:
            for label, cost in cell.hardware.items():
                groups[label, tuple(sorted(cost))][id(cost)] = cost
                uses[id(cost)] += 1
        for costs in groups.values():
            self._share_alike(costs, uses)

    def _share_alike(self, costs: Mapping[int, Object], uses: Mapping[int, int]) -> None:
        """The costs of one hardware entry that have the same fields."""
        if sum(uses[each] for each in costs) == 1:
            self._costs |= {each: text(cost) for each, cost in costs.items()}
            return
        base = common(list(costs.values()))
        like: Object = {LIKE: self._enter(base)} if base else {}
        by_text: dict[bytes, list[int]] = defaultdict(list)
        for each, cost in costs.items():
            by_text[text({**like, **difference(base, cost)})].append(each)
        for content, found in by_text.items():
            is_shared = sum(uses[each] for each in found) > 1 and len(content) > _WORTH_BYTES
            whole: Object = {**like, **difference(base, costs[found[0]])} if is_shared else {}
            self._costs |= dict.fromkeys(found, text({LIKE: self._enter(whole)}) if is_shared else content)

    def _share_fields(self, cells: Sequence[Cell]) -> None:
        """What all cells of a kind have in common, and beyond it those of a setting."""
        groups: dict[tuple[object, ...], dict[tuple[object, ...], list[Cell]]] = defaultdict(lambda: defaultdict(list))
        for cell in cells:
            groups[cell.kind][cell.setting].append(cell)
        for kind, inner in groups.items():
            usual = {key: common([_to_share(cell.fields()) for cell in members]) for key, members in inner.items()}
            base = common(list(usual.values()))
            if not base:
                continue
            name = self._enter(base)
            for key, members in inner.items():
                own = difference(base, usual[key])
                if len(members) > 1 and own:
                    self._bases[kind, key] = (self._enter({LIKE: name, **own}), usual[key])
                else:
                    self._bases[kind, key] = (name, base)


def _to_share(fields: Object) -> Object:
    return {field: value for field, value in fields.items() if field not in OF_EVERY_LINE}


def common(objects: Sequence[Object]) -> Object:
    """An object that every one of these can be like: fields that all of them have, with the value that most have.

    Args:
        objects: at least one.
    """
    shape = _Shape(objects[0])
    for each in objects[1:]:
        shape.narrow(each)
    return shape.usual(objects[:: max(1, len(objects) // _SAMPLES)])


class _Shape:
    """The names that objects have in common, those of the objects in them included."""

    def __init__(self, first: Object) -> None:
        self._names = dict.fromkeys(first)
        self._inner = {name: _Shape(value) for name, value in first.items() if isinstance(value, dict)}

    def narrow(self, other: Object) -> None:
        """Drop what another object does not have: a field cannot be taken away from what one is like."""
        if not self._names.keys() <= other.keys():
            self._names = {name: None for name in self._names if name in other}
        # By inner objects alone: this is asked of every cost of a large run.
        for name, shape in tuple(self._inner.items()):
            value = other.get(name)
            if isinstance(value, dict):
                shape.narrow(value)
            else:
                self._names.pop(name, None)
                del self._inner[name]

    def usual(self, samples: Sequence[Object]) -> Object:
        """The values that most of the samples have, of those that more than one has."""
        found: Object = {}
        for name in self._names:
            values = [sample[name] for sample in samples]
            if name in self._inner:
                usual = self._inner[name].usual(cast("list[Object]", values))
                if usual or not any(values):
                    found[name] = usual
                continue
            # As text: to Python 1, 1.0 and true are equal, in a file they are not.
            texts = [repr(value) for value in values]
            most, count = Counter(texts).most_common(1)[0]
            if count > 1 or len(samples) == 1:
                found[name] = values[texts.index(most)]
        return found


def difference(base: Object, whole: Object) -> Object:
    """What has to be put over `base` to get `whole`, which has every field that `base` has."""
    own: Object = {}
    for name, value in whole.items():
        below = base.get(name)
        if value is below and below is not None:
            continue
        if type(value) is dict and type(below) is dict:
            if inner := difference(below, value):
                own[name] = inner
        elif name not in base or not _same(value, below):
            own[name] = value
    return own


def _same(one: JsonValue, other: JsonValue) -> bool:
    """Whether two values are written alike: 1, 1.0 and true are not, nor are 0.0 and -0.0."""
    if one != other or type(one) is not type(other):
        return False
    return type(one) in _PLAIN or repr(one) == repr(other)


class Shared:
    """The shared objects of a file that is read.

    Args:
        most: bytes that its lines may say together: a small file is not to fill the memory.
    """

    def __init__(self, most: int) -> None:
        self._entries: dict[str, Object] = {}
        self._sizes: dict[str, int] = {}
        self._left = most

    def add(self, name: str, entry: Object, size: int) -> None:
        """Take an entry of the table, which is written with so many bytes.

        Raises:
            SharedError: it is like one that did not come before it.
        """
        self._sizes[name] = size + self._sizes.get(str(entry.get(LIKE)), 0)
        self._entries[name] = self.whole(entry)

    def record(self, line: Object) -> Object:
        """The fields of a record; each has its own copy of them in the end, so that all it is like is counted."""
        self._count(self._sizes.get(str(line.get(LIKE)), 0))
        return self.whole(line)

    def whole(self, value: Object) -> Object:
        """A record or a cost with all its fields; what it shares with others is the same object in all of them.

        Raises:
            SharedError: it is like an object that is not there, or the file says too much.
        """
        like = value.get(LIKE)
        if like is None:
            return value
        base = self._entries.get(like) if isinstance(like, str) else None
        if base is None:
            raise SharedError(f"it is like {str(like)[:80]!r}, which is not among what is shared before it")
        own = {name: inner for name, inner in value.items() if name != LIKE}
        return self._merged(base, own) if own else base

    def _count(self, size: int) -> None:
        """Count bytes that a line says.

        Raises:
            SharedError: they are too many together.
        """
        self._left -= size
        if self._left < 0:
            raise SharedError("with it, the file says more than a file of records may")

    def _merged(self, base: Object, own: Object) -> Object:
        self._count(_FIELD_BYTES * len(base))
        found = dict(base)
        for name, value in own.items():
            below = found.get(name)
            both = isinstance(value, dict) and isinstance(below, dict)
            found[name] = self._merged(cast("Object", below), cast("Object", value)) if both else value
        return found


def is_named(name: str, entry: Object) -> bool:
    """Whether a shared object is the one that was given its name."""
    return len(name) >= _NAME_CHARS and digest(entry).startswith(name)
