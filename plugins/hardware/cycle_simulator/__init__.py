"""The cycles of an engine on the real masks, exactly."""

from typing import ClassVar

from harness.api import Engine, HardwareModel, Product, SpecError, hookimpl

from .._design.design import Runner
from .._design.model import EngineModel


class CycleSimulator(EngineModel):
    """Exact cycles of an engine on the real masks: closed forms and recurrences, equal to ticking every cycle.

    Units: cycles; latency in microseconds at clock_mhz.
    Assumes: RAM reads never collide and no overhead beyond the parts listed: a lower bound on latency.
    """

    name: ClassVar[str] = "cycle_simulator"
    exact: ClassVar[bool] = True

    def runner(self, engine: Engine) -> Runner:
        """Count on the masks."""
        return engine.simulate

    def check(self, product: Product) -> None:
        """Raise SpecError without masks."""
        if not product.has_masks:
            raise SpecError(
                f"cycle_simulator counts on masks, got only the number of non-zeros of {product.layer!r}; "
                "give masks, or take fpga_analytic"
            )


@hookimpl
def register_hardware() -> type[HardwareModel]:
    """Offer this model to the harness."""
    return CycleSimulator
