"""The experiment file as pydantic models, and their errors as sentences."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from harness._text import listed
from harness._words import suggestion
from harness.api import Frozen, JsonValue
from harness.spec.source import Path, Problems, got

AXES = ("task", "backend", "pattern", "allocation", "strategy", "sparsity", "seed")
"""The axes of the matrix, slowest first: the order of cells."""


def _many(value: object) -> object:
    """A single value where a list of one is meant."""
    return value if isinstance(value, list) or value is None else [value]


def _any(value: object) -> object:
    """As `_many`; nothing, as is left when every line below a key is a comment, is an empty list."""
    return [] if value is None else _many(value)


def _sparsity(value: object) -> object:
    hint = "expected a fraction of zeros between 0 and 1, such as 0.9, "
    if isinstance(value, str) and (percent := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)):
        raise ValueError(f"{hint}got '{value}'; write {float(percent[1]) / 100:g}")
    # A bool is an int in Python, and `sparsity: true` would be read as 1.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{hint}got {got(value)}")
    if value == 0:
        raise ValueError(f"{hint}got {value}; the dense baseline needs no mention")
    if value == 1:
        raise ValueError(f"{hint}got {value}, which would leave no weight")
    # Between 1 and 100 it is a percentage in all likelihood: the sentence then says the fraction to write.
    if 1 < value < 100:
        raise ValueError(f"{hint}got {value}; write {value / 100:g} for {value} %")
    if not 0 < value < 1:
        raise ValueError(f"{hint}got {value}")
    return value


def _bytes(value: object) -> object:
    # KB is a thousand and KiB 1,024, as disks and their makers count.
    units = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
        if match is None or match[2].upper() not in units:
            raise ValueError(f"expected a size such as 4GB or 500MB, got {got(value)}")
        return int(float(match[1]) * units[match[2].upper()])
    return value


Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=80,
        description="names the run's folder: letters, digits, '.', '_' and '-', not beginning with '.' or '-'",
    ),
]  # fmt: skip
Sparsity = Annotated[
    float, BeforeValidator(_sparsity), Field(gt=0, lt=1, description="fraction of zeros in the scope, in (0, 1)")
]
MOST_VALUES = 10_000
"""Of one axis: each is a training at least, and their product is bounded anyway."""

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Entry = JsonValue
"""A component's name, or a mapping of `name`, its parameters and, if wanted, `label`; see `harness.discovery`."""

GOALS = (
    "latency_us", "cycles", "steps_per_s", "storage_kib", "event_energy_uj", "ram_share", "bandwidth_gbytes_per_s",
    "fits",
)  # fmt: skip
"""What a target may be in: fields of costs, and the storage of masks and weights."""

_Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Target(Frozen):
    """A sparsity in terms of hardware: the lowest at which a pattern needs no more than this."""

    latency_us: _Limit | None = Field(default=None, description="microseconds per time step or item")
    cycles: _Limit | None = Field(default=None, description="clock cycles per time step or item")
    steps_per_s: _Limit | None = Field(
        default=None, description="time steps (or items: frames) per second, at least this many"
    )
    storage_kib: _Limit | None = Field(
        default=None, description="kibibytes of the scope's masks and weights, in the smallest storage format"
    )
    event_energy_uj: _Limit | None = Field(
        default=None, description="microjoules per time step or item, dynamic energy of the counted events alone"
    )
    ram_share: _Limit | None = Field(
        default=None, description="share of the device's RAM that the design may take, of the kind that is fullest"
    )
    bandwidth_gbytes_per_s: _Limit | None = Field(default=None, description="gigabytes per second from off-chip memory")
    fits: Literal[True] | None = Field(default=None, description="the design fits its device: `fits: true`")
    on: str | None = Field(
        default=None, description="label of the hardware entry that it is solved for; by default each of them"
    )

    @model_validator(mode="after")
    def _one_goal(self) -> "Target":
        given = [name for name in GOALS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of {listed(GOALS)}, got {listed(given) or 'none of them'}")
        return self


Entries = Annotated[list[Entry], BeforeValidator(_many), Field(min_length=1, max_length=MOST_VALUES)]
Sparsities = Annotated[list[Sparsity], BeforeValidator(_many), Field(min_length=1, max_length=MOST_VALUES)]
Targets = Annotated[list[Target], BeforeValidator(_many), Field(min_length=1, max_length=MOST_VALUES)]
Seeds = Annotated[list[Seed], BeforeValidator(_many), Field(min_length=1, max_length=MOST_VALUES)]
CODE = r"^[A-Z]{2,8}[0-9]{3}$"
"""How the code of a named check is written."""

Words = Annotated[list[str], BeforeValidator(_many), Field(min_length=1)]


class Matrix(Frozen):
    """The axes whose product are the cells; without pattern, strategy and sparsity, the dense baseline alone."""

    task: Entries | None = Field(default=None, description="tasks, if `task` does not stand at the top")
    backend: Entries = Field(description="what trains: torch, keras_tfmot, ...")
    pattern: Entries | None = Field(default=None, description="which weights stay")
    allocation: Entries | None = Field(
        default=None, description="allocations, if `allocation` does not stand at the top"
    )
    strategy: Entries | None = Field(default=None, description="when to train and when to prune")
    sparsity: Sparsities | None = Field(default=None, description="target fractions of zeros")
    target: Targets | None = Field(
        default=None,
        description="sparsities in terms of hardware, beside `sparsity` or in its place, e.g. {latency_us: 0.3}",
    )
    seed: Seeds = Field(default=[0], description="one training per seed; comparisons are paired by seed")


class Partial(Frozen):
    """Some axes and the values they may have: a cell that has one of them on every axis named is left out."""

    task: Entries | None = Field(default=None, description="names, labels or whole entries")
    backend: Entries | None = Field(default=None, description="names, labels or whole entries")
    pattern: Entries | None = Field(default=None, description="names, labels or whole entries")
    allocation: Entries | None = Field(
        default=None, description="`uniform`, `global`, `erk`, `lamp` or a whole mapping"
    )
    strategy: Entries | None = Field(default=None, description="names, labels or whole entries")
    sparsity: Sparsities | None = Field(default=None, description="target fractions of zeros")
    target: Annotated[list[Entry], BeforeValidator(_many)] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_VALUES,
        description="labels (`cycles 24 on card`), their beginnings (`cycles 24`, `cycles`) or whole targets",
    )
    seed: Seeds | None = Field(default=None, description="seeds")


class Single(Frozen):
    """One cell; an axis on which the matrix has a single value may be left out."""

    task: Entry = Field(default=None, description="a task")
    backend: Entry = Field(default=None, description="a backend")
    pattern: Entry = Field(default=None, description="a pattern")
    allocation: Entry = Field(default=None, description="`uniform`, `global`, `erk`, `lamp` or {tensor: sparsity}")
    strategy: Entry = Field(default=None, description="a strategy")
    sparsity: Sparsity | None = Field(default=None, description="a target fraction of zeros")
    target: Target | None = Field(default=None, description="a target, in the place of a sparsity")
    seed: Seed | None = Field(default=None, description="a seed")


