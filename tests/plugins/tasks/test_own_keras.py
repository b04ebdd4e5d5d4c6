"""Keras models of a user's own. TensorFlow runs in a process of its own, whose script is this file."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from layer_cases import assert_computed, expected_in_8_bits
from own_sessions import differing, epochs, train

MODELS = Path(__file__).with_name("own_models")
EXPERIMENTS = {}
BEFOREHAND = {"own keras models": [__file__, "{out}"]}


def experiment(function):
    """Run this function in the process that has TensorFlow; its answer is JSON."""
    EXPERIMENTS[function.__name__] = function
    return function


@pytest.fixture(scope="module")
def found(ran_beforehand):
    done, out = ran_beforehand("own keras models")
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


# --- in the process with TensorFlow -----------------------------------------------------------------------------------


def problem_of(entry, folder=MODELS, **parameters):
    from harness_plugins.tasks.own import Own

    values = {"entry": f"keras_models.py:{entry}", **parameters}
    return Own.model_validate_json(json.dumps(values), context={"folder": folder}).load(None)


def session_of(problem, seed=0):
    from harness_plugins.backends.keras_tfmot import KerasTfmot

    from harness.api import Settings, State

    session = KerasTfmot().open(problem, Settings(seed=seed))
    session.load(State(problem.initial_weights(seed)))
    return session


SESSIONS = {}


def shared(entry):
    """A session at its beginning; opening and tracing one takes seconds, so experiments share it."""
    from harness.api import State

    if entry not in SESSIONS:
        problem = problem_of(entry)
        SESSIONS[entry] = session_of(problem), problem.initial_weights(0)
    session, weights = SESSIONS[entry]
    session.load(State(weights))
    return session


@experiment
def layers():
    """Each kind of layer computed by itself, by an arithmetic that does not round, and by that of an engine."""
    import tensorflow as tf
    import tf_keras
    from harness_plugins.tasks.own import keras_layers
    from layer_cases import compared, in_8_bits, refused
    from layers_in_keras import alone, cases, contradicted, normed

    def outputs(model, inputs):
        model.reset_states()
        return [np.asarray(each) for each in tf.nest.flatten(model(inputs, training=False))]

    tf_keras.utils.set_random_seed(0)
    plain = {name: compared(model, inputs, outputs, keras_layers) for name, (model, inputs) in cases().items()}
    with_norms = {
        name: [compared(model, inputs, outputs, keras_layers), computed, folded]
        for name, (model, inputs, computed, folded) in normed().items()
    }
    bits = {name: in_8_bits(model, inputs, outputs, keras_layers) for name, (model, inputs) in alone().items()}
    contradiction = refused(*contradicted(), outputs, keras_layers)
    return {"plain": plain, "normed": with_norms, "in 8 bits": bits, "refused": contradiction}


@experiment
def tensors():
    answers = {}
    for entry in ("task", "subclassed"):
        problem = problem_of(entry)
        problem.native()
        network = problem.network
        answers[entry] = {
            "tensors": {
                t.name: [t.layer, t.role, list(t.shape), t.rows.repeat, t.cols.repeat if t.cols else None]
                for t in network.trained
            },
            "positions": network.positions,
            "steps": network.steps,
            "geometry": {
                name: [c.inputs, c.kernel, c.strides, c.output, c.image, c.groups]
                for name, c in network.convolutions().items()
            },
            "wrapped": network.wrapped,
            "frozen": [each.tensor for each in network.listed if each.left_out == "frozen"],
        }
    return answers


@experiment
def in_fixed_point():
    """A task in 16 bits, beside its own score."""
    from harness.api import NumberFormat
    from harness.fixed_point.own import evaluated_own

    problem = problem_of("subclassed")
    session = session_of(problem)
    state = session.state()
    fixed = evaluated_own(problem, state.weights, state.extra, NumberFormat(), 0)
    return [fixed.nats, session.evaluate("test").nats, fixed.folded, fixed.in_float]


@experiment
def steps():
    """Recurrent layers of two items, one of them padded, and how many steps of an item they were seen to run."""
    from harness_plugins.tasks.own.keras_model import Trace, held
    from layers_in_keras import cases

    found, known = {}, cases()
    for name in ("bidirectional GRU", "cells", "masked", "stateful inside a tf.function"):
        model, inputs = known[name]
        trace = Trace(model)
        model(inputs, training=False)
        trace.close()
        names = {id(each.layer): each.name for each in held(model)}
        found[name] = {names[layer]: count for layer, count in trace.steps(2).items()}
    return found


@experiment
def orientation():
    """Every place is a turn and its inverse; a GRU's gates and an attention's projection by hand."""
    problem = problem_of("task")
    native = problem.native()
    model = native.built(0)
    weights = problem.initial_weights(0)
    held = native.way.variables(model)
    bad = []
    for place in problem.network.places:
        value = held[place.parameter].numpy()
        if not np.array_equal(place.inward(weights[place.tensor]), value):
            bad.append(place.tensor)
    gru = held["both.forward_gru.kernel"].numpy()  # (inputs, z r h)
    z, r, h = np.split(gru, 3, axis=1)
    query = held["attention.query.kernel"].numpy()  # (inputs, heads, keys)
    depth = held["depth.depthwise_kernel"].numpy()  # (3, 3, channels, 1)
    return {
        "bad": bad,
        "gru": np.array_equal(weights["both.forward_gru.kernel"], np.concatenate([r, z, h], axis=1).T),
        "query": np.array_equal(weights["attention.query.kernel"], query.reshape(8, 8).T),
        "depth": np.array_equal(weights["depth.depthwise_kernel"], depth.reshape(9, 8).T),
    }


@experiment
def wrapped_is_the_same():
    """The wrapped and the finished model share their variables and give the user's own outputs."""
    session = shared("task")
    inputs, _ = next(session._own.batches("test", np.random.default_rng(0)))
    outputs = [np.asarray(model(inputs, training=False)) for model in (session._built, session.finished)]
    return [np.array_equal(*outputs), len(session._model.wrappers), len(session._model.masks)]


