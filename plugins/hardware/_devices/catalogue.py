"""All devices and boards of the table as rows, for a listing."""

from dataclasses import dataclass

from . import Device, Figure, device, known_devices


@dataclass(frozen=True)
class CatalogueRow:
    """A device or a board as a listing shows it; `multipliers` are those under the ceiling, no operand shared.

    Units:
        clock in MHz; off_chip in 10^9 bytes per second, nominal.
    """

    id: str
    chip: str
    family: str
    dsp: Figure
    multipliers_w16: int
    multipliers_w8: int
    rams: tuple[tuple[str, Figure], ...]
    logic_kind: str
    logic: Figure
    ff: Figure
    off_chip_kind: str | None
    off_chip: Figure | None
    clock: Figure
    dies: Figure | None

    @property
    def origins(self) -> dict[str, str]:
        """Where every figure of the row comes from, by column."""
        figures = {"dsp": self.dsp, self.logic_kind: self.logic, "ff": self.ff, "clock_mhz": self.clock}
        figures |= dict(self.rams)
        if self.off_chip is not None:
            figures["off_chip"] = self.off_chip
        if self.dies is not None:
            figures["dies"] = self.dies
        return {name: figure.origin for name, figure in figures.items()}


def catalogue() -> tuple[CatalogueRow, ...]:
    """All devices and boards of the table, in its order."""
    return tuple(_row(device(name)) for name in known_devices())


def _row(found: Device) -> CatalogueRow:
    entry = found.entry
    return CatalogueRow(
        id=found.id,
        chip=found.chip,
        family=entry.family,
        dsp=entry.dsp.count,
        multipliers_w16=found.most_multipliers(16),
        multipliers_w8=found.most_multipliers(8),
        rams=tuple((ram.kind, ram.count) for ram in entry.rams),
        logic_kind=entry.logic.kind,
        logic=entry.logic.count,
        ff=entry.ff,
        off_chip_kind=None if entry.off_chip is None else entry.off_chip.kind,
        off_chip=None if entry.off_chip is None else entry.off_chip.gbytes_per_s,
        clock=entry.clock_mhz,
        dies=entry.dies,
    )
