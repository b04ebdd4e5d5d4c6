"""harness: which sparsity pattern, pruned by which strategy, costs what and buys what.

From Python: `load` an experiment, `plan` it, `run` it, read its `results`; see docs/python.md. Nothing is imported for
these names before they are used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.scripting import load as load
    from harness.scripting import plan as plan
    from harness.scripting import results as results
    from harness.scripting import run as run

__version__ = "0.1.0"

DISTRIBUTION = "sparsity-harness"
"""What the package is called on an index, where `harness` is somebody else's; import and command are `harness`."""

__all__ = ["DISTRIBUTION", "__version__", "load", "plan", "results", "run"]


def __getattr__(name: str) -> object:
    """Import the surface on its first use."""
    import importlib

    if name in ("load", "plan", "run"):
        return getattr(importlib.import_module("harness.scripting"), name)
    if name == "results":  # a room that answers to a call, too
        return importlib.import_module("harness.results")
    raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
