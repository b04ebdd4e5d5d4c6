"""The Keras backend. TensorFlow runs in a process of its own, whose script is this file; pytest imports none of it."""

import functools
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from backend_problems import (
    TinyProblem,
    differing,
    epochs_of,
    image_network,
    language_network,
    masker_of,
    saved,
)
from harness_plugins.backends.keras_tfmot import KerasTfmot
from harness_plugins.backends.keras_tfmot.places import places
from harness_plugins.backends.keras_tfmot.toolkit import configure
from harness_plugins.patterns.n_m import NM
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import guarded, read

from harness.api import (
    SGD,
    Adam,
    Conv2D,
    Cubic,
    Dense,
    DivergedError,
    Embedding,
    Epoch,
    HarnessError,
    MaskUpdate,
    Network,
    PluginUnavailableError,
    Settings,
    State,
)

EXPERIMENTS = {}


def experiment(function):
    """Run this function in the process that has TensorFlow; its answer is JSON."""
    EXPERIMENTS[function.__name__] = function
    return function


def silent(step):
    """A progress callback."""


SESSIONS = {}


def session_of(problem):
    """A session with the initial weights; building and tracing are slow, so each problem has one for all tests."""
    if problem not in SESSIONS:
        SESSIONS[problem] = KerasTfmot().open(problem, Settings())
    SESSIONS[problem].load(State(problem.initial_weights(0)))
    return SESSIONS[problem]


@functools.cache
def language(rate=0.0, layers=1, **options):
    return TinyProblem(language_network(units=8, rate=rate, layers=layers), **options)


def kept(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


# --- the toolkit's own way --------------------------------------------------------------------------------------------


def toolkit_model(problem, weights, **pruning):
    """The problem's network as anyone would write it in Keras, wrapped by the toolkit's public function."""
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras

    embedding, _, lstm, _, softmax = problem.network.layers
    model = keras.Sequential(
        [
            keras.layers.Embedding(embedding.words, embedding.features, batch_input_shape=(problem.shape[0], None)),
            keras.layers.LSTM(lstm.units, return_sequences=True, stateful=True, kernel_initializer="zeros",
                              recurrent_initializer="zeros"),
            keras.layers.Dense(softmax.units, kernel_initializer="zeros"),
        ]
    )  # fmt: skip
    turned = [places(problem.network)[name].inward(value) for name, value in weights.items()]
    model.set_weights(turned)  # in the order of the layers: table; kernel, recurrent kernel, bias; kernel, bias
    return tfmot.sparsity.keras.prune_low_magnitude(model, **pruning)


def toolkit_loss(targets, logits):
    import tensorflow as tf

    # Summed over time; Keras takes the mean over the batch.
    return tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(targets, tf.int32), logits), axis=-1)


def toolkit_arrays(model, problem):
    """(weights, masks) of the toolkit's model under the harness's names, in its orientation."""
    weights, masks = {}, {}
    for wrapper, layer in zip(
        model.layers, (layer for layer in problem.network.layers if layer.tensors()), strict=True
    ):
        for tensor, variable in zip(layer.tensors(), wrapper.layer.weights, strict=True):
            turn = places(problem.network)[tensor.name].outward
            weights[tensor.name] = turn(variable.numpy())
            for weight, mask, _ in wrapper.pruning_vars:
                if weight is variable:
                    masks[tensor.name] = turn(mask.numpy()) > 0
    return weights, masks


