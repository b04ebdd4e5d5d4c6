"""What a strategy promises of one program: that it leads, step by step and never backwards, to the sparsity asked for.

Conformance checks try it on made-up recipes; `validate`, `plan` and `run` on the recipe and the targets of the
experiment at hand, since a strategy may keep its promise on one and break it on another.
"""

import math
from collections.abc import Sequence

from harness.api.program import MaskUpdate, Phase, Prune, Recipe, Rewind, Strategy, Train
from harness.api.score import Score
from harness.errors import PluginContractError

_ROUNDING = 1e-9
"""Rounds multiply densities: their last may differ from the target in its last bits."""


def kept_program(strategy: Strategy, recipe: Recipe, target: float) -> tuple[Phase, ...]:
    """The program of a strategy, checked.

    Args:
        strategy: the strategy, with any parameters.
        recipe: the dense recipe.
        target: the sparsity to reach, in (0, 1).

    Raises:
        SpecError: the strategy's parameters do not fit the recipe, as it says itself.
        PluginContractError: the first promise that the program breaks.
    """
    phases = strategy.program(recipe, target)
    where = f"{strategy.label()} for {recipe.epochs} epochs at sparsity {target}"
    demand(isinstance(phases, Sequence), where, f"a tuple of phases, got {type(phases).__name__}")
    demand(phases == strategy.program(recipe, target), where, "the same program when asked twice")
    trained, reached = 0, 0.0
    for phase in phases:
        demand(isinstance(phase, Train | Prune | Rewind), where, f"Train, Prune and Rewind phases only, got {phase!r}")
        if isinstance(phase, Rewind):
            demand(phase.to <= trained, where, f"rewinds into the past, got {phase.to} after {trained} epochs")
            trained = phase.to
        elif isinstance(phase, Prune):
            reached = _next_sparsity(phase.sparsity, phase.score, reached, where)
        else:
            _check_rates(phase, recipe, where)
            for update in _scheduled(phase, recipe, where):
                reached = _next_sparsity(update.sparsity, update.score, reached, where)
            trained += phase.epochs
    demand(abs(reached - target) <= _ROUNDING, where, f"the target to be reached at the end, got {reached}")
    return tuple(phases)


def _next_sparsity(sparsity: float, score: Score, reached: float, where: str) -> float:
    demand(0 <= sparsity < 1, where, f"sparsities in [0, 1), got {sparsity}")
    demand(sparsity >= reached or score.revives, where, f"sparsities that do not fall, got {sparsity} after {reached}")
    return sparsity


def _scheduled(phase: Train, recipe: Recipe, where: str) -> tuple[MaskUpdate, ...]:
    updates = phase.mask_updates(recipe.steps_per_epoch)
    steps = [update.step for update in updates]
    # Several at one step are meant where a strategy lists them, and a slip where a schedule does.
    ordered = steps == sorted(steps if phase.sparsity is None else set(steps))
    demand(ordered, where, f"mask updates at increasing steps, got {steps}")
    last = phase.epochs * recipe.steps_per_epoch
    demand(not steps or (steps[0] >= 0 and steps[-1] <= last), where, f"mask updates in steps 0 to {last}, got {steps}")
    return updates


def _check_rates(phase: Train, recipe: Recipe, where: str) -> None:
    for epoch in range(phase.epochs):
        given = phase.lr.at(epoch)
        rates = (given,) if isinstance(given, float) else given
        demand(len(rates) in (1, recipe.steps_per_epoch), where, f"one rate per epoch or step, got {len(rates)}")
        demand(all(math.isfinite(rate) and rate > 0 for rate in rates), where, f"rates above 0, got {given}")


def demand(met: object, where: str, expected: str) -> None:
    """Raise what `broken` makes, unless it is met."""
    if not met:
        raise broken(where, expected)


def broken(where: str, expected: str) -> PluginContractError:
    """The error of a promise that was not kept."""
    return PluginContractError(f"{where}: the contract expects {expected}; see docs/write-a-plugin.md")
