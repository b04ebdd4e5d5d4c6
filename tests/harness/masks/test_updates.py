"""From updates to masks: allocation, scores, and the checks on every answer."""

import numpy as np
import pytest
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.block import Block
from harness_plugins.patterns.n_m import NM
from harness_plugins.patterns.row_balanced import RowBalanced
from harness_plugins.patterns.unstructured import Unstructured

from harness.api import (
    Axis,
    Epoch,
    EpochResult,
    Evaluation,
    Frame,
    Gradient,
    Magnitude,
    MaskUpdate,
    NonFiniteError,
    Pattern,
    PluginContractError,
    Random,
    Score,
    Session,
    ShapeError,
    SpecError,
    State,
    Tensor,
    keep_count,
)
from harness.masks.beforehand import why_skipped
from harness.masks.outcome import achieved
from harness.masks.updates import MaskMaker


def matrix(name, rows, cols):
    return Tensor(
        name=name,
        layer=name.split(".")[0],
        role="lstm",
        rows=Axis(label=f"{name}.rows", size=rows),
        cols=Axis(label=f"{name}.cols", size=cols),
    )


KERNEL, RECURRENT = matrix("lstm_0.kernel", 8, 20), matrix("lstm_0.recurrent_kernel", 8, 12)
BIAS = Tensor(name="lstm_0.bias", layer="lstm_0", role="bias", rows=Axis(label="lstm_0.units", size=8))
SCOPE = (KERNEL, RECURRENT)


class Weights(Session):
    """A session that holds weights and masks and does not train."""

    def __init__(self, scale=1.0):
        rng = np.random.default_rng(1)
        self.state_ = State({tensor.name: rng.normal(size=tensor.shape).astype(np.float32) for tensor in SCOPE})
        self.state_.weights[RECURRENT.name] *= np.float32(scale)
        self.asked: list[tuple[int, int]] = []

    def load(self, state):
        self.state_ = state

    def state(self):
        return self.state_

    def weights(self):
        return self.state_.weights

    def masks(self):
        return self.state_.masks

    def set_masks(self, masks):
        for name, mask in masks.items():
            self.state_.masks[name] = mask
            self.state_.weights[name] = self.state_.weights[name] * mask

    def gradients(self, batches, epoch):
        self.asked.append((batches, epoch))
        return {tensor.name: np.arange(tensor.size, dtype=np.float32).reshape(tensor.shape) for tensor in SCOPE}

    def train_epoch(self, epoch: Epoch, index, masker, progress):
        return EpochResult(nats=0.0, items=1)

    def evaluate(self, split):
        return Evaluation(nats=0.0, items=1)


def update(sparsity, score=None, step=0):
    return MaskUpdate(step=step, sparsity=sparsity, score=score or Magnitude())


def zeros(masks):
    return {name: 1 - mask.mean() for name, mask in masks.items()}


def test_uniform_gives_every_tensor_the_same_sparsity():
    masks = MaskMaker(Unstructured(), "uniform", SCOPE, 0)(update(0.75), 3, Weights(scale=0.01))

    assert zeros(masks) == {KERNEL.name: 0.75, RECURRENT.name: 0.75}


def test_global_takes_the_best_weights_of_all_tensors_together():
    session = Weights(scale=0.5)
    together = np.sort(np.abs(np.concatenate([session.weights()[tensor.name].ravel() for tensor in SCOPE])))

    masks = MaskMaker(Unstructured(), "global", SCOPE, 0)(update(0.75), 3, session)

    kept = np.concatenate([np.abs(session.weights()[name])[mask] for name, mask in masks.items()])
    np.testing.assert_array_equal(np.sort(kept), together[-keep_count(256, 0.75) :])
    assert zeros(masks)[RECURRENT.name] > zeros(masks)[KERNEL.name]


def test_global_ties_stay_in_the_earlier_tensor():
    session = Weights()
    for tensor in SCOPE:
        session.state_.weights[tensor.name] = np.ones(tensor.shape, np.float32)

    masks = MaskMaker(Unstructured(), "global", SCOPE, 0)(update(0.5), 0, session)

    assert masks[KERNEL.name].ravel()[:128].all()
    assert masks[KERNEL.name].sum() == 128
    assert not masks[RECURRENT.name].any()