@experiment
def gradual_beside_polynomial_decay():
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras

    steps, rate = 10, 1.0
    problem = language(steps=steps, clip_norm=None)
    start = problem.initial_weights(0)
    session, masker = session_of(problem), masker_of(problem)
    # The toolkit counts its first step 1 where the table counts 0.
    decay = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.75, begin_step=11, end_step=31, power=3, frequency=5)
    theirs = toolkit_model(problem, start, pruning_schedule=decay)
    theirs.compile(keras.optimizers.legacy.SGD(rate), loss=toolkit_loss)
    rows = []
    schedule = Cubic(final=0.75, begin=1, end=3, every=5)
    for index, epoch in enumerate(epochs_of(schedule.updates(steps), steps, 4, rate)):
        session.train_epoch(epoch, index, masker, silent)
        batches = [(batch.inputs, batch.targets) for batch in problem.batches("train", index, None)]
        theirs.layers[1].layer.reset_states()  # `theirs.reset_states()` passes over layers inside wrappers
        callback = tfmot.sparsity.keras.UpdatePruningStep()
        theirs.fit(iter(batches), steps_per_epoch=steps, epochs=1, verbose=0, shuffle=False, callbacks=[callback])
        weights, masks = toolkit_arrays(theirs, problem)
        ours = session.masks() or {name: np.ones_like(mask) for name, mask in masks.items()}
        rows.append(
            {
                "kept": kept(ours),
                "masks_differ": [name for name in masks if (masks[name] != ours[name]).any()],
                "weights_off": max(float(np.abs(weights[name] - w).max()) for name, w in session.weights().items()),
                "moved": max(float(np.abs(start[name] - w).max()) for name, w in session.weights().items()),
                "steps": [
                    int(theirs.layers[1].pruning_step.numpy()),
                    int(session.state().extra["pruning_step/lstm_0"]),
                ],
            }
        )
    return rows


def dense_problem(**options):
    layer = Dense(name="output", inputs=8, units=8, input_label="features")
    return TinyProblem(Network(layers=(layer,), input_shape=(8,)), classes=8, clip_norm=None, **options)


def toolkit_dense(weights, rate, **pruning):
    """A Keras model of one dense layer under the toolkit's pruning, and a function that trains it for some steps."""
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras

    model = keras.Sequential([keras.layers.Dense(8, input_shape=(8,))])
    model.set_weights([weights["output.kernel"].T, weights["output.bias"]])
    model = tfmot.sparsity.keras.prune_low_magnitude(model, **pruning)
    model.compile(keras.optimizers.legacy.SGD(rate), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def train(batches):
        callback = tfmot.sparsity.keras.UpdatePruningStep()
        model.fit(iter(batches), steps_per_epoch=len(batches), epochs=1, verbose=0, callbacks=[callback])
        return model.layers[0].pruning_vars[0][1].numpy().T > 0

    return model, train


@experiment
def ties():
    import tensorflow_model_optimization as tfmot

    problem = dense_problem(steps=1)
    equal = {"output.kernel": np.full((8, 8), 0.5, np.float32), "output.bias": np.zeros(8, np.float32)}
    batches = [(batch.inputs, batch.targets) for batch in problem.batches("train", 0, None)]
    constant = tfmot.sparsity.keras.ConstantSparsity(0.75, begin_step=0, frequency=1)
    _, train = toolkit_dense(equal, 0.0, pruning_schedule=constant)
    session = session_of(problem)
    session.load(State(equal))
    update = MaskUpdate(step=0, sparsity=0.75)
    session.train_epoch(Epoch(rates=1e-9, updates=(update,)), 0, masker_of(problem), silent)
    return {"theirs": int(train(batches).sum()), "ours": session.masks()["output.kernel"].ravel().tolist()}


@experiment
def n_of_m():
    import tensorflow_model_optimization as tfmot

    problem = dense_problem(steps=8, rate=0.5)
    start = problem.initial_weights(0)
    batches = [(batch.inputs, batch.targets) for batch in problem.batches("train", 0, None)]
    late = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.5, begin_step=5, end_step=8, frequency=1)
    model, train = toolkit_dense(start, 0.1, pruning_schedule=late, sparsity_m_by_n=(2, 4))
    after_one = train(batches[:1])
    other = np.random.default_rng(5).normal(size=(8, 8)).astype(np.float32)
    model.layers[0].set_weights([other, np.zeros(8, np.float32)])
    after_all = train(batches[1:])

    session, seen = session_of(problem), {}
    masker = masker_of(problem, NM(n=2, m=4))

    def watching(update, index, inner):
        seen["before"] = kept(inner.masks())
        seen["weights"] = inner.weights()["output.kernel"]
        return masker(update, index, inner)

    session.train_epoch(Epoch(rates=0.1, updates=(MaskUpdate(step=4, sparsity=0.5),)), 0, watching, silent)
    mask = session.masks()["output.kernel"]
    groups = np.abs(seen["weights"]).reshape(8, 2, 4)
    best = np.sort(groups, axis=-1)[..., 2:].sum()
    return {
        "theirs_after_one_step": int(after_one.sum()),
        "theirs_changed_later": bool((after_one != after_all).any()),
        "ours_before_the_update": seen["before"],
        "ours": int(mask.sum()),
        "ours_keeps_the_best_then": bool(np.isclose(groups[mask.reshape(8, 2, 4)].sum(), best)),
    }