@experiment
def resumed():
    """run(4) against run(2), stop, run(2): with dropout, batch norm, and from inside pruning; and what was seeded."""
    import tensorflow as tf

    answers, seeds, set_seed = {}, [], tf.random.set_seed
    for entry in ("task", "subclassed", "stream"):
        first = shared(entry)
        train(first, epochs(2))
        kept = first.state()
        seeds.clear()
        tf.random.set_seed = lambda seed: seeds.append(seed) or set_seed(seed)
        train(first, epochs(4), first=2)
        tf.random.set_seed = set_seed
        whole = first.state()
        traces = [step.experimental_get_tracing_count() for step in first._steps.values()]
        seeded = len(seeds)
        second = session_of(problem_of(entry))  # a process that never trained the first half
        second.load(kept)
        train(second, epochs(4), first=2)
        answers[entry] = [differing(whole, second.state()), len(differing(whole, kept)), seeded, max(traces)]
    return answers


@experiment
def zeros():
    """Masked weights and optimiser state after every step of the two last epochs."""
    answers = {}
    for entry in ("task", "subclassed"):
        session = shared(entry)
        train(session, epochs(2))
        bad, steps, step_of = [], [0], session._own_step

        def checked(session=session, bad=bad, steps=steps, step_of=step_of):
            step = step_of()

            def run(*given):
                result = step(*given)
                steps[0] += 1
                for name, mask in session.masks().items():
                    weight = session._model.variables[name]
                    slots = [s for key, s in session._rule.slots.items() if key.partition("/")[2] == name]
                    like = session._rule.like(weight) if hasattr(session._rule, "like") else []
                    for variable in (weight, *slots, *like):
                        if session._places[name].outward(variable.numpy())[~mask].any():
                            bad.append(name)
                return result

            return run

        session._own_step = checked
        train(session, epochs(4), first=2)
        live = sum(bool(mask.any() and not mask.all()) for mask in session.masks().values())
        session._own_step = step_of
        answers[entry] = [bad, steps[0], live]
    return answers


