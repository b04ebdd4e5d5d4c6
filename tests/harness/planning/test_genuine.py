"""What a store has of a stage is taken only if the stage can have left it, however well its checksums fit."""

from dataclasses import replace

import numpy as np
import pytest
import toy
from harness_plugins.hardware.cycle_simulator import CycleSimulator
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.block import Block
from harness_plugins.patterns.row_balanced import RowBalanced
from harness_plugins.patterns.unstructured import Unstructured
from numpy_plugins import BIAS, KERNEL, NumpyBackend
from toy import FineTuning, Rewinding, experiment

from harness.api import Cubic, State, Strategy, Train
from harness.planning import code_digest
from harness.planning.plan import make_plan
from harness.report.plan_table import plan_document
from harness.store import STAGE, Store

NEW = np.random.default_rng(1)


class Gradual(Strategy):
    """Prunes while it trains."""

    name = "gradual"

    def program(self, recipe, sparsity):
        schedule = Cubic(final=sparsity, begin_epoch=1, end_epoch=3, every=4)
        return (Train(epochs=recipe.epochs, lr=recipe.learning_rate, sparsity=schedule),)


def stored(folder, grid=None):
    """A store that has every stage of a plan, as if it had been run."""
    plan = make_plan(grid or experiment(), store=folder)
    toy.fill(Store(folder), plan)
    return plan


def forge(folder, key, masks=None, weights=None, **changes):
    """Other files and another record in place of a stage's, with checksums that fit."""
    store = Store(folder)
    record = store.read(key).model_copy(update=changes)
    if masks is None:
        masks = store.masks(record)
    state = State({KERNEL: np.ones((3, 20), np.float32), BIAS: np.ones(3, np.float32)} | (weights or {}), masks)
    store.write(record, state)
    if weights is None:
        store.drop_state(key)


def stage_of(plan, kind, cell=1, last=True):
    found = [stage.key for stage in plan.cells[cell].chain if stage.kind == kind]
    return found[-1 if last else 0]


HALF = np.arange(60).reshape(3, 20) % 2 == 0

FORGED = {
    "another shape": {KERNEL: HALF.reshape(20, 3)},
    "another size": {KERNEL: np.ones((4, 20), bool)},
    "another tensor": {KERNEL: HALF, "more": HALF},
    "nothing kept": {KERNEL: np.zeros((3, 20), bool)},
    "everything kept": {KERNEL: np.ones((3, 20), bool)},
    "one more kept": {KERNEL: HALF | (np.arange(60).reshape(3, 20) == 1)},
    "no mask": {},
}


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.parametrize("kind", ["prune", "train"])
def test_masks_that_a_stage_cannot_have_made_are_damage(tmp_path, kind, what):
    key = stage_of(stored(tmp_path), kind)

    forge(tmp_path, key, FORGED[what])

    found = make_plan(experiment(), store=tmp_path)
    assert found.to_run[key] == "damaged: run again"
    assert key in found.damaged[key] and "mask" in found.damaged[key]


@pytest.mark.parametrize("what", FORGED)
def test_masks_of_older_code_are_held_to_the_same(tmp_path, monkeypatch, what):
    before = stored(tmp_path)
    key = stage_of(before, "train")
    real = code_digest.component
    edited = {NumpyBackend: "another"}
    monkeypatch.setattr(
        code_digest, "component", lambda cls: replace(real(cls), digest=edited.get(cls, real(cls).digest))
    )
    trusted = make_plan(experiment(), store=tmp_path, trust_code=True)

    forge(tmp_path, key, FORGED[what])

    assert not trusted.to_run and key in trusted.trusted
    found = make_plan(experiment(), store=tmp_path, trust_code=True)
    assert key not in found.trusted and found.to_run


def test_a_dense_model_has_nothing_pruned(tmp_path):
    key = stage_of(stored(tmp_path), "train", cell=0)

    forge(tmp_path, key, {KERNEL: HALF})

    assert "nothing is pruned by then" in make_plan(experiment(), store=tmp_path).damaged[key]


def test_training_alone_changes_no_mask(tmp_path):
    key = stage_of(stored(tmp_path), "train")

    forge(tmp_path, key, {KERNEL: ~Store(tmp_path).masks(Store(tmp_path).read(key))[KERNEL]})

    assert "other masks than the stage before" in make_plan(experiment(), store=tmp_path).damaged[key]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("train", {"kind": "prune"}),
        ("train", {"valid": None}),
        ("train", {"train": None}),
        ("prune", {"kind": "x" * 99}),
    ],
)
def test_a_record_of_another_kind_or_without_its_totals_is_damage(tmp_path, kind, changes):
    key = stage_of(stored(tmp_path), kind)

    forge(tmp_path, key, **changes)

    assert key in make_plan(experiment(), store=tmp_path).damaged


@pytest.mark.parametrize(
    "weights",
    [
        {KERNEL: np.ones((20, 3), np.float32)},
        {KERNEL: np.ones(60, np.float32)},
        {KERNEL: np.ones((3, 20), np.float64)},
        {KERNEL: np.ones((3, 20), np.int64)},
        {BIAS: np.float32(1)},
    ],
)
def test_a_state_of_another_model_is_damage(tmp_path, weights):
    plan = stored(tmp_path)
    key, longer = stage_of(plan, "train"), experiment((FineTuning(epochs=3),))
    forge(tmp_path, key, weights={"of no tensor": np.ones(2, np.int8)})

    assert key not in make_plan(longer, store=tmp_path).damaged
    forge(tmp_path, key, weights=weights)

    assert "state of another model" in make_plan(longer, store=tmp_path).damaged[key]
    assert key not in make_plan(experiment(), store=tmp_path).damaged  # nothing starts from it


@pytest.mark.parametrize("pattern", [Unstructured(), RowBalanced(), BankBalanced(banks=5), Block(height=3, width=2)])
def test_what_a_run_can_have_left_is_taken(tmp_path, pattern):
    grid = experiment((FineTuning(), Rewinding(), Gradual()), patterns=(pattern,), sparsities=(0.6, 0.8))
    stored(tmp_path, grid)

    found = make_plan(grid, store=tmp_path)

    assert (found.damaged, found.to_run) == ({}, {})


def test_a_finished_model_whose_state_is_gone_is_trained_again_for_a_score_and_the_plan_says_so(tmp_path):
    stored(tmp_path)
    wider = replace(experiment(), hardware=(CycleSimulator(),))
    found = make_plan(wider, store=tmp_path)
    again = {reason for key, reason in found.to_run.items() if found.stages[key].number_format is None}

    assert again == {"metrics cached, state missing for a score as w16 a16"}
    (note,) = found.notes()
    assert note.startswith("2 finished models whose state is gone: trained again (6 epochs) for a score")
    assert note in plan_document(found.summary(), title="toy").sections[-1].sentences
    # What is needed anyway, too, is not told to run for the score.
    both = replace(experiment((FineTuning(epochs=3),)), hardware=(CycleSimulator(),))
    assert make_plan(both, store=tmp_path).to_run[stage_of(found, "prune")] == "metrics cached, state missing"


def test_a_bill_tells_what_is_damaged(tmp_path):
    plan = stored(tmp_path)
    for stage in plan.cells[1].chain:
        (Store(tmp_path).stage_folder(stage.key) / STAGE).write_text("{}")

    notes = make_plan(experiment(), store=tmp_path).notes()

    assert [note.partition(":")[0] for note in notes] == ["damaged"] * 4
    assert notes[-1] == f"damaged: {len(plan.cells[1].chain) - 3} other stages"