def test_a_per_tensor_allocation_grows_with_the_schedule_to_what_is_written():
    maker = MaskMaker(Unstructured(), {KERNEL.name: 0.5}, SCOPE, 0, target=0.75)
    session = Weights()

    half_way = maker(update(0.375), 0, session)
    end = maker(update(0.75), 0, session)

    assert zeros(half_way) == {KERNEL.name: 0.25, RECURRENT.name: pytest.approx(0.375)}
    assert zeros(end) == {KERNEL.name: 0.5, RECURRENT.name: 0.75}


def test_a_per_tensor_allocation_overshoots_with_the_cell_and_stays_below_one():
    maker = MaskMaker(Unstructured(), {KERNEL.name: 0.75}, SCOPE, 0, target=0.5)

    assert zeros(maker(update(0.75), 0, Weights())) == {KERNEL.name: 0.875, RECURRENT.name: 0.75}


@pytest.mark.parametrize(
    ("pattern", "allocation"),
    [
        (Unstructured(), "uniform"),
        (Unstructured(), "global"),
        (RowBalanced(), "uniform"),
        (BankBalanced(banks=3), "uniform"),
        (Block(height=4, width=4), "uniform"),
        (Block(height=3, width=5), "uniform"),
    ],
    ids=str,
)
def test_masks_only_shrink_while_weights_move(pattern, allocation):
    session, maker, rng = Weights(), MaskMaker(pattern, allocation, SCOPE, 0), np.random.default_rng(2)
    before = {tensor.name: np.ones(tensor.shape, bool) for tensor in SCOPE}

    for step, sparsity in enumerate((0.0, 0.1, 0.3, 0.5, 0.7, 0.8)):
        masks = maker(update(sparsity, step=step), 0, session)
        session.set_masks(masks)
        for name, mask in masks.items():
            assert not (mask & ~before[name]).any()
            session.state_.weights[name] += rng.normal(size=mask.shape).astype(np.float32)
        before = masks


def test_random_scores_depend_on_seed_epoch_step_and_tensor_alone():
    def mask(seed, epoch, step):
        masks = MaskMaker(Unstructured(), "uniform", SCOPE, seed)(update(0.5, Random(), step), epoch, Weights())
        return masks[KERNEL.name].tobytes()

    assert mask(0, 1, 2) == mask(0, 1, 2)
    assert len({mask(0, 1, 2), mask(1, 1, 2), mask(0, 2, 2), mask(0, 1, 3)}) == 4


def test_tensors_of_one_shape_get_different_random_masks():
    first, second = matrix("a.kernel", 8, 20), matrix("b.kernel", 8, 20)
    session = Weights()
    session.state_.weights = {tensor.name: np.ones(tensor.shape, np.float32) for tensor in (first, second)}

    masks = MaskMaker(Unstructured(), "uniform", (first, second), 0)(update(0.5, Random()), 0, session)

    assert (masks[first.name] != masks[second.name]).any()


def test_gradients_are_asked_for_once_with_the_score_s_batches():
    session = Weights()

    masks = MaskMaker(Unstructured(), "uniform", SCOPE, 0)(update(0.5, Gradient(batches=7)), 4, session)

    expected = np.abs(session.weights()[KERNEL.name] * np.arange(160).reshape(8, 20))
    assert session.asked == [(7, 4)]
    assert expected[masks[KERNEL.name]].min() >= expected[~masks[KERNEL.name]].max()


class Regrow(Gradient):
    """Lets pruned weights come back."""

    name = "regrow"
    revives = True


def test_a_reviving_score_may_bring_weights_back():
    session, maker = Weights(), MaskMaker(Unstructured(), "uniform", SCOPE, 0)
    session.set_masks(maker(update(0.75), 0, session))
    session.state_.weights[KERNEL.name] = np.ones(KERNEL.shape, np.float32)

    masks = maker(update(0.5, Regrow()), 0, session)

    assert (masks[KERNEL.name] & ~session.masks()[KERNEL.name]).any()
    assert zeros(masks)[KERNEL.name] == 0.5


def test_a_falling_sparsity_without_revival_breaks_the_contract():
    session, maker = Weights(), MaskMaker(Unstructured(), "uniform", SCOPE, 0)
    session.set_masks(maker(update(0.75), 0, session))

    with pytest.raises(PluginContractError, match=r"no pruned weight of lstm_0\.kernel to come back at sparsity 0\.5"):
        maker(update(0.5), 0, session)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_an_error_that_names_the_tensor(value):
    session = Weights()
    session.weights()[RECURRENT.name][2, 5] = value

    with pytest.raises(NonFiniteError, match=r"1 NaN or infinite in lstm_0\.recurrent_kernel, .* row 2, column 5"):
        MaskMaker(Unstructured(), "uniform", SCOPE, 0)(update(0.5), 0, session)


