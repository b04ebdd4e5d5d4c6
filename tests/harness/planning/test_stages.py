"""Lowered programs and their keys."""

from dataclasses import replace

import pytest
from harness_plugins.patterns.row_balanced import RowBalanced
from harness_plugins.patterns.unstructured import Unstructured
from hypothesis import given
from hypothesis import strategies as st
from numpy_plugins import NumpyBackend, ToyTask
from toy import FineTuning, Rewinding

from harness.api import (
    SGD,
    Constant,
    Cubic,
    Magnitude,
    NumberFormat,
    Prune,
    Recipe,
    Rewind,
    Settings,
    SpecError,
    StepDecay,
    Train,
)  # fmt: skip
from harness.planning import code_digest
from harness.planning.stages import Masking, Stage, chain, digest, lower, root, scoring_stage

RECIPE = Recipe(
    epochs=6, optimiser=SGD(), learning_rate=StepDecay(initial=1.0, decay=0.5, full_epochs=3), steps_per_epoch=10
)
START = Stage(key="root", parent=None, kind="init", inputs={})


def masking(pattern=None, target=0.5, allocation="uniform"):
    return Masking(pattern or Unstructured(), allocation, ("softmax",), target)


def keys(program, mask=None):
    return [stage.key for stage in chain(START, lower(program, RECIPE), mask)]


def dense(epochs=6):
    return Train(epochs=epochs, lr=RECIPE.learning_rate)


def test_an_epoch_is_its_learning_rate():
    steps = lower((dense(),), RECIPE)

    assert [step.epoch.rates for step in steps] == [1.0, 1.0, 1.0, 0.5, 0.25, 0.125]


def test_dense_training_is_shared_by_every_strategy_pattern_and_sparsity():
    plain = keys((dense(),))
    fine = keys(FineTuning().program(RECIPE, 0.5), masking())
    rewound = keys(Rewinding().program(RECIPE, 0.9), masking(RowBalanced(), 0.9))

    assert fine[:7] == plain
    assert rewound[:7] == plain


def test_a_longer_retraining_begins_with_the_shorter_one():
    short = keys(FineTuning(epochs=2).program(RECIPE, 0.5), masking())
    long = keys(FineTuning(epochs=5).program(RECIPE, 0.5), masking())

    assert long[: len(short)] == short


@pytest.mark.parametrize("other", [masking(RowBalanced()), masking(allocation="global")])
def test_pattern_and_allocation_enter_with_the_first_mask_update(other):
    program = FineTuning().program(RECIPE, 0.5)
    one, two = keys(program, masking()), keys(program, other)

    assert one[:7] == two[:7]
    assert not set(one[7:]) & set(two[7:])


def test_the_target_enters_only_where_tensors_have_sparsities_of_their_own():
    program = FineTuning().program(RECIPE, 0.5)
    own = {"output.kernel": 0.5}

    assert keys(program, masking(target=0.5)) == keys(program, masking(target=0.6))
    assert keys(program, masking(target=0.5, allocation=own)) != keys(program, masking(target=0.6, allocation=own))


def test_gradual_pruning_shares_the_epochs_before_its_begin():
    program = (Train(epochs=6, lr=RECIPE.learning_rate, sparsity=Cubic(final=0.8, begin=2, end=4, every=5)),)

    assert keys(program, masking())[:3] == keys((dense(),))[:3]
    assert keys(program, masking())[3] != keys((dense(),))[3]


def test_updates_are_counted_from_the_epoch_they_lie_in_and_the_end_is_listed():
    program = (Train(epochs=6, lr=RECIPE.learning_rate, sparsity=Cubic(final=0.8, begin=2, end=4, every=7)),)
    found = {
        index: [(update.step, update.sparsity) for update in step.epoch.updates]
        for index, step in enumerate(lower(program, RECIPE))
    }

    assert [step for step, _ in found[2]] == [0, 7]
    assert [step for step, _ in found[3]] == [4]
    assert found[4] == [(0, 0.8)]
    assert found[0] == found[1] == found[5] == []


class Timed(Magnitude):
    """A score that looks at how far training is."""

    needs = ("progress",)


def test_progress_is_known_to_scores_that_ask_for_it_and_in_the_keys_of_no_others():
    def lowered(score):
        schedule = Cubic(final=0.8, begin=2, end=4, every=5)
        return lower((Train(epochs=6, lr=RECIPE.learning_rate, sparsity=schedule, score=score),), RECIPE)

    def progress(score):
        return [update.progress for step in lowered(score) for update in step.epoch.updates]

    timed, plain = (chain(START, lowered(score), masking()) for score in (Timed(), Magnitude()))
    # Updates at the steps 20, 25, ..., 40 of 60.
    assert progress(Timed()) == pytest.approx([step / 60 for step in range(20, 41, 5)])
    assert set(progress(Magnitude())) == {1.0}
    [[step, sparsity, _, part], *_] = timed[3].inputs["updates"]
    assert (step, sparsity, part) == (0, plain[3].inputs["updates"][0][1], 20 / 60)
    assert all(len(update) == 3 for stage in plain for update in stage.inputs.get("updates", ()))


