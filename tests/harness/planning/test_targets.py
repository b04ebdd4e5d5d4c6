"""Sparsities in terms of hardware: the lowest that reaches a target, or the nearest and why none does."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.api import EmptySelectionError, SpecError
from harness.discovery.finding import discover
from harness.inspection.lookup import planned_titles, title
from harness.planning import targets
from harness.planning.foreseen import Foreseen, random_weights
from harness.planning.plan import loaded_problems, make_plan, outlook
from harness.planning.targets import STEP, Choice
from harness.spec import Experiment, check, loads, recalled, scope_tensors
from harness.spec.goal import Goal, Solved

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


# Few multipliers: a budget of thousands takes long to be searched, and tells no more here.
CARD = "{name: cycle_simulator, engine: bank, multipliers: 64, label: card}"


def experiment(registry, *, targets, more="", hardware=CARD):
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


@pytest.mark.parametrize("target", ["{cycles: 60}", "{storage_kib: 4}"])
def test_the_lowest_sparsity_reaches_the_target_and_the_next_lower_one_does_not(registry, target):
    spec = experiment(registry, targets=target)
    problems, _ = loaded_problems(spec, None)
    goal = next(cell.goal for cell in spec.cells if cell.goal)
    found = solved(spec)

    assert len(found) == 3 and not any(told.reason for _, told in found.values())
    for cell in spec.cells:
        if cell.pattern is None:
            continue
        sparsity, told = found[cell.labels()["pattern"]]
        scope = scope_tensors(problems[cell.task], spec.scope)
        choice = Choice(goal, Foreseen(problems[cell.task], scope, cell.pattern, "uniform", random_weights(scope)))
        need = choice.need(sparsity)
        assert need.value == told.value
        assert goal.is_met(need.value)
        # A step lower something else is kept, or it is the same masks under a lower name.
        lower, look = choice.need(sparsity - 2 * STEP), choice.foreseen
        assert not goal.is_met(lower.value) or look.reached(sparsity - 2 * STEP) == look.reached(sparsity)


RUNGS = [round(STEP * place, 4) for place in range(1, round(1 / STEP))]


class Card:
    """An engine that takes so many cycles of a dense model, and of a sparse one as many less."""

    def __init__(self, cycles, engine="bank", since=0.0, **cost):
        self.cycles, self.engine, self.since = cycles, engine, since
        self.rest = {"fits": True, "energy_uj": None, **cost}

    def label(self):
        return self.engine

    def cost(self, sparsity):
        if self.cycles is None or (sparsity or 0.0) < self.since:
            return "it cannot run this"
        cycles = round(self.cycles * (1 - (sparsity or 0.0)), 6)
        return SimpleNamespace(engine=self.engine, cycles=cycles, steps_per_s=1e6 / cycles, **self.rest)


def choice(*cards, what="cycles", limit=0.0):
    look = SimpleNamespace(
        pattern=SimpleNamespace(label=lambda: "banks"), allocation="uniform", scope=(),
        reached=lambda sparsity: sparsity, cost=lambda sparsity, card: card.cost(sparsity),
    )  # fmt: skip
    return Choice(Goal(what, limit, "card", cards), look)


@given(limit=st.integers(1, 1100), reachable=st.sets(st.sampled_from(RUNGS)), fits=st.booleans())
def test_of_what_a_pattern_reaches_the_lowest_sparsity_that_is_enough_is_found_or_the_nearest_told(
    limit, reachable, fits
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "why_skipped", lambda *given: None if given[3] in reachable else "no")
        found = choice(Card(1000.0, fits=fits), limit=limit).solved(0.02)

    enough = [sparsity for sparsity in sorted(reachable) if round(1000 * (1 - sparsity), 6) <= limit]
    if limit >= 1000:
        assert "the dense model needs 1,000 already" in found.reason and found.value is None
    elif not reachable:
        assert found.reason == f"cycles {limit} on card: banks has no sparsity within the tolerance"
    elif enough:
        assert found == Solved(
            f"cycles {limit} on card", enough[0], round(1000 * (1 - enough[0]), 6), 1000.0, "bank", fits
        )
    else:
        assert (found.sparsity, found.dense) == (max(reachable), 1000.0)
        assert found.value == round(1000 * (1 - max(reachable)), 6)
        assert (
            f"cannot be reached by banks: the nearest is {found.value:,g} at sparsity {max(reachable):g}"
            in found.reason
        )


def test_sparsities_that_nothing_runs_are_not_enough_however_few_cycles_they_would_take(monkeypatch):
    monkeypatch.setattr(targets, "why_skipped", lambda *given: None)

    found = choice(Card(1000.0, since=0.6), limit=900.0).solved(0.02)
    never = choice(Card(1000.0, since=2.0), limit=900.0).solved(0.02)

    assert found == Solved("cycles 900 on card", 0.6, 400.0, None, "bank", True)
    assert (never.sparsity, never.value, never.reason) == (0.995, None, "cycles 900 on card: it cannot run this")


def test_of_several_engines_one_that_fits_and_needs_least_decides():
    cards = [Card(100.0, "huge", fits=False), Card(300.0, "slow"), Card(None, "none"), Card(200.0, "quick")]

    need = choice(*cards).need(0.5)
    fastest = choice(*cards, what="steps_per_s", limit=1.0).need(0.5)
    misfit = choice(*cards[:1], cards[2]).need(0.5)

    assert (need.value, need.engine, need.fits) == (100.0, "quick", True)
    assert (fastest.value, fastest.engine) == (1e4, "quick")
    assert (misfit.value, misfit.engine, misfit.fits) == (50.0, "huge", False)


def test_why_no_engine_says_what_is_asked_is_told_in_the_words_of_the_first():
    refused, silent = choice(Card(None), Card(9.0)), choice(Card(9.0, "quick"), Card(None), what="energy_uj")

    assert refused.need(0.5).value == 4.5 and refused.refused == "it cannot run this"
    assert silent.need(0.5) is None and silent.refused == "quick tells no energy_uj"


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
    assert reason.startswith("cycles 1000000 on card: the dense model needs ")
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


def goals_of(spec: Experiment) -> set[tuple[str, str]]:
    """Pattern and target of every cell that has one."""
    return {(cell.labels()["pattern"].partition("(")[0], cell.goal.label()) for cell in spec.cells if cell.goal}


TWO_CARDS = f"{CARD}, {{name: cycle_simulator, engine: csr_stream, label: other}}"


@pytest.mark.parametrize(
    "entry",
    ["{target: cycles 24 on card}", "{target: {cycles: 24, on: card}}", "{target: [{cycles: 24.0, on: card}, fits]}"],
)
def test_an_excluded_target_is_left_out_on_its_hardware_alone(registry, entry):
    targets, there = "{cycles: 24}, {storage_kib: 4}, {fits: true, on: card}", {"cycles 24 on other"}
    whole = goals_of(experiment(registry, targets=targets, hardware=TWO_CARDS))
    left = goals_of(experiment(registry, targets=targets, more=f"exclude: [{entry}]\n", hardware=TWO_CARDS))

    gone = {goal for _, goal in whole - left}
    assert gone == {"cycles 24 on card"} | ({"fits on card"} if "fits" in entry else set())
    assert there <= {goal for _, goal in left}


def test_the_beginning_of_a_label_means_every_target_that_begins_so(registry):
    more = "  sparsity: [0.5, 0.8]\nexclude: [{pattern: block, target: cycles, sparsity: 0.5}]\n"
    spec = experiment(registry, targets="{cycles: 24}, {cycles: 30}, {storage_kib: 4}", more=more, hardware=TWO_CARDS)

    assert {goal for pattern, goal in goals_of(spec) if pattern == "block"} == {"storage_kib 4 on 16-bit weights"}
    block = [cell for cell in spec.cells if cell.labels()["pattern"] == "block" and cell.goal is None]
    assert {cell.sparsity for cell in block} == {0.8}


def test_single_cells_may_have_targets(registry):
    entry = "{pattern: block, seed: 0, target: {cycles: 30}}"
    spec = experiment(registry, targets="{storage_kib: 4}", more=f"include: [{entry}]\n", hardware=TWO_CARDS)
    added = {goal for pattern, goal in goals_of(spec) if pattern == "block"} - {"storage_kib 4 on 16-bit weights"}

    assert added == {"cycles 30 on card", "cycles 30 on other"}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("exclude: [{target: cycle}]", "exclude[0].target: expected a target of the matrix, got 'cycle'"),
        ("exclude: [{target: {cycles: 25}}]", "got {cycles: 25}; there is cycles 24 on card"),
        ("include: [{pattern: block, seed: 0, sparsity: 0.5, target: {cycles: 9}}]", "got both; remove one"),
        ("include: [{pattern: block, seed: 0, target: {cycles: 24}}]", "expected a new cell, got one that"),
        ("include: [{pattern: block, seed: 0, target: {cycles: 9, on: car}}]", "got 'car'; did you mean 'card'?"),
    ],
)
def test_a_wrong_target_of_a_filter_is_told_with_its_place(registry, more, told):
    with pytest.raises(SpecError, match=re.escape(told)):
        experiment(registry, targets="{cycles: 24}", more=f"{more}\n")


def test_only_names_targets(registry):
    spec = experiment(registry, targets="{cycles: 24}, {cycles: 30}, {storage_kib: 4}", more="  sparsity: 0.5\n")

    assert {goal for _, goal in goals_of(spec.select("target=cycles"))} == {"cycles 24 on card", "cycles 30 on card"}
    assert {goal for _, goal in goals_of(spec.select("target=cycles 24"))} == {"cycles 24 on card"}
    assert {goal for _, goal in goals_of(spec.select("target!=cycles"))} == {"storage_kib 4 on 16-bit weights"}
    assert not [c for c in spec.select("target=cycles").cells if c.goal is None and not c.is_dense]
    with pytest.raises(EmptySelectionError, match="did you mean 'cycles'"):
        spec.select("target=cycle")


def test_every_quantity_of_a_cost_may_be_a_target(registry):
    limits = {"steps_per_s": 4e6, "event_energy_uj": 0.015, "latency_us": 0.25}
    targets = ", ".join(f"{{{what}: {limit}}}" for what, limit in limits.items())
    spec = experiment(registry, targets=targets).select("pattern=unstructured,seed=0")
    told = {each.goal.split()[0]: each for planned in foreseen(spec).cells for each in planned.cell.solved}

    assert {what: (each.reason, each.engine) for what, each in told.items()} == dict.fromkeys(limits, ("", "bank"))
    for what, limit in limits.items():
        assert told[what].value >= limit if what == "steps_per_s" else told[what].value <= limit
        assert 0 < told[what].sparsity < 1


def test_a_design_that_fits_is_a_target(registry):
    """The lowest sparsity at which the device holds the model; on a device that holds the dense one there is none."""
    hardware = "{name: cycle_simulator, engine: dense_mvm, label: card}"
    (reason,) = {p.skip for p in foreseen(experiment(registry, targets="{fits: true}", hardware=hardware)).cells} - {
        None
    }

    assert reason == "fits on card: the dense model fits already; leave the target out"


def test_what_was_solved_is_kept_with_the_store(registry, tmp_path, monkeypatch):
    spec = experiment(registry, targets="{storage_kib: 4}, {cycles: 1}")
    (tmp_path / "stages").mkdir()
    first = make_plan(spec, store=tmp_path)
    monkeypatch.setattr(Choice, "solved", lambda *_: pytest.fail("solved again"))
    again = make_plan(spec, store=tmp_path)

    assert [(p.cell.id, p.cell.solved, p.skip) for p in again.cells] == [
        (p.cell.id, p.cell.solved, p.skip) for p in first.cells
    ]


def test_what_is_kept_is_solved_anew_where_it_was_damaged_or_another_tolerance_holds(registry, tmp_path):
    spec = experiment(registry, targets="{storage_kib: 4}")
    first = [planned.cell for planned in make_plan(spec, store=tmp_path).cells]
    files = sorted(tmp_path.glob("targets/*/*.json"))
    files[0].write_text("{")
    files[1].write_text(files[1].read_text().replace('"sparsity": ', '"sparsity": 0'))

    assert len(files) == 3
    assert [planned.cell for planned in make_plan(spec, store=tmp_path).cells] == first
    make_plan(replace(spec, tolerance=0.03), store=tmp_path)
    assert len(list(tmp_path.glob("targets/*/*.json"))) == 6


def test_records_tell_the_sparsities_that_were_solved(registry, tmp_path):
    from harness.execution.collect import outlines

    # Two that no pattern reaches, and one that the dense model meets: one skipped cell a setting, not three.
    targets = "{storage_kib: 4}, {cycles: 1}, {cycles: 2}, {cycles: 1e6}"
    spec = experiment(registry, targets=targets, more="  sparsity: 0.5\n")
    plan = make_plan(spec, store=tmp_path)
    again = recalled(spec, outlines(plan))

    assert {cell.id for cell in again.cells} == {planned.cell.id for planned in plan.cells}
    assert replace(again, cells=()) == replace(spec, cells=())
    # And both are called alike: by the sparsity, or by the targets that have none.
    planned = planned_titles(planned.cell for planned in plan.cells)
    assert planned == {record.cell: title(record) for record in outlines(plan)}
    assert any(" · no sparsity for cycles 1 on card, cycles 2 on card, " in each for each in planned.values())
    assert any(" · cycles 1 on card · " in each for each in planned_titles(spec.cells).values())


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


def test_a_grid_without_an_excluded_target_is_whole(registry, tmp_path):
    from harness.execution.collect import outlines
    from harness.verification.grid import check_grid
    from harness.verification.outcome import Outcome

    out = "{pattern: block, target: {cycles: 1}}, {pattern: unstructured, target: storage_kib}"
    more = f"  sparsity: 0.5\nexclude: [{out}]\n"
    spec = experiment(registry, targets="{storage_kib: 4}, {cycles: 1}", more=more)
    records = outlines(make_plan(spec, store=tmp_path))
    whole, other = Outcome(), Outcome()

    check_grid(records, spec.document, whole)
    check_grid(records, {**spec.document, "exclude": [{"pattern": "block", "target": {"cycles": 2}}]}, other)

    assert not whole.problems
    assert len(other.problems) == 2


def test_what_is_to_be_solved_is_counted_once_for_all_seeds_and_strategies(registry):
    spec = experiment(registry, targets="{cycles: 24}, {storage_kib: 4}", more="  sparsity: 0.5\n")

    assert spec.targets_to_solve() == 3 * 2
    assert spec.select("sparsity=0.5").targets_to_solve() == 0
