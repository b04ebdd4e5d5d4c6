"""Whether a backend can do what a program asks of it beyond training: measure for its scores, keep weights alive."""

from collections.abc import Iterator, Sequence

from harness.api import (
    LSTM,
    Backend,
    Embedding,
    NativeModel,
    Need,
    Network,
    Phase,
    Prune,
    Recipe,
    Score,
    Tensor,
    Train,
)
from harness.api.score import FROM_STATE, WORDS


def why_not_supplied(
    backend: Backend, network: Network, program: Sequence[Phase], recipe: Recipe, scope: Sequence[Tensor]
) -> str | None:
    """Why a backend cannot run a program (a declared skip), as a sentence; None if it can.

    Args:
        backend: the cell's backend.
        network: the task's model.
        program: the strategy's phases.
        recipe: the dense recipe.
        scope: the tensors that are pruned.
    """
    for phase in program:
        if isinstance(phase, Train) and phase.through is not None:
            if not backend.trains_through or isinstance(network, NativeModel):
                whose = "models of a user's own" if backend.trains_through else "models"
                return (
                    f"{backend.name} does not train {whose} with masked weights alive, which straight-through training "
                    "is; take a strategy that leaves them at zero, or another backend"
                )
    for score in _scores(program, recipe):
        for need in score.needs:
            if reason := _why_not(backend, network, score, need, scope):
                return reason
    return None


def _scores(program: Sequence[Phase], recipe: Recipe) -> Iterator[Score]:
    """Every score once."""
    found: dict[Score, None] = {}
    for phase in program:
        if isinstance(phase, Prune):
            found[phase.score] = None
        elif isinstance(phase, Train):
            found.update(dict.fromkeys(update.score for update in phase.mask_updates(recipe.steps_per_epoch)))
    yield from found


def _why_not(backend: Backend, network: Network, score: Score, need: Need, scope: Sequence[Tensor]) -> str | None:
    start = f"{score.label()} needs {WORDS[need]}, "
    is_own = isinstance(network, NativeModel)
    if need not in FROM_STATE and need not in (backend.supplies_of_own if is_own else backend.supplies):
        whose = " of a model of a user's own" if is_own else ""
        return f"{start}which {backend.name} does not supply{whose}; take another score, or another backend"
    # A row of a table is looked up, not multiplied: it has no input whose norm could be taken.
    tables = [tensor.name for tensor in scope if tensor.role == "embedding"]
    if need in ("input_norms", "input_moments") and tables:
        return f"{start}and the columns of {tables[0]} are no inputs; leave embeddings out of the scope"
    # Flow is defined through sums and positive activations; gates and look-ups have none.
    if need == "synaptic_flow" and any(isinstance(layer, Embedding | LSTM) for layer in network.layers):
        return f"{start}which is defined for networks of dense and convolutional layers that the harness builds, alone"
    return None