@experiment
def buffers():
    from harness.api import State

    session = shared("subclassed")
    first = session.state()
    train(session, epochs(1))
    trained = session.state()
    session.gradients(2, 0)
    session.evaluate("valid")
    after = session.state()
    session.load(State(first.weights))
    return {
        "moved": first.extra["buffer/norm.moving_mean"].tolist() != trained.extra["buffer/norm.moving_mean"].tolist(),
        "frozen": "buffer/frozen.kernel" in trained.extra,
        "gradients": differing(trained, after),
        "again": differing(first, session.state()),
    }


@experiment
def measurements():
    """What scores need: norms of the inputs of a convolution and of a projection, by hand; H g by a difference."""
    import tensorflow as tf

    from harness.api import Measurement, State

    session = shared("task")
    batch, _ = next(session._own_batches("train", 0))
    norms = session.measured(Measurement(what="input_norms", batches=1), 0)
    moments = session.measured(Measurement(what="input_moments", batches=1), 0)
    windows = tf.image.extract_patches(batch, [1, 3, 3, 1], [1] * 4, [1] * 4, "SAME").numpy().reshape(-1, 9)
    plain = shared("stream")
    state = plain.state()
    product = plain.measured(Measurement(what="hessian_gradients", batches=1), 0)
    gradient = plain.gradients(1, 0)
    sides = []
    for step in (np.float32(3e-3), np.float32(-3e-3)):
        moved = {name: w + step * gradient[name] if name in gradient else w for name, w in state.weights.items()}
        plain.load(State(moved))
        sides.append(plain.gradients(1, 0))
    name = max(gradient, key=lambda each: np.abs(product[each]).max())
    difference = (sides[0][name] - sides[1][name]) / 6e-3
    return {
        "conv": float(np.abs(norms["conv.kernel"] - np.sqrt((windows.astype(np.float64) ** 2).sum(0))).max()),
        "named": sorted(norms),
        "moments": all(np.allclose(np.sqrt(np.diag(moments[each])), norms[each]) for each in norms),
        "hessian": float(np.abs(difference - product[name]).max() / np.abs(product[name]).max()),
    }


@experiment
def metrics():
    import tf_keras

    problem = problem_of("own_metric")
    session = session_of(problem)
    evaluation = session.evaluate("test")
    inputs, targets = next(problem.native().batches("test", np.random.default_rng(0)))
    outputs = np.asarray(session.finished(inputs, training=False))
    expected = float(np.abs(1 - outputs[np.arange(20), targets]).mean())
    nats = float(np.sum(tf_keras.losses.sparse_categorical_crossentropy(targets, outputs, from_logits=True)))
    return [evaluation.value, expected, evaluation.nats, nats, evaluation.items, evaluation.activation_density]


@experiment
def pretrained():
    """A checkpoint of each kind: its weights and buffers are those of the first state."""
    import tempfile

    from safetensors.numpy import save_file

    answers = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(MODELS / "keras_models.py", folder)
        session = shared("task")
        train(session, epochs(1))
        held = session._own.way.variables(session.finished)
        wanted = {key: variable.numpy() for key, variable in held.items()}
        save_file(wanted, folder / "start.safetensors")
        for key, variable in session._own.way.variables(session._built).items():
            variable.assign(wanted[key])
        session._built.save_weights(str(folder / "start.weights.h5"))
        session._built.save(str(folder / "start.keras"))
        for start in ("start.safetensors", "start.weights.h5", "start.keras"):
            begun = session_of(problem_of("pretrained", folder, start=start), seed=5)
            now = begun._own.way.variables(begun.finished)
            answers[start] = [key for key, value in wanted.items() if not np.array_equal(now[key].numpy(), value)]
        try:
            (folder / "wrong.safetensors").write_bytes((folder / "start.safetensors").read_bytes()[:100])
            session_of(problem_of("pretrained", folder, start="wrong.safetensors"))
        except Exception as error:
            answers["wrong"] = [type(error).__name__, str(error)]
    return answers


