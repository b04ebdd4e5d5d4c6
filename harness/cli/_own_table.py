"""What is found in a model of the user's own: the tensors that may be pruned, and those that are left out, with why."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.api import ListedTensor, NativeModel, Tensor
    from harness.report.page import Document


def own_model_document(label: str, network: "NativeModel", scope: "Sequence[Tensor]") -> "Document":
    """The tensors of a model.

    Args:
        label: the task's.
        network: what was found.
        scope: what the experiment prunes.
    """
    from harness.report.page import Column, Document, Section, table

    tensors = {tensor.name: tensor for tensor in network.trained}
    chosen = {tensor.name for tensor in scope}

    def size(row: "ListedTensor") -> str:
        rows, cols = tensors[row.tensor].shape
        return f"{rows} x {cols}"

    def pixels(row: "ListedTensor") -> str:
        return str(network.positions.get(tensors[row.tensor].layer, ""))

    columns: list[Column[ListedTensor]] = [
        Column("tensor", lambda row: row.tensor, kind="label", matters="key"),
        Column("role", lambda row: tensors[row.tensor].role, kind="label"),
        Column("pruned", lambda row: "yes" if row.tensor in chosen else "no", kind="label"),
        Column("rows x cols", size),
        Column("output\npixels", pixels, when=lambda rows: any(map(pixels, rows))),
        Column("gates", lambda row: row.gates, kind="label", when=lambda rows: any(row.gates for row in rows)),
        Column("layer", lambda row: row.kind, kind="text"),
    ]
    found = [row for row in network.listed if not row.left_out]
    heading = f"{label} ({network.framework}): prunable tensors: {len(found)}; pruned here: {len(chosen)}"
    grid = table(columns, found) if found else None
    below = (*_names(network), *_left_out(network.listed))
    return Document("", (Section(heading, _held(network), grid), Section("", below)))


def _names(network: "NativeModel") -> tuple[str, ...]:
    """Parameters that are one tensor under several names, and those that hold several tensors."""
    tied = [f"tied, counted once: {row.tensor} = {', '.join(row.also)}" for row in network.listed if row.also]
    fused: dict[str, list[str]] = {}
    for place in network.places:
        if place.rows is not None:
            fused.setdefault(place.parameter, []).append(place.tensor)
    return (*tied, *(f"in one parameter, {name}: {', '.join(held)}" for name, held in fused.items()))


def _held(network: "NativeModel") -> tuple[str, ...]:
    """Who holds the masks of a Keras model."""
    if network.framework != "keras":
        return ()
    if not network.wrapped:
        return ("Masks are held by the harness: TF-MOT cannot put this model together anew around its wrappers.",)
    return (f"Masks are held by TF-MOT's wrappers in {', '.join(network.wrapped)}, by the harness elsewhere.",)


def _left_out(listed: "Sequence[ListedTensor]") -> tuple[str, ...]:
    """A sentence for every reason, with the names it holds for."""
    by_reason: dict[str, list[str]] = {}
    for row in listed:
        if row.left_out:
            by_reason.setdefault(row.left_out, []).append(row.tensor)
    return tuple(f"never pruned, {reason}: {', '.join(names)}" for reason, names in by_reason.items())
