"""Masks and workloads that the hardware tests share."""

import numpy as np
import pytest

from harness.api import LSTM, Dense, Embedding, Network, Part, Product, Workload


def bank_balanced_mask(rng, rows, banks, size, kept):
    """(rows, banks * size), `kept` weights in every bank."""
    order = rng.random((rows, banks, size)).argsort(axis=-1)
    return (order < kept).reshape(rows, banks * size)


def language_model(hidden, words=40, layers=2):
    stack = [Embedding(name="embedding", words=words, features=hidden)]
    for index in range(layers):
        source = "embedding.features" if index == 0 else f"lstm_{index - 1}.units"
        stack.append(LSTM(name=f"lstm_{index}", inputs=hidden, units=hidden, input_label=source))
    stack.append(
        Dense(name="softmax", inputs=hidden, units=words, role="softmax", input_label=f"lstm_{layers - 1}.units")
    )
    return Network(layers=tuple(stack))


def lstm_workload(hidden, make_mask=None, banks=None, layers=1):
    """The LSTM matrices of a language model, masked by `make_mask(rows, cols)`."""
    network = language_model(hidden, layers=layers)
    tensors = tuple(tensor for tensor in network.tensors() if tensor.role == "lstm")
    masks = {} if make_mask is None else {tensor.name: make_mask(*tensor.shape) for tensor in tensors}
    return Workload(network, tensors, masks, {} if banks is None else dict.fromkeys(masks, banks))


def matrix_workload(mask, banks=None):
    """One dense layer with this mask."""
    rows, cols = mask.shape
    layer = Dense(name="dense", inputs=cols, units=rows, input_label="input")
    tensor = layer.tensors()[0]
    return Workload(
        Network(layers=(layer,), input_shape=(cols,)),
        (tensor,),
        {tensor.name: mask},
        {} if banks is None else {tensor.name: banks},
    )


def product_of(*masks, banks=None, units=None, **rest):
    """One product whose parts have these masks; they are taken as they are, all-True ones too."""
    parts = tuple(
        Part(f"part_{index}", *mask.shape, mask, int(np.count_nonzero(mask)), banks) for index, mask in enumerate(masks)
    )
    return Product("layer", parts, units, **rest)


def dense_product(rows, cols, units=None, **rest):
    """One product without masks that keeps every weight."""
    return Product("layer", (Part("part_0", rows, cols, None, rows * cols),), units, **rest)


class Make:
    """The functions above, for tests, which cannot import a conftest."""

    bank_balanced_mask = staticmethod(bank_balanced_mask)
    language_model = staticmethod(language_model)
    lstm_workload = staticmethod(lstm_workload)
    matrix_workload = staticmethod(matrix_workload)
    product_of = staticmethod(product_of)
    dense_product = staticmethod(dense_product)


@pytest.fixture(scope="session")
def make():
    return Make
