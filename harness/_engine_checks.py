"""Checks of engines, and the products that they are tried on; plugin authors find them in `harness.testing`."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from harness.api import Conditions, Convolution, Engine, EngineShape, Mask, Matrix, Part, Product, Run
from harness.api.promises import demand

BUDGETS = (1, 6, 48)
"""Multipliers within which an engine is asked for shapes."""


def check_engine(engine: Engine, products: Sequence[Product] | None = None, budgets: Sequence[int] = BUDGETS) -> None:
    """What an engine promises of its shapes and of every run, tried on masks of many kinds.

    Args:
        engine: the engine, with any parameters; sizes that they fix may go beyond a budget.
        products: what it runs, those it refuses left out; by default small products of every kind, at least one of
            which it must take.
        budgets: multipliers within which shapes are asked for.

    Raises:
        PluginContractError: the first promise it breaks.
    """
    demand(engine.streams >= 1, engine.label(), f"at least one stream, got {engine.streams}")
    accepted = 0
    for product in engine_products() if products is None else products:
        where = f"{engine.label()} on {product.layer} ({product.rows} x {product.cols}, {product.nnz} kept)"
        refusal = engine.refusal(product)
        if refusal is not None:
            demand(refusal.strip(), where, "a reason for refusing a product, got an empty one")
            continue
        accepted += 1
        for budget in budgets:
            _check_shapes(engine, product, budget, f"{where} within {budget} multipliers")
    # One that refuses everything has not been tried; with products of the author's own that is theirs to judge.
    demand(accepted or products is not None, engine.label(), "at least one of `engine_products()` to be taken")


def engine_products(rows: int = 12, cols: int = 32) -> tuple[Product, ...]:
    """Small products of every kind: masks of the usual patterns, dense, empty and thin ones, and mere statistics.

    Args:
        rows: outputs of most of them, a multiple of 4.
        cols: inputs of most of them, a multiple of 16.
    """
    rng = np.random.default_rng([rows, cols])
    scores = rng.random((rows, cols))
    masks = {
        "unstructured": scores < 0.3,
        "row_balanced": scores.argsort(axis=1).argsort(axis=1) < cols // 8,
        "bank_balanced": _best(scores, 8, 2),
        "two_of_four": _best(scores, 4, 2),
        "blocks": np.kron(rng.random((rows // 4, cols // 4)) < 0.5, np.ones((4, 4))) > 0,
        "clusters": np.kron(_best(rng.random((rows, cols // 4)), 4, 2), np.ones((1, 4))) > 0,
        "one_weight": scores == scores.min(),
        "nothing_kept": np.zeros((rows, cols), np.bool_),
        "half_empty": (scores < 0.5) & (np.arange(rows) < rows // 2)[:, None],
        "one_row": scores[:1] < 0.5,
        "one_column": scores[:, :1] < 0.5,
        "one_dropped": scores != scores.min(),
    }
    dense = Part("weights", rows, cols, None, rows * cols)
    told = Part("weights", rows, cols, None, rows * cols // 4, banks=cols // 8)
    bare = Part("weights", rows, cols, None, rows * cols // 4 + 1)
    pieces = (_part(masks["bank_balanced"]), _part(_best(rng.random((rows, cols // 2)), 8, 1)))
    return (
        *(Product(name, (_part(mask),)) for name, mask in masks.items()),
        Product("dense", (dense,)),
        Product("one_weight_in_all", (Part("weights", 1, 1, None, 1),)),
        Product("banks_told", (told,)),
        Product("density_told", (bare,)),
        Product("lstm", pieces, units=rows // 4),
        Product("half_dense", (dense, pieces[1])),
        Product("image", (_part(masks["bank_balanced"]),), pixels=6),
        Product("convolution", (_part(masks["unstructured"]),), pixels=6, convolution=_geometry(cols // 4)),
        Product("grouped", (_part(masks["unstructured"]),), pixels=6, convolution=_geometry(rows * cols // 4, rows)),
    )


def _geometry(inputs: int, groups: int = 1) -> Convolution:
    """Of windows of 2 x 2 at six positions."""
    return Convolution(inputs, (2, 2), 1, (2, 3), image=(3, 4), groups=groups)


def _part(mask: Mask) -> Part:
    return Part("weights", mask.shape[0], mask.shape[1], mask, int(np.count_nonzero(mask)))


def _best(scores: Matrix, size: int, kept: int) -> Mask:
    """The highest of every `size` neighbours in a row."""
    ranks = (-scores).reshape(len(scores), -1, size).argsort(axis=2).argsort(axis=2)
    mask: Mask = (ranks < kept).reshape(scores.shape)
    return mask


def _check_shapes(engine: Engine, product: Product, budget: int, where: str) -> None:
    shapes = tuple(engine.shapes([product], budget))
    demand(shapes, where, "at least one shape")
    demand(len(set(shapes)) == len(shapes), where, f"every shape once, got {', '.join(map(str, shapes))}")
    fixed = engine.fixed_shape([product], budget)
    # Sizes that are given may go beyond the budget; then there is nothing smaller to choose.
    most = max(budget, min(shape.multipliers for shape in (*shapes, fixed)))
    for shape in (*shapes, fixed):
        at = f"{where}, {shape}"
        sizes = dict(shape.sizes)
        demand(len(sizes) == len(shape.sizes) and all(size >= 1 for size in sizes.values()), at, "sizes of 1 or more")
        demand(1 <= shape.multipliers <= most, at, f"1 to {most} multipliers, got {shape.multipliers}")
        _check_runs(engine, product, shape, at)


def _check_runs(engine: Engine, product: Product, shape: EngineShape, at: str) -> None:
    conditions = Conditions()
    masks = [part.mask for part in product.parts if part.mask is not None]
    before = [mask.copy() for mask in masks]
    expected = engine.expect(product, shape, conditions)
    _check_run(engine, product, shape, expected, f"{at}, expected")
    if not product.has_masks:
        return
    run = engine.simulate(product, shape, conditions)
    _check_run(engine, product, shape, run, f"{at}, simulated")
    untouched = all(np.array_equal(mask, old) for mask, old in zip(masks, before, strict=True))
    demand(untouched, at, "the masks to be left as they were")
    # A whole layer has its fill in its cycles; a single product is bounded by what it issues.
    least, taken = engine.least_cycles(product, shape), run.cycles if engine.whole_layer else run.issue_cycles
    demand(least <= taken, at, f"least_cycles of at most {taken}, got {least}")
    # Another object, and a product for which nothing is remembered: results must not come from a cache.
    again = type(engine).model_validate(engine.parameters()).simulate(_afresh(product), shape, conditions)
    demand((again.parts, again.rams) == (run.parts, run.rams), at, "the same run when asked twice")
    if product.is_dense:
        same = expected.cycles == run.cycles
        demand(same, at, f"dense weights expected to take the {run.cycles} cycles simulated, got {expected.cycles}")


def _afresh(product: Product) -> Product:
    """The same product as another object, for which nothing is remembered."""
    return Product(
        product.layer,
        tuple(Part(part.tensor, part.rows, part.cols, part.mask, part.kept, part.banks) for part in product.parts),
        product.units,
        product.pixels,
        product.convolution,
        product.activation_density,
    )


def _check_run(engine: Engine, product: Product, shape: EngineShape, run: Run, at: str) -> None:
    for name, cycles in run.parts.items():
        demand(isinstance(cycles, Fraction), at, f"parts that are fractions, got {name}={cycles!r}")
        demand(cycles >= 0, at, f"parts of 0 or more, got {name}={cycles}")
    runs = product.pixels if engine.whole_layer else 1
    useful = Fraction(product.nnz * engine.streams * runs, shape.multipliers)
    # Products with zeros among the inputs may be skipped, so that fewer products are made than weights kept.
    if product.activation_density == 1:
        demand(run.issue_cycles >= useful, at, f"at least the {useful} cycles of its weights, got {run.issue_cycles}")
    demand(0 <= run.last <= run.issue_cycles, at, f"last in [0, {run.issue_cycles}], got {run.last}")
    rows = run.last_rows
    demand(rows is None or 1 <= rows <= product.rows, at, f"last_rows in [1, {product.rows}], got {rows}")
    # Weights that are wired into a circuit are stored nowhere.
    stored = 0 if engine.unrolled else product.nnz
    demand(run.stored_words >= stored, at, f"all {stored} weights to be stored, got {run.stored_words}")
    bits = stored * Conditions().weight_bits
    demand(run.stored_bits >= bits, at, f"at least {bits} bits to be stored, got {run.stored_bits}")
    has_logic = run.logic is not None and run.logic.lut >= 0 and run.logic.ff >= 0
    demand(has_logic or not engine.unrolled, at, f"the LUTs and flip-flops of its circuit, got {run.logic}")
    for ram in run.rams:
        sound = ram.width >= 1 and ram.depth >= 0 and ram.count >= 1
        demand(sound, at, f"memories of at least one bit, 0 words and one copy, got {ram}")
    if run.busy is not None:
        busiest = max(run.busy.tolist(), default=0)
        demand(busiest <= run.issue_cycles, at, f"no PE busy beyond {run.issue_cycles} cycles, got {busiest}")
