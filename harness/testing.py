"""Checks that every plugin has to pass, and random scores to try patterns on; for plugin authors' own tests.

The checks raise `PluginContractError` with the first demand that is not met. For pytest there is a class per kind of
plugin to inherit, which makes a test of each check:

    class TestMine(PatternChecks):
        plugin = Mine(width=2)

The two functions that make hypothesis strategies need hypothesis (`pip install hypothesis`); the checks do not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import ValidationError

from harness._engine_checks import BUDGETS, check_engine, engine_products
from harness._manners import check_globals, check_import, global_state
from harness._part_checks import check_backend, check_hardware, check_task
from harness._pattern_checks import check_pattern, pattern_scope
from harness._reporting_checks import check_column, check_study_check, report_rows
from harness._scoring_checks import SHAPES, check_schedule, check_score
from harness._tracker_checks import check_tracker
from harness.api import (
    SGD,
    Backend,
    Component,
    Engine,
    HardwareModel,
    Matrix,
    Pattern,
    PluginUnavailableError,
    Product,
    Recipe,
    ReportColumn,
    ReportRow,
    Schedule,
    Score,
    SpecError,
    StepDecay,
    Strategy,
    StudyCheck,
    Task,
    Tensor,
    Tracker,
)
from harness.api.promises import broken, demand, kept_program

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = [
    "CHECKS", "SHAPES", "BackendChecks", "ColumnChecks", "ComponentChecks", "EngineChecks", "HardwareChecks",
    "PatternChecks", "ScheduleChecks", "ScoreChecks", "StrategyChecks", "StudyCheckChecks", "TaskChecks",
    "TrackerChecks", "check_backend", "check_column", "check_component", "check_engine", "check_globals",
    "check_hardware", "check_import", "check_pattern", "check_schedule", "check_score", "check_strategy",
    "check_study_check", "check_task", "check_tracker", "engine_products", "global_state", "pattern_scope",
    "report_rows", "score_matrices", "sparsities",
]  # fmt: skip

_RECIPE_EPOCHS = (1, 2, 4, 13, 40)


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


# --- classes for pytest ---------------------------------------------------------------------------------------------


class ComponentChecks:
    """What every plugin is tested for; inherit the class of its kind, which begins with `Test` and sets `plugin`.

    A check that cannot run fails: a plugin of which nothing was tried is not trusted. Where that is meant, mark the
    class with `pytest.mark.skipif`.
    """

    base: ClassVar[type[Component]] = Component
    plugin: ClassVar[Component]
    watched: ClassVar[Sequence[str] | None] = None
    """Global state that the check of the contract must leave as it is, by the names of `global_state`; None: all."""

    def test_it_is_a_component(self) -> None:
        """Defaults for all fields, immutable, to JSON and back, a name and a docstring."""
        check_component(type(self._plugin()))

    def test_its_import_is_light_and_changes_nothing(self) -> None:
        """No framework is loaded, and no global state is touched."""
        check_import(type(self._plugin()))

    def test_it_keeps_the_contract_of_its_kind(self) -> None:
        """Every promise of its kind, and none of the process's global state is changed by the way."""
        check_globals(self._plugin().label(), self.check, self.watched)

    def check(self) -> None:
        """Hold `plugin` to the contract of its kind."""
        raise broken(type(self).__name__, "a class of the plugin's kind to be inherited, such as PatternChecks")

    def _plugin(self) -> Component:
        plugin = getattr(self, "plugin", None)
        if not isinstance(plugin, self.base):
            expected = f"`plugin` to be an instance of {self.base.__name__}, such as `plugin = Mine()`"
            raise broken(type(self).__name__, f"{expected}, got {plugin!r}")
        return plugin


class PatternChecks(ComponentChecks):
    """Tests of a pattern, on matrices of `shapes` and the tensors of `scope`; see `check_pattern`."""

    base = Pattern
    plugin: ClassVar[Pattern]
    shapes: ClassVar[Sequence[tuple[int, int]]] = SHAPES
    scope: ClassVar[Sequence[Tensor] | None] = None

    def check(self) -> None:
        """What defines a `mask` of its own says what no frame can."""
        follows_frame = type(self.plugin).mask is Pattern.mask
        check_pattern(self.plugin, self.shapes, follows_frame=follows_frame, scope=self.scope)


