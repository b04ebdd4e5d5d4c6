"""The cycles of an engine on an FPGA, from statistics of the masks alone."""

from pathlib import Path
from typing import ClassVar

from harness.api import Check, Engine, HardwareModel, JsonValue, Product, hookimpl

from .._design.design import Runner
from .._design.model import EngineModel
from .._devices.catalogue import CatalogueRow, catalogue


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

    @classmethod
    def devices(cls) -> tuple[dict[str, JsonValue], ...]:
        """All devices and boards of the table, figures with value, origin and source."""
        return tuple(_device_row(row) for row in catalogue())

    @classmethod
    def checks(cls, targets: Path | None = None) -> tuple[Check, ...]:
        """Every rule of the table of accelerators, or of a file like it."""
        # Imported when asked for: rules need every engine, and a cost needs none of them.
        from .._validation import checks

        return checks(targets)

    @classmethod
    def caveat(cls) -> str:
        """What no rule can show."""
        from .._validation import CAVEAT

        return CAVEAT


def _device_row(row: CatalogueRow) -> dict[str, JsonValue]:
    """A row of the catalogue as JSON; a figure is a mapping of value, origin and source."""
    rams: dict[str, JsonValue] = {kind: count.plain() for kind, count in row.rams}
    off_chip: JsonValue = None
    if row.off_chip is not None and row.off_chip_kind is not None:
        off_chip = {row.off_chip_kind: row.off_chip.plain()}
    return {
        "device": row.id,
        "chip": None if row.chip == row.id else row.chip,
        "family": row.family,
        "DSP": row.dsp.plain(),
        "multipliers": {"w16": row.multipliers_w16, "w8": row.multipliers_w8},
        "RAM_blocks": rams,
        "logic": {row.logic_kind: row.logic.plain()},
        "FF": row.ff.plain(),
        "off-chip_GB/s": off_chip,
        "MHz": row.clock.plain(),
        "dies": None if row.dies is None else row.dies.plain(),
    }


@hookimpl
def register_hardware() -> type[HardwareModel]:
    """Offer this model to the harness."""
    return FpgaAnalytic
