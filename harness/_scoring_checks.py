"""Checks of scores and schedules; plugin authors find them in `harness.testing`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.api import Mask, Matrix, Need, Schedule, Score, ScoreInput, Solver
from harness.api.promises import demand

SHAPES = ((4, 40), (8, 12), (5, 64), (13, 27), (1, 20), (3, 200))
"""(rows, cols) that patterns are tried on; those a pattern refuses with a `ShapeError` are left out."""


def check_score(score: Score, shapes: Sequence[tuple[int, int]] = SHAPES) -> None:
    """What a score promises, tried on random weights, on zeros, and on what it needs, random too.

    Args:
        score: the score, with any parameters.
        shapes: (rows, cols) of the matrices.

    Raises:
        PluginContractError: the first promise it breaks.
    """
    where = score.label()
    needed = {measured.what for measured in score.measurements()}
    demand(needed <= set(score.needs), where, f"measurements of what it `needs`, got {', '.join(sorted(needed))}")
    for rows, cols in shapes:
        # All weights zero, too: a division by their largest is then found out.
        for scale in (1.0, 0.0):
            given = _score_input(score, rows, cols, scale)
            weights, before = given.weights.copy(), {need: values.copy() for need, values in given.needed.items()}
            answer = score.scores(given)
            at = f"{where} on {rows} x {cols}{'' if scale else ', all weights zero'}"
            _check_values(answer, given.weights, at, "scores")
            again = score.scores(_score_input(score, rows, cols, scale))
            demand(np.array_equal(answer, again), at, "the same scores for the same weights and the same generator")
            demand(np.array_equal(given.weights, weights), at, "the weights to be left as they were")
            for need, values in given.needed.items():
                demand(np.array_equal(values, before[need]), at, f"`{need}` to be left as it was")
            if isinstance(score, Solver):
                mask: Mask = np.random.default_rng([rows, cols, 3]).random((rows, cols)) < 0.5
                _check_values(score.solved(given, mask), given.weights, at, "solved weights")
                same = np.ones_like(mask)
                kept = score.solved(given, same)
                # What is not pruned has nothing to make up for.
                close = np.allclose(kept, given.weights, rtol=1e-4, atol=1e-6)
                demand(close, at, "weights that stay as they are where nothing is pruned")


def _score_input(score: Score, rows: int, cols: int, scale: float) -> ScoreInput:
    rng = np.random.default_rng([rows, cols])
    inputs = rng.normal(size=(max(rows, cols) + 2, cols))
    sizes: dict[Need, NDArray[np.floating]] = {
        "input_norms": np.linalg.norm(inputs, axis=0),
        "input_moments": inputs.T @ inputs,
    }
    # Every need has a value, so that what a score looks at without saying so is missed.
    needed = {need: sizes.get(need, rng.normal(size=(rows, cols))) for need in score.needs}
    return ScoreInput(
        weights=(scale * rng.normal(size=(rows, cols))).astype(np.float32),
        mask=rng.random((rows, cols)) < 0.7,
        rng=np.random.default_rng(7),
        needed=needed,
        sparsity=0.5,
        progress=0.5,
    )


def _check_values(values: object, weights: Matrix, at: str, what: str) -> None:
    is_array = isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.floating)
    demand(is_array, at, f"{what} in floating point, got {getattr(values, 'dtype', type(values).__name__)}")
    assert isinstance(values, np.ndarray)
    demand(values.shape == weights.shape, at, f"{what} of shape {weights.shape}, got {values.shape}")
    demand(np.isfinite(values).all(), at, f"finite {what}")


def check_schedule(schedule: Schedule) -> None:
    """What a schedule promises: it begins and ends within its bounds, never falls, and depends on its arguments alone.

    Args:
        schedule: the schedule, with any parameters.

    Raises:
        PluginContractError: the first promise it breaks.
    """
    # 64 points see every schedule's steps, and no fraction of them is rounded.
    steps = [step / 64 for step in range(64)]
    for initial, final in ((0.0, 0.9), (0.0, 0.5), (0.25, 0.97), (0.5, 0.5)):
        where = f"{schedule.label()} from {initial} to {final}"
        found = [schedule.sparsity(progress, initial, final) for progress in steps]
        numbers = all(isinstance(each, float) for each in found)
        demand(numbers, where, f"numbers, got {next((each for each in found if not isinstance(each, float)), None)!r}")
        demand(found == [schedule.sparsity(each, initial, final) for each in steps], where, "the same when asked twice")
        slack = 1e-12
        inside = all(initial - slack <= each <= final + slack for each in found)
        demand(inside, where, f"sparsities between the two, got {min(found):g} to {max(found):g}")
        falls = next((p for p, a, b in zip(steps[1:], found, found[1:], strict=False) if b < a - slack), None)
        demand(falls is None, where, f"a sparsity that never falls, got one at progress {falls}")
