"""Models of a user's own. PyTorch runs in processes of its own, this file being their script; pytest imports none."""

import copy
import json
import math
import random
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from layer_cases import assert_computed, expected_in_8_bits
from own_sessions import differing, epochs, train

MODELS = Path(__file__).with_name("own_models")
EXPERIMENTS = {}
BEFOREHAND = {"own models": [__file__, "{out}"]}


def experiment(function):
    """Run this function in the process that has PyTorch; its answer is JSON."""
    EXPERIMENTS[function.__name__] = function
    return function


@pytest.fixture(scope="module")
def found(ran_beforehand):
    done, out = ran_beforehand("own models")
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


# --- in the process with PyTorch --------------------------------------------------------------------------------------


def problem_of(entry, folder=MODELS, module="everything.py", **parameters):
    from harness_plugins.tasks.own import Own

    values = {"entry": f"{module}:{entry}", **parameters}
    return Own.model_validate_json(json.dumps(values), context={"folder": folder}).load(None)


def session_of(problem, seed=0):
    from harness_plugins.backends.torch_backend import TorchBackend

    from harness.api import Settings, State

    session = TorchBackend().open(problem, Settings(seed=seed))
    session.load(State(problem.initial_weights(seed)))
    return session


@experiment
def tensors():
    problem = problem_of("task")
    problem.native()
    network = problem.network
    return {
        "tensors": {
            t.name: [t.layer, t.role, list(t.shape), t.rows.repeat, t.cols.repeat if t.cols else None]
            for t in network.trained
        },
        "positions": network.positions,
        "geometry": {
            name: [c.inputs, c.kernel, c.strides, c.output, c.image, c.groups]
            for name, c in network.convolutions().items()
        },
        "steps": network.steps,
        "in_no_key": not {"traced", "steps"} & set(network.model_dump()),
        "labels": [network.trained[0].rows.label],
        "gates": sorted({t.rows.order for t in network.trained if t.role in ("lstm", "gru")}),
    }


@experiment
def in_fixed_point():
    """The finished task in 16 bits, beside its own score."""
    from harness.api import NumberFormat
    from harness.fixed_point.own import evaluated_own

    found = {}
    for entry in ("task",):
        problem = problem_of(entry)
        session = session_of(problem)
        train(session, epochs(1))
        state = session.state()
        fixed = evaluated_own(problem, state.weights, state.extra, NumberFormat(), 0)
        found[entry] = [fixed.nats, session.evaluate("test").nats, fixed.folded, fixed.in_float]
    return found


@experiment
def steps():
    """Recurrent layers of three items, and how many steps of an item they were seen to run."""
    import torch
    from harness_plugins.tasks.own.torch_model import Trace
    from layers_in_torch import recurrent

    found = {}
    for name, (module, inputs) in recurrent().items():
        trace = Trace(module)
        with torch.no_grad():
            module(*inputs)
        trace.close()
        found[name] = trace.steps(3)
    return found


@experiment
def tied():
    problem = problem_of("tied")
    problem.native()
    return {t.name: [t.role, list(t.shape)] for t in problem.network.trained}


@experiment
def resumed():
    """run(4) against run(2), stop, run(2): with dropout, batch norm, and from inside pruning; for three tasks."""
    answers = {}
    for entry in ("task", "given_optimiser", "loader"):
        whole = session_of(problem_of(entry))
        train(whole, epochs(4))
        first = session_of(problem_of(entry))
        train(first, epochs(2))
        second = session_of(problem_of(entry), seed=0)
        second.load(first.state())
        train(second, epochs(4), first=2)
        other = session_of(problem_of(entry), seed=1)
        train(other, epochs(4))
        answers[entry] = [differing(whole.state(), second.state()), len(differing(whole.state(), other.state()))]
    return answers


@experiment
def zeros():
    """Masked weights and optimiser state after every step, looked at from inside the loss."""
    answers = {}
    for entry in ("task", "given_optimiser"):
        session = session_of(problem_of(entry))
        bad, steps, inner = [], [0], session._stepper.step

        def step(weights, gradients, rate, scale, session=session, bad=bad, steps=steps, inner=inner):
            inner(weights, gradients, rate, scale)
            session._zero_given()
            state, steps[0] = session.state(), steps[0] + 1
            for name, mask in state.masks.items():
                arrays = [state.weights[name], *(v for k, v in state.slots.items() if k.partition("/")[2] == name)]
                bad.extend(name for array in arrays if bits(array[~mask]))
            for key, value in state.extra.items():
                name = key.removeprefix("optimiser/").rpartition("/")[0]
                if name in state.masks and value.size == state.masks[name].size:
                    bad.extend([key] if bits(value.reshape(state.masks[name].shape)[~state.masks[name]]) else [])

        session._stepper.step = step
        train(session, epochs(4))
        state = session.state()
        live = sum(bool(mask.any() and not mask.all()) for mask in state.masks.values())
        kept = [key for key in (*state.slots, *state.extra) if "moment" in key or key.startswith("m/")]
        answers[entry] = [bad, steps[0], live, len(kept)]
    return answers


