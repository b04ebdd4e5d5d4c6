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

    Setting TensorFlow's global seed also drops the optimised form of every traced function, which takes seconds to make
    again for a large model. So the seed is set where something may draw from it, and left alone otherwise.

    Args:
        layers: of the model that is trained.
        data_draw: whether reading the training data runs code that may draw.
    """

    def __init__(self, layers: Iterable[KerasLayer], *, data_draw: bool) -> None:
        held: list[Any] = [getattr(layer, "_random_generator", None) for layer in layers]
        # By identity: layers may share a generator, which is to be set once.
        found = {id(each): each for each in held if getattr(each, "_generator", None) is not None}
        self._generators = [each._generator for each in found.values()]
        self._data_draw = data_draw
        self._has_graph = self._has_hidden_draws = False
        self._left: int | None = None

    def restart(self, seed: int) -> bool:
        """Begin anew from a seed.

        Returns:
            Whether graphs have to be made anew, because they count draws themselves.
        """
        self._left = seed
        if self._data_draw or self._has_hidden_draws or not self._has_graph:
            self.before_graph()
        for place, generator in enumerate(self._generators):
            # A seed for each: two dropouts with one seed would drop the same places.
            generator.reset_from_seed((seed + place) % 2**63)
        return self._has_hidden_draws

    def before_graph(self) -> None:
        """Set the global seed if `restart` has left it: what a new graph will draw is not known yet."""
        if self._left is not None:
            frameworks().tf.random.set_seed(self._left % 2**63)
            self._left = None

    def seen(self, step: Any, result: Any) -> Any:
        """Note what a traced function of the training draws, once it has been called; hands its result on."""
        self._has_hidden_draws = self._has_hidden_draws or may_draw(step)
        self._has_graph = True
        return result


def may_draw(step: Any) -> bool:
    """Whether a traced function draws from hidden counters; one that has not been called yet may."""
    count = step.experimental_get_tracing_count()
    # Looked at once for every trace: a graph does not change afterwards.
    if count != getattr(step, "_looked_at", 0):
        step._draws = any(_draws(each.graph) for each in step._list_all_concrete_functions())
        step._looked_at = count
    return bool(getattr(step, "_draws", True))


def _draws(graph: Any) -> bool:
    definition = graph.as_graph_def()
    # Also in functions that the graph calls, such as the body of a loop.
    nodes = [*definition.node, *(node for each in definition.library.function for node in each.node_def)]
    return any(node.op in _DRAWS or _has_seed(node) for node in nodes)


def _has_seed(node: Any) -> bool:
    """Whether it is of the samplers, which have a pair of seeds; an LSTM on a GPU has one too, for no dropout."""
    return "seed2" in node.attr and not node.op.startswith("CudnnRNN")
