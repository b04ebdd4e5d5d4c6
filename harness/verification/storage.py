"""Does the storage that a record tells follow from its masks? Formulas of our own, and the counting asked once more."""

from collections.abc import Mapping

import numpy as np

from harness.formats.storage import sizes
from harness.results.records import Record, Stored
from harness.verification.masks import Mask
from harness.verification.outcome import Outcome


def check_storage(record: Record, masks: Mapping[str, Mask] | None, outcome: Outcome) -> None:
    """Every width of a weight that a record tells the storage of.

    Args:
        record: of a finished cell.
        masks: its masks, where a store has them; without them only the sums are checked.
        outcome: where findings go.
    """
    for width, stored in record.storage.items():
        place = f"{record.cell} with weights of {width} bits"
        total = sum(each.bits for each in stored.tensors.values())
        outcome.hold(
            total == stored.bits, "storage", place, f"expected the {total} bits of its tensors, got {stored.bits}"
        )
        outcome.hold(
            stored.bits <= stored.dense_bits, "storage", place,
            f"expected at most the {stored.dense_bits} bits of all weights, got {stored.bits}",
        )  # fmt: skip
        if record.is_dense:
            outcome.hold(
                stored.bits == stored.dense_bits, "storage", place,
                f"expected all {stored.dense_bits} bits of a dense model, got {stored.bits}",
            )  # fmt: skip
        elif masks and outcome.hold(
            width.isdecimal() and 1 <= int(width) <= 64, "storage", place, f"expected 1 to 64 bits, got {width}"
        ):
            _check_tensors(stored, masks, int(width), place, outcome)


def _check_tensors(stored: Stored, masks: Mapping[str, Mask], width: int, place: str, outcome: Outcome) -> None:
    full = {name: mask for name, mask in masks.items() if mask.size}
    outcome.hold(
        stored.tensors.keys() == full.keys(), "storage", place,
        f"expected the tensors {sorted(full)} that have masks, got {sorted(stored.tensors)}",
    )  # fmt: skip
    dense = sum(mask.size * width for mask in full.values())
    outcome.hold(stored.dense_bits == dense, "storage", place, f"expected {dense} dense bits, got {stored.dense_bits}")
    for name in full.keys() & stored.tensors.keys():
        told, mask = stored.tensors[name], full[name]
        # Two formats that hold any mask, written down once more: neither can be smaller than the smallest.
        most = min(mask.size * width, mask.size + int(np.count_nonzero(mask)) * width)
        counted = {size.name: size.bits for size in sizes(np.ascontiguousarray(mask), weight_bits=width)}
        least = min(bits for bits in counted.values() if bits is not None)
        outcome.hold(
            told.bits == counted.get(told.format) == least and told.bits <= most, "storage", f"{place}: {name}",
            f"expected {least} bits in the smallest format for this mask, got {told.bits} as {told.format}",
        )  # fmt: skip