# --- our rules --------------------------------------------------------------------------------------------------------


@experiment
def resumed():
    import tempfile

    problem = language(rate=0.5, layers=2, steps=12, optimiser=SGD(momentum=0.5))
    undropped = language(rate=0.0, layers=2, steps=12, optimiser=SGD(momentum=0.5))
    epochs = epochs_of(Cubic(final=0.8, begin=2, end=8, every=7).updates(12), 12, 10, rate=0.5)

    def run(session, part):
        for index in part:
            session.train_epoch(epochs[index], index, masker_of(problem), silent)
        return session.state()

    whole = session_of(problem)
    first, half, through = run(whole, range(1)), run(whole, range(1, 5)), run(whole, range(5, 10))
    with tempfile.TemporaryDirectory() as folder:
        loaded = saved(half, Path(folder))
    fresh = KerasTfmot().open(problem, Settings())
    fresh.load(loaded)
    returned = differing(fresh.state(), half)
    resumed = run(fresh, range(5, 10))
    traces = [step.experimental_get_tracing_count() for step in whole._steps.values()]
    return {
        "round_trip": returned,
        "differ": differing(through, resumed),
        "sparsity": [
            1 - np.mean(np.concatenate([m.ravel() for m in state.masks.values()])) for state in (half, through)
        ],
        "dropout_acts": bool(differing(first, run(session_of(undropped), range(1)))),
        "steps": [int(state.extra["pruning_step/lstm_1"]) for state in (half, through)],
        "moving": bool(np.any(through.slots["momentum/lstm_0.kernel"])),
        "traces": traces,
    }


def is_zero_where_masked(state):
    """Whether masked weights and their slots are zero, and not -0.0."""
    held = [(state.weights[tensor], tensor) for tensor in state.masks]
    held += [(value, slot.partition("/")[2]) for slot, value in state.slots.items()]
    masked = [values[~state.masks[tensor]] for values, tensor in held if tensor in state.masks]
    return all(not values.any() and not np.signbit(values).any() for values in masked)


@experiment
def masked_weights():
    answers = {}
    rules = {"sgd": SGD(), "momentum": SGD(momentum=0.9, weight_decay=0.01), "adam": Adam()}
    for name, rule in rules.items():
        problem = language(steps=6, optimiser=rule)
        session, rate = session_of(problem), 0.01 if name == "adam" else 0.3
        seen, masker = [], masker_of(problem)

        def looking(update, index, inner, seen=seen, masker=masker):
            seen.append(inner.state())
            return masker(update, index, inner)

        updates = tuple(MaskUpdate(step=at, sparsity=level) for at, level in ((2, 0.5), (5, 0.6), (6, 0.75)))
        session.train_epoch(Epoch(rates=rate, updates=updates), 0, looking, silent)
        middle = session.state()
        session.train_epoch(Epoch(rates=rate), 1, masker_of(problem), silent)
        state = session.state()
        answers[name] = {
            "sparsity": [1 - float(mask.mean()) for mask in state.masks.values()],
            "zero": is_zero_where_masked(state),
            # Three steps after the first update, and no epoch has ended at which the toolkit would tidy up.
            "zero_within": is_zero_where_masked(seen[1]) and bool(seen[1].masks),
            "slots": sorted({slot.partition("/")[0] for slot in state.slots}),
            "kept_move": all((middle.weights[t][m] != state.weights[t][m]).any() for t, m in state.masks.items()),
            "mask_kept": all((middle.masks[t] == m).all() for t, m in state.masks.items()),
            "count": float(state.slots["t"]) if "t" in state.slots else None,
        }
    return answers


