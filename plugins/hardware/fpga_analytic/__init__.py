"""The cycles of an engine on an FPGA, from statistics of the masks alone."""

from typing import ClassVar

from harness.api import Engine, HardwareModel, Product, hookimpl

from .._design import Runner
from .._engine import EngineModel


class FpgaAnalytic(EngineModel):
    """Expected cycles of an engine, with RAM blocks and DSPs of a real device, from statistics alone.

    Uses the density of every tensor and, where it is the same in every row, the count of every bank. Equally filled
    banks therefore cost exactly what the cycle simulator finds; for other masks the kept weights are taken as
    independent of each other, which holds for unstructured masks and is too optimistic for weights pruned in blocks.

    Units: cycles; latency in microseconds at clock_mhz.
    Assumes: RAM reads never collide and no overhead beyond the parts listed: a lower bound on latency.
    """

    name: ClassVar[str] = "fpga_analytic"

    def runner(self, engine: Engine) -> Runner:
        """Expect from statistics."""
        return engine.expect

    def check(self, product: Product) -> None:
        """Nothing is needed beyond the number of non-zeros."""


@hookimpl
def register_hardware() -> type[HardwareModel]:
    """Offer this model to the harness."""
    return FpgaAnalytic
