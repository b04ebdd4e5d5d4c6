"""Does a mask have its pattern? Rules of our own, one per pattern, that read the finished mask and nothing else."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from harness.api import JsonValue

Mask = NDArray[np.bool_]
Parameters = Mapping[str, JsonValue]
Rule = Callable[[Mask, Parameters], str]
"""A sentence on what is wrong with a mask of (rows, cols), True where kept; empty if nothing is."""


def _number(parameters: Parameters, name: str, default: int) -> int:
    value = parameters.get(name)
    return value if isinstance(value, int) and value > 0 else default


def _free(mask: Mask, parameters: Parameters) -> str:
    return ""


def _equal(counts: NDArray[np.int64], what: str) -> str:
    if counts.size and counts.min() != counts.max():
        return f"expected equally many weights in every {what}, got {counts.min()} to {counts.max()}"
    return ""


def _rows(mask: Mask, parameters: Parameters) -> str:
    return _equal(mask.sum(axis=1), "row")


def _banked(mask: Mask, parameters: Parameters) -> str:
    size = parameters.get("bank_size")
    cols = mask.shape[1]
    if isinstance(size, int):
        if cols % size:
            return f"expected rows of whole banks of {size}, got {cols} columns"
        return _equal(mask.reshape(len(mask), -1, size).sum(axis=2), "bank")
    # The longer banks come first; their sizes differ by at most one.
    edges = _edges(cols, _number(parameters, "banks", 10))
    counts = [mask[:, start:stop].sum(axis=1) for start, stop in edges]
    return _equal(np.stack(counts), "bank")


def _edges(cols: int, banks: int) -> list[tuple[int, int]]:
    small, longer = divmod(cols, banks)
    sizes = [small + 1] * longer + [small] * (banks - longer)
    ends = np.cumsum(sizes)
    return [(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)]


def _whole(mask: Mask, height: int, width: int, what: str) -> str:
    """Tiles from the upper left corner, cut off at the other edges, are kept or dropped whole."""
    rows, cols = mask.shape
    padded = np.zeros((-(-rows // height) * height, -(-cols // width) * width), dtype=np.int64)
    # Sizes of tiles are counted as the mask is: those at an edge are full with fewer weights.
    sizes = padded.copy()
    padded[:rows, :cols], sizes[:rows, :cols] = mask, 1
    shape = (len(padded) // height, height, padded.shape[1] // width, width)
    kept, full = padded.reshape(shape).sum(axis=(1, 3)), sizes.reshape(shape).sum(axis=(1, 3))
    broken = int(((kept != 0) & (kept != full)).sum())
    return f"expected {what} kept or dropped whole, got {broken} that are neither" if broken else ""


def _blocks(mask: Mask, parameters: Parameters) -> str:
    height, width = _number(parameters, "height", 4), _number(parameters, "width", 4)
    return _whole(mask, height, width, f"blocks of {height} x {width}")


def _n_of_m(mask: Mask, parameters: Parameters) -> str:
    n, m = _number(parameters, "n", 2), _number(parameters, "m", 4)
    if mask.shape[1] % m:
        return f"expected rows of whole groups of {m}, got {mask.shape[1]} columns"
    counts = mask.reshape(len(mask), -1, m).sum(axis=2)
    wrong = int((counts != n).sum())
    return f"expected {n} of every {m} weights, got another number in {wrong} groups" if wrong else ""


def _clusters(mask: Mask, parameters: Parameters) -> str:
    cluster, many = _number(parameters, "cluster", 2), _number(parameters, "range_clusters", 4)
    told = _whole(mask, 1, cluster, f"clusters of {cluster}")
    if told or mask.shape[1] % (cluster * many):
        return told
    return _equal(mask.reshape(len(mask), -1, cluster * many).sum(axis=2), "range")


def _shared(mask: Mask, parameters: Parameters) -> str:
    sharing = _number(parameters, "rows_sharing", 2)
    told = _whole(mask, sharing, 1, f"{sharing} rows with one index")
    return told or _banked(mask, {"banks": _number(parameters, "banks", 10)})


def _vectors(mask: Mask, parameters: Parameters) -> str:
    length = _number(parameters, "length", 4)
    if len(mask) % length:
        return f"expected columns of whole vectors of {length}, got {len(mask)} rows"
    return _equal(mask.reshape(-1, length, mask.shape[1]).sum(axis=1), "vector")


def _bounded(mask: Mask, parameters: Parameters) -> str:
    most, size = _number(parameters, "most", 2), _number(parameters, "size", 4)
    if mask.shape[1] % size:
        return f"expected rows of whole blocks of {size}, got {mask.shape[1]} columns"
    found = int(mask.reshape(len(mask), -1, size).sum(axis=2).max(initial=0))
    return f"expected at most {most} of every {size} weights, got {found}" if found > most else ""


def _whole_rows(mask: Mask, parameters: Parameters) -> str:
    return _whole(mask, 1, mask.shape[1], "rows")


RULES: Mapping[str, Rule] = {
    "unstructured": _free,
    "row_balanced": _rows,
    "bank_balanced": _banked,
    "block": _blocks,
    "n_m": _n_of_m,
    "mcbbs": _clusters,
    "shared_index_banks": _shared,
    "vector": _vectors,
    "density_bound_block": _bounded,
    "filter": _whole_rows,
}
"""By the pattern's name. Of other patterns the sparsity is counted and the pattern is not checked, which is said."""