@experiment
def tampered():
    problem = language(steps=6)
    session = session_of(problem)
    session.set_masks(masker_of(problem)(MaskUpdate(step=0, sparsity=0.5), 0, session))
    kernel = session._model.variables["softmax.kernel"]
    kernel.assign(kernel + 1)
    before = is_zero_where_masked(session.state())
    session.train_epoch(Epoch(rates=1e-9), 0, masker_of(problem), silent)
    return {"before": before, "after": is_zero_where_masked(session.state())}


@experiment
def cross_entropy():
    import tensorflow as tf
    from harness_plugins.backends.keras_tfmot.loss import entropy

    rng, answers = np.random.default_rng(0), {}
    for name, shape in {"images": (7,), "text": (3, 5)}.items():
        targets = tf.constant(rng.integers(0, 11, shape).astype(np.int32))
        start = (4 * rng.standard_normal((*shape, 11))).astype(np.float32)
        start[0] = 90 * np.arange(11)  # probabilities that are exactly 0 or 1
        upstream = tf.constant(rng.standard_normal(shape).astype(np.float32))

        @tf.function(autograph=False)
        def both(loss, logits, targets=targets, upstream=upstream):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                found = loss(targets, logits)
            return found, tape.gradient(found, logits, upstream)

        ours = both(entropy, tf.constant(start))
        theirs = both(tf.nn.sparse_softmax_cross_entropy_with_logits, tf.constant(start))
        answers[name] = {
            "shapes": [list(part.shape) for part in ours],
            "equal": [bool((our.numpy() == their.numpy()).all()) for our, their in zip(ours, theirs, strict=True)],
            "spread": [float(np.ptp(part.numpy())) for part in ours],
        }
    return answers


@experiment
def stripped():
    import tensorflow as tf

    problem = language(layers=2, steps=6)
    session = session_of(problem)
    session.train_epoch(Epoch(rates=0.5, updates=(MaskUpdate(step=2, sparsity=0.75),)), 0, masker_of(problem), silent)
    wrapped, finished = session._model.keras, session.finished
    batch = next(problem.batches("test", 0, None))
    states = [tf.zeros((4, 8))] * 4
    seeds = tf.zeros((3, 2), tf.int32)
    with_wrappers = wrapped([batch.inputs, seeds, *states], training=False)[0].numpy()
    without = finished([batch.inputs, seeds, *states], training=False)[0].numpy()
    kinds = [type(layer).__name__ for layer in finished.layers]
    return {
        "wrapped": [type(layer).__name__ for layer in wrapped.layers].count("MaskedLayer"),
        "stripped": [kind for kind in kinds if kind in ("Embedding", "LSTM", "Dense", "MaskedLayer")],
        "variables": len(finished.variables),
        "off": float(np.abs(with_wrappers - without).max()),
        "spread": float(np.ptp(without)),
        "zeros": [float(np.mean(v.numpy() == 0)) for v in finished.trainable_variables if v.shape.rank == 2],
    }


