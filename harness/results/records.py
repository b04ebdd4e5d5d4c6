"""What a cell produced: one record for every planned cell, written to and read from JSON."""

import gc
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from harness._files import write_atomic
from harness.api import Frozen, JsonValue, Origin, StoreError
from harness.api.files import open_plain
from harness.results import sharing
from harness.results.brief import ENTRIES, LINES, Cost

PLAIN, FORMAT = 1, 2
"""Formats of files: each record whole, and with what they share said once. The number grows by one when a reader has to
learn something; files of a newer format are refused, older ones stay readable."""

PLAIN_BYTES = 1 << 20
"""Files up to this size say every record whole: they are read by anything, and pages and notebooks show them."""

MAX_BYTES = 1 << 30
"""Of a file of records, and of what its lines say together: 20,000 cells on twelve engines have half of it."""

NOT_COSTED = "not costed yet"
"""How the reason of a hardware cost begins that is not there for want of time, not because an engine refuses."""

DENSE = "dense"
"""Label of pattern and strategy of the baseline cells."""

Status = Literal[
    "planned", "running",
    "ok", "cached", "skipped",
    "failed", "diverged", "timeout", "oom", "killed", "crashed", "blocked",
]  # fmt: skip

DONE: frozenset[Status] = frozenset({"ok", "cached"})
"""The cell has a result."""

PENDING: frozenset[Status] = frozenset({"planned", "running"})
"""The cell may still get a result: the run is partial."""

FAILED: frozenset[Status] = frozenset({"failed", "diverged", "timeout", "oom", "killed", "crashed", "blocked"})
"""The cell was to have a result and has none; a declared skip is not among them."""


OF_A_CELL = frozenset(
    (
        "activation_density", "arithmetic", "asked_sparsity", "cpu", "empty_rows", "failed_stage", "not_finite",
        "not_reproduced", "targets", "trusted_code", "warning",
    )
)  # fmt: skip
"""Facts that are of a cell, or of the machine it ran on; the others are what its task says of the data."""

_FIRST_LINE, _LAST_LINE = f'{{"format": {PLAIN}, "records": [\n'.encode(), b"]}\n"
"""Around the records of a plain file, which have a line each."""

ORIGIN: dict[str, Origin] = {"value": "measured", "hardware": "modelled"}
"""Where the numbers of a record come from, unless it says otherwise."""


BEYOND = 1e100
"""No metric has values like this: squares of what is larger are infinite, and a table has no room for them."""


def _finite(value: object) -> object:
    """JSON has no infinity and a table no NaN: such a value is a missing one."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Severity = Literal["error", "warning", "note"]
"""How much a check's warning takes from a study: its meaning, the certainty of an answer, or nothing but ease."""


class Finding(Frozen):
    """What a named check warns of.

    Args:
        code: the check's, as documented.
        severity: see `Severity`.
        title: what it warns of, in a few words.
        text: the same with the numbers found, one sentence.
        remedy: what to do about it.
    """

    code: str = Field(pattern=r"^[A-Z]{2,8}[0-9]{3}$")
    severity: Severity
    title: str
    text: str
    remedy: str = ""


Finite = Annotated[float | None, BeforeValidator(_finite)]


class StoredTensor(Frozen):
    """The storage format in which a pruned matrix is the smallest, and its bits in it, as `docs/storage.md` counts."""

    format: str
    bits: int = Field(ge=0)


class Stored(Frozen):
    """What the masks of a cell take when every matrix of the scope is stored in the format that is smallest for it.

    Args:
        bits: of all of them together; dense_bits: of the same matrices with all their weights.
        tensors: format and bits by tensor.
    """

    bits: int = Field(ge=0)
    dense_bits: int = Field(ge=0)
    tensors: dict[str, StoredTensor] = Field(default_factory=dict)

    @property
    def formats(self) -> tuple[str, ...]:
        """Names of the formats that are used, in the order of the tensors."""
        return tuple(dict.fromkeys(each.format for each in self.tensors.values()))