def bits(values):
    """Whether one is set: that of a negative zero counts."""
    return any(values.tobytes())


@experiment
def seeds():
    """What a step costs beside the step: stacks that were written down; and the draws that follow from its seed."""
    import traceback

    import torch
    from harness_plugins.backends.torch_backend.own import _seed

    session, inner, stacks = session_of(problem_of("task")), traceback.format_stack, []
    traceback.format_stack = lambda *given, **named: stacks.append(1) or inner(*given, **named)
    try:
        train(session, epochs(1))
    finally:
        traceback.format_stack = inner
    draws = []
    for seed in (torch.manual_seed, _seed):
        seed(7 << 31 | 5)
        draws.append(torch.rand(5).tolist())
    return {"stacks": len(stacks), "draws": draws}


@experiment
def buffers():
    session = session_of(problem_of("task"))
    first = session.state()
    train(session, epochs(1))
    trained = session.state()
    session.gradients(2, 0)
    after = session.state()
    from harness.api import State

    train(session, epochs(3), first=1)
    masks = session.masks()
    session.load(State(trained.weights, {}, trained.slots, trained.extra))
    session.set_masks(masks)  # what a rewind to the end of the first epoch does
    rewound = session.state()
    session.load(State(first.weights))
    return {
        "rewound": [name for name, value in trained.extra.items() if rewound.extra[name].tobytes() != value.tobytes()],
        "still masked": sorted(rewound.masks) == sorted(masks),
        "first": first.extra["buffer/norm.running_mean"].tolist(),
        "trained": trained.extra["buffer/norm.running_mean"].tolist(),
        "gradients": differing(trained, after),
        "again": differing(first, session.state()),
    }


@experiment
def schedule():
    problem = problem_of("given_optimiser")
    problem.native()
    return [problem.recipe.learning_rate.at(epoch) for epoch in range(4)]


@experiment
def metrics():
    import torch

    problem = problem_of("own_metric")
    session = session_of(problem)
    evaluation = session.evaluate("test")
    inputs, targets = next(problem.native().batches("test", np.random.default_rng(0)))
    session._module.eval()
    with torch.no_grad():
        outputs = session._module(inputs)
    found, wanted = outputs.argmax(1) == 1, targets == 1
    expected = float(2 * (found & wanted).sum() / max(int(found.sum() + wanted.sum()), 1))
    nats = float(torch.nn.functional.cross_entropy(outputs, targets, reduction="sum"))
    density = session.evaluate("test").activation_density
    return [evaluation.value, expected, evaluation.nats, nats, evaluation.items, problem.value(evaluation), density]


@experiment
def pretrained():
    """A checkpoint of each kind: its weights and buffers are those of the first state."""
    import tempfile

    import torch
    from safetensors.torch import save_file

    answers = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in MODELS.glob("*.py"):
            shutil.copy(file, folder)
        session = session_of(problem_of("task"))
        train(session, epochs(1))
        state = {key: value.clone() for key, value in session._module.state_dict().items()}
        save_file(state, folder / "start.safetensors")
        torch.save(state, folder / "start.pt")
        torch.save(torch.nn.Linear(1, 1), folder / "pickled.pt")
        for start in ("start.safetensors", "start.pt"):
            begun = session_of(problem_of("pretrained", folder, start=start), seed=5)
            answers[start] = [
                name for name, value in begun._module.state_dict().items() if not torch.equal(value, state[name])
            ]
        try:
            session_of(problem_of("pretrained", folder, start="pickled.pt"))
        except Exception as error:
            answers["pickled.pt"] = str(error)
    return answers


@experiment
def layers():
    """Each kind of layer computed by itself, by an arithmetic that does not round, and by that of an engine."""
    import torch
    from harness_plugins.tasks.own import torch_layers
    from layer_cases import compared, in_8_bits, refused
    from layers_in_torch import alone, cases, contradicted, normed

    def outputs(module, inputs):
        with torch.no_grad():
            return flat(module(*inputs))

    def flat(found):
        if torch.is_tensor(found):
            return [found.numpy()]
        return [part for each in found if each is not None for part in flat(each)]

    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)
    plain = {name: compared(each.eval(), inputs, outputs, torch_layers) for name, (each, inputs) in cases().items()}
    with_norms = {
        name: [compared(module, inputs, outputs, torch_layers), computed, folded]
        for name, (module, inputs, computed, folded) in normed().items()
    }
    bits = {name: in_8_bits(module, inputs, outputs, torch_layers) for name, (module, inputs) in alone().items()}
    contradiction = refused(*contradicted(), outputs, torch_layers)
    return {"plain": plain, "normed": with_norms, "in 8 bits": bits, "refused": contradiction}


