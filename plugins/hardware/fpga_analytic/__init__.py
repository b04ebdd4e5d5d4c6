"""The bank engine on an FPGA, from statistics of the masks alone."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.api import HardwareModel, hookimpl

from .._bank import BankMap, Rows
from .._engine import BankEngineModel
from .._expectation import ExpectedRows, bank_fills
from .._products import Product


class FpgaAnalytic(BankEngineModel):
    """Expected cycles of a bank engine, with RAM blocks and DSPs of a real device.

    Uses the density of every tensor and, where it is the same in every row, the count of every bank. Equally filled
    banks therefore cost exactly what the cycle simulator finds; for other masks the kept weights are taken as
    independent of each other, which holds for unstructured masks and is too optimistic for weights pruned in blocks.

    Units: cycles; latency in microseconds at clock_mhz.
    Assumes: see `details["assumptions"]` of a cost; together they make a lower bound on latency.
    """

    name: ClassVar[str] = "fpga_analytic"

    def rows(self, product: Product, bank_map: BankMap, counts: NDArray[np.int32], lanes: int) -> Rows:
        """Row costs expected from the fill of the banks."""
        return ExpectedRows(bank_fills(product, bank_map, counts), lanes, product.shape.rows, product.nnz)


@hookimpl
def register_hardware() -> type[HardwareModel]:
    """Offer this model to the harness."""
    return FpgaAnalytic