Pruning = tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], Annotated[float, Field(ge=0, lt=1)]]
"""When masks were made anew, in trained epochs of the chain, and the sparsity asked for."""


class Record(Frozen):
    """What became of one planned cell. A cell that did not run has its status and reason, and None for its results.

    Units:
        sparsities are fractions of zeros, counted on masks; epochs are counts; times are seconds; values carry `unit`.

    Args:
        run: id of the run; cell: id of the cell.
        task, backend, pattern, strategy: labels; the dense baseline has `dense` for pattern and strategy.
        pattern_name, strategy_name: the plugins behind these labels; empty for the dense baseline.
        task_params, backend_params, pattern_params, strategy_params: the parameters behind the labels, as far as a
            component tells what it uses where one was left open.
        scope: what is pruned, as the experiment says; allocation: how the sparsity is spread over it, as a label.
        target_sparsity: what was asked for, 0 for dense; sparsity: what was reached over the scope.
        model_sparsity: over all parameters; tensor_sparsity: by tensor name.
        metric, unit, better, digits: what `value` is called and how it is read.
        value: the metric on `split`; valid_value: on the validation split after the last epoch;
            valid_history: after every trained epoch of the chain; None where it was not finite (the fact `not_finite`
            has those stages by key), which ends no chain.
        value_before_retraining: validation value right after the last one-shot prune; None where there is none.
        best_possible: the value that no model can beat, where the data's source is known.
        total_epochs: epochs from initial weights to the pruned model; retrain_epochs: those after the first prune.
        mask_updates: how often the masks were made anew, one-shot prunes included; None where nobody counted.
        gradual_updates: those of them that fell into a training epoch; None where nobody counted.
        prunings: trained epochs of the chain before each of these updates, those before a rewind included, and the
            sparsity asked for; of more than a hundred, a hundred spread evenly; empty where nobody noted them.
        start_rate, retrain_rate: the largest learning rate of the first epoch, and of all after the first one-shot
            prune; None where there is none.
        needs_dense_model: whether the strategy starts from a trained dense model.
        rewinds_to: epochs of the dense training that the strategy goes back to: it needs their states, too.
        hyper_parameters: names of the choices beyond the dense recipe.
        reason: why there is no value, one sentence.
        hardware: cost by hardware label, or {"reason": ...}.
        fixed_point: the metric in the numbers of a hardware entry, by the label that its engines share: `format` (and
            its parameters), `value`, `wrapped` (sums that did not fit the accumulator), `in_float` (layers of a user's
            own model that its framework computed) and `folded` (its layers that had a norm in them, with that norm),
            or `reason`.
        storage: bits of the finished masks with their weights, by the width of a weight in the numbers of a hardware
            entry (32 where none tells it), as text; empty where nobody counted.
        facts: what the task says of its data; versions: of framework and harness.
        trained_epochs: epochs that this run trained for the cell; a shared one counts for its first cell;
            train_seconds: training time of the whole chain, cached epochs included.
        train_processor_seconds: the processor time of these epochs, validation and loading included; None where it was
            not measured for each. Time in which a worker was stopped is in `train_seconds`, and not in this.
        dense_digest: digest of the dense model that the cell shares with others.
        checks: what named checks warn of in this cell, as far as they were made; reports make them anew.
        ignore: codes of the checks that the experiment silences.
        stage: key of the stage in the store that holds the finished model; empty where nothing was planned to run.
    """

    run: str = ""
    cell: str
    task: str
    backend: str
    pattern: str = DENSE
    strategy: str = DENSE
    pattern_name: str = ""
    strategy_name: str = ""
    task_params: dict[str, JsonValue] = Field(default_factory=dict)
    backend_params: dict[str, JsonValue] = Field(default_factory=dict)
    pattern_params: dict[str, JsonValue] = Field(default_factory=dict)
    strategy_params: dict[str, JsonValue] = Field(default_factory=dict)
    scope: tuple[str, ...] = ()
    allocation: str = "uniform"
    target_sparsity: float = Field(default=0.0, ge=0, lt=1)
    sparsity: float | None = Field(default=None, ge=0, le=1)
    model_sparsity: float | None = Field(default=None, ge=0, le=1)
    tensor_sparsity: dict[str, float] = Field(default_factory=dict)
    seed: int = 0
    metric: str = ""
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    digits: int = Field(default=2, ge=0, le=15)
    value: Finite = None
    split: Literal["test"] = "test"
    valid_value: Finite = None
    valid_history: tuple[Finite, ...] = ()
    value_before_retraining: Finite = None
    best_possible: Finite = None
    total_epochs: int = Field(default=0, ge=0)
    retrain_epochs: int = Field(default=0, ge=0)
    mask_updates: int | None = Field(default=None, ge=0)
    gradual_updates: int | None = Field(default=None, ge=0)
    prunings: tuple[Pruning, ...] = ()
    start_rate: Finite = None
    retrain_rate: Finite = None
    needs_dense_model: bool = False
    rewinds_to: tuple[int, ...] = ()
    hyper_parameters: tuple[str, ...] = ()
    status: Status = "planned"
    reason: str = ""
    hardware: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    fixed_point: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    storage: dict[str, Stored] = Field(default_factory=dict)
    device: str = ""
    precision: str = "float32"
    threads: int | None = Field(default=None, gt=0)
    versions: dict[str, str] = Field(default_factory=dict)
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    trained_epochs: int = Field(default=0, ge=0)
    train_seconds: float = Field(default=0.0, ge=0)
    train_processor_seconds: float | None = Field(default=None, ge=0)
    dense_digest: str | None = None
    checks: tuple[Finding, ...] = ()
    ignore: tuple[str, ...] = ()
    stage: str = ""
    origin: dict[str, Origin] = Field(default_factory=lambda: dict(ORIGIN))

    @property
    def is_dense(self) -> bool:
        """Whether this is a baseline cell."""
        return self.pattern == DENSE

    @property
    def has_sparsity(self) -> bool:
        """Whether it was asked for a sparsity: a target that none reaches came to nothing, which is no 0."""
        return self.is_dense or self.target_sparsity > 0

    @property
    def is_done(self) -> bool:
        """Whether the cell has a result."""
        return self.status in DONE


