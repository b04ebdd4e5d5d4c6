"""What a reader needs to cite a run and to repeat it: a paragraph, and digests that tell whether it came out again."""

from collections.abc import Iterable, Sequence

from harness._files import digest
from harness._text import plural
from harness.report.page import Section
from harness.results.records import Record

_OURS = "harness"  # the name under which records keep the version of this package


def section(records: Sequence[Record]) -> Section:
    """How the run was made, what to install, the command, and digests of what went in and what came out."""
    return Section("Methods, and how to repeat this", (_paragraph(records),), facts=tuple(_facts(records)))


def _paragraph(records: Sequence[Record]) -> str:
    pruned = [record for record in records if not record.is_dense]
    dense = len(records) - len(pruned)
    seeds = sorted({record.seed for record in records})
    levels = sorted({record.target_sparsity for record in pruned if record.target_sparsity})
    parts = [
        f"{len(records)} cells were planned ({plural(dense, 'dense baseline')}): {_joined(r.task for r in records)} in "
        f"{_joined(r.backend for r in records)}",
    ]
    if pruned:
        parts.append(
            f"pruned to {', '.join(f'{100 * level:g} %' for level in levels)} of "
            f"{_joined(' + '.join(r.scope) for r in pruned)}, "
            f"patterns {_joined(r.pattern for r in pruned)}, strategies {_joined(r.strategy for r in pruned)}, "
            f"sparsity allotted as {_joined(r.allocation for r in pruned)}"
        )
    if len(seeds) > 1:
        parts.append(
            f"seeds {', '.join(map(str, seeds))}, the same initial weights and batches for all cells of a seed"
        )
    else:
        parts.append(f"seed {seeds[0]}")
    costed = _joined(str(cost.get("model", label)) for r in records for label, cost in r.hardware.items())
    if costed:
        parts.append(f"costs modelled by {costed} from the masks of the finished models")
    return "; ".join(parts) + "."


def _facts(records: Sequence[Record]) -> Iterable[tuple[str, str]]:
    versions = {name: version for record in records for name, version in record.versions.items()}
    ours = versions.pop(_OURS, "")
    others = ", ".join(f"{name} {version}" for name, version in versions.items())
    if ours:
        yield "install", f"sparsity-harness {ours}" + (f" with {others}" if others else "")
    runs = dict.fromkeys(record.run for record in records if record.run)
    if runs:
        yield "command", "harness run spec.yaml (it lies beside records.json)"
        yield "run", ", ".join(runs)
    # A digest of digests: two runs agree if this one line does.
    dense = sorted({record.dense_digest for record in records if record.dense_digest})
    if dense:
        # A gradual strategy leaves the dense training before its end, and so shares another state of it.
        yield "dense states", f"{len(dense)} that pruning begins with, digest of them all {digest(list(dense))[:16]}"
    stages = sorted({record.stage for record in records if record.stage})
    if stages:
        yield "inputs", f"{len(stages)} finished models, digest of their keys {digest(list(stages))[:16]}"
    yield "results", f"digest of every cell's status and value {results_digest(records)[:16]}"


def results_digest(records: Sequence[Record]) -> str:
    """Equal for two runs whose cells have equal values, in whatever order and from whichever cache."""
    return digest(sorted([r.cell, "done" if r.is_done else r.status, repr(r.value)] for r in records))


def _joined(values: Iterable[str]) -> str:
    return ", ".join(value for value in dict.fromkeys(values) if value)