class Document(Frozen):
    """An experiment file."""

    name: Name
    task: Entries | None = Field(default=None, description="data, model and dense recipe; one or several")
    scope: Words = Field(
        default=["all"], description="which tensors are pruned: `all` matrices, roles, layer names or tensor names"
    )
    allocation: Entry = Field(
        default="uniform",
        description="how sparsity is spread over the scope: `uniform`, `global`, `erk`, `lamp` or {tensor: sparsity}",
    )
    plugins: Annotated[list[str], BeforeValidator(_any)] = Field(
        default=[], description="Python files that offer plugins, seen from the spec's folder"
    )
    matrix: Matrix | None = Field(default=None, description="the axes whose product are the cells")
    exclude: Annotated[list[Partial], BeforeValidator(_any)] = Field(default=[], description="cells left out")
    include: Annotated[list[Single], BeforeValidator(_any)] = Field(default=[], description="single cells added")
    hardware: Annotated[list[Entry], BeforeValidator(_any)] = Field(
        default=[], description="hardware models that cost every cell's masks"
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = Field(
        default="auto", description="where to train: `auto`, `cpu`, `cuda` or `cuda:0`"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of matrix products while training"
    )
    threads: int = Field(default=1, ge=1, le=1024, description="CPU threads of one training; results depend on it")
    tolerance: float = Field(
        default=0.02, ge=0, lt=1, description="a cell is skipped if the reachable sparsity is further off than this"
    )
    margin: float | None = Field(
        default=None, gt=0, description="differences within it count as equivalent, in the metric's unit"
    )
    ignore: Annotated[list[str], BeforeValidator(_any)] = Field(
        default=[], description="codes of checks that need not warn, e.g. SPN007; a report still lists them as silenced"
    )
    data_dir: str | None = Field(
        default=None, min_length=1, description="folder of the data sets, seen from the spec's"
    )
    keep_dense: Annotated[int, BeforeValidator(_bytes)] = Field(
        default=4_000_000_000, ge=0, description="bytes of trained dense states kept for later specs, e.g. 4GB"
    )


def validate(value: JsonValue, problems: Problems) -> Document | None:
    """The document, or None with every error noted."""
    if not isinstance(value, dict):
        problems.add((), f"expected a mapping with at least `name` and `task`, got {got(value)}")
        return None
    try:
        # Through JSON, since only there is strict validation strict as wanted: a list is a tuple, but "10" is no
        # number.
        return Document.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        explain(error, problems, (), value, _known, _elsewhere)
        return None


def _known(path: Path) -> list[str]:
    """The keys a mapping of the document may have."""
    models: dict[str | int, type[Frozen]] = {"matrix": Matrix, "exclude": Partial, "include": Single}
    model = models.get(path[0], Document) if path else Document
    if path[:2] == ("matrix", "target"):
        model = Target
    return list(model.model_fields)


def explain(
    error: ValidationError,
    problems: Problems,
    base: Path,
    value: JsonValue,
    known: Callable[[Path], list[str]],
    elsewhere: Callable[[Path], str] = lambda path: "",
) -> None:
    """Note every error of a model.

    Args:
        error: what pydantic found.
        problems: where to note it.
        base: path of the value that was validated.
        value: that value, to tell real keys from pydantic's own tags in a location.
        known: path -> keys that a mapping there may have.
        elsewhere: path -> a clause on where a key belongs that does not belong there.
    """
    # A union reports an error for each of its alternatives, all at one place: they become one sentence.
    wrong: dict[Path, list[str]] = {}
    for detail in error.errors(include_url=False):
        path = (*base, *_real(detail["loc"], value))
        if detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]:
            continue  # to pydantic a list is short of the entries that are wrong, which are told themselves
        if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
            _explain_kind(detail, problems, path)
        elif detail["type"] == "extra_forbidden":
            keys = known(path[:-1])
            wanted = f"one of {listed(keys)}" if keys else "no further key"
            hint = suggestion(path[-1], keys) or elsewhere(path)
            problems.add(path, f"expected {wanted}, got {got(path[-1])}{hint}", at="key")
        elif detail["type"] == "missing":
            problems.add(path[:-1], f"expected `{detail['loc'][-1]}`, got nothing")
        else:
            wrong.setdefault(path, []).append(sentence(detail))
    for path, sentences in wrong.items():
        problems.add(path, _joined(sentences))


