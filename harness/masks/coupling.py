"""Coupled units: what one label counts lives or dies in every tensor of the scope that has the label.

Hidden unit k of an LSTM is four rows of its kernel and recurrent kernel, a column of its recurrent kernel, and a column
of whatever the next layer reads it with. Removing it whole leaves smaller dense matrices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.api.network import Axis, Tensor
from harness.arrays import Mask, Matrix
from harness.selection.best import best


@dataclass(frozen=True)
class Coupling:
    """The labels of a scope whose units can be removed: made by one tensor's rows and read by a tensor's columns.

    Args:
        tensors: the scope, in order.
        counts: units by label, in scope order. The logits, which nothing reads, and the inputs, which nothing makes,
            are not among them.
    """

    tensors: tuple[Tensor, ...]
    counts: Mapping[str, int]

    @classmethod
    def of(cls, scope: Sequence[Tensor]) -> "Coupling":
        """What is coupled in a scope of matrices."""
        read = {tensor.cols.label for tensor in scope if tensor.cols is not None}
        made = {tensor.rows.label: tensor.rows.size // tensor.rows.repeat for tensor in scope}
        return cls(tuple(scope), {label: count for label, count in made.items() if label in read})

    def quotas(self, sparsity: float) -> dict[str, int]:
        """Units that every label keeps: one fraction for all labels, so that the scope comes nearest to the sparsity.

        Args:
            sparsity: over all weights of the scope, in [0, 1).
        """
        steps = max(self.counts.values())
        candidates = [
            # Rounded half up in whole numbers: with floats, two labels of one count could differ by a unit.
            {label: max(1, (2 * part * count + steps) // (2 * steps)) for label, count in self.counts.items()}
            for part in range(steps, 0, -1)
        ]
        # The first of the nearest, that is the one that keeps more: nested masks follow from nested quotas.
        return min(candidates, key=lambda quotas: round(abs(self.reached(quotas) - sparsity), 12))

    def reached(self, quotas: Mapping[str, int]) -> float:
        """The sparsity of the scope when every label keeps so many units."""
        # A weight counts by the share of its row's and its column's units that stay: the counts do not depend on which
        # they are.
        kept = sum(
            tensor.size * self._share(tensor.rows, quotas) * (self._share(tensor.cols, quotas) if tensor.cols else 1)
            for tensor in self.tensors
        )
        return 1 - kept / sum(tensor.size for tensor in self.tensors)

    def masks(self, scores: Mapping[str, Matrix], sparsity: float) -> dict[str, Mask]:
        """Keep the units of every label with the highest mean score over all weights they own; ties at the lower unit.

        Args:
            scores: by tensor name, (rows, cols); -inf marks weights that are already pruned: they count no more, and a
                unit of nothing else ranks below all others.
            sparsity: over all weights of the scope.
        """
        kept = {label: self._best(scores, label, quota) for label, quota in self.quotas(sparsity).items()}
        masks: dict[str, Mask] = {}
        for tensor in self.tensors:
            mask = np.ones(tensor.shape, np.bool_)
            if tensor.rows.label in kept:
                mask &= kept[tensor.rows.label][tensor.rows.units()][:, None]
            if tensor.cols is not None and tensor.cols.label in kept:
                mask &= kept[tensor.cols.label][tensor.cols.units()]
            masks[tensor.name] = mask
        return masks

    def _share(self, axis: Axis, quotas: Mapping[str, int]) -> float:
        return quotas[axis.label] / self.counts[axis.label] if axis.label in self.counts else 1.0

    def _best(self, scores: Mapping[str, Matrix], label: str, quota: int) -> Mask:
        count = self.counts[label]
        totals, weights = np.zeros(count), np.zeros(count)
        for tensor in self.tensors:
            values = scores[tensor.name]
            # Before anything is pruned there is no -inf to be kept out, which would take most of the time.
            live = None if np.isfinite(values.min()) else np.isfinite(values)
            values = values if live is None else np.where(live, values, 0.0)
            for axis, across in ((tensor.rows, 1), (tensor.cols, 0)):
                if axis is not None and axis.label == label:
                    totals += np.bincount(axis.units(), values.sum(axis=across, dtype=np.float64), count)
                    alive = values.shape[across] if live is None else live.sum(axis=across)
                    weights += np.bincount(axis.units(), np.broadcast_to(alive, axis.size), count)
        # Over what is alive: with sums, units that have lost weights before would go first, whatever the rest is worth.
        means = np.where(weights > 0, totals / np.maximum(weights, 1), -np.inf)
        chosen: Mask = best(means[None], quota)[0]
        return chosen
