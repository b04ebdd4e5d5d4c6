"""Every rule of a file of targets, evaluated: what the models say beside what was published, and the gate between.

A rule that no function here evaluates fails: a gate must never be lost in silence.
"""

from pathlib import Path

from harness.api.validation import Check

from .own import OWN
from .power import POWER
from .published import PUBLISHED
from .targets import Evaluation, Rule, Targets
from .unrolled import UNROLLED

CAVEAT = (
    "No external figure validates the latency of an LSTM on the bank engine: the one published accelerator with banks "
    "(BBS, FPGA 2019) leaves its array size and its overheads unknown, so its row is a report, not a check."
)
"""What a reader of the checks must not overlook."""

DEFAULT_TARGETS = Path(__file__).with_name("accelerators.yaml")

EVALUATIONS: dict[str, Evaluation] = {**OWN, **PUBLISHED, **POWER, **UNROLLED}
"""What evaluates each rule, by its id."""


def checks(targets: Path | None = None) -> tuple[Check, ...]:
    """Evaluate every rule of a file of targets, in the order of the file.

    Args:
        targets: the file; None takes the one that comes with the package.

    Raises:
        SpecError: the file cannot be read, or lacks a figure that one of its rules needs.
    """
    content = Targets(targets or DEFAULT_TARGETS)
    return tuple(check for rule in content.rules for check in _evaluated(rule, content))


def _evaluated(rule: Rule, targets: Targets) -> list[Check]:
    """The checks of one rule; exactly one, failed, where nothing evaluates it."""
    evaluation = EVALUATIONS.get(rule.id)
    why = f"nothing here knows the rule {rule.id!r}" if evaluation is None else "the file has no row for it"
    try:
        found = [] if evaluation is None else evaluation(rule, targets)
    # A wrong file is a check that failed, not an end of all the others.
    except ValueError as error:  # figures that no model takes
        found, why = [], str(error)
    if found:
        return found
    return [
        Check(
            id=rule.id,
            kind=rule.kind,
            what=rule.target,
            gate="must be evaluated",
            passed=False,
            note=f"not evaluated: {why}",
        )
    ]