@experiment
def autograph():
    """Files whose source is read while steps and evaluations are traced, and whether branches over tensors work."""
    from unittest.mock import patch

    import harness_plugins
    from tensorflow.python.autograph.impl import api
    from tensorflow.python.autograph.pyct import parser

    import harness

    folders = [Path(folder).resolve() for package in (harness, harness_plugins) for folder in package.__path__]
    read, parse, answers = set(), parser.parse_entity, {}

    def watched(entity, *given, **named):
        read.add(Path(entity.__code__.co_filename).resolve())
        return parse(entity, *given, **named)

    with (
        patch.object(parser, "parse_entity", watched),
        patch.object(api, "_fall_back_unconverted", side_effect=OSError),
    ):
        for entry in ("task", "branching"):
            read.clear()
            session = session_of(problem_of(entry))
            train(session, epochs(2))
            session.gradients(1, 0)
            value = session.evaluate("test").value
            ours = sorted(str(path) for path in read if any(path.is_relative_to(folder) for folder in folders))
            answers[entry] = [ours, (MODELS / "keras_models.py").resolve() in read, value]
    return answers


@experiment
def errors():
    answers = {}
    for entry in (
        "late_error", "wrong_shape", "not_finite", "out_of_memory", "ends_early", "probabilities", "unsteady", "endless"
    ):  # fmt: skip
        try:
            problem = problem_of(entry)
            train(session_of(problem), epochs(1))
            problem.native().fingerprint()
        except BaseException as error:
            answers[entry] = [type(error).__name__, str(error)]
    return answers


@experiment
def brought():
    """What people bring: what is said of it, or what it trains to; traced once, and not at all where that suffices."""
    sys.path.insert(0, str(MODELS))
    import keras_models

    answers = {}
    for name in keras_models.BROUGHT:
        problem = problem_of("brought", name=name)
        try:
            network, opened = problem.native().network, problem.native()
        except Exception as error:
            answers[name] = [type(error).__name__, str(error)]
            continue
        model, (inputs, targets) = opened.built(0), opened.first
        outputs = opened.forward(model, inputs)
        answers[name] = {
            "loss": float(opened.loss(outputs, targets)),
            "measured": float(opened.sums(opened.measured(outputs, targets), 0.0)),
            "items": opened.items(targets),
            "wrapped": network.wrapped,
            "softmax": [tensor.name for tensor in network.trained if tensor.role == "softmax"],
            "rates": problem.recipe.learning_rate.at(1),
        }
    for name in ("two of each", "one-hot targets"):  # in a graph, where fewer shapes are known
        session = session_of(problem_of("brought", name=name))
        train(session, epochs(1))
        answers[name]["trained"] = session.evaluate("test").items
    return answers


@experiment
def drawn():
    """Items with draws from NumPy in an epoch that is resumed, whatever was drawn before."""
    session = session_of(problem_of("drawn"))
    train(session, epochs(1))
    kept = session.state()
    train(session, epochs(2), first=1)
    whole = session.state()
    np.random.seed(77)
    session.load(kept)
    train(session, epochs(2), first=1)
    return differing(whole, session.state())


# --- in the process of pytest -----------------------------------------------------------------------------------------


def test_matrices_of_every_kind_of_layer_are_found_with_their_roles_and_axes(found):
    tensors = found["tensors"]["task"]["tensors"]

    assert tensors["conv.kernel"] == ["conv", "conv", [8, 9], 1, 9]
    assert tensors["depth.depthwise_kernel"] == ["depth", "conv", [8, 9], 1, 1]
    assert tensors["grouped.kernel"] == ["grouped", "conv", [8, 4], 1, 1]
    assert tensors["lstm.kernel"] == ["lstm", "lstm", [16, 8], 4, 1]
    assert tensors["lstm.recurrent_kernel"] == ["lstm", "lstm", [16, 4], 4, 1]
    assert tensors["both.backward_gru.recurrent_kernel"] == ["both.backward_gru", "gru", [18, 6], 3, 1]
    assert tensors["attention.query.kernel"] == ["attention.query", "attention", [8, 8], 1, 1]
    assert tensors["attention.attention_output.kernel"][1:3] == ["attention", [8, 8]]
    assert tensors["out.kernel"] == ["out", "softmax", [3, 12], 1, 1]
    assert tensors["norm.gamma"][1:3] == ["bias", [8]]