@experiment
def errors():
    answers = {}
    for entry in ("wrong_loss", "out_of_memory", "late_error", "not_finite", "ends_early"):
        try:
            problem = problem_of(entry)
            train(session_of(problem), epochs(1))
        except Exception as error:
            answers[entry] = [type(error).__name__, str(error)]
    for parameter in ("epochs", "wdth"):
        try:
            problem_of("task", **{parameter: 0}).native()
        except Exception as error:
            answers[parameter] = [type(error).__name__, str(error)]
    return answers


@experiment
def brought():
    """What people bring: one epoch of what is fine, in an order of its own, and what is said of the rest."""
    sys.path.insert(0, str(MODELS))
    import brought as cases
    import torch

    answers = {}
    for name in cases.FINE:
        problem = problem_of("task", module="brought.py", name=name)
        problem.native()
        session = session_of(problem)
        train(session, epochs(1))
        evaluation = session.evaluate("test")
        last = {t.name: t.role for t in problem.network.trained if t.is_prunable}
        answers[name] = [evaluation.value, evaluation.nats, evaluation.items, problem.recipe.learning_rate.at(0), last]
    for name in cases.REFUSED:
        try:
            assert not problem_of("task", module="brought.py", name=name).native().network
        except Exception as error:
            answers[name] = [type(error).__name__, str(error)]
    drawn = []
    for seed in (3, 4):  # whatever was drawn before
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        drawn.append(problem_of("imported", module="brought.py").native().own.facts["drawn"])
    normed = problem_of("normed", module="brought.py")
    normed.native()
    before = torch.get_num_threads(), np.geterr()["over"]
    train(session_of(problem_of("setting", module="brought.py")), epochs(1))
    after = torch.get_num_threads(), np.geterr()["over"]
    left_out = {each.tensor: each.left_out for each in normed.network.listed if len(each.shape) > 1}
    return {**answers, "drawn": drawn, "left out": left_out, "settings": [before, after]}


@experiment
def on_a_device():
    """What a batch is made of, on a device that holds no numbers."""
    from collections import namedtuple

    import torch
    from harness_plugins.backends.torch_backend.own import moved

    one, pair = torch.ones(2, 3), namedtuple("Pair", "x mask")
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(2, 4), torch.ones(1, 4)])
    found = moved(({"x": one, "none": None}, [pair(one, None), "words"], packed), torch.device("meta"))
    named, (again, words), data = found
    kinds = [type(each).__name__ for each in (found, found[1], again, data)]
    return [
        *kinds, [str(each.device) for each in (named["x"], again.x, data.data)], [named["none"], again.mask], words
    ]  # fmt: skip


@experiment
def turned():
    """Matrices that a module holds as (inputs, outputs), beside the same as PyTorch's layers hold them."""
    from harness.api import Measurement

    answers = {}
    for name in ("unsigned targets", "layers of GPT-2", "matrices of a module"):
        problem = problem_of("task", module="brought.py", name=name)
        session = session_of(problem)
        begun = {name: each for name, each in session.weights().items() if each.ndim == 2}
        gradients = session.gradients(1, 0)
        asked = () if name == "matrices of a module" else ("input_norms", "hessian_gradients")
        measured = [session.measured(Measurement(what=what, batches=1), 0) for what in asked]
        session.set_masks(
            {each: np.arange(values.size).reshape(values.shape) % 2 == 0 for each, values in begun.items()}
        )
        kept = [session.weights()[each] for each in begun]
        answers[name] = {
            "shapes": {t.name: t.shape for t in problem.network.trained if t.is_prunable},
            "positions": {each: problem.network.positions.get(each) for each in ("0", "2", "model")},
            "arrays": [
                array.tolist()
                for held in (begun, gradients, *measured)
                for array in (held[each] for each in begun if each in held)
            ] + [array.tolist() for array in kept],
        }  # fmt: skip
    return answers


@experiment
def followed():
    """Frozen copies that move, numbers that NumPy lacks, draws from Python and NumPy: resumed, and begun again."""
    from harness.api import NumberFormat, State
    from harness.fixed_point.own import evaluated_own

    answers = {}
    for entry in ("follower", "drawing"):
        whole = session_of(problem_of(entry, module="brought.py"))
        train(whole, epochs(3))
        first = session_of(problem_of(entry, module="brought.py"))
        train(first, epochs(2))
        kept = first.state()
        problem = problem_of(entry, module="brought.py")
        session = session_of(problem)
        session.load(kept)
        train(session, epochs(3), first=2)
        resumed = differing(whole.state(), session.state())
        state, scored = session.state(), session.evaluate("test")
        fixed = evaluated_own(problem, state.weights, state.extra, NumberFormat(), 0)
        session.load(State(problem.initial_weights(0)))
        train(session, epochs(3))
        answers[entry] = [resumed, differing(whole.state(), session.state()), scored.nats, fixed.nats]
    return answers


