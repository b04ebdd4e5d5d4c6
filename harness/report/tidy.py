"""The tidy form of a run: a row per cell and seed, a column per quantity with its split and its unit in brackets.

What a cell has no value for is missing, and its `status` and `reason` say why.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from harness.api import JsonValue, PluginUnavailableError
from harness.report import tabular
from harness.report.added import Added, by_cell
from harness.results.records import Record

if TYPE_CHECKING:
    import pandas

_LABELS = ("run", "cell", "task", "backend", "pattern", "allocation", "strategy", "seed", "status", "reason")

_COSTS = {
    "latency": ("latency_us", " [us]"),
    "cycles": ("cycles", ""),
    "speedup": ("speedup", " [ratio]"),
    "shape": ("shape", ""),
    "clock": ("clock_mhz", " [MHz]"),
    "multipliers": ("multipliers", ""),
    "DSP blocks": ("dsp", ""),
    "RAM blocks": ("ram_blocks", ""),
    "energy": ("energy_uj", " [uJ]"),
    "fits": ("fits", ""),
    "reason": ("reason", ""),
}


def rows(records: Sequence[Record], columns: Sequence[Added] = ()) -> list[dict[str, JsonValue]]:
    """Every planned cell, in the order of the plan, with the same keys in every row.

    Args:
        records: one per planned cell.
        columns: of third parties; one whose header is taken goes by its name.
    """
    titles = {column.name: " ".join(column.header.split()) for column in columns}
    found = [_row(record) for record in records]
    for row, values in zip(found, by_cell(records, columns), strict=True):
        # A column of a user's under a name that is taken keeps its own name.
        row |= {title if (title := titles[name]) not in row else name: value for name, value in values.items()}
    # Every row has every column, as data frames and CSV need.
    names = dict.fromkeys(name for row in found for name in row)
    return [{name: row.get(name) for name in names} for row in found]


def text(records: Sequence[Record], columns: Sequence[Added] = ()) -> str:
    """The rows as CSV: values unrounded, a missing one an empty field."""
    return tabular.lines(rows(records, columns))


def frame(records: Sequence[Record], columns: Sequence[Added] = ()) -> "pandas.DataFrame":
    """The rows as a data frame.

    Raises:
        PluginUnavailableError: pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError:
        raise PluginUnavailableError(
            "to_frame makes a data frame of pandas, which is not installed; run `pip install 'sparsity-harness[frame]'`"
        ) from None
    return pandas.DataFrame(rows(records, columns))


def parquet(records: Sequence[Record], columns: Sequence[Added] = ()) -> bytes:
    """The rows as a Parquet file.

    Raises:
        PluginUnavailableError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet as files
    except ModuleNotFoundError:
        raise PluginUnavailableError(
            "report: Parquet is written by pyarrow, which is not installed; "
            "run `pip install 'sparsity-harness[frame]'`, or take --format tidy"
        ) from None
    file = BytesIO()
    files.write_table(pyarrow.Table.from_pylist(rows(records, columns)), file)
    return file.getvalue()


def _row(record: Record) -> dict[str, JsonValue]:
    unit = f" [{record.unit}]" if record.unit else ""
    row: dict[str, JsonValue] = {name: getattr(record, name) for name in _LABELS}
    row |= {
        "target sparsity [fraction]": record.target_sparsity if record.has_sparsity else None,
        "sparsity [fraction]": record.sparsity,
        "model sparsity [fraction]": record.model_sparsity,
        "total epochs": record.total_epochs,
        "retrain epochs": record.retrain_epochs,
        "train time [s]": record.train_seconds,
        "train processor time [s]": record.train_processor_seconds,
    }
    if record.metric:
        row[f"{record.split} {record.metric}{unit}"] = record.value
        row[f"valid {record.metric}{unit}"] = record.valid_value
        # In the numbers of a hardware entry, by the label that its engines share.
        for label, score in record.fixed_point.items():
            if "value" in score:
                row[f"{label} {record.split} {record.metric} as {score.get('format')}{unit}"] = score["value"]
    for label, cost in record.hardware.items():
        for name, (key, shown) in _COSTS.items():
            # A cost that failed has its reason and no figures.
            if key in cost:
                row[f"{label} {name}{shown}"] = _plain(cost[key])
    for width, stored in record.storage.items():
        row[f"storage w{width} [bit]"] = float(stored.bits)
        row[f"storage w{width} of dense [fraction]"] = stored.bits / stored.dense_bits if stored.dense_bits else None
        row[f"storage w{width} formats"] = " ".join(stored.formats)
    return row


def _plain(value: JsonValue) -> JsonValue:
    """A value of one type in all rows: whole numbers and fractions are both numbers."""
    # A column of mixed types cannot be written as Parquet.
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
