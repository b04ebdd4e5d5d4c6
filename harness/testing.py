"""Checks that every plugin has to pass, and random scores to try patterns on; for plugin authors' own tests.

The checks raise `PluginContractError` with the first demand that is not met. The two functions that make hypothesis
strategies need hypothesis (`pip install hypothesis`); the checks do not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from harness._part_checks import check_backend, check_hardware, check_task
from harness._scoring_checks import SHAPES, check_schedule, check_score
from harness.api import (
    SGD,
    Component,
    Conditions,
    Engine,
    EngineShape,
    JsonValue,
    Mask,
    Matrix,
    Part,
    Pattern,
    PluginUnavailableError,
    Product,
    Recipe,
    ReportColumn,
    ReportRow,
    Run,
    ShapeError,
    SpecError,
    StepDecay,
    Strategy,
)
from harness.api.promises import broken, demand, kept_program

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = [
    "SHAPES", "check_backend", "check_component", "check_engine", "check_hardware", "check_pattern", "check_schedule",
    "check_score", "check_strategy", "check_task", "engine_products", "score_matrices", "sparsities",
]  # fmt: skip

_SPARSITIES = (0.0, 0.25, 0.5, 0.58, 0.75, 0.9, 0.96)
_Scalar = TypeVar("_Scalar", bound=np.generic)
_RECIPE_EPOCHS = (1, 2, 4, 13, 40)
_BUDGETS = (1, 6, 48)


def score_matrices(
    *, rows_multiple_of: int = 1, cols_multiple_of: int = 1, max_rows: int = 6, max_cols: int = 24, levels: int = 5
) -> SearchStrategy[Matrix]:
    """Random score matrices of few different values, so that ties are common; float32 or float64.

    Args:
        rows_multiple_of: what the number of rows is a multiple of.
        cols_multiple_of: what the number of columns is a multiple of.
        max_rows: the most rows.
        max_cols: the most columns.
        levels: how many different values there are at most, from 0 in steps of a quarter.

    Raises:
        PluginUnavailableError: hypothesis is not installed.
    """
    _require_hypothesis()
    from hypothesis import strategies

    def build(rows: int, cols: int, kind: str) -> SearchStrategy[Matrix]:
        return strategies.binary(min_size=rows * cols, max_size=rows * cols).map(
            lambda drawn: (np.frombuffer(drawn, np.uint8) % levels / 4).astype(kind).reshape(rows, cols)
        )

    rows = strategies.integers(1, max(1, max_rows // rows_multiple_of)).map(lambda count: count * rows_multiple_of)
    cols = strategies.integers(1, max(1, max_cols // cols_multiple_of)).map(lambda count: count * cols_multiple_of)
    kinds = strategies.sampled_from(("float32", "float64"))
    return strategies.tuples(rows, cols, kinds).flatmap(lambda drawn: build(*drawn))


def sparsities() -> SearchStrategy[float]:
    """Random sparsities in [0, 1), round decimals and odd ones.

    Raises:
        PluginUnavailableError: hypothesis is not installed.
    """
    _require_hypothesis()
    from hypothesis import strategies

    return strategies.integers(0, 99).map(lambda percent: percent / 100) | strategies.floats(0, 1, exclude_max=True)


def _require_hypothesis() -> None:
    try:
        import hypothesis  # noqa: F401  # only whether it is there
    except ImportError:
        raise PluginUnavailableError(
            "harness.testing makes random scores with hypothesis, which is not installed; run `pip install hypothesis`"
        ) from None


def check_component(component: type[Component]) -> None:
    """What every plugin class promises: defaults for all fields, immutability, a way to JSON and back, a label, words.

    Raises:
        PluginContractError: the first promise it breaks.
    """
    where = f"{component.__module__}.{component.__qualname__}"
    demand(re.fullmatch(r"[a-z][a-z0-9_]*", component.name), where, f"a snake_case name, got {component.name!r}")
    demand(component.__doc__ and component.__doc__.strip(), where, "a docstring that says what it is")
    try:
        default = component()
    except ValidationError as error:
        raise broken(where, f"a default for every field, got {error.errors()[0]['msg']!r}") from None
    demand(component.model_config.get("frozen"), where, "a frozen model; leave `frozen` as the base class sets it")
    for name in component.model_fields:
        demand(_is_frozen(default, name), where, f"a frozen model, but `{name}` can be assigned to")
    again = component.model_validate(default.parameters())
    demand(again == default, where, f"its parameters to make it again, but {default.parameters()} made {again!r}")
    demand(default.label() == component.name, where, f"the label {component.name!r}, got {default.label()!r}")
    demand(hash(default) == hash(again), where, "equal components to have equal hashes")


def _is_frozen(component: Component, field: str) -> bool:
    try:
        setattr(component, field, getattr(component, field))
    except ValidationError:
        return True
    return False


def check_pattern(pattern: Pattern, shapes: Sequence[tuple[int, int]] = SHAPES, *, follows_frame: bool = True) -> None:
    """What a pattern promises of its masks, tried on matrices with many equal scores.

    Args:
        pattern: the pattern, with any parameters.
        shapes: (rows, cols) of the matrices; those it refuses with a `ShapeError` are left out.
        follows_frame: whether the masks are the best units of every group of the declared frame; False for a pattern
            whose own `mask` does something that no frame can say.

    Raises:
        PluginContractError: the first promise it breaks.
    """
    accepted = 0
    for rows, cols in shapes:
        try:
            pattern.layout(rows, cols)
        except ShapeError:
            continue
        accepted += 1
        for scores in _tied_scores(rows, cols):
            _check_masks(pattern, scores, follows_frame=follows_frame)
    tried = ", ".join(f"{rows} x {cols}" for rows, cols in shapes)
    demand(accepted, pattern.label(), f"at least one of these shapes to be taken: {tried}; pass `shapes` that fit")


def _tied_scores(rows: int, cols: int) -> Iterator[Matrix]:
    rng = np.random.default_rng([rows, cols])
    few = rng.integers(0, 4, (rows, cols)).astype(np.float64)
    yield few.astype(np.float32)
    yield np.asfortranarray(few)
    yield np.ones((rows, cols), np.float32)
    yield np.where(rng.random((rows, cols)) < 0.95, 0, few + 1)  # mostly zeros


def _check_masks(pattern: Pattern, scores: Matrix, *, follows_frame: bool) -> None:
    where = f"{pattern.label()} on {scores.shape[0]} x {scores.shape[1]}"
    before = scores.copy()
    wider: Mask = np.ones(scores.shape, dtype=np.bool_)
    for sparsity in _SPARSITIES:
        mask = pattern.mask(scores, sparsity)
        at = f"{where} at sparsity {sparsity}"
        demand(isinstance(mask, np.ndarray) and mask.dtype == np.bool_, at, "a bool array")
        demand(mask.shape == scores.shape, at, f"a mask of shape {scores.shape}, got {mask.shape}")
        demand(np.array_equal(scores, before), at, "the scores to be left as they were")
        demand(sparsity or mask.all(), at, "sparsity 0 to keep everything")
        demand(not (mask & ~wider).any(), at, "a higher sparsity to keep a subset of a lower one")
        pruned = np.where(wider, scores, -np.inf)
        again = pattern.mask(pruned, sparsity)
        if follows_frame:
            demand(np.array_equal(again, mask), at, "pruned weights (-inf) to stay pruned")
        else:  # what is left may be ranked anew
            demand(not (again & ~wider).any(), at, "pruned weights (-inf) to stay pruned")
            demand(again.sum() == mask.sum(), at, f"{mask.sum()} weights to stay of those left, got {again.sum()}")
        demand(np.array_equal(pattern.mask(scores * 4, sparsity), mask), at, "the same mask for four times the scores")
        _check_count(pattern, mask, sparsity, at)
        if follows_frame and sparsity:
            _check_groups(pattern, scores, mask, sparsity, at)
        wider = mask


def _check_count(pattern: Pattern, mask: Mask, sparsity: float, at: str) -> None:
    rows, cols = mask.shape
    found = 1 - np.count_nonzero(mask) / mask.size
    reachable = pattern.reachable(rows, cols, sparsity)
    slack = max(1e-9, pattern.layout(rows, cols).edge_deficit / mask.size)
    demand(abs(found - reachable) <= slack, at, f"the sparsity {reachable:g} that it calls reachable, got {found:g}")


def _check_groups(pattern: Pattern, scores: Matrix, mask: Mask, sparsity: float, at: str) -> None:
    """Compare every group with a stable sort of its units: slow, and independent of the selection kernel."""
    layout = pattern.layout(*_sides(scores))
    takes_max = pattern.frame(*_sides(scores)).pooling == "max"
    quota = layout.quota(sparsity)
    scores, mask = layout.viewed(scores), layout.viewed(mask)
    for rows, cols in layout.groups():
        kept = _units(mask[rows, cols], layout.unit)
        pooled = [unit.max() if takes_max else unit.mean() for unit in _units(scores[rows, cols], layout.unit)]
        best = set(np.argsort(-np.array(pooled), kind="stable")[:quota].tolist())
        stayed = {index for index, unit in enumerate(kept) if unit.all()}
        group = f"{at}, group of rows {rows.start}-{rows.stop - 1} and columns {cols.start}-{cols.stop - 1}"
        demand(all(unit.all() == unit.any() for unit in kept), group, "whole units to stay or go")
        demand(len(stayed) == quota, group, f"{quota} units to stay, got {len(stayed)}")
        demand(stayed == best, group, "its highest scores to stay, ties at the lower index")


def _units(group: NDArray[_Scalar], unit: tuple[int, int]) -> Sequence[NDArray[_Scalar]]:
    """The units of a group, row-major, those at its edges smaller."""
    if unit == (1, 1):
        return list(group.reshape(-1, 1))
    corners = ((top, left) for top in range(0, group.shape[0], unit[0]) for left in range(0, group.shape[1], unit[1]))
    return [group[top : top + unit[0], left : left + unit[1]] for top, left in corners]


def _sides(matrix: Matrix) -> tuple[int, int]:
    return matrix.shape[0], matrix.shape[1]


def check_strategy(strategy: Strategy, recipes: Sequence[Recipe] | None = None) -> None:
    """What a strategy promises of its programs, tried on short and long recipes.

    Args:
        strategy: the strategy, with any parameters.
        recipes: dense recipes; those it refuses with a `SpecError` are left out. By default of 1 to 40 epochs.

    Raises:
        PluginContractError: the first promise it breaks.
    """
    accepted = 0
    for recipe in recipes or [_recipe(epochs) for epochs in _RECIPE_EPOCHS]:
        for target in (0.5, 0.9):
            try:
                kept_program(strategy, recipe, target)
            except SpecError:
                continue
            accepted += 1
    demand(accepted, strategy.label(), "at least one recipe to be taken; pass `recipes` that fit")
    unknown = set(strategy.hyper_parameters()) - set(strategy.parameters())
    demand(not unknown, strategy.label(), f"hyper-parameters that are fields, got {', '.join(sorted(unknown))}")


def _recipe(epochs: int) -> Recipe:
    rate = StepDecay(initial=1.0, decay=0.5, full_epochs=4)
    return Recipe(epochs=epochs, optimiser=SGD(), learning_rate=rate, clip_norm=5.0, steps_per_epoch=30)


def check_engine(engine: Engine, products: Sequence[Product] | None = None, budgets: Sequence[int] = _BUDGETS) -> None:
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
    )


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
    least, taken = engine.least_cycles(product, shape), run.cycles if engine.whole_layer else run.issue_cycles
    demand(least <= taken, at, f"least_cycles of at most {taken}, got {least}")
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
    if product.activation_density == 1:
        demand(run.issue_cycles >= useful, at, f"at least the {useful} cycles of its weights, got {run.issue_cycles}")
    demand(0 <= run.last <= run.issue_cycles, at, f"last in [0, {run.issue_cycles}], got {run.last}")
    rows = run.last_rows
    demand(rows is None or 1 <= rows <= product.rows, at, f"last_rows in [1, {product.rows}], got {rows}")
    demand(run.stored_words >= product.nnz, at, f"all {product.nnz} weights to be stored, got {run.stored_words}")
    bits = product.nnz * Conditions().weight_bits
    demand(run.stored_bits >= bits, at, f"at least {bits} bits to be stored, got {run.stored_bits}")
    for ram in run.rams:
        sound = ram.width >= 1 and ram.depth >= 0 and ram.count >= 1
        demand(sound, at, f"memories of at least one bit, 0 words and one copy, got {ram}")
    if run.busy is not None:
        busiest = max(run.busy.tolist(), default=0)
        demand(busiest <= run.issue_cycles, at, f"no PE busy beyond {run.issue_cycles} cycles, got {busiest}")


def check_column(column: ReportColumn, rows: Sequence[ReportRow] | None = None) -> None:
    """What a report column promises of every row it may meet.

    Args:
        column: the column, with any parameters.
        rows: what it is asked about; by default `report_rows()`, on at least one of which it must have a value.

    Raises:
        PluginContractError: the first promise it breaks.
        Exception: whatever the column raises; in a report it would be left empty there.
    """
    where = f"column {column.name}"
    demand(isinstance(column.header, str), where, f"a header that is a text, got {column.header!r}")
    demand(isinstance(column.about, str), where, f"an `about` that is a text, got {column.about!r}")
    weights = ("main", "second", "extra")
    demand(column.matters in weights, where, f"`matters` to be one of {', '.join(weights)}, got {column.matters!r}")
    asked = report_rows() if rows is None else tuple(rows)
    found = False
    for row in asked:
        value, at = column.value(row), f"{where} on {row.pattern}, {row.strategy}, {len(row.values)} seeds"
        number = isinstance(value, int | float) and math.isfinite(value)  # a bool is an int
        demand(value is None or isinstance(value, str) or number, at, f"a finite number, a text or None, got {value!r}")
        demand(value == column.value(row), at, "the same value when asked twice")
        demand(isinstance(column.footnote(row), str), at, "a footnote that is a text")
        if value is not None:
            found = True
            demand(isinstance(column.shown(value), str), at, f"a text for {value!r} from `shown`")
    for some in (asked, asked[:1], ()):
        demand(isinstance(column.applies(some), bool), where, "`applies` to be true or false, for no rows too")
    demand(found or rows is not None, where, "a value for at least one of `report_rows()`; pass `rows` that have one")


def report_rows() -> tuple[ReportRow, ...]:
    """Rows as a report has them: a baseline, pruned settings, one with a single seed, some without result or costs."""
    figures = {"cycles": 120.0, "latency_us": 0.6, "speedup": 2.5, "dsp": 64.0}
    record: dict[str, JsonValue] = {"status": "ok", "seed": 0, "value": 10.0, "train_seconds": 12.5}
    dense = ReportRow(
        task="digits", backend="torch", metric="perplexity", values={0: 10.0, 1: 10.4}, sparsity=0.0,
        model_sparsity=0.0, total_epochs=10, hardware={"simulator[a]": figures},
        records=(record, {**record, "seed": 1}),
    )  # fmt: skip
    pruned = replace(
        dense, pattern="unstructured", allocation="uniform", strategy="fine_tuning", target_sparsity=0.9,
        values={0: 11.0, 1: 11.2}, sparsity=0.9, model_sparsity=0.74, total_epochs=15, retrain_epochs=5, dense=dense,
    )  # fmt: skip
    failed = {**record, "status": "failed", "value": None, "reason": "it diverged"}
    return (
        dense,
        pruned,
        replace(pruned, strategy="gradual", values={1: 11.0}, records=(record,)),
        replace(pruned, pattern="block", dense=None),
        replace(pruned, pattern="block", hardware={}),
        replace(pruned, pattern="n_m", values={}, sparsity=None, model_sparsity=None, hardware={}, records=(failed,)),
    )
