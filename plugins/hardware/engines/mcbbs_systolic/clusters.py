"""Clusters of neighbouring input channels: how many of them a mask keeps in every range."""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from harness.api import Mask, Part

_Counts = NDArray[np.uint8 | np.uint16]


class ClusterFill(NamedTuple):
    """Clusters that stay in the fullest range, and what breaks the rule of equal ranges; empty if nothing does."""

    most: int
    broken: str = ""


def cluster_fill(part: Part, cluster: int, clusters: int, taps: int) -> ClusterFill:
    """How a part with a mask fills ranges of so many clusters.

    A range lies along the input channels at one filter position; the last one of a row may be shorter and keep fewer.

    Args:
        part: the tensor, columns in the order (channel, filter position).
        cluster: channels of a cluster.
        clusters: clusters of a range.
        taps: filter positions.
    """
    known = _FILLS.setdefault(part, {})
    key = (cluster, clusters, taps)
    if key not in known:
        assert part.mask is not None
        known[key] = _counted(part.mask, *key)
    return known[key]


def _counted(mask: Mask, cluster: int, clusters: int, taps: int) -> ClusterFill:
    rows, cols = mask.shape
    channels = cols // taps
    kept = mask.view(np.uint8)
    inside = _grouped(kept.reshape(rows, channels, taps) if taps > 1 else kept, cluster)  # (rows, clusters[, taps])
    # A cluster counts as kept if any of its channels is; whether all are is looked at below.
    ranges = _grouped(inside if cluster == 1 else (inside > 0).view(np.uint8), clusters)
    most = int(ranges.max())
    # Whole clusters and, below, whole ranges only: the last of a row may be shorter.
    sizes = inside[:, : channels // cluster]
    if cluster > 1 and bool(((sizes != 0) & (sizes != cluster)).any()):
        return ClusterFill(most, "parts of clusters")
    whole = ranges[:, : channels // (cluster * clusters)]
    if whole.size and int(whole.min()) != most:
        return ClusterFill(most, f"{int(whole.min())} to {most}")
    return ClusterFill(most)


def _grouped(values: _Counts, size: int) -> _Counts:
    """Sums of `size` neighbours along the second axis; the last group may be shorter. Strided adds are fastest."""
    if size == 1:
        return values
    sums: _Counts = values[:, ::size].astype(np.uint8 if size < 256 else np.uint16)
    for offset in range(1, size):
        column = values[:, offset::size]
        sums[:, : column.shape[1]] += column
    return sums


_FILLS: WeakKeyDictionary[Part, dict[tuple[int, int, int], ClusterFill]] = WeakKeyDictionary()
"""What was counted, kept as long as its part: all shapes share it."""
