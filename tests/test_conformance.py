"""Every registered plugin against the contract of its kind: a new file is under test the moment it exists."""

import pytest

from harness.api import Pattern, Strategy
from harness.registry import discover
from harness.testing import check_component, check_pattern, check_strategy

ROWS = discover().rows


def named(rows):
    return [pytest.param(row.component, id=f"{row.kind}-{row.name}") for row in rows]


def of(kind):
    return named(row for row in ROWS if row.kind == kind and row.component is not None)


def test_no_plugin_is_broken():
    assert [f"{row.module}: {row.error}" for row in ROWS if row.state == "broken"] == []


def test_the_built_in_patterns_and_strategies_are_found():
    found = {(row.kind, row.name) for row in ROWS}

    assert {("pattern", name) for name in ("unstructured", "bank_balanced", "row_balanced", "n_m", "block")} <= found
    assert {
        ("strategy", name) for name in ("one_shot", "fine_tuning", "gradual", "lr_rewinding", "weight_rewinding")
    } <= found


@pytest.mark.parametrize("component", named(row for row in ROWS if row.component is not None))
def test_every_component_keeps_the_contract_of_components(component):
    check_component(component)


@pytest.mark.parametrize("pattern", of("pattern"))
def test_every_pattern_keeps_the_contract_of_patterns(pattern: type[Pattern]):
    check_pattern(pattern())


@pytest.mark.parametrize("strategy", of("strategy"))
def test_every_strategy_keeps_the_contract_of_strategies(strategy: type[Strategy]):
    check_strategy(strategy())


@pytest.mark.parametrize("score", ["magnitude", "random", "gradient"])
@pytest.mark.parametrize("strategy", of("strategy"))
def test_every_built_in_strategy_takes_every_score(strategy, score):
    check_strategy(strategy(score=score))


@pytest.mark.parametrize("rounds", [{"rounds": 4}, {"rate": 0.2}, {"epochs": 1, "rate": 0.5}], ids=str)
@pytest.mark.parametrize("strategy", [param for param in of("strategy") if "rounds" in param.values[0].model_fields])
def test_every_retraining_strategy_works_in_rounds(strategy, rounds):
    check_strategy(strategy(**rounds))
