"""One workload on hardware models and engines: who can run it, in how many cycles, and how it is stored best."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import cast

from pydantic import ValidationError

from harness import DISTRIBUTION
from harness.api import (
    Component,
    Cost,
    Engine,
    HardwareModel,
    HarnessError,
    JsonValue,
    Kind,
    SpecError,
    Workload,
)
from harness.costing.entries import Entry
from harness.discovery.asking import cost_of, designs_of, devices_of, variants_of
from harness.discovery.registry import Registry, did_you_mean
from harness.formats.storage import FormatSize, best, sizes

_WEIGHT_BITS = 16
"""Width of a weight in storage, for models that have no such parameter."""


_OPTIONS = {
    "accumulator_bits": "--acc-bits",
    "activation_bits": "--act-bits",
    "bandwidth_gbytes_per_s": "--bandwidth",
    "clock_mhz": "--clock",
    "device": "--device",
    "inputs": "--inputs",
    "multipliers": "--multipliers",
    "pipelined": "--pipelined",
    "ram_blocks": "--ram-blocks",
    "weight_bits": "--weight-bits",
}


@dataclass(frozen=True)
class Request:
    """Which models and engines to ask.

    Args:
        models: names of hardware models; empty takes the first that can cost the workload.
        engines: entries of engines; empty takes all that are installed.
        parameters: parameters of the models; those left out keep their defaults.
    """

    models: tuple[str, ...] = ()
    engines: tuple[Entry, ...] = ()
    parameters: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """One engine under one model, before it is asked."""

    model: str
    engine: str
    component: HardwareModel


@dataclass(frozen=True)
class Row:
    """What one engine costs, or why it cannot run the workload.

    Args:
        model: name of the hardware model.
        engine: the engine's label.
        cost: the figures, per time step or item at batch 1.
        reason: why there are none.
    """

    model: str
    engine: str
    cost: Cost | None
    reason: str = ""

    def is_called(self, name: str) -> bool:
        """Whether a user means this engine by its label or by its bare name."""
        return name in (self.engine, self.engine.partition("(")[0])


@dataclass(frozen=True)
class Load:
    """How much is run: `batch` inputs, one after another or over an engine's streams, of `steps` time steps each."""

    batch: int = 1
    steps: int = 1

    def sequence_us(self, cost: Cost) -> float:
        """Microseconds of one input."""
        return self.steps * cost.latency_us

    def total_us(self, cost: Cost) -> float:
        """Microseconds of all of them."""
        # Streams work side by side, so a round serves as many inputs as there are streams; the last may be part empty.
        return -(-self.batch // cost.streams) * self.sequence_us(cost)

    def steps_per_s(self, cost: Cost) -> float:
        """Time steps (or items) per second of this load, streams that stay idle in the last round included."""
        return self.batch * self.steps * 1e6 / self.total_us(cost)


@dataclass(frozen=True)
class Stored:
    """The bits of one matrix in every storage format, and the best of them."""

    tensor: str
    rows: int
    cols: int
    nnz: int
    formats: tuple[FormatSize, ...]

    @property
    def best(self) -> FormatSize:
        """The format with the fewest bits."""
        return best(self.formats)


# --- models and engines ---------------------------------------------------------------------------------------------


def engine_classes(registry: Registry) -> tuple[type[Engine], ...]:
    """Every engine that is installed and sound, by name."""
    return tuple(cast(type[Engine], registry.get("engine", name)) for name in registry.names("engine"))


def model_classes(registry: Registry) -> tuple[type[HardwareModel], ...]:
    """Every hardware model that is installed and sound, our own first."""
    rows = [row for row in registry.rows if row.kind == "hardware" and row.component is not None]
    # Ours first, so that no package installed beside them becomes the default.
    rows.sort(key=lambda row: (row.distribution != DISTRIBUTION, row.name))
    return tuple(cast(type[HardwareModel], row.component) for row in rows)


def candidates(registry: Registry, model: str, request: Request) -> tuple[Candidate, ...]:
    """The engines that one model is to cost, in the order in which they are printed.

    Raises:
        UnknownPluginError, PluginUnavailableError: no such model or engine.
        SpecError: a parameter is unknown or its value wrong.
    """
    entry: Entry = {"name": model, **request.parameters}
    if request.engines:
        return tuple(_single(registry, model, entry, engine) for engine in request.engines)
    base = cast(HardwareModel, _made(registry, "hardware", entry, _option))
    return tuple(Candidate(model, _engine_name(one), one) for one in variants_of(base, engine_classes(registry)))


def _single(registry: Registry, model: str, entry: Entry, engine: Entry) -> Candidate:
    # Made by itself first: a mistake in the engine's own parameters is then told with the engine's option.
    made = _made(registry, "engine", engine, lambda name: f"--engine {engine['name']}: {name}".removesuffix(": "))
    component = _made(registry, "hardware", {**entry, "engine": engine}, _option)
    return Candidate(model, made.label(), cast(HardwareModel, component))


def _engine_name(model: HardwareModel) -> str:
    """What a row of a model is called: its engine, or the model itself where it has only one datapath."""
    engine = model.parameters().get("engine")
    return str(engine["name"]) if isinstance(engine, dict) else model.label()


def _option(parameter: str) -> str:
    return _OPTIONS.get(parameter, f"--set {parameter}")


def _made(registry: Registry, kind: Kind, entry: Entry, called: Callable[[str], str]) -> Component:
    """A component; mistakes in its parameters as sentences that name the option."""
    try:
        return registry.create(kind, entry)
    except ValidationError as error:
        component = registry.get(kind, str(entry["name"]))
        raise SpecError("\n".join(_mistakes(error, component, called))) from None


def _mistakes(error: ValidationError, component: type[Component], called: Callable[[str], str]) -> list[str]:
    from harness.spec.document import sentence  # brings the reader of YAML, and only mistakes need it

    known = [name for name in component.model_fields if name != "own_label"]
    lines = []
    for detail in error.errors(include_url=False):
        place = str(detail["loc"][0]) if detail["loc"] else ""
        if detail["type"] == "extra_forbidden":
            hint = did_you_mean(place, known)
            lines.append(
                f"{called(place)}: {component.name} has no parameter {place!r}; {hint}it has {', '.join(known)}"
            )
        else:
            lines.append(f"{called(place)}: {sentence(detail)}" if place else sentence(detail))
    return list(dict.fromkeys(lines))


# --- costs ----------------------------------------------------------------------------------------------------------


Told = Callable[[str, float | None, int, int], None]
"""Is told an engine when its search begins, with None, and when it ends, with its seconds; which it is of how many."""


def costs(registry: Registry, workload: Workload, request: Request, told: Told | None = None) -> tuple[Row, ...]:
    """One row per model and engine; what cannot run is a row with its reason.

    Args:
        registry: the plugins.
        workload: what is costed.
        request: on what.
        told: how it goes.

    Raises:
        SpecError: as `candidates`.
    """
    if request.models:
        return tuple(row for model in request.models for row in _rows(registry, workload, request, model, told))
    names = [model.name for model in model_classes(registry)]
    if not names:
        raise SpecError("expected a hardware model, got none installed; `harness plugins list hardware` tells why")
    first: tuple[Row, ...] = ()
    for name in names:
        found = _rows(registry, workload, request, name, told)
        # The first model that any engine can run: models differ in what they read of a workload.
        if any(row.cost for row in found):
            return found
        first = first or found
    return first


def _rows(registry: Registry, workload: Workload, request: Request, model: str, told: Told | None) -> tuple[Row, ...]:
    found, every = [], list(candidates(registry, model, request))
    for number, candidate in enumerate(every, start=1):
        if told is not None:
            told(candidate.engine, None, number, len(every))
        start = time.perf_counter()
        found.append(cost(candidate, workload))
        if told is not None:
            told(candidate.engine, time.perf_counter() - start, number, len(every))
    return tuple(found)


def cost(candidate: Candidate, workload: Workload) -> Row:
    """Ask one model about one engine."""
    try:
        found = cost_of(candidate.component, workload)
    except HarnessError as error:
        return Row(candidate.model, candidate.engine, None, str(error))
    return Row(candidate.model, candidate.engine, found)


def batched(
    registry: Registry, workload: Workload, request: Request, batch: int, told: Told | None = None
) -> list[Row]:
    """Engines that serve a batch at once, a row for every order in which they can; none for those that cannot run it.

    Engines tell by a parameter `batch`, and by `batch_order` that there are several orders; who sets them gets no more
    than was asked for.
    """
    found = []
    for candidate in (each for model in request.models for each in candidates(registry, model, request)):
        entry = candidate.component.parameters().get("engine")
        if not isinstance(entry, dict):
            continue
        known = registry.get("engine", str(entry["name"])).model_fields
        if "batch" not in known or entry.get("batch", 1) != 1:
            continue
        orders: list[Entry] = [{}, {"batch_order": "in_turn"}] if "batch_order" in known else [{}]
        for order in orders:
            asked = replace(request, engines=({**entry, "batch": batch, **order},), models=(candidate.model,))
            # A batch that is too large for an engine is its own refusal, as one of the masks is.
            with suppress(HarnessError):
                found += [row for row in _rows(registry, workload, asked, candidate.model, told) if row.cost]
    return found


def designs(registry: Registry, workload: Workload, request: Request) -> tuple[Row, ...]:
    """A row for every design of every model and engine named; what cannot run is a row with its reason.

    Raises:
        SpecError: as `candidates`.
    """
    found: list[Row] = []
    for candidate in (each for model in request.models for each in candidates(registry, model, request)):
        try:
            costs_found = designs_of(candidate.component, workload)
        except HarnessError as error:
            found.append(Row(candidate.model, candidate.engine, None, str(error)))
        else:
            found += [Row(candidate.model, candidate.engine, each) for each in costs_found]
    return tuple(found)


def fastest(rows: Sequence[Row]) -> Row | None:
    """The fastest design that fits; if none does, the fastest that can run; among all, if none can."""
    costed = [(row.cost, place) for place, row in enumerate(rows) if row.cost is not None]
    if not costed:
        return None
    return rows[
        # Fewest blocks among equally fast ones: where a search found several shapes, the smaller design is the better
        # one.
        min(costed, key=lambda each: (not each[0].fits, not each[0].can_run, each[0].latency_us, each[0].ram_blocks))[1]
    ]


def clock_ratio(row: Row, reference: Row | None) -> float | None:
    """How many times the reference's clock an engine needs to be as fast: cycles over cycles, per stream served."""
    if row.cost is None or reference is None or reference.cost is None:
        return None
    return row.cost.cycles / reference.cost.cycles


def stored(workload: Workload, weight_bits: int) -> tuple[Stored, ...]:
    """The bits of every matrix whose mask is known, format by format."""
    found = []
    for tensor in workload.tensors:
        mask = workload.masks.get(tensor.name)
        if mask is None:
            continue
        formats = sizes(mask, weight_bits=weight_bits, banks=workload.banks.get(tensor.name))
        found.append(Stored(tensor.name, mask.shape[0], mask.shape[1], int(mask.sum()), formats))
    return tuple(found)


# --- reports --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What a workload costs, row by row, and how its matrices are stored best.

    Args:
        rows: one per model and engine.
        matrices: storage, of the matrices whose masks are known.
        load: how much is run.
        notes: what was taken for granted, as sentences.
        batched: engines that serve the load's batch at once.
    """

    rows: tuple[Row, ...]
    matrices: tuple[Stored, ...]
    load: Load = Load()
    notes: tuple[str, ...] = ()
    batched: tuple[Row, ...] = ()

    @property
    def is_costed(self) -> bool:
        """Whether any engine could run it."""
        return any(row.cost for row in self.rows)

    def require(self, engines: Sequence[str]) -> None:
        """Refuse names of engines that no row is of.

        Raises:
            SpecError: no engine of a row is called so, or it cannot run the workload.
        """
        for name in engines:
            rows = [row for row in self.rows if row.is_called(name)]
            if not rows:
                known = list(dict.fromkeys(row.engine for row in self.rows))
                hint = did_you_mean(name, known)
                raise SpecError(f"--breakdown: no engine is called {name!r}; {hint}there is {', '.join(known)}")
            if all(row.cost is None for row in rows):
                raise SpecError(f"--breakdown: {name} cannot run this workload: {rows[0].reason}")

    def by_model(self) -> dict[str, tuple[Row, ...]]:
        """The rows of every model."""
        names = dict.fromkeys(row.model for row in self.rows)
        return {name: tuple(row for row in self.rows if row.model == name) for name in names}

    def rows_plain(self) -> list[Entry]:
        """Every row, as JSON values."""
        return [_row_json(row, fastest(found), self.load) for found in self.by_model().values() for row in found]

    def plain(self) -> Entry:
        """Everything, as JSON values."""
        return {
            "batch": self.load.batch,
            "steps": self.load.steps,
            "rows": list(self.rows_plain()),
            "batched": [_row_json(row, None, self.load) for row in self.batched],
            "storage": [_stored_json(matrix) for matrix in self.matrices],
            "notes": list(self.notes),
        }


def report(
    registry: Registry,
    workload: Workload,
    request: Request,
    load: Load = Load(),
    notes: tuple[str, ...] = (),
    told: Told | None = None,
) -> Report:
    """Cost a workload and count the bits of its matrices, at the width that the models take.

    Args:
        registry: the plugins.
        workload: what is costed.
        request: on what.
        load: how much is run.
        notes: what was taken for granted.
        told: how it goes.

    Raises:
        UnknownPluginError, SpecError: as `candidates`.
    """
    rows = costs(registry, workload, request, told)
    # Whatever the models: all take the same options, and the first row tells which one was asked.
    model = _made(registry, "hardware", {"name": rows[0].model, **request.parameters}, _option)
    bits = model.parameters().get("weight_bits")
    together: list[Row] = []
    if load.batch > 1:
        asked = replace(request, models=tuple(dict.fromkeys(row.model for row in rows)))
        together = batched(registry, workload, asked, load.batch, told)
    matrices = stored(workload, bits if isinstance(bits, int) else _WEIGHT_BITS)
    return Report(rows, matrices, load, notes, tuple(together))


def _row_json(row: Row, reference: Row | None, load: Load) -> Entry:
    if row.cost is None:
        return {"model": row.model, "engine": row.engine, "reason": row.reason}
    figures: Entry = row.cost.model_dump(mode="json")
    return {
        "model": row.model,
        **figures,
        "engine": row.engine,
        "break_even_clock_ratio": clock_ratio(row, reference),
        "sequence_us": load.sequence_us(row.cost),
        "total_us": load.total_us(row.cost),
        "load_steps_per_s": load.steps_per_s(row.cost),
    }


def _stored_json(matrix: Stored) -> Entry:
    formats: list[JsonValue] = [
        {"format": f.name, "bits": f.bits, "fraction": f.fraction, "detail": f.detail, "reason": f.reason}
        for f in matrix.formats
    ]
    return {
        "tensor": matrix.tensor, "rows": matrix.rows, "cols": matrix.cols, "nonzeros": matrix.nnz,
        "best": matrix.best.name, "formats": formats,
    }  # fmt: skip


def engine_rows(registry: Registry) -> list[Entry]:
    """Every engine with a summary and its parameters."""
    rows: list[Entry] = []
    for engine in engine_classes(registry):
        row = registry.row("engine", engine.name)
        properties: Entry = engine.model_json_schema(by_alias=True).get("properties", {})
        parameters: Entry = {name: schema for name, schema in properties.items() if name != "label"}
        rows.append({"name": row.name, "summary": row.summary, "from": row.distribution, "parameters": parameters})
    return rows


def device_rows(registry: Registry) -> list[Entry]:
    """The devices of all models, each once."""
    found: list[Entry] = []
    for model in model_classes(registry):
        found += [device for device in devices_of(model) if device not in found]
    return found
