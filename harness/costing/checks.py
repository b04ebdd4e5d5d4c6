"""The checks of every hardware model, each figure once, and how many of each kind hold."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.api import Check, EmptySelectionError
from harness.costing.costs import model_classes
from harness.discovery.asking import caveat_of, checks_of
from harness.discovery.registry import Registry

KINDS: Mapping[str, str] = {
    "accept": "accepted", "arithmetic": "arithmetic", "calibrate": "calibrated", "report": "reported",
}  # fmt: skip


def all_checks(registry: Registry, targets: Path | None = None) -> tuple[Check, ...]:
    """The checks of every model, in its order; a figure that several models share comes once.

    Args:
        registry: the models.
        targets: a file of targets to use in place of the models' own.

    Raises:
        EmptySelectionError: no model has a check.
        SpecError: the file of targets cannot be read or is wrong.
    """
    found: dict[tuple[str, str, str], Check] = {}
    for model in model_classes(registry):
        for check in checks_of(model, targets):
            # Models share the validation of an engine: each figure is then shown once.
            found.setdefault((check.id, check.what, check.model), check)
    if not found:
        raise EmptySelectionError(
            "validate: expected a hardware model with checks, got none; see `harness plugins list hardware`"
        )
    return tuple(found.values())


def caveats(registry: Registry) -> tuple[str, ...]:
    """What the checks do not show, model by model."""
    return tuple(dict.fromkeys(filter(None, (caveat_of(model) for model in model_classes(registry)))))


def has_failed(check: Check) -> bool:
    """Whether a gate does not hold, or a rule that has one was not evaluated."""
    # An unevaluated gate is a failure: a check that silently did not run would look like one that holds.
    return check.passed is False or (check.passed is None and check.kind != "report")


def summary(checks: Sequence[Check]) -> dict[str, int]:
    """How many figures of every kind hold, and how many failed, whatever their kind."""
    counts = {
        word: sum(check.kind == kind and not has_failed(check) for check in checks) for kind, word in KINDS.items()
    }
    return {**counts, "failed": sum(map(has_failed, checks))}