def test_a_subclassed_model_has_its_own_matrices_and_frozen_layers_are_told(found):
    subclassed = found["tensors"]["subclassed"]

    assert subclassed["tensors"]["own"][1:3] == ["dense", [8, 8]]
    assert subclassed["wrapped"] == []
    assert subclassed["frozen"] == ["frozen.kernel", "frozen.bias"]


def test_positions_of_an_item_are_those_of_a_call(found):
    assert found["tensors"]["task"]["positions"] == {
        "conv": 16, "depth": 16, "grouped": 16, "attention.query": 16, "attention.key": 16, "attention.value": 16,
        "attention.attention_output": 16, "out": 1,
    }  # fmt: skip


def test_a_model_in_16_bits_has_its_norms_in_their_layers_and_scores_as_it_is(found):
    fixed, floating, *told = found["in_fixed_point"]

    assert fixed == pytest.approx(floating, rel=0.05)  # few validation items: some values of the test saturate
    assert told == [{"first": "norm"}, ["model"]]


def test_steps_of_recurrent_layers_are_those_of_a_call(found):
    assert found["tensors"]["task"]["steps"] == {"lstm": 16, "both.forward_gru": 16, "both.backward_gru": 16}
    assert found["steps"] == {
        "bidirectional GRU": {"layer.forward_inner": 4, "layer.backward_inner": 4, "next": 4},
        "cells": {"layer": 4, "next": 4},
        "masked": {"lstm": 3, "gru": 3},
        "stateful inside a tf.function": {},
    }


def test_the_geometry_of_convolutions_is_that_of_a_call(found):
    assert found["tensors"]["task"]["geometry"] == {
        "conv": [1, [3, 3], [1, 1], [4, 4], [4, 4], 1],
        "depth": [8, [3, 3], [1, 1], [4, 4], [4, 4], 8],
        "grouped": [8, [1, 1], [1, 1], [1, 16], [1, 16], 2],
    }


def test_tensors_are_turned_into_the_orientation_of_the_harness_and_back(found):
    assert found["orientation"] == {"bad": [], "gru": True, "query": True, "depth": True}


def test_what_tfmot_can_wrap_is_wrapped_and_computes_the_same(found):
    same, wrappers, masks = found["wrapped_is_the_same"]

    assert found["tensors"]["task"]["wrapped"] == ["conv", "grouped", "lstm", "out"]
    assert same
    assert wrappers == 4
    assert masks > wrappers


@pytest.mark.parametrize("entry", ["task", "subclassed", "stream"])
def test_four_epochs_are_two_and_two_with_dropout_and_inside_pruning(found, entry):
    different, from_half_way, _, traces = found["resumed"][entry]

    assert different == []
    assert from_half_way > 4
    assert traces == 1


@pytest.mark.parametrize(("entry", "epochs_seeded"), [("task", 0), ("subclassed", 2), ("stream", 2)])
def test_compiled_steps_are_kept_from_epoch_to_epoch_unless_something_draws_from_the_global_seed(
    found, entry, epochs_seeded
):
    *_, seeded, _ = found["resumed"][entry]

    assert seeded >= epochs_seeded
    assert (seeded == 0) == (epochs_seeded == 0)  # of two epochs


@pytest.mark.parametrize(("entry", "matrices"), [("task", 14), ("subclassed", 4)])
def test_masked_weights_and_optimiser_state_are_zero_after_every_step(found, entry, matrices):
    bad, steps, live = found["zeros"][entry]

    assert bad == []
    assert steps == 2 * 6
    assert live == matrices


def test_buffers_are_in_the_state_and_begin_anew(found):
    assert found["buffers"] == {"moved": True, "frozen": True, "gradients": [], "again": []}


