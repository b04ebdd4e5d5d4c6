"""Weight times gradient: a score of the interface itself, offered by its name."""

from harness.api import Gradient, Score, hookimpl


@hookimpl
def register_score() -> type[Score]:
    """Offer this score to the harness."""
    return Gradient
