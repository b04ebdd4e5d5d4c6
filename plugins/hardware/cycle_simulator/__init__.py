"""The cycles of an engine on the real masks, exactly."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.api import HardwareModel, hookimpl

from .._bank import BankMap, ExactRows, Rows
from .._engine import BankEngineModel
from .._products import Product


class CycleSimulator(BankEngineModel):
    """Exact cycles of a bank engine, counted on the masks in closed form.

    Units: cycles; latency in microseconds at clock_mhz.
    Assumes: see `details["assumptions"]` of a cost; together they make a lower bound on latency.
    """

    name: ClassVar[str] = "cycle_simulator"

    engine: Literal["bank"] = Field(default="bank", description="the engine that is simulated")

    def rows(self, product: Product, bank_map: BankMap, counts: NDArray[np.int32], lanes: int) -> Rows:
        """Row costs counted on the masks."""
        return ExactRows(counts, lanes)


@hookimpl
def register_hardware() -> type[HardwareModel]:
    """Offer this model to the harness."""
    return CycleSimulator
