"""What a design takes beside what the cost model counts: logic around the engine, and the time of its bench."""

from collections.abc import Mapping

from .cases import recorded
from .synthesis import Resources

_PASSES = {"beats": 2.7, "cycles": 3.5}
"""How often a bench goes through a vector's beats and cycles: without pauses, until a reset, with pauses."""

_ICARUS_US = {"column": 20.0, "bank": 6.0}
"""Processor time of a simulated cycle, per processing element of the column engine or lane of the bank engine: measured
with 128 and 1,024 of the former (14 and 30) and 1,020 of the latter, Icarus 11."""


def around(module: str, values: Mapping[str, int | str]) -> str:
    """Logic that the cost model does not count: every PE's way out, the sequencer, the units of an LSTM layer.

    Args:
        module: the accelerator's.
        values: its parameters.

    Assumes:
        7 series on every device, as the cost model's estimate of the engine does.
    """
    found: dict[str, Resources] = {one.template: one for one in recorded().synthesis if one.family == "xc7"}
    parts = {"output_lane": int(values["P" if module == "column_accelerator" else "M"]), "sequencer": 1}
    if module == "lstm_accelerator":
        parts["lstm_cell"] = int(values["E"])
    lut, ff = (sum(count * getattr(found[name], kind) for name, count in parts.items()) for kind in ("lut", "ff"))
    counted = ", ".join(f"{count} x {name}" for name, count in parts.items())
    return (
        f"about {lut:,} LUTs and {ff:,} flip-flops, indicative: {counted}, as {found['sequencer'].tool} counts one of "
        "each on xc7; a way out has 64 rows and constants of every row there, and takes less without them"
    )


def bench_time(module: str, values: Mapping[str, int | str], vectors: int, beats: int, cycles: int) -> str:
    """About how long the bench runs.

    Args:
        module: the accelerator's.
        values: its parameters.
        vectors: that it runs.
        beats: of a vector and its results.
        cycles: of a product.
    """
    whole = vectors * round(_PASSES["beats"] * beats + _PASSES["cycles"] * cycles)
    is_column = module == "column_accelerator"
    elements = int(values["G"]) * int(values["P"]) if is_column else int(values["M"]) * int(values["N"])
    seconds = whole * elements * _ICARUS_US["column" if is_column else "bank"] / 1e6
    return f"about {whole:,} cycles, some {max(1, round(seconds)):,} s of processor time in Icarus"
