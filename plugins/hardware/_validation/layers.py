"""The layers of two well-known networks, as products whose kept weights follow the pruning rule of the MCBBS design."""

from fractions import Fraction
from math import ceil

from harness.api import Convolution, Part, Product

Layer = tuple[int, int, int, int, int]
"""Input channels, output channels, kernel, stride, output height (= width); 1, 1, 1 for a fully connected layer."""

_VGG16_BLOCKS = ((3, 64, 224), (64, 64, 224), (64, 128, 112), (128, 128, 112), (128, 256, 56), (256, 256, 56),
                 (256, 256, 56), (256, 512, 28), (512, 512, 28), (512, 512, 28), (512, 512, 14), (512, 512, 14),
                 (512, 512, 14))  # fmt: skip

_RESNET50_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Width and number of the bottlenecks of every stage."""


def vgg16() -> tuple[Layer, ...]:
    """13 convolutions and 3 fully connected layers (Simonyan and Zisserman 2015, configuration D)."""
    convolutions = tuple((inputs, outputs, 3, 1, size) for inputs, outputs, size in _VGG16_BLOCKS)
    return (*convolutions, (25088, 4096, 1, 1, 1), (4096, 4096, 1, 1, 1), (4096, 1000, 1, 1, 1))


def resnet50() -> tuple[Layer, ...]:
    """53 convolutions and a fully connected layer (He et al. 2016; v1.5: the 3 x 3 layer of a bottleneck strides)."""
    layers: list[Layer] = [(3, 64, 7, 2, 112)]
    inputs, size = 64, 56
    for stage, (width, count) in enumerate(_RESNET50_STAGES):
        for block in range(count):
            # Every stage but the first halves its size, in its first block.
            stride = 2 if stage and not block else 1
            output = size // stride
            layers += [(inputs, width, 1, 1, size), (width, width, 3, stride, output), (width, 4 * width, 1, 1, output)]
            # The shortcut of a stage's first block changes the width and is a layer of its own.
            if not block:
                layers.append((inputs, 4 * width, 1, stride, output))
            inputs, size = 4 * width, output
    return (*layers, (2048, 1000, 1, 1, 1))


def macs(layers: tuple[Layer, ...]) -> int:
    """Multiplications of the dense network."""
    return sum(inputs * outputs * kernel**2 * size**2 for inputs, outputs, kernel, _, size in layers)


def pruned(layers: tuple[Layer, ...], range_clusters: int) -> tuple[Product, ...]:
    """The products: the first dense, 75 % sparse where inputs equal outputs, all others 50 %."""
    return tuple(_product(index, layer, range_clusters) for index, layer in enumerate(layers))


def _product(index: int, layer: Layer, range_clusters: int) -> Product:
    inputs, outputs, kernel, stride, size = layer
    density = Fraction(1) if index == 0 else Fraction(1, 4) if inputs == outputs else Fraction(1, 2)
    # A range keeps whole clusters.
    kept = Fraction(ceil(density * range_clusters), range_clusters)
    cols = inputs * kernel**2
    name = f"layer_{index}"
    geometry = Convolution(inputs, (kernel, kernel), stride, (size, size))
    part = Part(f"{name}.kernel", outputs, cols, None, int(kept * outputs * cols))
    return Product(name, (part,), pixels=size**2, convolution=geometry)
