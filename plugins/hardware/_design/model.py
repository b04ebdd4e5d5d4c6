"""What both hardware models share: their fields, the choice of a shape for an engine, and the dense baseline."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from harness.api import (
    BenchRun,
    Circuit,
    Conditions,
    Cost,
    Engine,
    EngineShape,
    HardwareModel,
    JsonValue,
    NumberFormat,
    Operands,
    Product,
    SpecError,
    Workload,
    nested,
)

from .._devices import Device, device
from ..engines.bank import Bank
from ..engines.dense_mvm import DenseMvm
from .baselines import Room, Sizes, dense_compute, dense_design, own_dense_design
from .bursts import Bursts, WeightLayout
from .copies import search_copies
from .design import CELL_PRODUCTS, Runner, design
from .front import front
from .numerics import Budget, Copies, Inputs, Numerics
from .pipeline import pipeline, why_not
from .placement import SmallMemory
from .products import CostedRole, left_out, products, uneven_steps, valued
from .report import Choice, report
from .search import MOST_PLACES, SearchResult, Setting


def _entry(engine: Engine | None) -> JsonValue:
    return None if engine is None else {"name": engine.name, **engine.parameters()}


EngineField = Annotated[
    Engine | None,
    PlainSerializer(_entry),
    WithJsonSchema({"anyOf": [{"component": "engine"}, {"const": "all"}, {"type": "null"}], "default": None}),
]


class EngineModel(HardwareModel):
    """An engine on an FPGA that all products of a model share, one after another, at batch 1."""

    exact: ClassVar[bool] = False
    """Whether cycles are counted on the masks."""

    engine: EngineField = Field(
        default=None, description="an engine with its parameters; `all` costs a mask on every engine that can run it"
    )
    device: str = Field(default="arria10_gx1150", description="id in the device table, or a file that describes one")
    multipliers: int = Field(default=1024, gt=0, description="multipliers that the sparse and the dense array may have")
    ram_blocks: int | None = Field(
        default=None, gt=0, description="RAM blocks that a design may take; None: the device's"
    )
    luts: int | None = Field(
        default=None, gt=0, description="LUTs that a design may take (estimated); None: the device's"
    )
    weight_bits: int = Field(default=16, ge=2, le=16, description="bits of a weight")
    activation_bits: int = Field(default=16, ge=2, le=16, description="bits of a vector element")
    accumulator_bits: int = Field(default=32, ge=8, le=64, description="bits of a sum, which wraps around")
    scaling: Literal["tensor", "row"] = Field(
        default="tensor", description="whether the weights of a product share a step, or those of a row do"
    )
    percentile: float = Field(
        default=100.0, gt=50, le=100, description="share of weights and inputs that a step must reach, in percent"
    )
    codebook: int | None = Field(
        default=None, ge=2, le=256, description="shared values that weights are rounded to; None: each has its own"
    )
    evaluated: bool = Field(default=True, description="whether finished models are evaluated in these numbers too")
    clock_mhz: float | None = Field(
        default=None, gt=0, le=2000, description="clock of every engine; None takes the engine's own, else the device's"
    )
    bandwidth_gbytes_per_s: float | None = Field(
        default=None, gt=0, description="off-chip bandwidth reached; None takes that of a common board with the device"
    )
    overlap: bool = Field(default=True, description="whether weights are streamed while their product runs")
    vector_memory: SmallMemory = Field(
        default="auto", description="vectors in distributed RAM, in RAM blocks, or in whichever suffices"
    )
    lut_multipliers: bool = Field(
        default=False, description="whether multipliers beyond the DSP blocks are made of LUTs"
    )
    memory_controllers: int = Field(
        default=0, ge=0, description="memory controllers to deduct from a bare device, whose shell brings none"
    )
    inputs: Inputs = Field(
        default="closed_loop", description="whether the next input depends on the last output, or is known ahead"
    )
    elementwise_units: int = Field(default=16, gt=0, description="LSTM units updated per cycle (assumed)")
    elementwise_latency: int = Field(default=8, ge=0, description="cycles from a unit's gates to its output (assumed)")
    write_back_cycles: int = Field(default=0, ge=0, description="cycles per LSTM layer until its output can be read")
    launch_us: float = Field(default=0.0, ge=0, description="microseconds once per time step or item")
    layer_us: float = Field(default=0.0, ge=0, description="microseconds added to every product")
    chain_us: float = Field(default=0.0, ge=0, description="shortest step of a recurrent layer, in microseconds")
    pixel_copies: Annotated[int, Field(gt=0)] | Literal["search"] = Field(
        default=1, description="copies of the array on different output positions, all within the budget"
    )
    copy_layout: Copies = Field(default="strips", description="whether copies sweep strips, or neighbouring positions")
    weight_layout: WeightLayout = Field(
        default="in_order", description="how streamed weights lie off chip: as they are read, row by row, or one by one"
    )
    prefetch_kib: int = Field(
        default=0, ge=0, le=1 << 20, description="buffer that streamed weights are read into ahead of their layer, KiB"
    )
    load_words: int = Field(default=16, gt=0, description="words per cycle into a copy's line buffer (assumed)")
    pipelined: bool = Field(
        default=False, description="whether layers on engines of their own are costed beside one engine for all"
    )
    search_millions: float = Field(
        default=MOST_PLACES / 1e6,
        gt=0,
        description="million weights, kept or not, that a search may count on masks, shape by shape; then the best so "
        "far is taken, and told as such",
    )
    roles: tuple[CostedRole, ...] = Field(
        default=("lstm", "conv", "dense", "softmax"), min_length=1, description="roles of the matrices that are costed"
    )

    @field_validator("roles", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        """`conv`, or `lstm,dense` of a command line, is a list, too."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(","))
        return tuple(value) if isinstance(value, list) else value

    @field_validator("engine", mode="plain")
    @classmethod
    def _made(cls, value: object, info: ValidationInfo) -> Engine | None:
        # `all` is no engine but a wish that `variants` grants, so it is left open here.
        found = None if value == "all" else nested("engine", value, info)
        if found is not None and not isinstance(found, Engine):
            raise ValueError(f"expected the name of an engine, or a mapping with `name` and parameters, got {value!r}")
        return found

    @model_validator(mode="after")
    def _is_a_format(self) -> Self:
        try:
            # A format that cannot be is refused with the spec's line, not when the first model is evaluated.
            self._format()
        except ValidationError as error:
            (mistake,) = error.errors()
            raise ValueError(str(mistake["ctx"]["error"])) from None
        return self

    @field_validator("device")
    @classmethod
    def _known(cls, name: str) -> str:
        # Looked up for its refusal: a device that does not exist is told before anything is trained.
        device(name)
        return name

    def _format(self) -> NumberFormat:
        return NumberFormat(
            weight_bits=self.weight_bits,
            activation_bits=self.activation_bits,
            accumulator_bits=self.accumulator_bits,
            scaling=self.scaling,
            percentile=self.percentile,
            codebook=self.codebook,
        )

    def number_format(self) -> NumberFormat | None:
        """Fixed point of these widths; None where models are not to be evaluated in it."""
        return self._format() if self.evaluated else None

    def group(self) -> str:
        """The model's label, whatever the engine."""
        plain = self.model_copy(update={"engine": None})
        return super(EngineModel, plain).label()

    def label(self) -> str:
        """The model's label, and the engine's in brackets."""
        return self.group() if self.engine is None else f"{self.group()}[{self.engine.label()}]"

    def variants(self, engines: Sequence[type[Engine]]) -> tuple[HardwareModel, ...]:
        """One model per engine, unless the engine is named."""
        if self.engine is not None:
            return (self,)
        return tuple(self.model_copy(update={"engine": engine()}) for engine in engines)

    @abstractmethod
    def runner(self, engine: Engine) -> Runner:
        """How a product runs on an engine: exactly, or by expectation."""

    @abstractmethod
    def check(self, product: Product) -> None:
        """Raise SpecError if the model lacks something about a product."""

    def reads_weights(self) -> bool:
        """Whether the engine's cost depends on the values of the weights."""
        return self.engine is not None and self.engine.reads_values

    def cost(self, workload: Workload) -> Cost:
        """Cost a workload on the fastest shape of the engine that fits.

        Raises:
            SpecError: there is nothing to cost, the engine cannot run it, or the device is unknown.
            ShapeError: a mask does not have its tensor's shape, or there are more banks than columns.
        """
        work = self._work(workload)
        found = self.cost_products(work, left_out(workload, self.roles))
        note = uneven_steps(workload, work)
        return found.model_copy(update={"notes": (*found.notes, note)}) if note else found

    def cost_products(self, work: tuple[Product, ...], omitted: tuple[str, ...] = ()) -> Cost:
        """Cost products that run one after another; as `cost`. Several engines may share the products' counts."""
        found, choice, _ = self._searched(work, omitted)
        return report(found.best, replace(choice, pipelined=self._pipelined(work, choice)))

    def _pipelined(self, work: tuple[Product, ...], choice: Choice) -> JsonValue:
        """Layers on engines of their own, or why there are none; None where nobody asked."""
        engine = self.engine
        if not self.pipelined or engine is None:
            return None
        reason = why_not(engine, work)
        if reason:
            return {"reason": reason}
        setting = self._setting(choice.device, choice.numerics)
        budget = max(1, self._budget(work) // choice.numerics.pixel_copies)
        found = pipeline(engine, work, self.runner(engine), setting, budget)
        if found is None:
            return {"reason": f"{budget} multipliers are too few for {len(work)} engines"}
        return found.plain(choice.numerics.conditions.clock_mhz, engine.streams)

    def designs(self, workload: Workload) -> tuple[Cost, ...]:
        """The fastest design, and those that no other beats in cycles, DSP blocks, RAM and bandwidth; as `cost`."""
        work = self._work(workload)
        found, choice, lines = self._searched(work, left_out(workload, self.roles))
        assert self.engine is not None  # a search has one
        setting = self._setting(choice.device, choice.numerics)
        known = [each for each in (found.best, found.fits, found.streams) if each is not None]
        best = front(self.engine, work, lines, self.runner(self.engine), setting, known)
        return tuple(report(each, choice) for each in best or (found.best,))

    def _work(self, workload: Workload) -> tuple[Product, ...]:
        """The products, with the values of their weights where the engine asks for them and they are known."""
        work = products(workload, self.roles)
        return valued(work, workload, self._format()) if self.reads_weights() else work

    def circuit(self, workload: Workload, operands: Operands) -> Circuit:
        """The design that `cost` finds for one layer, as Verilog; as `cost`.

        Raises:
            SpecError: several layers are given, or there is no Verilog for the engine or one of its parameters.
        """
        from .._rtl.circuits import circuit  # only those who want Verilog need it
        from .._rtl.lstm import lstm_circuit

        work = products(workload, self.roles)
        if len(work) != 1:
            raise SpecError(f"a circuit is that of one layer, got {len(work)}; name one")
        model = self if operands.cell is None else self._for_whole_layers(work)
        found, choice, _ = model._searched(work, left_out(workload, self.roles))
        assert model.engine is not None  # a search has one
        best, conditions = found.best, choice.numerics.conditions
        given = work[0], best.shape, conditions, operands, report(best, choice), choice.device
        if operands.cell is None:
            return circuit(model.engine, *given)
        return lstm_circuit(model.engine, *given, most=self.elementwise_units)

    def _for_whole_layers(self, work: tuple[Product, ...]) -> Self:
        """The same model with its engine in the shape that it finds, but as many PEs as make whole units."""
        from .._rtl.lstm import most_pes

        engine = self.engine
        if not isinstance(engine, Bank) or engine.pes is not None:
            return self
        shape = self._searched(work, ())[0].best.shape
        update = {"pes": most_pes(shape["pes"]), "lanes": shape["lanes"]}
        return self.model_copy(update={"engine": engine.model_copy(update=update)})

    def simulated(self, folder: Path) -> BenchRun | None:
        """Run the bench of a circuit in Icarus or Verilator; None where neither is installed."""
        from .._rtl.running import run_bench

        return run_bench(folder)

    def _searched(
        self, work: tuple[Product, ...], omitted: tuple[str, ...]
    ) -> tuple[SearchResult, Choice, Sequence[Sequence[EngineShape]]]:
        """The designs that a search finds, what they are compared with, and the lines that were searched."""
        engine = self.engine
        if engine is None:
            raise SpecError(f"{self.name} costs one engine at a time: set `engine`, or take every one of `variants`")
        for product in work:
            self.check(product)
            refusal = engine.refusal(product)
            if refusal is not None:
                raise SpecError(f"engine {engine.label()} cannot run {product.layer!r}: {refusal}")
        clock, target = self._clock(engine), self._target()
        setting = self._setting(target, self._numerics(clock[0]))
        room = Room(self._budget(work), None if self.pixel_copies == "search" else self.pixel_copies)
        runner = self.runner(engine)
        found = search_copies(engine, work, room.multipliers, runner, setting, room.choices(engine, work))
        best = found.result.best
        given = sum(map(len, found.lines)) == 1 and not engine.unrolled
        # An engine of one given shape is compared with a dense array of as many multipliers.
        equal = replace(room, multipliers=best.shape.multipliers * best.copies) if given else room
        sizes = tuple(Sizes.of(product) for product in work)
        numerics = found.setting.numerics
        fixed = engine.fixed_shape(work, found.budget)
        choice = Choice(
            model=self.name,
            device=target,
            numerics=numerics,
            # Of all copies together, as a user asked for.
            budget=room.multipliers,
            clock_origin=clock[1],
            exact=self.exact,
            given=given,
            streaming=found.result.streams,
            dense=dense_design(DenseMvm(), sizes, equal, setting),
            dense_compute=dense_compute(sizes, equal, setting),
            engine_dense=own_dense_design(engine, sizes, room, setting),
            fixed=design(engine, fixed, work, runner, target, numerics, setting.budget),
            omitted=omitted,
            bandwidth_origin=self._bandwidth_origin(),
            bounded=found.result.bounded,
        )
        return found.result, choice, found.lines

    def _setting(self, on: Device, numerics: Numerics) -> Setting:
        return Setting(
            on, numerics, Budget(ram_blocks=self.ram_blocks, luts=self.luts), int(1e6 * self.search_millions)
        )

    def _clock(self, engine: Engine) -> tuple[float, str]:
        """The clock in MHz, and who says so."""
        if self.clock_mhz is not None:
            return self.clock_mhz, "given"
        if engine.clock_mhz is not None:
            return engine.clock_mhz, "given"
        figure = self._target().clock(engine.name)
        return figure.value, figure.origin

    def _bandwidth_origin(self) -> str:
        """Who says what the off-chip memory delivers; empty where nobody does."""
        if self.bandwidth_gbytes_per_s is not None:
            return "given"
        target = self._target()
        if target.entry.off_chip is None or target.efficiency is None:
            return ""
        # A share that is assumed makes the product so, however well the nominal figure is known.
        origins = {target.entry.off_chip.gbytes_per_s.origin, target.efficiency.origin}
        return next((origin for origin in ("assumed", "recalled", "derived") if origin in origins), "read")

    def _target(self) -> Device:
        return _derated(device(self.device), self.memory_controllers)

    def _numerics(self, clock_mhz: float) -> Numerics:
        reached = self.bandwidth_gbytes_per_s
        bytes_per_us = self._target().bytes_per_us() if reached is None else reached * 1e3
        return Numerics(
            conditions=Conditions(
                # Codes of a codebook are stored, values of full width are multiplied.
                weight_bits=self._format().stored_bits,
                activation_bits=self.activation_bits,
                accumulator_bits=self.accumulator_bits,
                value_bits=self.weight_bits,
                clock_mhz=clock_mhz,
                # Per cycle, as engines count: a slower clock sees more bytes in each of its cycles.
                bytes_per_cycle=None if bytes_per_us is None else bytes_per_us / clock_mhz,
            ),
            elementwise_units=self.elementwise_units,
            elementwise_latency=self.elementwise_latency,
            write_back_cycles=self.write_back_cycles,
            launch_us=self.launch_us,
            layer_us=self.layer_us,
            chain_us=self.chain_us,
            inputs=self.inputs,
            overlap=self.overlap,
            vector_memory=self.vector_memory,
            lut_multipliers=self.lut_multipliers,
            # Where it is searched, every number is costed with numerics of its own.
            pixel_copies=1 if self.pixel_copies == "search" else self.pixel_copies,
            copy_layout=self.copy_layout,
            load_words=self.load_words,
            weight_layout=self.weight_layout,
            bursts=_bursts(self._target()),
            prefetch_kib=self.prefetch_kib,
        )

    def _budget(self, work: tuple[Product, ...]) -> int:
        """Multipliers that both arrays may have: what was asked for, as far as the device has them."""
        if self.lut_multipliers:
            return self.multipliers
        # The wider operand decides which multiplications a DSP block can make.
        bits = max(self.weight_bits, self.activation_bits)
        # The element-wise part of recurrent layers has multipliers of its own, which the array cannot have as well.
        cell = CELL_PRODUCTS * self.elementwise_units * any(product.units is not None for product in work)
        return max(1, min(self.multipliers, self._target().most_multipliers(bits) - cell))


def _bursts(found: Device) -> Bursts | None:
    kind = found.bursts
    return None if kind is None else Bursts(size=kind.size_bytes.value, jump=kind.jump_bytes.value)


@lru_cache(maxsize=64)
def _derated(found: Device, controllers: int) -> Device:
    """A device less the memory controllers that its shell does not bring."""
    if not controllers:
        return found
    # HBM controllers where the device has HBM; all other memories are taken for DDR4, the only other one with figures.
    off_chip = found.entry.off_chip
    return found.less_controllers("hbm" if off_chip is not None and off_chip.kind == "hbm" else "ddr4", controllers)