@experiment
def clipped_step_lengths():
    answers = {}
    for name, rule in {"dense": None, "pruned": 0.9}.items():
        # Two words in twenty places: every embedding row is repeated many times.
        problem = language(steps=1, clip_norm=0.01, ids=2)
        session = session_of(problem)
        if rule:
            session.set_masks(masker_of(problem)(MaskUpdate(step=0, sparsity=rule), 0, session))
        before = session.weights()
        session.train_epoch(Epoch(rates=1.0), 0, masker_of(problem), silent)
        moved = [(value.astype(np.float64) - before[key]) for key, value in session.weights().items()]
        answers[name] = float(np.sqrt(sum((part**2).sum() for part in moved)))
    return answers


@experiment
def divergence():
    problem = language(steps=6)
    session = session_of(problem)
    try:
        session.train_epoch(Epoch(rates=(1.0, 1.0, 3e38, 1.0, 1.0, 1.0)), 0, masker_of(problem), silent)
    except DivergedError as error:
        return {"step": error.step, "sentence": str(error)}
    return {}


@experiment
def gradients_on_the_side():
    problem = language(steps=1, clip_norm=None)
    session = session_of(problem)
    before = session.weights()
    gradients = session.gradients(1, 0)
    session.train_epoch(Epoch(rates=1.0), 0, masker_of(problem), silent)
    step = {name: before[name] - value for name, value in session.weights().items()}

    long = language(rate=0.5, steps=6)
    runs, masker = [], masker_of(long)
    for look in (False, True):
        session = session_of(long)

        def looking(update, index, inner, look=look):
            if look:
                inner.gradients(3, index)
                inner.evaluate("valid")
            return masker(update, index, inner)

        epoch = Epoch(rates=0.5, updates=(MaskUpdate(step=3, sparsity=0.75),))
        session.train_epoch(epoch, 0, looking, silent)
        runs.append(session.state())
    mask = runs[0].masks["lstm_0.kernel"]
    first, second, both = (session.gradients(count, 0)["lstm_0.kernel"] for count in (1, 2, 2))
    return {
        "names": sorted(gradients),
        "off": max(float(np.abs(step[name] - value).max()) for name, value in gradients.items()),
        "size": min(float(np.abs(value).max()) for value in gradients.values()),
        "disturbed": differing(*runs),
        "masked_have_gradients": bool(first[~mask].any()),
        "second_batch_counts": bool((first != second).any()),
        "repeatable": bool((second == both).all()),
    }


@experiment
def evaluation():
    class Cut(TinyProblem):
        """Two batches of the same streams, whole or cut in the middle."""

        def batches(self, split, epoch, rng):
            from harness.api import Batch

            words = np.random.default_rng(3).integers(0, 11, (4, 21)).astype(np.int32)
            ends = [0, 20] if split == "valid" else [0, 13, 20]
            for start, stop in pairwise(ends):
                yield Batch(words[:, start:stop], words[:, start + 1 : stop + 1])

    session = session_of(Cut(language_network(rate=0.5, units=8)))
    whole, cut, again = session.evaluate("valid"), session.evaluate("test"), session.evaluate("valid")
    steps = []
    trained = session_of(language(steps=23))
    result = trained.train_epoch(Epoch(rates=0.1), 0, masker_of(language()), steps.append)
    return {
        "whole": whole.nats, "cut": cut.nats, "items": [whole.items, cut.items], "again": again.nats,
        "correct": whole.correct, "progress": steps, "train": [result.nats, result.items],
    }  # fmt: skip


@experiment
def images():
    problem = TinyProblem(image_network(), optimiser=SGD(momentum=0.9), steps=4, classes=3)
    session = session_of(problem)
    start = session.weights()
    masks = masker_of(problem)(MaskUpdate(step=0, sparsity=0.5), 0, session)
    session.set_masks(masks)
    returned = session.masks()
    session.train_epoch(Epoch(rates=0.1), 0, masker_of(problem), silent)
    score = session.evaluate("valid")
    return {
        "weights_return": all((start[name] == value).all() for name, value in problem.initial_weights(0).items()),
        "masks_return": [name for name, mask in masks.items() if (returned[name] == mask).all()],
        "zero": all(not session.weights()[name][~mask].any() for name, mask in masks.items()),
        "correct": score.correct,
        "items": score.items,
    }