class Broken(Score):
    """Answers whatever it is told to."""

    name = "broken"
    how: str = ""

    def scores(self, given):
        weights = given.weights
        return {
            "shape": weights[:, 1:],
            "integers": weights.astype(int),
            "nan": weights * np.nan,
        }[self.how]


@pytest.mark.parametrize(
    ("how", "error", "sentence"),
    [
        ("shape", PluginContractError, r"of shape \(8, 20\) for lstm_0\.kernel, .*got float32 of shape \(8, 19\)"),
        ("integers", PluginContractError, r"score broken\(how=integers\): expected floating-point numbers .* got int"),
        ("nan", PluginContractError, r"finite scores of lstm_0\.kernel, .* got 160 NaN or infinite of 160"),
    ],
)
def test_a_wrong_score_is_named(how, error, sentence):
    with pytest.raises(error, match=sentence):
        MaskMaker(Unstructured(), "uniform", SCOPE, 0)(update(0.5, Broken(how=how)), 0, Weights())


class Wanda(Score):
    """Needs what no session offers."""

    name = "wanda"
    needs = ("input_norms",)

    def scores(self, given):
        return np.abs(given.weights) * given.needed["input_norms"]


def test_what_a_session_does_not_measure_is_refused_with_a_sentence():
    with pytest.raises(PluginContractError, match="Weights does not measure input_norms"):
        MaskMaker(Unstructured(), "uniform", SCOPE, 0)(update(0.5, Wanda()), 0, Weights())


class Wrong(Pattern):
    """Answers whatever it is told to."""

    name = "wrong"
    how: str = ""

    def frame(self, rows, cols):
        return Frame()

    def mask(self, scores, sparsity):
        good = super().mask(scores, sparsity)
        return {
            "list": good.tolist(),
            "dtype": good.astype(np.uint8),
            "shape": good.T,
            "count": good | (np.arange(good.size).reshape(good.shape) == np.argmin(good)),
        }[self.how]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("list", r"expected a bool mask of shape \(8, 20\) for lstm_0\.kernel, got list"),
        ("dtype", r"got uint8 of shape \(8, 20\)"),
        ("shape", r"got bool of shape \(20, 8\)"),
        ("count", r"expected 80 of the 160 weights of lstm_0\.kernel kept at sparsity 0\.5, got 81"),
    ],
)
def test_a_wrong_mask_is_a_broken_contract_that_names_plugin_and_tensor(how, sentence):
    with pytest.raises(PluginContractError, match=rf"pattern wrong\(how={how}\): .*{sentence}"):
        MaskMaker(Wrong(how=how), "uniform", SCOPE, 0)(update(0.5), 0, Weights())


class WholeScope(Pattern):
    """Prunes the last tensor only, as far as it takes."""

    name = "whole_scope"
    forget: bool = False
    too_much: bool = False

    def frame(self, rows, cols):
        return Frame()

    def masks(self, scores, sparsities, tensors):
        *others, last = tensors
        masks = {tensor.name: np.ones(tensor.shape, bool) for tensor in others}
        drop = round(sum(sparsities[tensor.name] * tensor.size for tensor in tensors))
        order = np.argsort(scores[last.name], axis=None, kind="stable")
        keep = np.ones(last.size, bool)
        keep[order[: drop + 10 * self.too_much]] = False
        masks[last.name] = keep.reshape(last.shape)
        return {} if self.forget else masks


def test_a_pattern_may_decide_over_the_whole_scope():
    masks = MaskMaker(WholeScope(), "global", SCOPE, 0)(update(0.25), 0, Weights())

    assert masks[KERNEL.name].all()
    assert masks[RECURRENT.name].sum() == 96 - 64
    assert why_skipped(WholeScope(), "global", SCOPE, 0.25) is None


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        (WholeScope(forget=True), r"a mask for each of lstm_0\.kernel, lstm_0\.recurrent_kernel, got masks for none"),
        (WholeScope(too_much=True), "expected sparsity 0.25 over the scope, got 0.289"),
    ],
)
def test_a_pattern_over_the_whole_scope_is_checked_too(pattern, sentence):
    with pytest.raises(PluginContractError, match=sentence):
        MaskMaker(pattern, "uniform", SCOPE, 0)(update(0.25), 0, Weights())


