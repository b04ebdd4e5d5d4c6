"""Hardware models: what a set of masked tensors costs."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.api.circuit import BenchRun, Operands
from harness.api.component import Component, Frozen, JsonValue
from harness.api.engine import Engine
from harness.api.network import Convolution, Network, Tensor
from harness.api.number_format import NumberFormat
from harness.api.validation import Check
from harness.arrays import Mask
from harness.errors import SpecError

Origin = Literal["measured", "modelled", "published"]

Quantise = Callable[[NDArray[np.float64], NumberFormat], tuple[NDArray[np.float64], NDArray[np.int64]]]
"""Weights (rows, cols) as integers of a number format (rows, cols), and the exponents of the rows' steps (rows,)."""

Count = Annotated[int, Field(ge=0)]
Quantity = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A figure of a cost: never negative, and a number."""


@dataclass(frozen=True, eq=False)
class Workload:
    """The matrices of one model and which of their weights are kept; not to be changed once made.

    Args:
        network: the layers.
        tensors: the matrices to cost, in network order.
        masks: by tensor name; a tensor without one is dense.
        banks: equally filled banks per row, by tensor name, where the pattern has them.
        output_pixels: output positions of a convolution, by layer name, where the network does not tell them.
        kept: number of weights kept, by name of a tensor without mask: enough for models that need no mask.
        activation_density: fraction of a layer's inputs that are not zero, by layer name; 1 where it is not known.
        convolutions: geometry of convolutions, by layer name, where the network does not tell it.
        steps: how often a recurrent layer runs for one item, by layer name, where it is known.
        weights: the finished weights by tensor name, where they are known: for models that ask for them
            (`HardwareModel.reads_weights`).
        quantise: what makes integers of the weights of one product in a number format, and the exponent of every row's
            step: the function that finished models are evaluated with.
    """

    network: Network
    tensors: tuple[Tensor, ...]
    masks: Mapping[str, Mask]
    banks: Mapping[str, int] = field(default_factory=dict)
    output_pixels: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    activation_density: Mapping[str, float] = field(default_factory=dict)
    convolutions: Mapping[str, Convolution] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    quantise: Quantise | None = None


class Cost(Frozen):
    """What one model on one engine costs; every figure is modelled, per time step (or per item) at batch 1.

    Units:
        cycles at clock_mhz; latency in microseconds; GOPS = 10^9 operations per second, 1 MAC = 2 operations.

    Args:
        engine: the datapath, and `shape` the sizes that were chosen for it; empty where a model has only one.
        cycles: issue cycles plus the constants of the engine, for the masks given.
        latency_us: cycles / clock_mhz, of one input.
        clock_mhz: the clock of this engine; clock_origin: who says so.
        streams: inputs served at once; steps_per_s: time steps (or items) per second over all of them.
        exact: whether cycles were counted on the masks; otherwise they are an expectation.
        dense_cycles: the same tensors, dense, on a dot-product array (`baseline`) with equally many multipliers.
        speedup: dense_cycles * streams / cycles, at equal multipliers and equal clock: for an engine that serves
            several inputs at once a ratio of throughputs.
        engine_dense_cycles: the same tensors, dense, on the same engine in its own best shape; None if it cannot run
            them.
        fixed_shape, fixed_cycles: the shape that one would build without looking at a mask, and its cycles.
        gops: operations executed per second (non-zeros only).
        effective_gops: dense-equivalent operations per second.
        multipliers: multipliers of the engine.
        dsp: DSP blocks; ram_blocks: RAM blocks of the device's kind (ram_kind); lut, ff: logic, indicative.
        ram_share: share of its ceiling that the fullest kind of RAM takes, since blocks of two kinds do not add up.
        bandwidth_gbytes_per_s: weights read from off-chip memory at this speed.
        resident: whether all weights stay on chip; fits: whether it also stays under the device's ceilings; can_run:
            whether it fits, or could with weights streamed at a known bandwidth.
        bound_by: what limits it.
        energy_uj: energy per time step or item, by the board power of a published design; None without one.
        event_energy_uj: the same by events (multiplications, memory bits), each times a constant of the device, assumed
            unless the device says otherwise; None for models that count no events.
        details: cycle parts, layers, memories, limits, origin of the clock, assumptions: all that a reader needs.
        notes: warnings, as sentences.
    """

    engine: str = ""
    shape: str = ""
    cycles: Count
    latency_us: Quantity
    clock_mhz: Quantity
    clock_origin: str = ""
    streams: Count = 1
    steps_per_s: Quantity | None = None
    exact: bool = False
    baseline: str = ""
    dense_cycles: Count
    dense_latency_us: Quantity
    speedup: Quantity
    engine_dense_cycles: Count | None = None
    fixed_shape: str = ""
    fixed_cycles: Count | None = None
    gops: Quantity
    effective_gops: Quantity
    utilisation: Quantity
    multipliers: Count
    dsp: Count
    ram_blocks: Count
    ram_kind: str
    ram_share: Quantity | None = None
    bandwidth_gbytes_per_s: Quantity | None = None
    lut: Count | None = None
    ff: Count | None = None
    resident: bool | None = None
    fits: bool
    can_run: bool = True
    bound_by: str
    energy_uj: Quantity | None = None
    event_energy_uj: Quantity | None = None
    origin: Origin = "modelled"
    details: dict[str, JsonValue] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Circuit:
    """A design as files.

    Args:
        top: name of its top module.
        files: their texts, by path within the design's folder.
        cost: what the hardware model says of the design.
        cycles: clock cycles from the start of a product to its last result, as the design should take.
        told: facts for a reader: name and value.
    """

    top: str
    files: Mapping[str, str]
    cost: Cost
    cycles: int
    told: Mapping[str, str] = field(default_factory=dict)


class HardwareModel(Component):
    """An accelerator whose cost can be computed from masks."""

    kind: ClassVar[Literal["hardware"]] = "hardware"

    @abstractmethod
    def cost(self, workload: Workload) -> Cost:
        """Cost a workload. A pure function of the workload and the parameters.

        Raises:
            HarnessError: the engine cannot run it; the sentence becomes the reason in the report.
        """

    def designs(self, workload: Workload) -> tuple[Cost, ...]:
        """Costs of several designs within the same budget, of which none is better than another in every respect.

        The fastest among them, and smaller ones. A model that knows one design has that one.

        Raises:
            HarnessError: as `cost`.
        """
        return (self.cost(workload),)

    def circuit(self, workload: Workload, operands: Operands) -> Circuit:
        """The design that `cost` finds for one layer, as Verilog with the layer's memories and a bench of its own.

        Args:
            workload: the matrices of that layer alone.
            operands: its integers.

        Raises:
            SpecError: the model or its engine has no Verilog, or it cannot run the layer; the sentence says why.
        """
        raise SpecError(f"{self.label()} has no Verilog; name an engine that has, as cycle_simulator's bank")

    def simulated(self, folder: Path) -> BenchRun | None:
        """Run the bench of a circuit whose files are in a folder; None where no simulator is installed.

        Raises:
            HarnessError: a simulator is installed, and fails.
        """
        return None

    def number_format(self) -> NumberFormat | None:
        """In which numbers it computes: finished models are evaluated in them too; None: they are not."""
        return None

    def reads_weights(self) -> bool:
        """Whether its cost depends on the weights' values: then workloads bring them where they are known."""
        return False

    def group(self) -> str:
        """The label that the variants of one entry share: tables compare the engines under it."""
        return self.label()

    def variants(self, engines: Sequence[type[Engine]]) -> "tuple[HardwareModel, ...]":
        """The models that an entry of an experiment stands for: one per engine, unless it names one.

        Args:
            engines: every engine that is installed.
        """
        return (self,)

    @classmethod
    def devices(cls) -> tuple[dict[str, JsonValue], ...]:
        """The devices that this model knows, a row each, for `harness hardware list`."""
        return ()

    @classmethod
    def checks(cls, targets: Path | None = None) -> tuple[Check, ...]:
        """Compare the model with references: published accelerators, hardware simulations, other models.

        Args:
            targets: a file of targets to use in place of the built-in one.
        """
        return ()

    @classmethod
    def caveat(cls) -> str:
        """What the checks do not show, as a sentence; empty if there is nothing to say."""
        return ""
