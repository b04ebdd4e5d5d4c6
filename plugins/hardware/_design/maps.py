"""Feature maps and line buffers: what convolutions keep between and beside their products."""

from collections.abc import Sequence
from math import prod

from harness.api import Convolution, Product, Ram

from .numerics import Numerics


def line_buffers(products: Sequence[Product], numerics: Numerics, copies: int) -> list[Ram]:
    """As many lines of the input as a window is high, for every copy of the array; layers take turns.

    A window of one line reads the map itself. Copies that sweep strips hold the lines of their own strip and what its
    windows see beyond it; copies on neighbouring positions share one buffer.
    """
    each = numerics.load_words
    strips = copies if numerics.copy_layout == "strips" else 1
    words = max((_line_words(product.convolution, strips) for product in products if product.convolution), default=0)
    if not words:
        return []
    return [Ram("lines", each * numerics.conditions.activation_bits, -(-words // each), strips)]


def _line_words(convolution: Convolution, strips: int) -> int:
    (high, wide), across = convolution.window, convolution.read[1]
    if high == 1:
        return 0
    # What neighbouring strips share lies in both.
    strip = min(across, -(-across // strips) + (wide - 1) * (strips > 1))
    return convolution.inputs * high * strip


def stage_lines(product: Product, numerics: Numerics, copies: int) -> list[Ram]:
    """What a layer with an engine of its own keeps of its input: lines under the window, and those that come in.

    The layer before it writes them, so that whole maps lie nowhere.
    """
    found = product.convolution
    if found is None:
        return []
    each, strips = numerics.load_words, copies if numerics.copy_layout == "strips" else 1
    lines = found.window[0] + found.strides[0]
    strip = min(found.read[1], -(-found.read[1] // strips) + (found.window[1] - 1) * (strips > 1))
    return [Ram("lines", each * numerics.conditions.activation_bits, -(-found.inputs * lines * strip // each), strips)]


def map_memories(products: Sequence[Product], numerics: Numerics) -> list[Ram]:
    """Two memories that layers read from and write to in turns, each as deep as the largest map in it.

    Assumes:
        layers in a chain: what a shortcut hands past them takes more.
    """
    deepest = [0, 0]
    for place, product in enumerate(each for each in products if each.convolution is not None):
        given, taken = map_words(product)
        for side, words in ((place % 2, given), (1 - place % 2, taken)):
            deepest[side] = max(deepest[side], words)
    each = numerics.load_words
    width = each * numerics.conditions.activation_bits
    return [Ram("maps", width, -(-words // each), 1) for words in deepest if words]


def map_words(product: Product) -> tuple[int, int]:
    """Elements of a convolution's input and output; none of other products, whose vectors the engine holds."""
    found = product.convolution
    if found is None:
        return 0, 0
    return found.inputs * prod(found.read), product.rows * product.pixels


def map_bits(product: Product, numerics: Numerics) -> int:
    """Bits that cross the chip's border where maps do not fit: the input once, the output once."""
    return sum(map_words(product)) * numerics.conditions.activation_bits


def load_words(product: Product, step: int = 1) -> int:
    """Words that a convolution's window takes in when it moves on by so many positions.

    A step beyond the window's width brings no more than a whole window's words. Lines between the taps of a dilated
    kernel are not read; every column of it is.
    """
    conv = product.convolution
    return 0 if conv is None else conv.inputs * conv.kernel[0] * min(conv.stride * step, conv.window[1])
