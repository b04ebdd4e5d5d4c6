"""Sparsities in terms of hardware: the lowest that reaches a target, or the nearest and why none does."""

from dataclasses import replace

import pytest

from harness.discovery.finding import discover
from harness.planning.plan import loaded_problems, make_plan, outlook
from harness.planning.targets import STEP, Targets, _Choice
from harness.spec import Experiment, check, loads, recalled, scope_tensors
from harness.spec.experiment import Solved

TEXT = """
name: targets
task: {name: lstm_lm, corpus: synthetic, hidden: 16, label: small}
scope: [lstm]
matrix:
  backend: torch
  pattern: [unstructured, {name: bank_balanced, banks: 4}, {name: block, height: 4, width: 4}]
  strategy: {name: fine_tuning, epochs: 1}
  seed: [0, 1]
"""


@pytest.fixture(scope="module")
def registry():
    return discover()


def experiment(registry, *, targets, more="", hardware="{name: cycle_simulator, engine: bank, label: card}"):
    return loads(f"{TEXT}  target: [{targets}]\n{more}hardware: [{hardware}]\n", registry)


FORESEEN = {}


def foreseen(spec: Experiment):
    """What `validate` finds; the same spec once."""
    if spec.digest not in FORESEEN:
        problems, broken = loaded_problems(spec, None)
        check(spec, problems)
        FORESEEN[spec.digest] = outlook(spec, problems, broken)
    return FORESEEN[spec.digest]


def solved(spec: Experiment) -> dict[str, Solved]:
    """What every pattern came to, by its label."""
    found = {}
    for planned in foreseen(spec).cells:
        for each in planned.cell.solved:
            found[planned.cell.labels()["pattern"]] = (planned.cell.sparsity, each)
    return found


@pytest.mark.parametrize("target", ["{cycles: 24}", "{storage_kib: 4}"])
def test_the_lowest_sparsity_reaches_the_target_and_the_next_lower_one_does_not(registry, target):
    spec = experiment(registry, targets=target)
    problems, _ = loaded_problems(spec, None)
    asked = Targets(spec, problems)
    goal = next(cell.goal for cell in spec.cells if cell.goal)
    found = solved(spec)

    assert len(found) == 3
    for cell in spec.cells:
        if cell.pattern is None:
            continue
        sparsity, told = found[cell.labels()["pattern"]]
        if told.reason:
            continue
        scope = scope_tensors(problems[cell.task], spec.scope)
        choice = _Choice(goal, problems[cell.task], scope, cell.pattern, "uniform", asked._weights_of(cell.task, scope))
        assert choice._need(choice._masks(sparsity)).value == told.value <= goal.limit
        # A step lower something else is kept, or it is the same masks under a lower name.
        lower = choice._need(choice._masks(sparsity - 2 * STEP))
        assert lower.value > goal.limit or choice._reached(sparsity - 2 * STEP) == choice._reached(sparsity)


def test_what_no_sparsity_reaches_is_one_skipped_cell_with_the_nearest_values(registry):
    cells = foreseen(experiment(registry, targets="{cycles: 1}, {latency_us: 0.001}")).cells
    skipped = [planned for planned in cells if planned.skip]

    assert len(skipped) == 3 * 2
    assert all(planned.cell.sparsity == 0 for planned in skipped)
    assert skipped[0].skip.startswith("cycles 1 on card cannot be reached by unstructured: the nearest is ")
    assert "; latency_us 0.001 on card cannot be reached by unstructured: the nearest is " in skipped[0].skip
    assert len({planned.cell.id for planned in cells}) == len(cells)


def test_a_target_that_the_dense_model_meets_is_skipped(registry):
    reasons = {planned.skip for planned in foreseen(experiment(registry, targets="{cycles: 1e6}")).cells}

    (reason,) = reasons - {None}
    assert reason.startswith("cycles 1e+06 on card: the dense model needs ")
    assert reason.endswith(" already; leave the target out, or lower it")


def test_shares_by_trained_weights_are_not_solved(registry):
    spec = experiment(registry, targets="{storage_kib: 3}", more="  allocation: global\n")
    skips = {planned.skip for planned in foreseen(spec).cells if planned.skip}

    assert any("allocation global shares a sparsity out by trained weights" in skip for skip in skips)


