"""What a device description holds: kinds of RAM and DSP, chips, boards, clocks and powers of published designs."""

from functools import cache, lru_cache
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from harness.api import Frozen, SpecError

from .files import Figure

ControllerKind = Literal["ddr4", "hbm"]


def _count(figure: Figure) -> Figure:
    if figure.value != int(figure.value):
        raise ValueError("a count must be a whole number")
    return figure


def _positive(figure: Figure) -> Figure:
    if figure.value <= 0:
        raise ValueError("the value must be above 0")
    return figure


def _share(figure: Figure) -> Figure:
    if not 0 < figure.value <= 1:
        raise ValueError("a share must lie above 0 and at most at 1")
    return figure


Count = Annotated[Figure, AfterValidator(_count)]
AtLeastOne = Annotated[Figure, AfterValidator(_count), AfterValidator(_positive)]
Rate = Annotated[Figure, AfterValidator(_positive)]
Share = Annotated[Figure, AfterValidator(_share)]
RamShape = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}x[1-9][0-9]{0,8}$")]


class BlockRam(Frozen):
    """A kind of RAM block: the shapes, `width x depth`, that one block can take."""

    bits_each: AtLeastOne
    shapes: tuple[RamShape, ...] = Field(min_length=1)
    ceiling: Share

    def blocks(self, width: int, depth: int) -> int:
        """Blocks of one memory of `depth` words of `width` bits."""
        return _units(self.shapes, width, depth)

    def deepest(self, width: int, blocks: int) -> int:
        """Words of `width` bits that one memory of so many blocks holds."""
        return max(blocks // -(-width // wide) * deep for wide, deep in map(_size, self.shapes))


class DistributedRam(Frozen):
    """Small memories made of logic.

    Args:
        shapes: `width x depth` of one such memory, with a write and a read port.
        per_unit: what one of them takes of the counted resource (an MLAB, or some LUTs).
        cells: LUTs or ALMs that one counted unit takes away from the logic.
        ceiling: share of the counted resource that may become memory.
    """

    shapes: tuple[RamShape, ...] = Field(min_length=1)
    shapes_source: str | None = None
    per_unit: AtLeastOne
    cells: Rate
    ceiling: Share

    def size(self, width: int, depth: int) -> int:
        """MLABs or LUTs of one memory of `depth` words of `width` bits."""
        return _units(self.shapes, width, depth) * int(self.per_unit.value)


class DspKind(Frozen):
    """Products that one DSP block makes per cycle, by operand width; `shared` where two lanes share an operand."""

    most_bits: AtLeastOne
    products_w16: AtLeastOne
    products_w8: AtLeastOne
    products_w8_shared: AtLeastOne | None = None
    products_w4: AtLeastOne | None = None
    products_w4_shared: AtLeastOne | None = None
    products_w27: AtLeastOne | None = None
    ceiling: Share

    def products(self, bits: int, *, shares_operand: bool) -> Figure:
        """Products per block and cycle; a width without an entry packs like the next wider one.

        Raises:
            SpecError: the block does not multiply operands of so many bits.
        """
        # Only DSP blocks with a mode for wide operands take more than `most_bits`.
        if bits > self.most_bits.value:
            if bits <= 27 and self.products_w27 is not None:
                return self.products_w27
            widest = 27 if self.products_w27 is not None else int(self.most_bits.value)
            raise SpecError(
                f"a DSP block of this device multiplies operands of up to {widest} bits, got {bits}; narrow them"
            )
        found = [self.products_w16]
        if bits <= 8:
            found += [self.products_w8, *self._given(shares_operand, self.products_w8_shared)]
        if bits <= 4:
            found += [*self._given(True, self.products_w4), *self._given(shares_operand, self.products_w4_shared)]
        # The last of equals: the figure of the narrowest width is the most specific, and is the one cited.
        return max(reversed(found), key=lambda figure: figure.value)

    @staticmethod
    def _given(wanted: bool, figure: Figure | None) -> list[Figure]:
        return [figure] if wanted and figure is not None else []


class Resource(Frozen):
    """So many of a kind."""

    kind: str
    count: Count


class LogicCells(Frozen):
    """LUTs or ALMs."""

    kind: Literal["lut", "alm"]
    count: Count


class OffChip(Frozen):
    """Off-chip memory; nominal bandwidth of all channels together, 10^9 bytes per second."""

    kind: Literal["ddr3", "ddr4", "hbm"]
    channels: AtLeastOne | None = None
    gbytes_per_s: Rate


class BurstKind(Frozen):
    """What a kind of off-chip memory reads at least, and what a jump to another place costs, in bytes."""

    size_bytes: AtLeastOne
    jump_bytes: Count


class EnergyConstants(Frozen):
    """Picojoules of one event; what a device file leaves out is the table's.

    Args:
        mac_pj_w16: a multiply-accumulate of 16-bit operands; others by the square of their width.
        adder_pj_per_bit: a bit of a sum made of logic.
        ram_pj_per_bit: a bit read from or written to a memory on chip.
        dram_pj_per_bit: a bit over the off-chip memory.
        static_w: watts whatever is computed; left out, only events are counted.
    """

    mac_pj_w16: Figure | None = None
    adder_pj_per_bit: Figure | None = None
    ram_pj_per_bit: Figure | None = None
    dram_pj_per_bit: Figure | None = None
    static_w: Figure | None = None


class KnownEnergy(EnergyConstants):
    """The same with every event's energy known."""

    mac_pj_w16: Figure
    adder_pj_per_bit: Figure
    ram_pj_per_bit: Figure
    dram_pj_per_bit: Figure


class Entry(Frozen):
    """A device as a file has it: counts of the raw chip, or of what a shell leaves.

    Args:
        rams: kinds of RAM blocks, in order of preference.
        distributed: memories made of logic; without a count it is that of the logic (LUTs).
        clock_mhz: what an engine without a published clock on this device runs at.
        off_chip: memory beside the chip; without it, weights that do not fit cannot be costed.
        dies: a design over more than one is harder to clock; no figure is adjusted for that.
        energy: what events cost on this device, where it is not what the table says of all.
    """

    family: str
    logic: LogicCells
    ff: Count
    dsp: Resource
    rams: tuple[Resource, ...] = Field(min_length=1)
    distributed: Resource | None = None
    clock_mhz: Rate
    off_chip: OffChip | None = None
    dies: AtLeastOne | None = None
    energy: EnergyConstants = EnergyConstants()

    @model_validator(mode="before")
    @classmethod
    def _logic_as_memory(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        distributed, logic = data.get("distributed"), data.get("logic")
        # LUTs that serve as memory are most often all LUTs: a file need not say the number twice.
        if (
            isinstance(distributed, dict)
            and isinstance(logic, dict)
            and "count" not in distributed
            and "count" in logic
        ):
            return data | {"distributed": distributed | {"count": logic["count"]}}
        return data

    @model_validator(mode="after")
    def _distinct(self) -> "Entry":
        kinds = [ram.kind for ram in self.rams]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"every kind of RAM stands once in `rams`, got {', '.join(kinds)}; add their counts up")
        return self

    @property
    def ram(self) -> Resource:
        """The preferred kind of RAM block."""
        return self.rams[0]


class Chip(Entry):
    """A device of the table; `board` lends its off-chip memory where only the chip is named."""

    board: str | None = None


class Board(Frozen):
    """A chip on a board: its off-chip memory and, by kind, what the shell leaves."""

    device: str
    off_chip: OffChip
    available: dict[str, Count] = Field(default_factory=dict)


class Anchor(Frozen):
    """A clock that a published design of an engine reached on a device."""

    engine: str
    device: str
    mhz: Rate


class PowerCalibration(Frozen):
    """Board power of a published design, with the multipliers and the clock that it had."""

    engine: str
    device: str
    what: str
    power_w: Rate
    clock_mhz: Rate
    multipliers: AtLeastOne


class Kinds(Frozen):
    """Kinds that devices refer to."""

    block_ram: dict[str, BlockRam] = Field(default_factory=dict)
    distributed_ram: dict[str, DistributedRam] = Field(default_factory=dict)
    dsp_kinds: dict[str, DspKind] = Field(default_factory=dict)


class Table(Kinds):
    """The device table."""

    version: Literal[1]
    sources: dict[str, str]
    ceilings: dict[str, Share]
    controllers: dict[ControllerKind, dict[str, Figure]]
    memory_efficiency: dict[str, Share]
    memory_bursts: dict[str, BurstKind]
    event_energy: KnownEnergy
    dram_pj_per_bit: dict[str, Figure]
    devices: dict[str, Chip]
    boards: dict[str, Board]
    clock_anchors: tuple[Anchor, ...]
    power_calibrations: tuple[PowerCalibration, ...]


class DeviceFile(Kinds):
    """An own device: an entry, sources, and kinds that the table does not have."""

    version: Literal[1]
    sources: dict[str, str] = Field(default_factory=dict)
    device: Entry


# Cached: a search asks for the same few memories hundreds of thousands of times.
@lru_cache(maxsize=1 << 16)
def _units(shapes: tuple[str, ...], width: int, depth: int) -> int:
    return min(-(-width // wide) * -(-depth // deep) for wide, deep in map(_size, shapes))


@cache
def _size(shape: str) -> tuple[int, int]:
    width, depth = shape.split("x")
    return int(width), int(depth)
