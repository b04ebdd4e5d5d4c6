"""Unstructured sparse convolutions: a kept weight is read once and multiplied with many outputs of a line."""

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar
from weakref import WeakKeyDictionary

from pydantic import Field

from harness.api import Conditions, Engine, EngineShape, Line, Product, Ram, Run, even_cuts, hookimpl

from ..bank import fill_drain
from ..bank.counts import Issue
from .splits import Splits

_SPLITS_TRIED = (*range(1, 17), *(round(16 * 2 ** (step / 4)) for step in range(1, 33)))
"""Splits searched: all of them, and beyond 16 in steps of some 19 %."""

_MOST_PIXELS = 128
"""Outputs of a line at once, at most: the words of the line buffers are as wide."""


class WeightBroadcast(Engine):
    """F filters of S splits; a split reads one kept weight per cycle and broadcasts it to P neighbouring outputs.

    The input channels are dealt to the splits in neighbouring stretches. A row (an output channel) waits for its
    fullest split, and is computed at P outputs of a line at once, so that no output waits for another: with c(r, s)
    weights of row r in split s, and row r on filter r mod F,

        T = max over filters of the sum over their rows of max(1, max over s of c(r, s))
        cycles = output lines * ceil(outputs of a line / P) * max(T, fill) + fill and drain

    where `fill` is how long a split takes to write the lines that come in, a word per cycle. Few splits wait little, so
    that any mask runs well; what it needs is a wide line. Every filter has line buffers of its own, which makes filters
    dear and P cheap. A matrix without positions runs at one of its P outputs.

    Assumes: outputs do not wrap over the end of a line; the buffers read and write a word in the same cycle.

    Source:
        Hall and Betz, HPIPE, arXiv 2007.10451: sparse convolutions whose weights are shared by a line of outputs; the
        array, its memories and its constants are our own.
    """

    name: ClassVar[str] = "weight_broadcast"
    whole_layer: ClassVar[bool] = True

    filters: int | None = Field(default=None, gt=0, description="F, output channels at a time; None searches")
    splits: int | None = Field(default=None, gt=0, description="S, stretches of input channels; None searches")
    pixels: int | None = Field(default=None, gt=0, description="P, outputs of a line at a time; None searches")

    def refusal(self, product: Product) -> str | None:
        """Recurrent layers: they have one position."""
        if product.units is None:
            return None
        return f"it shares a weight among the positions of an item, and a step of {product.layer} has one"

    def packs(self, shape: EngineShape) -> bool:
        """Pairs of outputs share their weight."""
        return shape["pixels"] % 2 == 0

    def shapes(self, products: Sequence[Product], budget: int) -> Sequence[EngineShape]:
        """For every width and number of splits, as many filters as the budget has."""
        found = {line[-1]: None for line in self.lines(products, budget)}
        return list(found)

    def lines(self, products: Sequence[Product], budget: int) -> Sequence[Sequence[EngineShape]]:
        """For widths that save a pass and numbers of splits, any number of filters."""
        rows = max(product.rows for product in products)

        def line(pixels: int, splits: int) -> Line:
            most = max(1, min(rows, budget // (pixels * splits)))
            sizes = [self.filters] if self.filters else range(1, most + 1)
            return Line(sizes, lambda filters: _shape(filters, splits, pixels))

        return [line(pixels, splits) for pixels, splits in self._sizes(products, max(1, budget // (self.filters or 1)))]

    def _sizes(self, products: Sequence[Product], most: int) -> list[tuple[int, int]]:
        """Widths and splits of at most so many multipliers per filter."""
        widths = {cut for product in products for cut in even_cuts(_line(product)[1])}
        channels = max(_splits(product).channels for product in products)
        deep = {*_SPLITS_TRIED, channels}
        pixels = [self.pixels] if self.pixels else sorted(width for width in widths if width <= _MOST_PIXELS)
        splits = [self.splits] if self.splits else sorted(count for count in deep if count <= channels)
        found = [(wide, count) for wide in pixels for count in splits if wide * count <= most]
        return found or [(self.pixels or 1, self.splits or 1)]

    def fixed_shape(self, products: Sequence[Product], budget: int) -> EngineShape:
        """A whole line of one filter, as far as the budget goes."""
        width = max(_line(product)[1] for product in products)
        pixels = self.pixels or max(1, min(width, _MOST_PIXELS, budget // ((self.filters or 1) * (self.splits or 1))))
        channels = max(_splits(product).channels for product in products)
        splits = self.splits or max(1, min(channels, budget // (pixels * (self.filters or 1))))
        return _shape(self.filters or 1, splits, pixels)

    def least_cycles(self, product: Product, shape: EngineShape) -> int:
        """The mean over the filters of what their rows take without waiting for a split."""
        passes = _passes(product, shape["pixels"])
        if not product.has_masks:
            return passes * -(-product.nnz // (shape["filters"] * shape["splits"]))
        return passes * -(-_splits(product).least(shape["splits"]) // shape["filters"])

    def simulate(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """Exact, in closed form."""
        found, splits, filters = _splits(product), shape["splits"], shape["filters"]
        issue = found.exact(splits).issue(filters, lockstep=False)
        return self._run(product, shape, conditions, issue, found.deepest(splits, filters), found.words(splits))

    def expect(self, product: Product, shape: EngineShape, conditions: Conditions) -> Run:
        """Expected: every split of a row binomial with the density of its tensor."""
        found, splits, filters = _splits(product), shape["splits"], shape["filters"]
        issue = found.expected(splits).issue(filters, lockstep=False)
        if product.has_masks:
            return self._run(product, shape, conditions, issue, found.deepest(splits, filters), found.words(splits))
        # No memory is deeper than its filter is busy: every split waits for the fullest.
        return self._run(product, shape, conditions, issue, issue.depth, found.expected_words(splits))

    def _run(
        self, product: Product, shape: EngineShape, conditions: Conditions, issue: Issue, deepest: int, words: int
    ) -> Run:
        found, filters, splits, pixels = _splits(product), shape["filters"], shape["splits"], shape["pixels"]
        passes = _passes(product, pixels)
        coming = _coming(product) * found.longest(splits)
        useful = Fraction(product.nnz * product.pixels, shape.multipliers)
        parts = {name: cycles * passes for name, cycles in issue.parts.items()}
        # Outputs beyond the end of a line are computed for nobody.
        parts["lane_mismatch"] = parts.get("lane_mismatch", Fraction(0)) + parts["compute"] - useful
        parts["compute"] = useful
        parts["feed_stall"] = passes * max(Fraction(0), coming - issue.cycles)
        width = conditions.weight_bits + _index_bits(found.longest(splits) * found.taps) + 1
        return Run(
            parts={**parts, "fill_drain": Fraction(fill_drain(splits))},
            rams=(
                Ram("weights", width, max(1, deepest), filters * min(splits, found.channels), stacked=True),
                _line_buffer(product, shape, conditions),
            ),
            last=issue.last,
            last_rows=product.rows - (-(-product.rows // filters) - 1) * filters,
            stored_bits=Fraction(words * width),
            stored_words=Fraction(words),
            weight_reads=Fraction(passes),
            busy=None if issue.busy is None else issue.busy * passes,
            notes=(f"{min(splits, found.channels)} splits of at most {found.longest(splits)} input channels",),
        )


def _line_buffer(product: Product, shape: EngineShape, conditions: Conditions) -> Ram:
    """A buffer per split and filter: what P outputs see of one line of one channel is a word."""
    found, pixels = _splits(product), shape["pixels"]
    channels = found.longest(shape["splits"]) * product.groups
    count = shape["filters"] * min(shape["splits"], found.channels)
    geometry = product.convolution
    if geometry is None:
        return Ram("lines", pixels * conditions.activation_bits, 2 * channels, count)
    seen = (pixels - 1) * geometry.stride + geometry.window[1]
    # Lines under the window, and those that come in for the next line of outputs.
    lines = geometry.window[0] + geometry.strides[0]
    words = channels * lines * -(-geometry.output[1] // pixels)
    return Ram("lines", seen * conditions.activation_bits, words, count)


def _line(product: Product) -> tuple[int, int]:
    """Lines of outputs, and outputs of a line."""
    return (1, product.pixels) if product.convolution is None else product.convolution.output


def _passes(product: Product, pixels: int) -> int:
    """How often all rows are gone through for one item; sizes that were seen several times count several times."""
    lines, across = _line(product)
    return lines * -(-across // pixels) * -(-product.pixels // (lines * across))


def _coming(product: Product) -> int:
    """Words that a channel takes in for every pass."""
    geometry = product.convolution
    return 1 if geometry is None else product.groups * geometry.strides[0]


def _index_bits(places: int) -> int:
    return (places - 1).bit_length()


def _shape(filters: int, splits: int, pixels: int) -> EngineShape:
    sizes = (("filters", filters), ("splits", splits), ("pixels", pixels))
    return EngineShape(sizes, filters * splits * pixels)


_SPLITS: WeakKeyDictionary[Product, Splits] = WeakKeyDictionary()
"""Counts, kept as long as their product: many shapes share them."""


def _splits(product: Product) -> Splits:
    found = _SPLITS.get(product)
    if found is None:
        found = _SPLITS[product] = Splits(product)
    return found


@hookimpl
def register_engine() -> type[Engine]:
    """Offer this engine to the harness."""
    return WeightBroadcast
