"""The experiment file: read as YAML 1.2, checked against the plugins, every mistake told with its line.

`load` and `loads` make an `Experiment` of a file or a text; `check` adds what only a task's shapes can tell; `schema`
describes the file to editors.
"""

from harness.spec.experiment import Allocation, Cell, Experiment
from harness.spec.goal import Goal, Solved
from harness.spec.loading import load, loads
from harness.spec.schema import schema
from harness.spec.shapes import check, scope_tensors
from harness.spec.targets import recalled, solved_for

__all__ = [
    "Allocation",
    "Cell",
    "Experiment",
    "Goal",
    "Solved",
    "check",
    "load",
    "loads",
    "recalled",
    "schema",
    "scope_tensors",
    "solved_for",
]
