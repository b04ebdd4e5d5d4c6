"""The best finished cell at every sparsity, while a run goes on.

By the validation split, after the last epoch: the test split selects nothing, not even what is looked at first.
"""

from collections.abc import Sequence

from harness.results.records import Record


class Standing:
    """Remembers who was best, and tells who has become it."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, float], str] = {}

    def news(self, records: Sequence[Record]) -> list[tuple[str, str, str]]:
        """The best pruned cell of every task at every sparsity, the highest first; nothing if they are known.

        Returns:
            Where it is the best, the cell in words, and its value.
        """
        found: dict[tuple[str, float], Record] = {}
        for record in records:
            place = record.task, record.target_sparsity
            if record.is_done and not record.is_dense and _is_better(record, found.get(place)):
                found[place] = record
        cells = {place: record.cell for place, record in found.items()}
        if cells == self._told:
            return []
        self._told = cells
        several = len({record.task for record in records}) > 1
        places = sorted(found, key=lambda place: (-place[1], place[0]))
        return [_in_words(found[place], with_task=several) for place in places]


def _is_better(record: Record, other: Record | None) -> bool:
    if record.valid_value is None:
        return False
    if other is None or other.valid_value is None:
        return True
    sign = 1 if record.better == "higher" else -1
    return sign * record.valid_value > sign * other.valid_value  # of equals the first in the plan


def _in_words(record: Record, *, with_task: bool) -> tuple[str, str, str]:
    level = f"{100 * record.target_sparsity:.4g} %"
    label = " · ".join((record.backend, record.pattern, record.strategy, f"seed {record.seed}"))
    unit = f" {record.unit}" if record.unit else ""
    value = f"valid {record.metric} {record.valid_value:.{record.digits}f}{unit}"
    return f"{record.task}, {level}" if with_task else level, label, value
