"""What each strategy's authors say that it does, on a small model."""

from itertools import pairwise

import numpy as np
import pytest
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.unstructured import Unstructured
from harness_plugins.strategies.acdc import ACDC
from harness_plugins.strategies.lottery_ticket import LotteryTicket
from harness_plugins.strategies.low_rate_rewinding import LowRateRewinding
from harness_plugins.strategies.random_at_init import RandomAtInit
from harness_plugins.strategies.reinitialise import Reinitialise
from harness_plugins.strategies.rigl import RigL
from harness_plugins.strategies.set import SET
from harness_plugins.strategies.snip import Snip
from harness_plugins.strategies.weight_rewinding import WeightRewinding
from programs import run
from recipes import recipe

from harness.api import Prune, Rewind, SpecError, Train


@pytest.mark.parametrize("strategy", [RigL(every=3), SET(every=3)], ids=lambda each: each.name)
@pytest.mark.parametrize("pattern", [Unstructured(), BankBalanced(banks=2)], ids=lambda each: each.name)
def test_sparse_training_keeps_its_density_at_every_update_and_its_mask_moves(strategy, pattern):
    seen = run(strategy, pattern)

    grown = [mask for what, mask, _ in seen.events if what.startswith("grown")]
    assert len(grown) > 5
    assert {int(mask.sum()) for mask in [*grown, *seen.masks("train")]} == {18}  # 30 % of 60
    moved = [int((before & ~after).sum()) for before, after in pairwise(grown)]
    assert sum(moved) > 0
    assert (seen.events[-1][2][~seen.events[-1][1]] == 0).all()


def test_rigl_drops_the_smallest_and_grows_the_largest_gradients():
    seen = run(RigL(every=3), Unstructured())

    place = next(i for i, (what, _, _) in enumerate(seen.events) if what.startswith("magnitude 0.7"))
    (_, dropped, before), (what, grown, after) = seen.events[place : place + 2]
    kept = np.abs(before)[seen.events[0][1]]
    assert what == "grown_by_gradient 0.7"
    assert not (dropped & ~seen.events[0][1]).any()
    assert np.abs(before)[dropped].min() >= np.sort(kept)[len(kept) - dropped.sum()]
    assert (dropped & ~grown).sum() == 0
    assert (after[grown & ~dropped] == 0).all()  # what grows starts from zero


def test_rigl_drops_fewer_and_fewer_and_set_always_as_many():
    falling, constant = (s.program(recipe(10), 0.8)[1].updates[::2] for s in (RigL(), SET()))

    assert [u.sparsity for u in falling] == sorted((u.sparsity for u in falling), reverse=True)
    assert {u.sparsity for u in constant} == {0.86}


def test_no_mask_moves_after_the_last_update():
    training = SET(every=5, until=0.5).program(recipe(10), 0.8)[1]

    assert max(update.step for update in training.updates) <= 0.5 * 10 * recipe(10).steps_per_epoch


def test_acdc_alternates_and_ends_sparse():
    seen = run(ACDC(), Unstructured(), epochs=20)

    kept = [int(mask.sum()) for mask in seen.masks("train")]
    assert kept == [60] * 2 + [18, 60] * 7 + [60] + [18] * 3
    released = [weights[~mask] for what, mask, weights in seen.events if what == "prune" and not mask.all()]
    assert all((weights == 0).all() for weights in released)


def test_acdc_is_scaled_from_its_authors_hundred_epochs():
    program = ACDC().program(recipe(100), 0.9)

    trained = [phase.epochs for phase in program if isinstance(phase, Train)]
    assert trained == [10, *[5] * 13, 10, 15]
    assert sum(trained) == 100
    assert [phase.sparsity for phase in program if isinstance(phase, Prune)] == [0.9, 0.0] * 7 + [0.9]
    with pytest.raises(SpecError, match="acdc: a recipe must hold 1 dense epochs, two phases of 1 and 1 sparse ones"):
        ACDC().program(recipe(3), 0.9)


def test_masks_at_the_start_never_change_and_are_exact():
    for strategy in (RandomAtInit(), Snip()):
        seen = run(strategy, Unstructured())

        assert {mask.tobytes() for mask in seen.masks("train")} == {seen.events[0][1].tobytes()}
        assert int(seen.events[0][1].sum()) == 18


def test_snip_keeps_what_the_loss_feels_most_and_beats_random_masks_here():
    snip = [run(Snip(batches=6), Unstructured(), 0.9, seed=seed).value for seed in range(5)]
    chance = [run(RandomAtInit(), Unstructured(), 0.9, seed=seed).value for seed in range(5)]

    assert np.mean(snip) > np.mean(chance)


def test_a_ticket_goes_back_to_its_early_weights_every_round():
    seen = run(LotteryTicket(rewind_to=2), Unstructured(), 0.7, epochs=5)

    early = seen.events[1][2]  # after two epochs of the dense training
    rewound = [(mask, weights) for what, mask, weights in seen.events if what == "rewind"]
    assert [int(mask.sum()) for mask, _ in rewound] == [48, 38, 31, 25, 20, 18]
    assert all(np.array_equal(weights, early * mask) for mask, weights in rewound)


def test_a_ticket_of_a_fifth_per_round_is_weight_rewinding_to_the_same_epoch():
    assert LotteryTicket(rewind_to=3).program(recipe(), 0.9) == (
        WeightRewinding(epochs=recipe().epochs - 3, rate=0.2).program(recipe(), 0.9)
    )
    with pytest.raises(SpecError, match="`rewind_to` must be below the recipe's 4 epochs, got 4; set it to at most 3"):
        LotteryTicket(rewind_to=4).program(recipe(4), 0.9)


def test_reinitialised_weights_are_new_and_the_masks_those_of_the_trained_network():
    seen = run(Reinitialise(), Unstructured())

    pruned = next(event for event in seen.events if event[0] == "prune")
    fresh = next(event for event in seen.events if event[0] == "rewind")
    assert np.array_equal(fresh[1], pruned[1])
    assert not np.isin(fresh[2][fresh[1]], pruned[2]).any()
    with pytest.raises(ValueError, match="`to` must be 0, got 2"):
        Rewind(to=2, weights="new")


def test_low_rate_rewinding_is_weight_rewinding_but_for_its_rate():
    ours, theirs = (cls(epochs=4).program(recipe(), 0.9) for cls in (LowRateRewinding, WeightRewinding))

    assert ours[:3] == theirs[:3]
    assert {ours[3].lr.at(epoch) for epoch in range(4)} == {recipe().last_rate}
    with pytest.raises(SpecError, match="`epochs` must be at most 12"):
        LowRateRewinding(epochs=13).program(recipe(), 0.9)
