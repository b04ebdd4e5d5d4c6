"""Checks: what a hardware model says beside what somebody measured, and whether the gate between them holds."""

from typing import Literal

from pydantic import Field

from harness.api.component import Frozen

CheckKind = Literal["accept", "arithmetic", "calibrate", "report"]
"""What a rule proves.

accept: the model was not fitted to this figure; a gate.
arithmetic: a gate on units and bookkeeping; says nothing of the model.
calibrate: a gate passed with a fitted parameter, which is named: the model can hold the point, no more.
report: printed with its error, no gate.
"""

FigureOrigin = Literal["read", "recalled", "derived", "simulated", "assumed"]
"""Where a target comes from; only what was read in its source counts as published."""


class Check(Frozen):
    """One figure of one rule; a rule may have several.

    Args:
        id: the rule's.
        kind: what the rule proves.
        what: which figure of it.
        model: what was asked: an engine's name, or the formula.
        modelled: the model's figure, None if there is none.
        published: the target, None if there is none.
        unit: of both.
        error: (modelled - published) / published.
        gate: what must hold, as text; empty for a report.
        passed: whether it holds; None for a report.
        parameters: the fitted parameters, by name and unit.
        origin: where the target comes from.
        source: the same in words.
        place: where the target stands in the file of targets; empty if it is not a figure of it.
        note: what a reader must know.
    """

    id: str
    kind: CheckKind
    what: str
    model: str = ""
    modelled: float | None = None
    published: float | None = None
    unit: str = ""
    error: float | None = None
    gate: str = ""
    passed: bool | None = None
    parameters: dict[str, float] = Field(default_factory=dict)
    origin: FigureOrigin | None = None
    source: str = ""
    place: str = ""
    note: str = ""

    @property
    def is_published(self) -> bool:
        """Whether the target was read in its source; one that is recalled or derived is never called published."""
        return self.published is not None and self.origin == "read"
