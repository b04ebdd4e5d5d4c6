"""Hardware models: what a set of masked tensors costs."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pydantic import Field

from harness.api.component import Component, Frozen, JsonValue
from harness.api.network import Network, Tensor
from harness.api.values import Mask

Origin = Literal["measured", "modelled", "published"]


@dataclass(frozen=True)
class Workload:
    """The matrices of one model and which of their weights are kept.

    Args:
        network: the layers.
        tensors: the matrices to cost, in network order.
        masks: by tensor name; a tensor without one is dense.
        banks: equally filled banks per row, by tensor name, where the pattern has them.
        output_pixels: output positions of a convolution, by layer name.
    """

    network: Network
    tensors: tuple[Tensor, ...]
    masks: Mapping[str, Mask]
    banks: Mapping[str, int] = field(default_factory=dict)
    output_pixels: Mapping[str, int] = field(default_factory=dict)


class Cost(Frozen):
    """What one model on one engine costs; every figure is modelled, per time step (or per item) at batch 1.

    Units:
        cycles at clock_mhz; latency in microseconds; GOPS = 10^9 operations per second, 1 MAC = 2 operations.

    Args:
        cycles: issue cycles plus the constants of the engine, for the masks given.
        latency_us: cycles / clock_mhz.
        dense_cycles: the same tensors, dense, on a dot-product array with equally many multipliers.
        speedup: dense_cycles / cycles, at equal multipliers and equal clock.
        gops: operations executed per second (non-zeros only).
        effective_gops: dense-equivalent operations per second.
        multipliers: multipliers of the engine.
        dsp: DSP blocks; ram_blocks: RAM blocks of the device's kind (ram_kind).
        fits: whether it fits under the device's ceilings; `limits` says by what fraction.
        bound_by: what limits it.
        details: engine, shape, bank map, cycle parts, origin of the clock, assumptions: all that a reader needs.
        notes: warnings, as sentences.
    """

    cycles: int
    latency_us: float
    clock_mhz: float
    dense_cycles: int
    dense_latency_us: float
    speedup: float
    gops: float
    effective_gops: float
    utilisation: float
    multipliers: int
    dsp: int
    ram_blocks: int
    ram_kind: str
    fits: bool
    bound_by: str
    origin: Origin = "modelled"
    details: dict[str, JsonValue] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class HardwareModel(Component):
    """An accelerator whose cost can be computed from masks."""

    kind: ClassVar[Literal["hardware"]] = "hardware"

    @abstractmethod
    def cost(self, workload: Workload) -> Cost:
        """Cost a workload. A pure function of the workload and the parameters.

        Raises:
            HarnessError: the engine cannot run it; the sentence becomes the reason in the report.
        """
