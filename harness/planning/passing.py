"""Which states of a plan are only on the way: they may go once everything that starts from them has run."""

from harness.planning.plan import Plan


def passing(plan: Plan) -> frozenset[str]:
    """Keys of the stages whose states may go.

    Kept are: chain ends of this and of earlier experiments, rewind targets, round ends, and the dense chains as far as
    the budget goes.
    """
    keep: set[str] = set()
    budget = plan.experiment.keep_dense
    for planned in plan.cells:
        if planned.chain:
            keep.add(planned.end.key)
        for stage in planned.chain:
            if stage.source:
                keep.add(stage.source)
            # A pruning with another mask would start from the same weights.
            if stage.kind == "prune" and stage.parent:
                keep.add(stage.parent)
    # Within its budget the latest dense states stay, from which longer runs go on.
    for planned in (each for each in plan.cells if each.chain):
        size = 4 * sum(tensor.size for tensor in plan.problems[planned.cell.task].tensors())
        for stage in reversed(planned.chain):
            if stage.is_dense and stage.key not in keep and budget >= size:
                budget -= size
                keep.add(stage.key)
    return frozenset(
        key
        for key, stage in plan.stages.items()
        if key not in keep and stage.kind != "test" and not plan.is_earlier_end(stage)
    )