def test_what_scores_need_of_inputs_and_of_the_hessian_is_measured(found):
    measured = found["measurements"]

    assert measured["conv"] < 1e-4
    assert {"conv.kernel", "out.kernel", "attention.query.kernel", "attention.attention_output.kernel"} <= set(
        measured["named"]
    )
    assert measured["moments"]
    assert measured["hessian"] < 0.1  # a finite difference, in float32


def test_autograph_reads_the_users_files_alone_and_takes_branches_over_tensors(found):
    assert found["autograph"]["task"][:2] == [[], False]  # a functional model is converted by nobody
    assert found["autograph"]["branching"] == [[], True, 2.0]


def test_a_metric_of_ones_own_is_made_of_sums_over_items(found):
    value, expected, nats, wanted, items, density = found["metrics"]

    assert value == pytest.approx(expected, rel=1e-5)
    assert value > 0
    assert nats == pytest.approx(wanted, rel=1e-5)
    assert items == 20
    assert 0 < density["depth"] < 1  # what a ReLU leaves
    assert 0 < density["lstm"] <= 1
    assert "norm" not in density  # no matrix


@pytest.mark.parametrize("start", ["start.safetensors", "start.weights.h5", "start.keras"])
def test_a_checkpoint_gives_weights_and_buffers(found, start):
    assert found["pretrained"][start] == []


def test_a_damaged_checkpoint_is_told(found):
    kind, text = found["pretrained"]["wrong"]

    assert kind == "SpecError"
    assert "wrong.safetensors does not load" in text


def line_of(text):
    lines = (MODELS / "keras_models.py").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_an_error_in_compiled_code_names_the_users_file_and_line(found):
    kind, text = found["errors"]["late_error"]

    assert kind == "OwnCodeError"
    line = line_of("raise RuntimeError")
    assert text == f"keras_models.py:{line}: a training step raised RuntimeError: the loss gave up"


def test_a_wrong_shape_names_the_users_file_and_line(found):
    kind, text = found["errors"]["wrong_shape"]

    assert kind == "OwnCodeError"
    assert text.startswith(f"keras_models.py:{line_of('tf.ones((7, 7))')}: the loss of the first batch raised ")


def test_a_loss_that_is_not_finite_names_the_loss_function(found):
    kind, text = found["errors"]["not_finite"]

    assert kind == "DivergedError"
    assert f"training loss (keras_models.py:{line_of('nan')})" in text


def test_too_little_memory_is_a_status_of_its_own_with_the_line(found):
    kind, text = found["errors"]["out_of_memory"]

    assert kind == "MemoryError"
    assert text.startswith(f"keras_models.py:{line_of('1 << 22')}: a training step raised ")


def test_data_that_end_early_are_told(found):
    kind, text = found["errors"]["ends_early"]

    assert kind == "OwnCodeError"
    assert "`train` must yield 3 batches an epoch, it ended after 2" in text


def test_probabilities_without_their_logits_are_refused_by_the_default_loss(found):
    assert "so they are probabilities" in found["errors"]["probabilities"][1]


def test_a_stream_that_shuffles_by_itself_is_refused_with_the_way_out(found):
    kind, text = found["errors"]["unsteady"]

    assert kind == "DataError"
    assert "train=lambda seed: data.shuffle(1000, seed=seed)" in text


def test_a_stream_that_never_ends_is_refused(found):
    assert found["errors"]["endless"][0] == "DataError"


@pytest.mark.parametrize(
    ("name", "computed"),
    {
        "dense": ["layer"],
        "Conv1D": ["layer"],
        "Conv2D": ["layer"],
        "Conv3D": ["layer"],
        "DepthwiseConv1D": ["layer"],
        "DepthwiseConv2D": ["layer"],
        "SeparableConv1D": ["layer"],
        "SeparableConv2D": ["layer"],
        "LSTM": ["layer", "next"],
        "bidirectional GRU": ["layer.backward_inner", "layer.forward_inner", "next"],
        "cells": ["layer", "next"],
        "other functions": [],
        "masked": ["gru", "lstm", "next"],
        "attention": ["layer.attention_output", "layer.key", "layer.query", "layer.value"],
        "states": ["layer", "next"],
        "stateful inside a tf.function": ["d", "g"],
        "transposed convolution": [],
    }.items(),
)
def test_the_layers_of_keras_are_computed_by_another_arithmetic(found, name, computed):
    assert_computed(found["layers"]["plain"][name], computed)