@experiment
def exhausted_memory():
    import tensorflow as tf

    problem = language(steps=6)
    session = session_of(problem)

    def greedy(update, index, inner):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9999,9999]")

    try:
        session.train_epoch(Epoch(rates=0.1, updates=(MaskUpdate(step=0, sparsity=0.5),)), 0, greedy, silent)
    except MemoryError as error:
        return str(error)
    return "nothing"


@experiment
def refusals():
    problem = language(steps=6)
    session = session_of(problem)
    weights = session.weights()
    attempts = {
        "missing": lambda: session.load(State({"softmax.bias": weights["softmax.bias"]})),
        "transposed": lambda: session.load(State({**weights, "lstm_0.kernel": weights["lstm_0.kernel"].T})),
        "bias": lambda: session.set_masks({"softmax.bias": np.ones(11, np.bool_)}),
        "device": lambda: KerasTfmot().open(problem, Settings(device="cuda:7")),
    }
    return {name: _sentence(attempt) for name, attempt in attempts.items()}


def _sentence(attempt):
    try:
        attempt()
    except HarnessError as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


def main(out, *only):
    answers = {}
    configure(Settings())  # before an experiment imports TensorFlow unhushed, or computes anything
    for name, function in EXPERIMENTS.items():
        if only and name not in only:
            continue
        with guarded(answers, name):
            answers[name] = function()
    out.write_text(json.dumps(answers))


BEFOREHAND = {"keras answers.json": (__file__, "{out}")}


@pytest.fixture(scope="module")
def found(ran_beforehand):
    """What the process with TensorFlow found out, by experiment; one that broke fails the tests that ask for it."""
    done, out = ran_beforehand("keras answers.json")
    assert done.returncode == 0, done.stderr
    answers = read(out.read_text())
    answers["stderr"] = done.stderr
    return answers.__getitem__


@pytest.mark.tensorflow
class TestBesideTheToolkit:
    def test_a_gradual_cell_equals_polynomial_decay(self, found):
        rows = found("gradual_beside_polynomial_decay")

        assert [row["kept"]["lstm_0.kernel"] for row in rows] == [256, 145, 67, 64]
        assert all(row["masks_differ"] == [] for row in rows)
        assert all(row["weights_off"] < 1e-5 for row in rows)
        assert rows[-1]["moved"] > 1

    def test_both_count_the_same_pruning_steps(self, found):
        rows = found("gradual_beside_polynomial_decay")

        assert [row["steps"] for row in rows] == [[10, 10], [20, 20], [30, 30], [40, 40]]

    def test_ties_keep_everything_in_the_toolkit_and_the_lower_indices_here(self, found):
        answer = found("ties")

        assert answer["theirs"] == 64
        assert answer["ours"] == [True] * 16 + [False] * 48

    def test_n_of_m_is_computed_once_at_step_one_in_the_toolkit_whatever_its_schedule(self, found):
        answer = found("n_of_m")

        assert answer["theirs_after_one_step"] == 32
        assert not answer["theirs_changed_later"]

    def test_n_of_m_follows_the_schedule_here(self, found):
        answer = found("n_of_m")

        assert answer["ours_before_the_update"] == {}
        assert answer["ours"] == 32
        assert answer["ours_keeps_the_best_then"]


