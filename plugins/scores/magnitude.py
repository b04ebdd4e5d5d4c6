"""The absolute weight: a score of the interface itself, offered by its name."""

from harness.api import Magnitude, Score, hookimpl


@hookimpl
def register_score() -> type[Score]:
    """Offer this score to the harness."""
    return Magnitude
