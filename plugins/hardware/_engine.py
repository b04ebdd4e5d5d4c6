"""What both hardware models share: the fields, the choice of a shape, and the dense baseline."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from harness.api import Cost, HardwareModel, Workload

from ._bank import BankMap, Banks, Rows, dense_issue, fold
from ._design import Design, Mapped, Numerics, VectorMemory, can_be_resident, design
from ._devices import device
from ._products import CostedRole, Product, Shape, left_out, products
from ._report import Choice, report

_FREE_LANES = (1, 2, 4, 8, 16, 32, 64)
"""Lanes tried for a mask without equally filled banks: wide PEs wait for their fullest bank, narrow ones need more
copies of the vector. Which costs more depends on the mask and the device."""

_DENSE_TRIES = 64
"""Dense shapes that are laid out in full, fastest first, until one fits."""

_SMALLEST_SHARE = 8
"""A search for a design that fits gives up below this fraction (1/8) of the multipliers; then weights are streamed."""


class BankEngineModel(HardwareModel):
    """A bank engine on an FPGA: M PEs of N lanes that all products of a model share, one after another, at batch 1.

    A model without any mask is costed on the dense baseline itself, a dot-product array of equally many multipliers.
    """

    device: str = Field(default="arria10_gx1150", description="id in the device table")
    multipliers: int = Field(default=1024, gt=0, description="multipliers that the sparse and the dense array may have")
    pes: int | None = Field(default=None, gt=0, description="M, processing elements; None searches")
    lanes: int | None = Field(default=None, gt=0, description="N, lanes of a processing element; None searches")
    banks: int | None = Field(default=None, gt=0, description="banks per row of every product; None takes the mask's")
    lockstep: bool = Field(default=False, description="whether all PEs wait for the slowest after every row")
    weight_bits: int = Field(default=16, ge=2, le=16, description="bits of a weight")
    activation_bits: int = Field(default=16, ge=2, le=16, description="bits of a vector element")
    clock_mhz: float | None = Field(default=None, gt=0, le=2000, description="clock; None takes the device's (assumed)")
    bandwidth_gbytes_per_s: float | None = Field(
        default=None, gt=0, description="off-chip bandwidth reached; None takes that of a common board with the device"
    )
    vector_memory: VectorMemory = Field(
        default="auto", description="vectors in distributed RAM, in RAM blocks, or in whichever suffices"
    )
    elementwise_units: int = Field(default=16, gt=0, description="LSTM units updated per cycle (assumed)")
    elementwise_latency: int = Field(default=8, ge=0, description="cycles from a unit's gates to its output (assumed)")
    serial_cycles: int = Field(default=0, ge=0, description="cycles added to every product, e.g. a launch")
    roles: tuple[CostedRole, ...] = Field(
        default=("lstm", "conv", "dense", "softmax"), min_length=1, description="roles of the matrices that are costed"
    )

    @field_validator("device")
    @classmethod
    def _known(cls, name: str) -> str:
        return device(name).id

    @abstractmethod
    def rows(self, product: Product, bank_map: BankMap, counts: NDArray[np.int32], lanes: int) -> Rows:
        """What the rows of a product cost on PEs with so many lanes.

        Shapes:
            counts (rows, banks): weights kept in every bank of every engine row.
        """

    def cost(self, workload: Workload) -> Cost:
        """Cost a workload on the fastest shape of the engine that fits.

        Raises:
            SpecError: there is nothing to cost, or the device is unknown.
            ShapeError: a mask does not have its tensor's shape, or there are more banks than columns.
        """
        work = products(workload, self.roles)
        numerics, budget = self._numerics(), self._budget()
        dense = dense_design(tuple(product.shape for product in work), budget, self.device, numerics)
        choice = Choice(
            model=self.name,
            device=device(self.device),
            numerics=numerics,
            budget=budget,
            clock_given=self.clock_mhz is not None,
            shape_given=self.pes is not None and self.lanes is not None,
            lockstep=self.lockstep,
        )
        omitted = left_out(workload, self.roles)
        if all(product.is_dense for product in work):
            return report(dense, dense, choice, {}, omitted)
        banks = [Banks(product, self.banks) for product in work]
        best = self._search(banks, budget, numerics)
        maps = {item.product.shape.layer: item.map(best.lanes) for item in banks}
        return report(best, dense, choice, maps, omitted)

    def _numerics(self) -> Numerics:
        target = device(self.device)
        reached = self.bandwidth_gbytes_per_s
        return Numerics(
            weight_bits=self.weight_bits,
            activation_bits=self.activation_bits,
            elementwise_units=self.elementwise_units,
            elementwise_latency=self.elementwise_latency,
            serial_cycles=self.serial_cycles,
            clock_mhz=target.entry.clock_mhz.value if self.clock_mhz is None else self.clock_mhz,
            bytes_per_us=target.bytes_per_us() if reached is None else reached * 1e3,
            vector_memory=self.vector_memory,
        )

    def _budget(self) -> int:
        """Multipliers that both arrays may have: what was asked for, as far as the device has them."""
        if self.pes is not None and self.lanes is not None:
            return self.pes * self.lanes
        bits = max(self.weight_bits, self.activation_bits)
        return max(1, min(self.multipliers, device(self.device).most_multipliers(bits) - 3 * self.elementwise_units))

    def _search(self, banks: list[Banks], budget: int, numerics: Numerics) -> Design:
        """The fastest shape that fits; if none does, the fastest that can run, with weights streamed."""
        candidates = self._lane_choices(banks, budget)
        for item in banks:
            item.prepare(candidates)
        designs = (found for lanes in candidates for found in self._designs(banks, lanes, budget, numerics))
        return min(designs, key=_rank)

    def _lane_choices(self, banks: list[Banks], budget: int) -> list[int]:
        if self.lanes is not None:
            return [self.lanes]
        most = max(1, budget // (self.pes or 1))
        choices = set() if self.banks is None else fold(self.banks, most)
        if self.banks is None:
            for item in banks:
                naturals = [count for count in item.natural if count is not None]
                for count in {*naturals, sum(naturals)} - {0}:
                    choices |= fold(count, most)
                if not naturals and not item.product.is_dense:
                    choices |= {lanes for lanes in _FREE_LANES if lanes <= most}
        return sorted(choices)

    def _designs(self, banks: list[Banks], lanes: int, budget: int, numerics: Numerics) -> Iterator[Design]:
        """Designs with so many lanes, from many PEs to few, until one fits."""
        rows = []
        for item in banks:
            bank_map = item.map(lanes)
            rows.append((item.product, bank_map, self.rows(item.product, bank_map, item.counts(bank_map), lanes)))
        for pes in self._pe_choices(banks, lanes, budget):
            mapped = [_mapped(*row, lanes, pes, lockstep=self.lockstep, weight_bits=self.weight_bits) for row in rows]
            found = design("bank", mapped, pes, lanes, device(self.device), numerics)
            yield found
            if found.fits or not can_be_resident(mapped, device(self.device)):
                return

    def _pe_choices(self, banks: list[Banks], lanes: int, budget: int) -> list[int]:
        """The most PEs that the budget allows, then the fewest for every larger number of row groups."""
        if self.pes is not None:
            return [self.pes]
        rows = max(item.product.shape.rows for item in banks)
        top = max(1, min(budget // lanes, rows))
        smallest = -(-top // _SMALLEST_SHARE)
        groups = range(-(-rows // top), -(-rows // smallest) + 1)
        return sorted({top} | {-(-rows // count) for count in groups}, reverse=True)


def _rank(found: Design) -> tuple[object, ...]:
    return found.rank


def _mapped(
    product: Product, bank_map: BankMap, rows: Rows, lanes: int, pes: int, *, lockstep: bool, weight_bits: int
) -> Mapped:
    used = min(lanes, bank_map.count)
    waves = -(-bank_map.count // lanes)
    index_bits = 0 if product.is_dense else (bank_map.longest - 1).bit_length()
    # Where counts vary, a word says whether it ends its row and which wave it belongs to.
    flags = 1 + (waves - 1).bit_length() if rows.varies else 0
    return Mapped(
        shape=product.shape,
        nnz=product.nnz,
        issue=rows.issue(pes, lockstep=lockstep),
        lanes=used,
        word_bits=used * (weight_bits + index_bits) + flags,
        vector_words=waves * bank_map.longest,
    )


@lru_cache(maxsize=64)
def dense_design(shapes: tuple[Shape, ...], budget: int, device_id: str, numerics: Numerics) -> Design:
    """The dense baseline: the best M x N dot-product array with at most `budget` multipliers."""
    target = device(device_id)
    most_rows, most_cols = max(shape.rows for shape in shapes), max(shape.cols for shape in shapes)
    sizes = [(min(budget // lanes, most_rows), lanes) for lanes in range(1, min(budget, most_cols) + 1)]

    def issue_cycles(size: tuple[int, int]) -> int:
        return sum(-(-shape.rows // size[0]) * -(-shape.cols // size[1]) * shape.pixels for shape in shapes)

    found = []
    for pes, lanes in sorted(sizes, key=issue_cycles)[:_DENSE_TRIES]:
        mapped = [_mapped_dense(shape, pes, lanes, numerics.weight_bits) for shape in shapes]
        found.append(design("dense_mvm", mapped, pes, lanes, target, numerics))
        if found[-1].fits:
            break
    return min(found, key=_rank)


def _mapped_dense(shape: Shape, pes: int, lanes: int, weight_bits: int) -> Mapped:
    used = min(lanes, shape.cols)
    return Mapped(
        shape=shape,
        nnz=shape.size,
        issue=dense_issue(shape.rows, shape.cols, pes, lanes),
        lanes=used,
        word_bits=used * weight_bits,
        vector_words=-(-shape.cols // lanes),
    )
