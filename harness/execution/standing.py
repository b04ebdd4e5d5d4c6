"""The best finished cell at every sparsity, while a run goes on.

By the validation split, after the last epoch: the test split selects nothing, not even what is looked at first.
"""

from harness.results.records import Record


class Standing:
    """Remembers the best pruned cell of every task at every sparsity.

    Args:
        several: whether there are several tasks, so that each is named.
    """

    def __init__(self, *, several: bool = False) -> None:
        self._several = several
        self._best: dict[tuple[str, float], Record] = {}

    def add(self, record: Record) -> bool:
        """Whether a cell has become the best, by its validation value."""
        place = record.task, record.target_sparsity
        if not record.is_done or record.is_dense or not _is_better(record, self._best.get(place)):
            return False
        self._best[place] = record
        return True

    def best(self) -> list[tuple[str, str, str]]:
        """Where each is the best, the cell in words, and its value; the highest sparsity first."""
        places = sorted(self._best, key=lambda place: (-place[1], place[0]))
        return [_in_words(self._best[place], with_task=self._several) for place in places]


def _is_better(record: Record, other: Record | None) -> bool:
    if record.valid_value is None:
        return False
    if other is None or other.valid_value is None:
        return True
    sign = 1 if record.better == "higher" else -1
    return sign * record.valid_value > sign * other.valid_value  # of equals the first


def _in_words(record: Record, *, with_task: bool) -> tuple[str, str, str]:
    level = f"{100 * record.target_sparsity:.4g} %"
    label = " · ".join((record.backend, record.pattern, record.strategy, f"seed {record.seed}"))
    unit = f" {record.unit}" if record.unit else ""
    value = f"valid {record.metric} {record.valid_value:.{record.digits}f}{unit}"
    return f"{record.task}, {level}" if with_task else level, label, value
