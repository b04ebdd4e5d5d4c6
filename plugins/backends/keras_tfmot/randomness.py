"""What is random in a user's own Keras model, begun anew for every epoch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .toolkit import frameworks

if TYPE_CHECKING:
    from tf_keras.layers import Layer as KerasLayer

_DRAWS = frozenset(
    {
        "RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "ParameterizedTruncatedNormal",
        "RandomGamma", "RandomPoissonV2", "RandomShuffle", "Multinomial", "StatefulRandomBinomial",
    }
)  # fmt: skip
"""Operations with a hidden counter, such as `tf.nn.dropout` and `tf.random.normal` draw from."""


class Randomness:
    """Keras' random layers keep generators, whose state is set; other draws begin again in a new graph only.

    Args:
        layers: of the model that is trained.
    """

    def __init__(self, layers: Iterable[KerasLayer]) -> None:
        held: list[Any] = [getattr(layer, "_random_generator", None) for layer in layers]
        # By identity: layers may share a generator, which is to be set once.
        found = {id(each): each for each in held if getattr(each, "_generator", None) is not None}
        self._generators = [each._generator for each in found.values()]
        self._has_hidden_draws = False

    def restart(self, seed: int) -> bool:
        """Begin anew from a seed.

        Returns:
            Whether graphs have to be made anew, because they count draws themselves.
        """
        tf = frameworks().tf
        tf.random.set_seed(seed % 2**63)
        for place, generator in enumerate(self._generators):
            # A seed for each: two dropouts with one seed would drop the same places.
            generator.reset_from_seed((seed + place) % 2**63)
        return self._has_hidden_draws

    def seen(self, step: Any, result: Any) -> Any:
        """Note what a traced function draws, once it has been called; hands its result on."""
        # Looked at once for every trace: a graph does not change afterwards.
        if not self._has_hidden_draws and step.experimental_get_tracing_count() != getattr(step, "_looked_at", 0):
            step._looked_at = step.experimental_get_tracing_count()
            self._has_hidden_draws = any(_draws(each.graph) for each in step._list_all_concrete_functions())
        return result


def _draws(graph: Any) -> bool:
    definition = graph.as_graph_def()
    # Also in functions that the graph calls, such as the body of a loop.
    nodes = [*definition.node, *(node for each in definition.library.function for node in each.node_def)]
    return any(node.op in _DRAWS for node in nodes)
