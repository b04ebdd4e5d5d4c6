"""Models of a user's own. PyTorch runs in processes of its own, this file being their script; pytest imports none."""

import json
import math
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


def problem_of(entry, folder=MODELS, file="everything.py", **parameters):
    from harness_plugins.tasks.own import Own

    values = {"entry": f"{file}:{entry}", **parameters}
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


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    Path(sys.argv[1]).write_text(json.dumps({name: function() for name, function in EXPERIMENTS.items()}))