@pytest.mark.tensorflow
class TestSession:
    def test_ten_epochs_equal_five_saved_loaded_and_five_more(self, found):
        answer = found("resumed")

        assert answer["round_trip"] == []
        assert answer["differ"] == []

    def test_that_comparison_is_made_in_the_middle_of_pruning_with_dropout_and_momentum(self, found):
        answer = found("resumed")

        assert 0.1 < answer["sparsity"][0] < 0.7 < answer["sparsity"][1]
        assert answer["dropout_acts"]
        assert answer["moving"]

    def test_the_pruning_step_is_part_of_the_state(self, found):
        assert found("resumed")["steps"] == [60, 120]

    def test_a_step_is_traced_once_dense_and_once_pruned(self, found):
        assert found("resumed")["traces"] == [1, 1]

    @pytest.mark.parametrize("rule", ["sgd", "momentum", "adam"])
    def test_masked_weights_and_their_slots_are_exactly_zero_after_training(self, found, rule):
        answer = found("masked_weights")[rule]

        assert answer["sparsity"] == [0.75, 0.75, 0.75, 0.75]
        assert answer["zero"]
        assert answer["zero_within"]
        assert answer["kept_move"]
        assert answer["mask_kept"]

    def test_the_toolkit_masks_the_weights_at_the_end_of_an_epoch(self, found):
        answer = found("tampered")

        assert not answer["before"]
        assert answer["after"]

    @pytest.mark.parametrize(("kind", "shape"), [("images", [7]), ("text", [3, 5])])
    def test_cross_entropy_and_its_gradient_equal_those_of_tensorflow_exactly(self, found, kind, shape):
        answer = found("cross_entropy")[kind]

        assert answer["shapes"] == [shape, [*shape, 11]]
        assert answer["equal"] == [True, True]
        assert min(answer["spread"]) > 1

    def test_slots_are_those_of_the_rule(self, found):
        answer = found("masked_weights")

        assert [answer[rule]["slots"] for rule in ("sgd", "momentum", "adam")] == [[], ["momentum"], ["m", "t", "v"]]
        assert answer["adam"]["count"] == 12

    def test_the_finished_model_has_no_wrappers_and_gives_the_same_logits(self, found):
        answer = found("stripped")

        assert answer["wrapped"] == 4
        assert answer["stripped"] == ["Embedding", "LSTM", "LSTM", "Dense"]
        assert answer["variables"] == 9
        assert answer["off"] < 1e-6 < answer["spread"]
        assert answer["zeros"] == [0.75] * 6

    def test_a_clipped_step_is_as_long_as_rate_times_clip_norm_with_repeated_words(self, found):
        assert found("clipped_step_lengths")["dense"] == pytest.approx(0.01, rel=1e-3)

    def test_gradients_of_masked_weights_do_not_enter_the_clip_norm(self, found):
        assert found("clipped_step_lengths")["pruned"] == pytest.approx(0.01, rel=1e-3)

    def test_a_loss_that_is_not_finite_names_its_step(self, found):
        answer = found("divergence")

        assert answer["step"] == 3
        assert "at step 3" in answer["sentence"]

    def test_memory_that_runs_out_is_a_memory_error(self, found):
        assert "shape[9999,9999]" in found("exhausted_memory")

    def test_gradients_are_those_of_a_plain_step(self, found):
        answer = found("gradients_on_the_side")

        assert answer["names"] == ["embedding.table", "lstm_0.kernel", "lstm_0.recurrent_kernel", "softmax.kernel"]
        assert answer["off"] < 1e-6
        assert answer["size"] > 1e-3

    def test_looking_at_gradients_and_scores_leaves_a_running_epoch_alone(self, found):
        assert found("gradients_on_the_side")["disturbed"] == []

    def test_gradients_are_unmasked_and_averaged_over_batches(self, found):
        answer = found("gradients_on_the_side")

        assert answer["masked_have_gradients"]
        assert answer["second_batch_counts"]
        assert answer["repeatable"]

    def test_an_evaluation_does_not_depend_on_where_the_text_is_cut(self, found):
        answer = found("evaluation")

        assert answer["whole"] == pytest.approx(answer["cut"], rel=1e-6)
        assert answer["items"] == [80, 80]
        assert answer["again"] == answer["whole"]
        assert answer["correct"] is None

    def test_progress_is_told_every_ten_steps_and_at_the_end(self, found):
        answer = found("evaluation")

        assert answer["progress"] == [10, 20, 23]
        assert answer["train"][1] == 23 * 20
        assert answer["train"][0] / answer["train"][1] < np.log(11) + 0.1

    def test_convolutions_come_back_as_they_were_given(self, found):
        answer = found("images")

        assert answer["weights_return"]
        assert answer["masks_return"] == ["conv_0.kernel", "conv_1.kernel", "hidden.kernel", "output.kernel"]
        assert answer["zero"]
        assert answer["items"] == 16
        assert 0 <= answer["correct"] <= 16

    @pytest.mark.parametrize(
        ("attempt", "kind", "words"),
        [
            ("missing", "PluginContractError", "got softmax.bias; load a state of the same network"),
            ("transposed", "PluginContractError", "'lstm_0.kernel' must have the shape (32, 8), got (8, 32)"),
            ("bias", "PluginContractError", "got one of 'softmax.bias'"),
            ("device", "PluginUnavailableError", "got 'cuda:7'"),
        ],
    )
    def test_what_does_not_fit_is_refused_in_a_sentence(self, found, attempt, kind, words):
        answer = found("refusals")[attempt]

        assert answer[0] == kind
        assert words in answer[1]

    def test_tensorflow_starts_in_silence(self, found):
        assert "oneDNN" not in found("stderr")
        assert "cuda drivers" not in found("stderr")


