"""What masks come to before anything trains: counted on masks of random weights, the same every time.

The weights are normally distributed. Masks of a trained model have as many weights, elsewhere: what they need is
counted when they are there, and may differ a little.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.api import Cost, HardwareModel, HarnessError, Mask, Matrix, Pattern, Problem, Tensor, WholeScopePattern
from harness.discovery.asking import cost_of
from harness.formats import storage
from harness.masks.allocation import erk_shares
from harness.masks.coupling import Coupling
from harness.masks.updates import is_coupled
from harness.planning.workloads import workload_of
from harness.spec import Allocation

SEED = 20_190_220
"""Of the weights that masks are made of; any would do, as long as it stays."""


def random_weights(scope: Sequence[Tensor]) -> dict[str, Matrix]:
    """Magnitudes of a normal distribution, as before training: no trained weights are there yet."""
    rng = np.random.default_rng(SEED)
    return {t.name: np.abs(rng.standard_normal(t.shape, dtype=np.float32)) for t in scope}


@dataclass
class Foreseen:
    """Masks of one pattern on one task at any sparsity, and what they come to; every question is answered once.

    A sparsity of None is the dense model.
    """

    problem: Problem
    scope: tuple[Tensor, ...]
    pattern: Pattern
    allocation: Allocation
    weights: Mapping[str, Matrix]
    _costs: dict[tuple[float | None, HardwareModel], Cost | str] = field(default_factory=dict)
    _bits: dict[tuple[float | None, int], int] = field(default_factory=dict)
    _reached: dict[float, float] = field(default_factory=dict)
    _held: tuple[float, dict[str, Mask]] | None = None

    def reached(self, sparsity: float) -> float:
        """The sparsity of the masks, where this one is asked for."""
        if sparsity not in self._reached:
            masks = self._masks(sparsity)
            kept, size = sum(int(mask.sum()) for mask in masks.values()), sum(mask.size for mask in masks.values())
            self._reached[sparsity] = round(1 - kept / size, 4)
        return self._reached[sparsity]

    def cost(self, sparsity: float | None, model: HardwareModel) -> Cost | str:
        """The cost on a hardware model, or the reason why it has none."""
        place = (sparsity, model)
        if place not in self._costs:
            masks = self._masks(sparsity)
            workload = workload_of(self.pattern if masks else None, self.problem, self.scope, masks, {})
            try:
                self._costs[place] = cost_of(model, workload)
            except HarnessError as error:
                self._costs[place] = str(error)
        return self._costs[place]

    def stored_bits(self, sparsity: float | None, weight_bits: int) -> int:
        """Bits of the scope's matrices, each in the format that is smallest for its mask."""
        place = (sparsity, weight_bits)
        if place not in self._bits:
            masks, bits = self._masks(sparsity), 0
            for tensor in self.scope:
                mask = masks.get(tensor.name)
                if mask is None:
                    bits += tensor.size * weight_bits
                else:
                    bits += storage.best(storage.sizes(mask, weight_bits=weight_bits)).bits or 0
            self._bits[place] = bits
        return self._bits[place]

    def _masks(self, sparsity: float | None) -> dict[str, Mask]:
        """The masks; the last ones only are held, as those of a large model take long to make and much room."""
        if sparsity is None:
            return {}
        if self._held is None or self._held[0] != sparsity:
            self._held = (sparsity, self._made(sparsity))
        return self._held[1]

    def _made(self, sparsity: float) -> dict[str, Mask]:
        scope, pattern = self.scope, self.pattern
        shares = {tensor.name: sparsity for tensor in scope}
        if self.allocation == "erk":
            shares = erk_shares(scope, sparsity)
        elif not isinstance(self.allocation, str):
            shares |= {name: share for name, share in self.allocation.items() if name in shares}
        if isinstance(pattern, WholeScopePattern):
            # One call for the whole scope, as in training.
            return dict(pattern.masks(self.weights, shares, scope))
        if is_coupled(pattern, scope):
            return Coupling.of(scope).masks(self.weights, sparsity)
        return {t.name: pattern.for_tensor(t).mask(self.weights[t.name], shares[t.name]) for t in scope}