def test_equal_sparsities_are_one_cell_that_says_all_of_it(registry):
    spec = experiment(registry, targets="{storage_kib: 4}")
    sparsity, _ = solved(spec)["unstructured"]
    both = experiment(registry, targets="{storage_kib: 4}", more=f"  sparsity: {sparsity}\n")
    cells = [p.cell for p in foreseen(both).cells if p.cell.labels()["pattern"] == "unstructured"]

    assert [cell.sparsity for cell in cells] == [sparsity] * 2  # two seeds
    assert all(cell.is_asked and len(cell.solved) == 1 for cell in cells)
    assert all(cell.goal is None for cell in cells)


def test_seeds_have_one_sparsity_and_solving_again_gives_it_again(registry):
    spec = experiment(registry, targets="{storage_kib: 4}")
    one = foreseen(spec)
    FORESEEN.clear()
    two = foreseen(spec)

    assert [planned.cell.id for planned in one.cells] == [planned.cell.id for planned in two.cells]
    by_pattern = {}
    for planned in one.cells:
        by_pattern.setdefault(planned.cell.labels()["pattern"], set()).add(planned.cell.sparsity)
    assert all(len(found) == 1 for found in by_pattern.values())


def test_keys_of_an_experiment_without_targets_are_those_of_its_sparsities(registry, tmp_path):
    """A solved cell is the very cell that asks for its sparsity: same id, same stages."""
    spec = experiment(registry, targets="{storage_kib: 4}")
    plan = make_plan(spec, store=tmp_path)
    sparsities = sorted({planned.cell.sparsity for planned in plan.cells if planned.chain and planned.cell.solved})
    asked = loads(f"{TEXT}  sparsity: {sparsities}\n", registry)
    known = {planned.cell.id: planned for planned in make_plan(asked, store=tmp_path).cells}

    for planned in plan.cells:
        if planned.chain:
            assert [stage.key for stage in planned.chain] == [stage.key for stage in known[planned.cell.id].chain]


def test_the_bill_tells_what_targets_came_to(registry, tmp_path):
    lines = make_plan(experiment(registry, targets="{storage_kib: 4}"), store=tmp_path).summary()["targets"]

    assert len(lines) == 3
    assert lines[0].startswith("storage_kib 4 on 16-bit weights: unstructured at ")
    assert lines[0].endswith(" on masks of random weights")


def test_filters_and_baselines_know_targets(registry):
    spec = experiment(registry, targets="{storage_kib: 4}", more="  sparsity: 0.5\n")

    assert len(spec.select("pattern=block").cells) == 2 + 2 + 2  # dense, asked and solved, two seeds each
    assert len(spec.select("sparsity=0.5").cells) == 2 + 3 * 2
    assert {cell.goal for cell in spec.cells if cell.is_dense} == {None}
    assert len(spec.smoke().cells) == 1 + 3 * 2


def test_records_tell_the_sparsities_that_were_solved(registry, tmp_path):
    from harness.execution.collect import outlines

    spec = experiment(registry, targets="{storage_kib: 4}, {cycles: 1}", more="  sparsity: 0.5\n")
    plan = make_plan(spec, store=tmp_path)
    again = recalled(spec, outlines(plan))

    ids = {planned.cell.id for planned in plan.cells}
    assert {cell.id for cell in again.cells} >= {planned.cell.id for planned in plan.cells if planned.chain}
    assert ids >= {cell.id for cell in again.cells if cell.goal is None}
    assert replace(again, cells=()) == replace(spec, cells=())


def test_a_grid_of_targets_is_whole(registry, tmp_path):
    from harness.execution.collect import outlines
    from harness.verification.grid import check_grid
    from harness.verification.outcome import Outcome

    spec = experiment(registry, targets="{storage_kib: 4}, {cycles: 1}", more="  sparsity: 0.5\n")
    records = outlines(make_plan(spec, store=tmp_path))
    whole, part = Outcome(), Outcome()

    check_grid(records, spec.document, whole)
    check_grid([r for r in records if r.pattern != "unstructured" or not r.facts.get("targets")], spec.document, part)

    assert not whole.problems
    assert part.problems