def test_bfloat16_is_a_declared_skip():
    reason = KerasTfmot().why_not(None, Settings(precision="bfloat16"))

    assert "precision: float32" in reason
    assert KerasTfmot().why_not(None, Settings()) is None


@pytest.mark.parametrize(("device", "words"), [("tpu", "got `tpu`"), ("cuda:0", "needs an NVIDIA driver")])
def test_a_device_that_is_not_there_is_a_declared_skip(monkeypatch, device, words):
    def no_driver(name):
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", no_driver)

    assert words in KerasTfmot().why_not(None, Settings(device=device))


def test_missing_packages_are_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr("harness_plugins.backends.keras_tfmot.find_spec", lambda name: None)

    reason = KerasTfmot().why_unavailable()

    assert "tensorflow-model-optimization" in reason
    assert "pip install '.[keras]'" in reason
    with pytest.raises(PluginUnavailableError, match="tf-keras"):
        KerasTfmot().open(None, Settings())


def test_importing_the_backend_imports_no_framework():
    heavy = "{'tensorflow', 'tf_keras', 'keras', 'tensorflow_model_optimization', 'torch', 'scipy'}"
    look = f"k.KerasTfmot().versions(); print({heavy} & set(sys.modules))"
    code = f"import sys, harness_plugins.backends.keras_tfmot as k; {look}"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_the_way_into_keras_and_back_changes_nothing(inputs, outputs, kernel):
    conv = Conv2D(name="c", inputs=inputs, outputs=outputs, kernel=kernel, input_label="pixels")
    dense = Dense(name="d", inputs=inputs, units=outputs, input_label="c.channels")
    embedding = Embedding(name="e", words=outputs, features=inputs)

    for place in places(Network(layers=(conv, dense, embedding))).values():
        array = np.arange(place.tensor.size, dtype=np.float32).reshape(place.tensor.shape)

        assert (place.outward(place.inward(array)) == array).all()


def test_a_convolution_is_height_width_in_out_inside_keras():
    conv = Conv2D(name="c", inputs=2, outputs=3, kernel=(4, 5), input_label="pixels")
    kernel = np.zeros((3, 2 * 4 * 5), np.float32)
    kernel[2, 1 * 20 + 3 * 5 + 4] = 1  # output 2; input 1, tap (3, 4)

    inside = places(Network(layers=(conv,)))["c.kernel"].inward(kernel)

    assert inside.shape == (4, 5, 2, 3)
    assert inside[3, 4, 1, 2] == 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