@experiment
def measurements():
    """What scores need of a model with attention: gradients, and H g, which a difference of gradients comes near to."""
    from harness.api import Measurement, State

    session = session_of(problem_of("task"))
    weights = session.state().weights
    gradient = session.measured(Measurement(what="gradients", batches=1), 0)
    product = session.measured(Measurement(what="hessian_gradients", batches=1), 0)
    sides = []
    for step in (np.float32(3e-3), np.float32(-3e-3)):
        session.load(State({name: w + step * gradient.get(name, np.float32(0)) for name, w in weights.items()}))
        sides.append(session.gradients(1, 0))
    name = max(gradient, key=lambda each: np.abs(product[each]).max())
    off = np.abs((sides[0][name] - sides[1][name]) / 6e-3 - product[name]).max() / np.abs(product[name]).max()
    return [sorted(gradient), sorted(product), float(off)]


@experiment
def checkpoints():
    """Weights under the names and in the dictionaries that trainers write them in."""
    import argparse
    import tempfile

    import torch
    from safetensors.torch import save_file, save_model

    sys.path.insert(0, str(MODELS))
    import brought as cases
    from torch.nn.utils import prune

    torch.manual_seed(3)
    model = cases.net()
    state = model.state_dict()
    halved = copy.deepcopy(model)
    prune.l1_unstructured(halved[0], "weight", 0.5)
    names, tied = list(state), cases.Tied()
    files = {
        "parallel.pt": {f"module.{name}": value for name, value in state.items()},
        "compiled.pt": {"model": {f"_orig_mod.module.{name}": value for name, value in state.items()}},
        "trainer.ckpt": {"epoch": 3, "state_dict": {f"model.{name}": value for name, value in state.items()}},
        "tutorial.pt": {"model_state_dict": state, "optimizer_state_dict": {"state": {}}, "loss": torch.ones(1)},
        "half.pth": {"net": {name: value.half() for name, value in state.items()}, "acc": 93.1},
        "pruned.pt": halved.state_dict(),
        "arguments.pt": {"state_dict": state, "args": argparse.Namespace(lr=0.1)},
        "whole.pt": model,
        "nothing.pt": {"epoch": 3},
    }
    answers = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(MODELS / "brought.py", folder)
        for file, content in files.items():
            torch.save(content, folder / file)
        save_file({name: state[name] for name in names[:2]}, folder / "a.safetensors")
        save_file({name: state[name] for name in names[2:]}, folder / "b.safetensors")
        parts = {"weight_map": {name: f"{'aabb'[place]}.safetensors" for place, name in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(parts))
        save_model(tied, str(folder / "tied.safetensors"))
        expected = {**dict.fromkeys(files, state), "pruned.pt": {**state, "0.weight": halved[0].weight.detach()}}
        expected["model.safetensors.index.json"] = state
        for file, wanted in expected.items():
            try:
                built = problem_of("start", folder, "brought.py", file=file).native().built(5)
            except Exception as error:
                answers[file] = str(error)
            else:
                answers[file] = max(float((built.state_dict()[key] - wanted[key]).abs().max()) for key in wanted)
        begun = problem_of("start", folder, "brought.py", file="tied.safetensors", kind="tied").native().built(5)
        answers["tied.safetensors"] = float((begun.out.weight - tied.out.weight).abs().max())
        inner = problem_of("start", folder, "brought.py", file="tutorial.pt", kind="wrapper").native().built(5)
        answers["of the inner module"] = float((inner.model[0].weight - state["0.weight"]).abs().max())
        sharded = problem_of("start", folder, "brought.py", file="model.safetensors.index.json").native()
        before = sharded.fingerprint()
        save_file({name: state[name] + 1 for name in names[2:]}, folder / "b.safetensors")
        answers["parts count"] = before != sharded.fingerprint()
    return answers


# --- in the process of pytest -----------------------------------------------------------------------------------------


def test_matrices_of_every_kind_of_layer_are_found_with_their_roles_and_axes(found):
    tensors = found["tensors"]["tensors"]

    assert tensors["words.weight"] == ["words", "embedding", [5, 3], 1, 1]
    assert tensors["conv.weight"] == ["conv", "conv", [8, 9], 1, 9]
    assert tensors["grouped.weight"] == ["grouped", "conv", [8, 4], 1, 1]
    assert tensors["lstm.weight_ih_l0"] == ["lstm.l0", "lstm", [16, 8], 4, 1]
    assert tensors["lstm.weight_hh_l0"] == ["lstm.l0", "lstm", [16, 4], 4, 1]
    assert tensors["gru.weight_hh_l0_reverse"] == ["gru.l0_reverse", "gru", [18, 6], 3, 1]
    assert tensors["out.weight"] == ["out", "dense", [3, 12], 1, 1]
    assert tensors["scale"][1:3] == ["bias", [12]]


def test_fused_projections_of_attention_are_told_apart(found):
    tensors = found["tensors"]["tensors"]

    assert {name: tensors[name] for name in tensors if "attention" in name and "bias" not in name} == {
        "attention.q.weight": ["attention.q", "attention", [8, 8], 1, 1],
        "attention.k.weight": ["attention.k", "attention", [8, 8], 1, 1],
        "attention.v.weight": ["attention.v", "attention", [8, 8], 1, 1],
        "attention.out_proj.weight": ["attention.out_proj", "attention", [8, 8], 1, 1],
    }


def test_positions_of_an_item_are_those_of_a_forward_pass(found):
    assert found["tensors"]["positions"] == {
        "conv": 16, "grouped": 16, "attention.q": 16, "attention.k": 16, "attention.v": 16, "attention.out_proj": 16,
        "out": 1,
    }  # fmt: skip


def test_a_trained_model_in_16_bits_has_its_norms_in_their_layers_and_scores_as_it_is(found):
    for entry, (folded, in_float) in {"task": ({"conv": "norm"}, ["model"])}.items():
        fixed, floating, *told = found["in_fixed_point"][entry]
        assert fixed == pytest.approx(floating, rel=0.05)  # few validation items: some values of the test saturate
        assert told == [folded, in_float]


def test_products_for_one_item_are_the_nearest_whole_number():
    from harness_plugins.tasks.own.steps import for_one

    assert [for_one(count, 12) for count in (1, 12, 13, 17, 18, 24, 31)] == [1, 1, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("equation", "has_inputs_first"),
    {
        "bsi,io->bso": True,
        "...i, oi -> ...o": False,
        "i,io->o": True,
        "bii,io->bio": None,  # a diagonal
        "boi,io->boo": None,
        "bio,io->bio": None,  # no sum
        "bi,io->ob": None,
        "bi,ij,jk->bk": None,
    }.items(),
)
def test_sums_over_an_index_are_products_where_they_multiply_vectors_with_a_matrix(equation, has_inputs_first):
    from harness_plugins.tasks.own.torch_products import _of_einsum

    found = _of_einsum(equation, "values", "matrix")

    assert (found and found.has_inputs_first) is has_inputs_first


def test_steps_of_recurrent_layers_are_those_of_a_forward_pass(found):
    assert found["tensors"]["steps"] == {"lstm.l0": 16, "gru.l0": 16, "gru.l0_reverse": 16}
    assert found["steps"] == {
        "time first": {"model.l0": 5},
        "stacked, both ways": dict.fromkeys(["model.l0", "model.l0_reverse", "model.l1", "model.l1_reverse"], 5),
        "projected": {"model.l0": 5, "model.l0.projection": 5},
        "called in a loop": {"inner.l0": 4},
        "cells in a loop": {"inner": 4},
        "packed, of one length": {"r.l0": 4, "r.l0_reverse": 4},
        "packed, of several": {"r.l0": None, "r.l0_reverse": None},
        "ending one after another": {"inner": None},
        "words for items": {"model.l0": None},
    }


def test_the_geometry_of_convolutions_is_that_of_the_forward_pass(found):
    assert found["tensors"]["geometry"] == {
        "conv": [1, [3, 3], [1, 1], [4, 4], [4, 4], 1],
        "grouped": [8, [1, 1], [1, 1], [1, 16], [1, 16], 2],
    }
    assert found["tensors"]["in_no_key"]
    assert found["tensors"]["gates"] == ["blocks"]


def test_tied_weights_are_one_tensor(found):
    assert found["tied"] == {"words.weight": ["embedding", [7, 4]]}


@pytest.mark.parametrize("entry", ["task", "given_optimiser", "loader"])
def test_four_epochs_are_two_and_two_with_dropout_and_inside_pruning(found, entry):
    different, with_another_seed = found["resumed"][entry]

    assert different == []
    assert with_another_seed > 10


@pytest.mark.parametrize("entry", ["task", "given_optimiser"])
def test_masked_weights_and_optimiser_state_have_no_bit_set_after_every_step(found, entry):
    bad, steps, live, kept = found["zeros"][entry]

    assert bad == []
    assert steps == 4 * 6
    assert live == 14
    assert kept > 10


def test_a_step_is_seeded_as_torch_would_and_writes_no_stack_down(found):
    ours, theirs = found["seeds"]["draws"]

    assert ours == theirs
    assert found["seeds"]["stacks"] == 0


def test_buffers_are_in_the_state_and_begin_anew(found):
    buffers = found["buffers"]

    assert buffers["first"] != buffers["trained"]
    assert buffers["gradients"] == []
    assert buffers["again"] == []


def test_a_rewind_brings_back_the_buffers_of_its_epoch_and_keeps_the_masks(found):
    assert found["buffers"]["rewound"] == []
    assert found["buffers"]["still masked"]


def test_a_schedule_of_the_users_is_followed_epoch_by_epoch(found):
    assert found["schedule"] == pytest.approx([0.05, 0.025, 0.05 / 3, 0.0125])


def test_a_metric_of_ones_own_is_made_of_sums_over_items(found):
    value, expected, nats, wanted, items, told, density = found["metrics"]

    assert value == pytest.approx(expected)
    assert told == value
    assert nats == pytest.approx(wanted, rel=1e-5)
    assert items == 20
    assert 0 < density["grouped"] < 1  # what a ReLU leaves


@pytest.mark.parametrize("start", ["start.safetensors", "start.pt"])
def test_a_checkpoint_gives_weights_and_buffers(found, start):
    assert found["pretrained"][start] == []


def test_a_checkpoint_that_would_run_code_is_refused(found):
    assert "pickled.pt does not load" in found["pretrained"]["pickled.pt"]


def test_errors_in_the_users_code_name_their_file_and_line(found):
    kind, text = found["errors"]["late_error"]
    line = next(
        number
        for number, line in enumerate((MODELS / "everything.py").read_text().splitlines(), 1)
        if "gave up" in line
    )

    assert kind == "OwnCodeError"
    assert text == f"everything.py:{line}: the loss raised RuntimeError: the loss gave up"


def line_of(text):
    lines = (MODELS / "everything.py").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_a_parameter_that_the_function_does_not_take_is_told_and_where_a_field_of_the_model_is_set(found):
    refused = "own: everything.py:task takes no parameter '{}'; it takes width"

    assert found["errors"]["wdth"] == ["SpecError", refused.format("wdth")]
    assert found["errors"]["epochs"] == [
        "SpecError", refused.format("epochs") + "; set `epochs=` of its OwnModel, or give it such a parameter",
    ]  # fmt: skip


def test_a_wrong_shape_names_the_users_file_and_line(found):
    kind, text = found["errors"]["wrong_loss"]

    assert kind == "OwnCodeError"
    assert text.startswith(f"everything.py:{line_of('mse_loss')}: the loss of the first batch raised RuntimeError: ")


def test_too_little_memory_is_a_status_of_its_own_with_the_line(found):
    kind, text = found["errors"]["out_of_memory"]

    assert kind == "MemoryError"
    assert text.startswith(f"everything.py:{line_of('1 << 60')}: ")


def test_a_loss_that_is_not_finite_names_the_loss_function(found):
    kind, text = found["errors"]["not_finite"]

    assert kind == "DivergedError"
    assert "training loss (everything.py:" in text


def test_data_that_end_early_are_told(found):
    assert found["errors"]["ends_early"] == [
        "OwnCodeError",
        "everything.py: `train` must yield 3 batches an epoch, it ended after 2; let it yield as many every time, or "
        "set `steps_per_epoch`",
    ]


@pytest.mark.parametrize(
    ("name", "computed"),
    {
        "linear": ["model"],
        "Conv1d": ["model"],
        "Conv2d": ["model"],
        "Conv2d of one image": ["model"],
        "Conv2d same": ["model"],
        "Conv3d": ["model"],
        "LSTM": ["model.l0", "model.l0_reverse", "model.l1", "model.l1_reverse"],
        "projected LSTM": ["model.l0", "model.l0.projection", "model.l1", "model.l1.projection"],
        "GRU": ["model.l0", "model.l0_reverse", "model.l1", "model.l1_reverse"],
        "RNN of one item": ["model.l0"],
        "packed GRU": ["r.l0", "r.l0_reverse"],
        "LSTMCell": ["model"],
        "GRUCell": ["model"],
        "RNNCell": ["model"],
        "attention": ["model.k", "model.out_proj", "model.q", "model.v"],
        "encoder layer": ["linear1", "linear2", "self_attn.k", "self_attn.out_proj", "self_attn.q", "self_attn.v"],
        "tied": ["emb"],
        "forward of ones own": [],
        "matrices by inputs": ["model", "model.first", "model.second"],
        "sums over an index": ["model", "model.first", "model.second"],
        "something else added": [],
        "transposed convolution": [],
    }.items(),
)
def test_the_layers_of_torch_are_computed_by_another_arithmetic(found, name, computed):
    assert_computed(found["layers"]["plain"][name], computed)


def test_norms_of_torch_are_parts_of_the_layers_that_they_alone_read(found):
    assert len(found["layers"]["normed"]) >= 8
    for compared, computed, folded in found["layers"]["normed"].values():
        assert_computed(compared, computed, folded)


def test_a_model_of_torch_that_reads_sums_beside_their_norm_later_is_refused(found):
    text = found["layers"]["refused"]

    assert text.startswith("own: the sums of ")
    assert "go into norm alone on the first batch" in text
    assert "keeps it in float32" in text


@pytest.mark.parametrize("name", ["linear", "conv"])
def test_a_layer_of_torch_with_its_norm_equals_the_integer_engine(found, name):
    in_8_bits = found["layers"]["in 8 bits"][name]
    (exponent,) = in_8_bits["exponents"].values()

    expected = expected_in_8_bits(exponent, 1e-3)

    assert np.array_equal(np.float32(in_8_bits["outputs"]), np.float32(expected))


def test_a_metric_whose_last_step_overflows_is_infinite_and_no_mistake():
    from harness_plugins.tasks.own.opened import Opened

    own = SimpleNamespace(measure=None, finish=lambda sums, items: math.exp(sums / items))

    assert Opened.value(SimpleNamespace(own=own), 800.0, 1) == math.inf
    assert Opened.value(SimpleNamespace(own=own), 0.0, 1) == 1.0


@pytest.mark.parametrize(
    ("name", "like"),
    {
        "a column of targets": "unsigned targets",
        "whole numbers as floats": "unsigned targets",
        "arrays of another machine": "unsigned targets",
        "one-hot targets": "unsigned targets",
        "long doubles": "unsigned targets",
        "compiled": "unsigned targets",
        "a rate of NumPy": "unsigned targets",
        "log-softmax": "unsigned targets",
        "layers of GPT-2": "unsigned targets",
        "matrices of a module": "unsigned targets",
        "items with named inputs and targets": "items with nested inputs",
        "lists of arrays": "items with nested inputs",
    }.items(),
)
def test_data_and_models_of_one_meaning_give_one_result(found, name, like):
    value, nats, items, *_ = found["brought"][name]
    wanted_value, wanted_nats, wanted_items, *_ = found["brought"][like]

    assert [value, items] == [wanted_value, wanted_items]
    assert nats == pytest.approx(wanted_nats, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "items"),
    {
        "half inputs": 16,
        "flipped arrays": 16,
        "packed sequences": 16,
        "batches of a class": 16,
        "items with nested inputs": 16,
        "padding as PyTorch marks it": 48,  # of 80, two fifths of them padding
        "a named tuple": 16,
        "a metric in bfloat16": 16,
    }.items(),
)
def test_data_of_many_shapes_are_trained_on_and_their_items_counted(found, name, items):
    value, nats, counted, *_ = found["brought"][name]

    assert counted == items
    assert math.isfinite(nats)
    assert 0 <= value <= 100


