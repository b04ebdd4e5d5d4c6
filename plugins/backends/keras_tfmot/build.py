"""The task's network as a tf-keras functional model whose layers with weights stand inside TF-MOT's wrappers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.api import (
    LSTM,
    Activation,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Layer,
    Network,
    Pool2D,
)

from .places import places
from .toolkit import classes, frameworks

if TYPE_CHECKING:
    from tensorflow import Tensor, Variable
    from tf_keras import Model as KerasModel
    from tf_keras.layers import Layer as KerasLayer
    from tf_keras.layers import Wrapper

_KERAS_PARTS = {"table": "embeddings"}
"""What Keras calls a part of a layer, where the name differs."""


@dataclass(frozen=True)
class Model:
    """A built network.

    Args:
        keras: the wrapped model; its inputs are the items, the dropout seeds if there is dropout, and a hidden and a
            cell state for every LSTM; its outputs are the logits and the new states.
        variables: every tensor of the network, by name.
        masks: the wrappers' mask variables, by tensor name.
        wrappers: the wrappers, by layer name.
        states: widths of the carried states, in order.
        dropouts: indices of the dropout layers in the network, in order.
    """

    keras: KerasModel
    variables: dict[str, Variable]
    masks: dict[str, Variable]
    wrappers: dict[str, Wrapper]
    states: tuple[int, ...]
    dropouts: tuple[int, ...]


def build(network: Network) -> Model:
    """Build the network with all weights zero: they always come through `Session.load`."""
    builder = _Builder(network)
    for layer in network.layers:
        builder.add(layer)
    return builder.finish()


@dataclass
class _Builder:
    network: Network
    wrappers: dict[str, Wrapper] = field(default_factory=dict)
    states_in: list[Tensor] = field(default_factory=list)
    states_out: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keras = frameworks().keras
        self.layers = self.keras.layers
        shape = self.network.input_shape
        if shape:
            self.items = self.keras.Input(shape, dtype="float32")
        else:
            self.items = self.keras.Input(batch_shape=(None, None), dtype="int32")
        # An image is channels-last inside, since that is what TensorFlow computes on a CPU.
        self.is_image = len(shape) == 3  # (channels, height, width)
        self.value = self.layers.Permute((2, 3, 1))(self.items) if self.is_image else self.items
        self.dropouts = [place for place, layer in enumerate(self.network.layers) if isinstance(layer, Dropout)]
        self.seeds = self.keras.Input(batch_shape=(len(self.dropouts), 2), dtype="int32") if self.dropouts else None
        # Dropouts are numbered by their order: each takes its own row of seeds.
        self.dropouts_placed = 0

    def add(self, layer: Layer) -> None:
        """Put one layer on top."""
        layers = self.layers
        match layer:
            case Embedding():
                table = layers.Embedding(layer.words, layer.features, embeddings_initializer="zeros", name=layer.name)
                self.value = self._wrapped(table)(self.value)
            case LSTM():
                self._add_lstm(layer)
            case Dense():
                dense = layers.Dense(layer.units, kernel_initializer="zeros", name=layer.name)
                self.value = self._wrapped(dense)(self.value)
            case Conv2D():
                self._add_convolution(layer)
            case Pool2D():
                pool = layers.MaxPooling2D if layer.kind == "max" else layers.AveragePooling2D
                self.value = pool(layer.size)(self.value)
            case Flatten():
                # The harness flattens with channels slowest; without this, a dense layer's columns would mean other
                # pixels.
                channels_slowest = layers.Permute((3, 1, 2))(self.value) if self.is_image else self.value
                self.value = layers.Flatten()(channels_slowest)
                self.is_image = False
            case Activation():
                self.value = layers.Activation(layer.function)(self.value)
            case Dropout():
                dropout = classes().dropout(layer.rate, self.dropouts_placed)
                self.value = dropout((self.value, self.seeds))
                self.dropouts_placed += 1

    def finish(self) -> Model:
        """The model with its variables by tensor name."""
        seeds = [] if self.seeds is None else [self.seeds]
        model = self.keras.Model([self.items, *seeds, *self.states_in], [self.value, *self.states_out])
        variables: dict[str, Variable] = {}
        masks: dict[str, Variable] = {}
        for name, place in places(self.network).items():
            wrapper = self.wrappers[place.tensor.layer]
            held = getattr(wrapper.layer, "cell", wrapper.layer)  # an LSTM keeps its weights in its cell
            variables[name] = getattr(held, _KERAS_PARTS.get(place.part, place.part))
            for weight, mask, _ in wrapper.pruning_vars:
                if weight is variables[name]:
                    masks[name] = mask
        states = tuple(int(state.shape[-1]) for state in self.states_in)
        return Model(model, variables, masks, self.wrappers, states, tuple(self.dropouts))

    def _wrapped(self, layer: KerasLayer) -> Wrapper:
        self.wrappers[layer.name] = wrapper = classes().wrapper(layer)
        return wrapper

    def _add_lstm(self, layer: LSTM) -> None:
        # The state is handed in and out rather than kept by the layer (`stateful=True`), which would tie the model to
        # one batch size and let an evaluation run over the state of a training epoch.
        lstm = self.layers.LSTM(
            layer.units,
            return_sequences=True,
            return_state=True,
            # Keras would start the forget gate's bias at 1; initial weights come from the task, and their biases are
            # zero.
            unit_forget_bias=False,
            kernel_initializer="zeros",
            recurrent_initializer="zeros",
            name=layer.name,
        )
        before = [self.keras.Input((layer.units,)), self.keras.Input((layer.units,))]
        self.value, *after = self._wrapped(lstm)(self.value, initial_state=before)
        self.states_in += before
        self.states_out += after

    def _add_convolution(self, layer: Conv2D) -> None:
        if layer.padding:
            self.value = self.layers.ZeroPadding2D(layer.padding)(self.value)
        convolution = self.layers.Conv2D(
            layer.outputs, layer.kernel, layer.stride, kernel_initializer="zeros", name=layer.name
        )
        self.value = self._wrapped(convolution)(self.value)