def comparable(record: Record) -> Record:
    """A record whose numbers can be compared: a result beyond `BEYOND` is none, and the record says so."""
    # Overflowed metrics are finite and useless: a perplexity of 1e200 in a mean would hide all others.
    history = tuple(None if _is_beyond(value) else value for value in record.valid_history)
    names = ("value", "valid_value", "value_before_retraining", "best_possible")
    lost: dict[str, object] = {name: None for name in names if _is_beyond(getattr(record, name))}
    if not lost and history == record.valid_history:
        return record
    if "value" in lost:
        lost |= {"status": "diverged", "reason": f"the {record.metric} became {record.value:g}"}
    return record.model_copy(update={**lost, "valid_history": history})


def _is_beyond(value: float | None) -> bool:
    return value is not None and BEYOND < abs(value) < math.inf


def dump(records: Iterable[Record]) -> list[dict[str, JsonValue]]:
    """The records as plain JSON objects, every field included."""
    return [json.loads(_json(record)) for record in records]


def write(path: Path, records: Iterable[Record], *, plain: bool = False) -> None:
    """Write a file of records, one per line; an interrupted or failed write leaves the old file as it was.

    Args:
        path: the file.
        records: what is written, in this order.
        plain: whether every record is written whole, however large the file becomes. Otherwise what the records of a
            file above `PLAIN_BYTES` have in common is written once, as `harness.results.sharing` has it.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, partial(_write_lines, tuple(records), None if plain else PLAIN_BYTES))
    except OSError as error:
        raise StoreError(
            f"records: cannot write {path}: {error.strerror or error}; free some space or choose another --store"
        ) from error


def content(records: Iterable[Record], *, plain: bool = False) -> bytes:
    """What `write` writes, for a file that a user names."""
    with BytesIO() as file:
        _write_lines(tuple(records), None if plain else PLAIN_BYTES, file)
        return file.getvalue()


def _write_lines(records: tuple[Record, ...], most: int | None, file: BinaryIO) -> None:
    """Line by line, so that the text of a large run is never in memory as a whole."""
    file.write(_FIRST_LINE)
    between = b""
    for record in records:
        # Looked at before each line: a large run is known to be one early, and begins again with its table.
        if most is not None and file.tell() > most:
            file.seek(0)
            file.truncate()
            file.writelines(sharing.lines([_cell(each) for each in records]))
            return
        file.write(between + _json(record))
        between = b",\n"
    file.write(b"\n" + _LAST_LINE if between else _LAST_LINE)


def _cell(record: Record) -> sharing.Cell:
    kind, setting = (record.task, record.backend, record.status), (record.strategy, record.target_sparsity)
    return sharing.Cell(kind, setting, partial(record.model_dump, exclude={"hardware"}), record.hardware)


def _json(record: Record) -> bytes:
    try:
        return record.model_dump_json().encode()
    except ValueError:  # half a character, which no file can hold, in some name or text of a plugin
        return sharing.text(record.model_dump(mode="python"))


class _File(BaseModel):
    """A plain file of records that is parsed as a whole."""

    format: Literal[1]
    records: tuple[Record, ...]


class _SharedFile(BaseModel):
    """A file of records with what they share, likewise; its records are made of both."""

    format: Literal[2]
    shared: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    records: tuple[dict[str, JsonValue], ...]


class _Head(BaseModel):
    format: JsonValue = None


class _Brief(Record):
    """A record without the details of its costs that no table has."""

    hardware: dict[str, Cost] = Field(default_factory=dict)  # type: ignore[assignment]  # the same, with keys named


def read(path: Path, *, details: bool = True) -> tuple[Record, ...]:
    """The records of a file.

    Args:
        path: the file.
        details: whether all details of the hardware costs are wanted, most of a large file; without them, those that
            tables and checks need are there: the id of `device`, `value` and `origin` of `clock`, the constant `parts`,
            `weight_bits`, `validated_by`, `hardware_class`, and of every layer `busy`.

    Raises:
        StoreError: the file is missing, is no file of records, or has a newer format.
    """
    try:
        # Parsing makes a great many objects and no cycles; looking for some, again and again, would take as long.
        with _no_collection(), open_plain(path, "a file of records", most=MAX_BYTES, error=StoreError) as file:
            found = _by_line(file, details)
            if found is None:
                file.seek(0)
                found = _at_once(path, file.read())
            return found
    except OSError as error:
        raise StoreError(
            f"records: cannot read {path}: {error.strerror or error}; give a finished or running run"
        ) from error
    except ValidationError as error:
        raise StoreError(_mistake(path, error.errors(include_url=False))) from error


def shared_names(path: Path) -> dict[str, bool]:
    """Of what the records of a file share: by name, whether that is still the beginning of its digest.

    Raises:
        StoreError: the file is missing, or is no file of records.
    """
    try:
        with open_plain(path, "a file of records", most=MAX_BYTES, error=StoreError) as file:
            if file.readline(len(_FIRST_LINE)) == _FIRST_LINE:  # a plain one; most are
                return {}
            file.seek(0)
            content = file.read()
        if _Head.model_validate_json(content).format != FORMAT:
            return {}
        shared = _SharedFile.model_validate_json(content).shared
    except OSError as error:
        raise StoreError(f"records: cannot read {path}: {error.strerror or error}; give a file of records") from error
    except ValidationError as error:
        raise StoreError(_mistake(path, error.errors(include_url=False))) from error
    return {name: sharing.is_named(name, entry) for name, entry in shared.items()}


def _by_line(file: BinaryIO, details: bool) -> tuple[Record, ...] | None:
    """The records of a file as `write` leaves it; None if it is laid out in another way, or something is wrong."""
    # Only files that were written here have a record per line; anything else is parsed as a whole, slower.
    first, kind = file.readline(max(len(_FIRST_LINE), len(sharing.FIRST))), Record if details else _Brief
    records: list[Record] = []
    try:
        if first == _FIRST_LINE:
            make = kind.model_validate_json
        elif first == sharing.FIRST:
            shared = sharing.Shared(MAX_BYTES)
            for line in file:
                if line == sharing.MIDDLE:
                    break
                for name, entry in ENTRIES[details].validate_json(b"{" + line.rstrip(b",\n") + b"}").items():
                    shared.add(name, entry, len(line))
            make = partial(_of_line, shared, LINES[details])
        else:
            return None
        for line in file:
            if line == _LAST_LINE:  # anything behind the end is no file of ours
                return None if file.read(1) else tuple(records)
            records.append(make(line.rstrip(b",\n")))
    except (ValidationError, sharing.SharedError):  # which a look at the whole file puts into words
        return None
    return None  # it has no end


def _of_line(shared: sharing.Shared, adapter: TypeAdapter[Any], line: bytes) -> Record:
    return _made(shared, adapter.validate_json(line))


def _made(shared: sharing.Shared, line: dict[str, Any]) -> Record:
    """The record of a line that says what is its own."""
    fields: dict[str, Any] = shared.record(line)
    hardware = {label: shared.whole(cost) for label, cost in fields.get("hardware", {}).items()}
    # Costs are what JSON gave, and may be shared: to check them again would make a copy for every cell.
    return Record.model_validate({**fields, "hardware": {}}).model_copy(update={"hardware": hardware})


def _at_once(path: Path, content: bytes) -> tuple[Record, ...]:
    """The records of a file that somebody laid out in another way, or the sentence that says what is wrong with it."""
    if _Head.model_validate_json(content).format != FORMAT:
        return _File.model_validate_json(content).records
    file = _SharedFile.model_validate_json(content)
    shared = sharing.Shared(MAX_BYTES)
    place = "shared"
    try:
        for name, entry in file.shared.items():
            place = f"shared.{name[:80]}"
            shared.add(name, entry, len(sharing.text(entry)))
        records = []
        for number, line in enumerate(file.records):
            place = f"records.{number}"
            records.append(_made(shared, LINES[True].validate_python(line)))
        return tuple(records)
    except sharing.SharedError as error:
        raise StoreError(f"records: `{place}` of {path} is wrong: {error}; run the experiment again") from error
    except ValidationError as error:
        errors = error.errors(include_url=False)
        raise StoreError(_mistake(path, [{**each, "loc": ("records", 0, *each["loc"])} for each in errors])) from error


@contextmanager
def _no_collection() -> Iterator[None]:
    """While entered, Python looks for no reference cycles, unless it does not do so anyway."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _mistake(path: Path, errors: Sequence[ErrorDetails]) -> str:
    """What is wrong with a file, in a sentence."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return f"records: {path} is not JSON ({first['msg']}); run the experiment again to write it anew"
    # Where the object as a whole is wrong, its fields need no sentence.
    by_place = {error["loc"]: error for error in errors}
    if () in by_place or ("records",) in by_place:
        return f"records: expected an object with `format` and `records` in {path}; run the experiment again"
    if ("format",) in by_place:
        wrong = by_place["format",]
        found = None if wrong["type"] == "missing" else wrong["input"]
        return f"records: {path} has format {found!r}, this version reads {PLAIN} and {FORMAT}; update harness"
    where = ".".join(str(part) for part in first["loc"][2:])
    return (
        f"records: a record of {path} has a wrong `{where}` ({first['msg']}, got {str(first['input'])[:80]}); "
        "run the experiment again"
    )