@pytest.mark.parametrize(
    ("name", "layers"),
    {
        "log-softmax": {"0.2.weight"},
        "a named tuple": {"out.weight"},
        "items with nested inputs": {"p.weight", "q.weight"},
        "compiled": {"2.weight"},
        "layers of GPT-2": {"2.weight"},
    }.items(),
)
def test_the_layers_that_give_the_outputs_are_told_whatever_comes_after_them(found, name, layers):
    *_, roles = found["brought"][name]

    assert {tensor for tensor, role in roles.items() if role == "softmax"} == layers


def test_a_batch_goes_to_a_device_whatever_holds_it(found):
    *kinds, devices, nothing, words = found["on_a_device"]

    assert kinds == ["tuple", "list", "Pair", "PackedSequence"]
    assert devices == ["meta"] * 3
    assert (nothing, words) == ([None, None], "words")


def test_matrices_as_inputs_by_outputs_are_seen_as_those_of_layers(found):
    layers, gpt, module = found["turned"].values()

    assert layers["shapes"] == gpt["shapes"] == {"0.weight": [8, 6], "2.weight": [3, 8]}
    assert module["shapes"] == {"first": [8, 6], "last": [3, 8]}
    assert gpt["positions"]["0"] == layers["positions"]["0"] == 1 == module["positions"]["model"]
    for one, other in zip(layers["arrays"], gpt["arrays"], strict=True):
        assert np.allclose(one, other, rtol=1e-4, atol=1e-6)
    for one, other in zip([*layers["arrays"][:4], *layers["arrays"][-2:]], module["arrays"], strict=True):
        assert np.allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "told"),
    {
        "regression": "the measure `accuracy` takes an output for every class, the model gives (8, 1): one for an item",
        "one logit": "the default loss, cross-entropy, takes an output for every class",
        "two classes in one output": "give a `measure`: `loss`, or a function with its `metric`",
        "several classes": "takes one class an item, some targets have several, or none; give a `measure`",
        "classes from 1": "classes from 0 to 2, since the model has 3 outputs, got 1 to 3; number them from 0",
        "probabilities": "so they are probabilities, and the default loss takes logits",
        "a dictionary of outputs": "the model gives a dict of logits, hidden; give `loss=lambda outputs, targets: ...`",
        "a sum for a loss": "for the same batch twice, which is a sum; divide it by the number of items",
        "a mean for a metric": "for the same batch twice, which is a mean; take the sum",
        "a loss that learns": "`loss` must have no parameters, Loss has scale, which would never be trained",
        "a loss by name": "`loss` must be a function (outputs, targets) -> the mean over the items, got 'mse'",
        "an optimiser": "`optimiser=lambda parameters: torch.optim.RMSprop(parameters)`, got a torch.optim.sgd.SGD",
        "a scheduler": "a function epoch -> the rate, or the rates of its steps, got a torch.optim.lr_scheduler.StepLR",
        "a metric by name": "`measure` must be one of accuracy, perplexity, loss, or a function",
        "a model": "`model` must be a function that makes the model; write `model=lambda: Net()`",
        "the same model again": "must make a new model whenever it is called, got the 0.weight of the one before",
        "a layer of every model": "make all of its layers inside the function, or `copy.deepcopy` what is outside",
        "TorchScript": "got one of TorchScript, whose layers cannot be seen; leave out `torch.jit`",
        "frozen": "the model must have parameters that are trained, all of its own are frozen",
        "a generator": "`train` can be read once only, got generator, and every epoch reads it; give a function of",
        "batches of names": "must be (inputs, targets), got dict of x, z, labels; yield both, such as (",
        "words": "data must be numbers, got <U1 of shape (48,); encode them",
        "rows of several lengths": "data must be arrays, got rows of several lengths",
    }.items(),
)
def test_what_would_give_a_wrong_number_or_none_is_refused_with_the_way_out(found, name, told):
    kind, text = found["brought"][name]

    assert kind in ("SpecError", "DataError")
    assert text.startswith("own: ")
    assert told in text