def _explain_kind(detail: ErrorDetails, problems: Problems, path: Path) -> None:
    """Note that a mapping does not say which of several kinds it is, or says one that there is not."""
    key = detail["ctx"]["discriminator"].strip("'")
    if detail["type"] == "union_tag_not_found":
        problems.add(path, f"expected `{key}`, got nothing")
    else:
        kinds = re.findall(r"'([^']*)'", detail["ctx"]["expected_tags"])
        tag = detail["ctx"]["tag"]
        problems.add((*path, key), f"expected one of {listed(kinds)}, got {got(tag)}{suggestion(tag, kinds)}")


def _elsewhere(path: Path) -> str:
    """A clause on where a key belongs that stands one level too high, or too low."""
    if len(path) == 1 and path[0] in Matrix.model_fields:
        return "; it belongs in `matrix`: indent it below `matrix:`"
    if len(path) == 2 and path[0] == "matrix" and path[1] in Document.model_fields:
        return "; it belongs to the top, beside `matrix`: take the spaces before it away"
    return ""


def _joined(sentences: list[str]) -> str:
    """One sentence for a value that none of several alternatives takes."""
    parts = [re.fullmatch(r"expected (.*?), got (.*)", text) for text in dict.fromkeys(sentences)]
    if len(parts) == 1 or not all(parts):
        return "; ".join(dict.fromkeys(sentences))
    tail = max((part[2] for part in parts if part), key=len)  # the one with a suggestion
    return f"expected {' or '.join(part[1] for part in parts if part)}, got {tail}"


def _real(location: tuple[int | str, ...], value: JsonValue) -> Path:
    """A pydantic location without the tags of unions and validators, which no file contains."""
    path: list[str | int] = []
    for place, part in enumerate(location):
        last = place == len(location) - 1
        if isinstance(value, dict) and isinstance(part, str) and (part in value or last):
            value = value.get(part)
            path.append(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
            path.append(part)
    return tuple(path)


def sentence(detail: ErrorDetails) -> str:
    """What was expected and what was got, for one error of pydantic's."""
    kind, value = detail["type"], detail["input"]
    if kind in ("value_error", "assertion_error"):
        text = str(detail.get("ctx", {}).get("error", detail["msg"]))
        # Plugins' validators say what they like; what was got is added where they do not.
        return text if "got" in text else f"{text}, got {got(value)}"
    hint = ""
    if kind == "literal_error":
        hint = suggestion(value, re.findall(r"'([^']*)'", str(detail["ctx"]["expected"])))
    return f"expected {_wanted(kind, detail.get('ctx', {}), detail['msg'])}, got {got(value)}{hint}"


def _wanted(kind: str, context: Mapping[str, object], message: str) -> str:
    """What a value should have been."""
    limit = next(iter(context.values()), "")
    bounds = {
        "greater_than": f"a number above {limit}",
        "greater_than_equal": f"a number of at least {limit}",
        "less_than": f"a number below {limit}",
        "less_than_equal": f"a number of at most {limit}",
        "literal_error": str(context.get("expected")),
        "enum": str(context.get("expected")),
        "string_pattern_mismatch": _PATTERNS.get(str(context.get("pattern")), f"text like {context.get('pattern')}"),
        "too_long": f"at most {context.get('max_length')} in the list",
        "too_short": f"at least {context.get('min_length')} in the list",
        "string_too_short": f"at least {context.get('min_length')} characters",
        "string_too_long": f"at most {context.get('max_length')} characters",
    }
    # The first word of other kinds says enough: int_type, int_parsing, int_from_float, ...
    return bounds.get(kind) or _TYPES.get(kind.partition("_")[0]) or f"another value ({message})"


_TYPES = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "string": "text", "list": "a list",
    "tuple": "a list", "dict": "a mapping", "model": "a mapping", "finite": "a finite number",
}  # fmt: skip

_PATTERNS = {
    r"^[A-Za-z0-9_][A-Za-z0-9._-]*$": "letters, digits, '.', '_' and '-', not beginning with '.' or '-'",
    r"^(auto|cpu|cuda(:\d+)?)$": "auto, cpu, cuda or cuda:0",
}
