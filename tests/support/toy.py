"""Experiments over the NumPy plugins, made without a file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy_plugins import NumpyBackend, ToyTask

from harness.api import Constant, Evaluation, Phase, Prune, Recipe, Rewind, State, Strategy, Train
from harness.planning.genuine import last_update
from harness.planning.plan import Plan
from harness.spec import Cell, Experiment
from harness.spec.experiment import digest
from harness.store import StageRecord, Store


class FineTuning(Strategy):
    """Dense, prune, train on."""

    name = "fine_tuning"
    epochs: int = 2

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        dense = Train(epochs=recipe.epochs, lr=recipe.learning_rate)
        return (dense, Prune(sparsity=sparsity), Train(epochs=self.epochs, lr=Constant(rate=recipe.last_rate)))


class Rewinding(Strategy):
    """Dense, prune, back to one epoch before the end, train on."""

    name = "rewinding"

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        start = recipe.epochs - 1
        dense = Train(epochs=recipe.epochs, lr=recipe.learning_rate)
        again = Train(epochs=1, lr=recipe.learning_rate.from_epoch(start))
        return (dense, Prune(sparsity=sparsity), Rewind(to=start), again)


def experiment(
    strategies: Sequence[Strategy] = (FineTuning(),),
    *,
    patterns: Sequence[object] = (),
    sparsities: Sequence[float] = (0.5,),
    seeds: Sequence[int] = (0,),
    task: ToyTask | None = None,
    name: str = "toy",
    keep_dense: int = 10**9,
) -> Experiment:
    """A grid of toy cells; without patterns, the unstructured one."""
    from harness_plugins.patterns.unstructured import Unstructured

    task = task or ToyTask()
    dense = [Cell(task, NumpyBackend(), None, "uniform", None, 0.0, seed, ("softmax",)) for seed in seeds]
    pruned = [
        replace(cell, pattern=pattern, strategy=strategy, sparsity=sparsity)
        for pattern in (patterns or (Unstructured(),))
        for strategy in strategies
        for sparsity in sparsities
        for cell in dense
    ]
    cells = (*dense, *pruned)
    return Experiment(
        name=name,
        digest=digest([cell.id for cell in cells]),
        path=None,
        document={},
        scope=("softmax",),
        hardware=(),
        cells=cells,
        device="cpu",
        precision="float32",
        threads=1,
        tolerance=0.05,
        margin=None,
        data_dir=None,
        keep_dense=keep_dense,
    )


def fill(store: Store, plan: Plan) -> None:
    """Write every stage of a plan as if it had been run: made-up totals, masks that fit; states are not kept."""
    masks: dict[str | None, dict[str, np.ndarray]] = {}
    total = Evaluation(nats=1.0, items=1, correct=1)
    for stage in plan.stages.values():
        own = masks.get(stage.parent, {})
        if update := last_update(stage):
            shapes = {tensor.name: tensor.shape for tensor in ToyTask().load(None).tensors()}
            scores = {name: np.random.default_rng(0).random(shapes[name]) for name in stage.masking.scope}
            own = {name: stage.masking.pattern.mask(each, update.sparsity) for name, each in scores.items()}
        masks[stage.key] = own
        splits = {"train": ("train", "valid"), "prune": ("valid",), "test": ("test",)}.get(stage.kind, ())
        record = StageRecord(
            key=stage.key, parent=stage.parent, kind=stage.kind, inputs=dict(stage.inputs),
            **dict.fromkeys(splits, total),
        )  # fmt: skip
        store.write(record, State({}, own) if own and stage.kind != "test" else None)
        store.drop_state(stage.key)


def bytes_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