def test_what_a_file_draws_while_it_is_imported_is_always_the_same(found):
    first, second = found["brought"]["drawn"]

    assert first == second


def test_settings_of_the_process_that_a_users_code_changes_are_put_back(found):
    before, after = found["brought"]["settings"]

    assert before == after


def test_weights_that_are_made_of_others_are_left_out_with_the_reason(found):
    left_out = found["brought"]["left out"]

    assert "take it off (`remove_parametrizations`)" in left_out["0.parametrizations.weight.original1"]
    assert "take it off (`remove_weight_norm`, `prune.remove` or the like)" in left_out["2.weight_orig"]


def test_what_scores_need_of_gradients_and_of_the_hessian_is_measured_through_attention(found):
    gradients, products, off = found["measurements"]

    assert "attention.q.weight" in gradients
    assert gradients == products
    assert off < 0.1  # a finite difference, in float32


@pytest.mark.parametrize("entry", ["follower", "drawing"])
def test_what_moves_without_being_trained_and_draws_of_python_and_numpy_resume_and_begin_anew(found, entry):
    resumed, again, scored, fixed = found["followed"][entry]

    assert resumed == []
    assert again == []
    assert fixed == pytest.approx(scored, rel=0.05)


@pytest.mark.parametrize(
    "file", ["parallel.pt", "compiled.pt", "trainer.ckpt", "tutorial.pt", "pruned.pt", "model.safetensors.index.json",
             "tied.safetensors", "of the inner module"],
)  # fmt: skip
def test_a_checkpoint_is_found_in_what_trainers_write(found, file):
    assert found["checkpoints"][file] == 0


def test_a_checkpoint_in_half_precision_is_taken_as_it_is(found):
    assert 0 < found["checkpoints"]["half.pth"] < 1e-3


@pytest.mark.parametrize(
    ("file", "told"),
    {
        "arguments.pt": "it holds more than weights (argparse.Namespace), or none at all",
        "whole.pt": "save weights alone, `torch.save(model.state_dict(), path)`",
        "nothing.pt": "it has no weights, only epoch",
    }.items(),
)
def test_a_checkpoint_without_weights_or_with_more_is_told_with_the_way_out(found, file, told):
    assert f"{file} does not load: " in found["checkpoints"][file]
    assert told in found["checkpoints"][file]


def test_the_parts_of_a_checkpoint_count(found):
    assert found["checkpoints"]["parts count"]


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    only = sys.argv[2:] or list(EXPERIMENTS)
    Path(sys.argv[1]).write_text(json.dumps({name: EXPERIMENTS[name]() for name in only}))