@pytest.mark.parametrize(
    ("allocation", "sentence"),
    [
        ({"lstm_0.kernle": 0.5}, r"'lstm_0\.kernle' is no tensor of the scope; did you mean 'lstm_0\.kernel'\?"),
        ({KERNEL.name: 1.0}, r"must lie in \[0, 1\), got 1\.0"),
        ({KERNEL.name: -0.5}, r"must lie in \[0, 1\), got -0\.5"),
    ],
)
def test_an_allocation_that_does_not_fit_the_scope_is_refused(allocation, sentence):
    with pytest.raises(SpecError, match=sentence):
        MaskMaker(Unstructured(), allocation, SCOPE, 0, target=0.5)


def test_a_per_tensor_allocation_needs_the_cell_s_target():
    with pytest.raises(SpecError, match="needs the cell's target sparsity, got None"):
        MaskMaker(Unstructured(), {KERNEL.name: 0.5}, SCOPE, 0)


@pytest.mark.parametrize("pattern", [RowBalanced(), BankBalanced(), NM(), Block()])
def test_a_grouped_pattern_is_skipped_under_global_and_refused_where_masks_are_made(pattern):
    reason = why_skipped(pattern, "global", SCOPE, 0.5)

    assert "'global'; use 'uniform'" in reason
    with pytest.raises(SpecError, match="use 'uniform'"):
        MaskMaker(pattern, "global", SCOPE, 0)


@pytest.mark.parametrize(
    ("pattern", "target", "reason"),
    [
        (BankBalanced(bank_size=4), 0.9, "would keep nothing; the nearest reachable sparsity is 0.75"),
        (BankBalanced(bank_size=4), 0.8, "within the tolerance 0.02; the nearest reachable sparsity is 0.75"),
        (NM(), 0.9, "within the tolerance 0.02; the nearest reachable sparsity is 0.5"),
        (NM(), 0.25, "would keep more than 2 of 4; 2:4 is a sparsity of 0.5"),
        (Unstructured(), 0.9999, "would keep nothing; the nearest reachable sparsity is 0.99375"),
    ],
)
def test_an_unreachable_target_is_skipped_naming_the_nearest_sparsity(pattern, target, reason):
    found = why_skipped(pattern, "uniform", SCOPE, target)

    assert found.startswith(f"{pattern.label()}: lstm_0.kernel (8 x 20) at sparsity {target:g}")
    assert found.endswith(reason)


def test_a_wider_tolerance_lets_a_cell_run():
    assert why_skipped(BankBalanced(bank_size=4), "uniform", SCOPE, 0.8, tolerance=0.05) is None


def test_the_tolerance_itself_is_still_within():
    assert why_skipped(Unstructured(), "uniform", (matrix("a.b", 1, 50),), 0.5, tolerance=0.0) is None
    assert why_skipped(BankBalanced(bank_size=10), "uniform", (matrix("a.b", 1, 50),), 0.92) is None


def test_every_tensor_is_judged_by_its_own_share():
    assert why_skipped(BankBalanced(bank_size=4), {RECURRENT.name: 0.5}, SCOPE, 0.75) is None
    assert RECURRENT.name in why_skipped(BankBalanced(bank_size=4), {RECURRENT.name: 0.6}, SCOPE, 0.75)


def test_a_shape_that_does_not_fit_is_an_error_not_a_skip():
    with pytest.raises(ShapeError, match="set `banks` to at most 12"):
        why_skipped(BankBalanced(banks=15), "uniform", (RECURRENT,), 0.1)


def test_achieved_sparsity_is_counted_on_masks():
    masks = {KERNEL.name: np.arange(160).reshape(8, 20) < 40}

    found = achieved(masks, (KERNEL, RECURRENT, BIAS))

    assert found.tensors == {KERNEL.name: 0.75}
    assert found.scope == 0.75
    assert found.model == pytest.approx(120 / (160 + 96 + 8))


def test_a_dense_model_has_no_sparsity():
    assert achieved({}, (KERNEL, BIAS)) == ({}, 0.0, 0.0)