def test_an_update_at_the_very_end_belongs_to_the_last_epoch():
    program = (Train(epochs=4, lr=RECIPE.learning_rate, sparsity=Cubic(final=0.8, begin=0, end=4, every=40)),)
    last = lower(program, RECIPE)[-1].epoch.updates[-1]

    assert (last.step, last.sparsity) == (10, 0.8)


def test_a_schedule_beyond_its_phase_is_refused():
    program = (Train(epochs=3, lr=RECIPE.learning_rate, sparsity=Cubic(final=0.8, begin=0, end=4, every=40)),)

    with pytest.raises(SpecError, match="outside its phase of 3 epochs"):
        lower(program, RECIPE)


def test_a_rewind_goes_back_to_the_epoch_it_names_and_trains_on_from_there():
    stages = chain(START, lower(Rewinding().program(RECIPE, 0.5), RECIPE), masking())
    rewind = next(stage for stage in stages if stage.kind == "rewind")

    assert rewind.source == stages[5].key
    assert stages[-1].epoch_index == 5
    assert [stage.epoch_index for stage in stages if stage.kind == "train"] == [0, 1, 2, 3, 4, 5, 5]


def test_a_rewind_to_what_was_not_trained_is_refused():
    with pytest.raises(SpecError, match="below the 2 trained"):
        lower((dense(2), Prune(sparsity=0.5), Rewind(to=2)), RECIPE)


def test_iterative_rewinding_finds_the_dense_epoch_in_every_round():
    rounds = [(Prune(sparsity=s), Rewind(to=4), Train(epochs=2, lr=Constant(rate=0.1))) for s in (0.5, 0.75)]
    stages = chain(START, lower((dense(), *rounds[0], *rounds[1]), RECIPE), masking())

    assert [stage.source for stage in stages if stage.kind == "rewind"] == [stages[4].key] * 2


def test_a_test_score_is_a_stage_of_its_own():
    end = chain(START, lower((dense(),), RECIPE), None)[-1]

    assert scoring_stage(end).parent == end.key
    assert scoring_stage(end).key != end.key
    assert scoring_stage(end).epoch_index == 6


def test_a_score_that_many_chains_share_is_one_object_and_one_in_other_numbers_is_another():
    end = chain(START, lower((dense(),), RECIPE), None)[-1]
    known = {}

    first, fixed = scoring_stage(end, known), scoring_stage(end, known, NumberFormat())

    assert scoring_stage(end, known) is first and scoring_stage(end, known, NumberFormat()) is fixed
    assert known == {first.key: first, fixed.key: fixed}
    assert first == scoring_stage(end) and fixed.key != first.key and fixed.parent == first.parent == end.key
    assert set(fixed.inputs["code"]) == {"harness fixed_point"}
    assert scoring_stage(end, known, NumberFormat(weight_bits=8)).key not in (first.key, fixed.key)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans(), max_size=6))
def test_a_digest_does_not_depend_on_the_order_of_keys(values):
    backwards = dict(reversed(list(values.items())))

    assert digest(values) == digest(backwards)


@pytest.fixture
def edited(monkeypatch):
    """Let the code of some component, `stages` or `masks` have another digest, or another version."""
    real = {name: getattr(code_digest, name) for name in ("component", "stages", "masks")}

    def edit(place, **values):
        def found(digest):
            return replace(digest, **values) if digest.place == place else digest

        monkeypatch.setattr(code_digest, "component", lambda cls: found(real["component"](cls)))
        monkeypatch.setattr(code_digest, "stages", lambda: found(real["stages"]()))
        monkeypatch.setattr(code_digest, "masks", lambda: found(real["masks"]()))

    return edit


def whole_chain():
    task = ToyTask()
    start = root(task, task.load(None), NumpyBackend(), Settings(), {"numpy": "2.4.6"})
    return chain(start, lower(FineTuning().program(RECIPE, 0.5), RECIPE), masking())


@pytest.mark.parametrize("place", ["task toy", "backend numpy", "harness stages"])
def test_code_that_every_stage_rests_on_enters_at_the_root(edited, place):
    before = whole_chain()
    edited(place, digest="another")
    after = whole_chain()

    assert not {stage.key for stage in before} & {stage.key for stage in after}
    assert after[0].inputs["code"][place]["digest"] == "another"


@pytest.mark.parametrize("place", ["pattern unstructured", "score magnitude", "harness masks"])
def test_code_that_makes_masks_enters_with_the_first_update(edited, place):
    before = whole_chain()
    edited(place, digest="another")
    after = whole_chain()

    assert [old.key == new.key for old, new in zip(before, after, strict=True)] == [True] * 7 + [False] * 3
    assert after[7].inputs["code"][place]["digest"] == "another"


@pytest.mark.parametrize("place", ["pattern block", "strategy fine_tuning", "hardware fpga_analytic"])
def test_code_that_a_chain_does_not_use_changes_nothing(edited, place):
    before = whole_chain()
    edited(place, digest="another")

    assert whole_chain() == before


def test_the_same_code_under_another_version_is_the_same_stage(edited):
    before = whole_chain()
    edited("backend numpy", distribution="acme", version="0.4")
    after = whole_chain()

    assert [stage.key for stage in after] == [stage.key for stage in before]
    assert after[0].inputs["code"]["backend numpy"]["version"] == "0.4"