def test_norms_of_keras_are_parts_of_the_layers_that_they_alone_read(found):
    assert len(found["layers"]["normed"]) >= 8
    for compared, computed, folded in found["layers"]["normed"].values():
        assert_computed(compared, computed, folded)


def test_a_model_of_keras_that_reads_sums_beside_their_norm_later_is_refused(found):
    text = found["layers"]["refused"]

    assert text.startswith("own: the sums of ")
    assert "go into after alone on the first batch" in text
    assert "keeps it in float32" in text


@pytest.mark.parametrize("name", ["linear", "conv"])
def test_a_layer_of_keras_with_its_norm_equals_the_integer_engine(found, name):
    in_8_bits = found["layers"]["in 8 bits"][name]
    (exponent,) = in_8_bits["exponents"].values()

    expected = expected_in_8_bits(exponent, 1e-3)

    assert np.array_equal(np.float32(in_8_bits["outputs"]), np.float32(expected))


@pytest.mark.parametrize(
    "name", ["one-hot targets", "a column of targets", "a loss of Keras", "a function of Keras", "a schedule of Keras"]
)
def test_data_and_losses_of_one_meaning_give_one_result(found, name):
    given, plain = found["brought"][name], found["brought"]["plain"]

    assert [given["measured"], given["items"]] == [plain["measured"], plain["items"]]
    assert given["loss"] == pytest.approx(plain["loss"], rel=1e-4)


def test_a_model_with_several_inputs_and_outputs_is_wrapped_and_trained(found):
    given = found["brought"]["two of each"]

    assert given["softmax"] == ["p.kernel", "q.kernel"]
    assert given["wrapped"] == ["hidden", "p", "q"]
    assert given["trained"] == found["brought"]["one-hot targets"]["trained"] == 48


@pytest.mark.parametrize(("name", "wrapped"), {"mixed precision": 0, "an activity regulariser": 1, "plain": 2}.items())
def test_layers_that_do_more_than_their_call_are_masked_in_place(found, name, wrapped):
    assert len(found["brought"][name]["wrapped"]) == wrapped


def test_a_schedule_of_keras_counts_the_steps_of_all_epochs(found):
    rates = found["brought"]["a schedule of Keras"]["rates"]

    assert rates == pytest.approx([0.02 * 0.5 ** (step / 10) for step in range(6, 12)], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "told"),
    {
        "one output": "takes an output for every class, the model gives (8, 1): one for an item; give a `measure`",
        "a metric of Keras": "got SparseCategoricalAccuracy of Keras, which averages by itself; write one",
        "a training of its own": "TrainingItself has a `train_step` of its own, which the harness never calls",
        "compiled with another loss": "compiled with the loss mse, which the harness does not read; give it as `loss`",
        "constraints": "has the constraint NonNeg, which only Keras' optimisers apply; give one, such as `optimiser=",
        "the same model again": "`model` must make a new model whenever it is called",
        "weights of items": "got 3 parts for a model of one input; the last part is the targets: of (inputs, targets",
        "a state from batch to batch": "rnn is stateful: it begins with what the batch before has left",
        "masked steps": "the model masks some steps of its outputs, which the default loss and `accuracy` would count",
    }.items(),
)
def test_what_would_give_a_wrong_number_is_refused_with_the_way_out(found, name, told):
    kind, text = found["brought"][name]

    assert kind == "SpecError"
    assert text.startswith("own: ")
    assert told in text


def test_draws_of_numpy_in_data_follow_from_the_epoch(found):
    assert found["drawn"] == []


if __name__ == "__main__":
    import os

    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    from harness_plugins.backends.keras_tfmot.toolkit import configure

    from harness.api import Settings

    configure(Settings())
    only = sys.argv[2:] or list(EXPERIMENTS)
    Path(sys.argv[1]).write_text(json.dumps({name: EXPERIMENTS[name]() for name in only}))
