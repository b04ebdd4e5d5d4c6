"""How many steps a recurrent layer runs for one item, from the calls that a forward pass makes of it."""

from __future__ import annotations

from collections.abc import Sequence


def for_one(count: int, items: int) -> int:
    """How often something runs for one item, of how often it ran for some: the nearest whole number, at least 1.

    Where an item is a target, sequences that a model reads are no whole number of items: the 13 words that an encoder
    reads before 12 are translated are one a word.
    """
    return max(1, (2 * count + items) // (2 * items))


class Steps:
    """What was seen of the calls of recurrent layers."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._differ: set[str] = set()
        self._batches: dict[str, int] = {}

    def add(self, layer: str, lengths: Sequence[int]) -> None:
        """A call, with the steps of every item in it."""
        self._counts[layer] = self._counts.get(layer, 0) + sum(lengths)
        # Calls of other sizes are steps that some items do not have, as where sequences end one after another.
        if len(set(lengths)) > 1 or self._batches.setdefault(layer, len(lengths)) != len(lengths):
            self._differ.add(layer)

    def per_item(self, items: int) -> dict[str, int | None]:
        """Steps for one item; None where items differ in them, or where an item is no whole number of steps."""
        return {
            layer: None if layer in self._differ or count < items or count % items else count // items
            for layer, count in self._counts.items()
        }