class StrategyChecks(ComponentChecks):
    """Tests of a strategy, on `recipes`; see `check_strategy`."""

    base = Strategy
    plugin: ClassVar[Strategy]
    recipes: ClassVar[Sequence[Recipe] | None] = None

    def check(self) -> None:
        """Its programs, on short and long recipes."""
        check_strategy(self.plugin, self.recipes)


class ScoreChecks(ComponentChecks):
    """Tests of a score, on weights of `shapes`; see `check_score`."""

    base = Score
    plugin: ClassVar[Score]
    shapes: ClassVar[Sequence[tuple[int, int]]] = SHAPES

    def check(self) -> None:
        """Its scores of random weights and of zeros."""
        check_score(self.plugin, self.shapes)


class ScheduleChecks(ComponentChecks):
    """Tests of a schedule; see `check_schedule`."""

    base = Schedule
    plugin: ClassVar[Schedule]

    def check(self) -> None:
        """Its sparsities along progress."""
        check_schedule(self.plugin)


class EngineChecks(ComponentChecks):
    """Tests of an engine, on `products` within `budgets`; see `check_engine`."""

    base = Engine
    plugin: ClassVar[Engine]
    products: ClassVar[Sequence[Product] | None] = None
    budgets: ClassVar[Sequence[int]] = BUDGETS

    def check(self) -> None:
        """Its shapes and its runs."""
        check_engine(self.plugin, self.products, self.budgets)


class HardwareChecks(ComponentChecks):
    """Tests of a hardware model; see `check_hardware`."""

    base = HardwareModel
    plugin: ClassVar[HardwareModel]

    def check(self) -> None:
        """Its costs of a small network."""
        check_hardware(self.plugin)


class TaskChecks(ComponentChecks):
    """Tests of a task, its data in `data_dir`; see `check_task`."""

    base = Task
    plugin: ClassVar[Task]
    data_dir: ClassVar[Path | None] = None
    watched = ("numpy.random", "random", "the working directory")  # the rest is its framework's, in a worker

    def check(self) -> None:
        """Its data, weights and batches, in its smoke form."""
        check_task(self.plugin, self.data_dir)


class BackendChecks(ComponentChecks):
    """Tests of a backend; see `check_backend`."""

    base = Backend
    plugin: ClassVar[Backend]
    watched = ("the working directory",)  # a framework may do to its worker what it likes, seeding included

    def check(self) -> None:
        """What it trains, against plain NumPy."""
        check_backend(self.plugin)


class ColumnChecks(ComponentChecks):
    """Tests of a report column, on `rows`; see `check_column`."""

    base = ReportColumn
    plugin: ClassVar[ReportColumn]
    rows: ClassVar[Sequence[ReportRow] | None] = None

    def check(self) -> None:
        """Its values of every row that it may meet."""
        check_column(self.plugin, self.rows)


class StudyCheckChecks(ComponentChecks):
    """Tests of a named check, on `rows`; see `check_study_check`."""

    base = StudyCheck
    plugin: ClassVar[StudyCheck]
    rows: ClassVar[Sequence[ReportRow] | None] = None

    def check(self) -> None:
        """What it finds in every study that it may meet."""
        check_study_check(self.plugin, self.rows)


class TrackerChecks(ComponentChecks):
    """Tests of a tracker; see `check_tracker`."""

    base = Tracker
    plugin: ClassVar[Tracker]

    def check(self) -> None:
        """Runs of every kind that it may be told of."""
        check_tracker(self.plugin)


CHECKS: tuple[type[ComponentChecks], ...] = (
    PatternChecks, StrategyChecks, ScoreChecks, ScheduleChecks, EngineChecks, HardwareChecks, TaskChecks, BackendChecks,
    ColumnChecks, StudyCheckChecks, TrackerChecks,
)  # fmt: skip
"""The class of every kind that has a contract to be held to."""
