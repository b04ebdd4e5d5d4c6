"""Every registered plugin against the contract of its kind: a new file is under test the moment it exists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import Conditions, Engine, Part, Pattern, Product, Schedule, Score, Strategy
from harness.discovery.finding import discover
from harness.testing import (
    check_component,
    check_engine,
    check_pattern,
    check_schedule,
    check_score,
    check_strategy,
    engine_products,
)

ROWS = discover().rows


def named(rows):
    return [pytest.param(row.component, id=f"{row.kind}-{row.name}") for row in rows]


def of(kind):
    return named(row for row in ROWS if row.kind == kind and row.component is not None)


def test_no_plugin_is_broken():
    assert [f"{row.module}: {row.error}" for row in ROWS if row.state == "broken"] == []


def test_the_built_in_patterns_and_strategies_are_found():
    found = {(row.kind, row.name) for row in ROWS}

    assert {("engine", "bank"), ("engine", "dense_mvm")} <= found
    assert {("pattern", name) for name in ("unstructured", "bank_balanced", "row_balanced", "n_m", "block")} <= found
    assert {
        ("strategy", name) for name in ("one_shot", "fine_tuning", "gradual", "lr_rewinding", "weight_rewinding")
    } <= found


@pytest.mark.parametrize("component", named(row for row in ROWS if row.component is not None))
def test_every_component_keeps_the_contract_of_components(component):
    check_component(component)


@pytest.mark.parametrize("pattern", of("pattern"))
def test_every_pattern_keeps_the_contract_of_patterns(pattern: type[Pattern]):
    # What defines a `mask` of its own says what no frame can.
    check_pattern(pattern(), follows_frame=pattern.mask is Pattern.mask)


@pytest.mark.parametrize("strategy", of("strategy"))
def test_every_strategy_keeps_the_contract_of_strategies(strategy: type[Strategy]):
    check_strategy(strategy())


@pytest.mark.parametrize("score", of("score"))
def test_every_score_keeps_the_contract_of_scores(score: type[Score]):
    check_score(score())


@pytest.mark.parametrize("schedule", of("schedule"))
def test_every_schedule_keeps_the_contract_of_schedules(schedule: type[Schedule]):
    check_schedule(schedule())


@pytest.mark.parametrize("engine", of("engine"))
def test_every_engine_keeps_the_contract_of_engines(engine: type[Engine]):
    check_engine(engine())


@st.composite
def some_products(draw):
    """A product of one or two masks: unstructured, with equal counts in every group, in blocks, or dense."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    units, parts = draw(st.sampled_from([None, 1, 2, 5])), []
    rows = draw(st.integers(1, 24)) if units is None else 4 * units
    for index in range(draw(st.integers(1, 2))):
        group, groups = draw(st.sampled_from([1, 2, 4, 16])), draw(st.integers(1, 9))
        kept = draw(st.integers(0, group))
        scores = rng.random((rows, groups, group))
        masks = {
            "balanced": scores.argsort(axis=2).argsort(axis=2) < kept,
            "unstructured": scores < draw(st.sampled_from([0.02, 0.1, 0.5])),
            "blocks": np.repeat(scores[:, :, :1] < 0.5, group, axis=2),
            "dense": scores >= 0,
        }
        mask = masks[draw(st.sampled_from(sorted(masks)))].reshape(rows, groups * group)
        parts.append(Part(f"part_{index}", *mask.shape, mask, int(np.count_nonzero(mask))))
    return Product("layer", tuple(parts), units)


@pytest.mark.parametrize("engine", of("engine"))
@given(product=some_products(), budget=st.integers(1, 300))
@settings(deadline=None, max_examples=30)
def test_every_engine_keeps_its_contract_on_any_mask(engine: type[Engine], product, budget):
    check_engine(engine(), [product], [budget])


@pytest.mark.parametrize("engine", of("engine"))
def test_what_an_engine_refuses_is_told_in_the_end_of_a_sentence(engine: type[Engine]):
    for sentence in filter(None, (engine().refusal(product) for product in engine_products())):
        assert sentence == sentence.strip() and not sentence.endswith(".")


@pytest.mark.parametrize("engine", of("engine"))
@given(product=some_products(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=15)
def test_the_utilisation_of_no_engine_exceeds_one(engine: type[Engine], product, seed):
    if engine().refusal(product) is not None:
        return
    shapes = engine().shapes([product], 64)
    shape = shapes[seed % len(shapes)]
    for run in (engine().simulate(product, shape, Conditions()), engine().expect(product, shape, Conditions())):
        useful = product.nnz * engine().streams

        assert 0 <= useful / (shape.multipliers * run.cycles or 1) <= 1
        if run.busy is not None:
            assert run.busy.sum() <= run.cycles * len(run.busy)


@pytest.mark.parametrize("density", [0.05, 0.3])
@pytest.mark.parametrize("engine", of("engine"))
def test_every_engine_expects_of_random_masks_about_what_it_simulates(engine: type[Engine], density):
    rng = np.random.default_rng(7)
    masks = [rng.random((200, 120)) < density for _ in range(4)]
    products = [Product("layer", (Part("w", *mask.shape, mask, int(mask.sum())),)) for mask in masks]
    if engine().refusal(products[0]) is not None:
        return
    for shape in (*engine().shapes(products, 64)[:3], engine().fixed_shape(products, 64)):
        simulated = sum(engine().simulate(product, shape, Conditions()).cycles for product in products)
        expected = sum(engine().expect(product, shape, Conditions()).cycles for product in products)

        assert float(expected) == pytest.approx(float(simulated), rel=0.06)


@pytest.mark.parametrize("score", of("score"))
@pytest.mark.parametrize("strategy", [param for param in of("strategy") if "score" in param.values[0].model_fields])
def test_every_strategy_with_a_score_takes_every_score(strategy, score):
    check_strategy(strategy(score=score()))


@pytest.mark.parametrize("schedule", of("schedule"))
@pytest.mark.parametrize("strategy", [param for param in of("strategy") if "schedule" in param.values[0].model_fields])
def test_every_strategy_with_a_schedule_takes_every_schedule(strategy, schedule):
    check_strategy(strategy(schedule=schedule()))


@pytest.mark.parametrize("rounds", [{"rounds": 4}, {"rate": 0.2}, {"epochs": 1, "rate": 0.5}], ids=str)
@pytest.mark.parametrize("strategy", [param for param in of("strategy") if "rounds" in param.values[0].model_fields])
def test_every_retraining_strategy_works_in_rounds(strategy, rounds):
    check_strategy(strategy(**rounds))
