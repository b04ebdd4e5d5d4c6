"""The PyTorch backend. PyTorch runs in a process of its own, this file being its script; pytest imports none of it."""

import json
import sys
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
    matrices,
    saved,
)
from harness_plugins.backends.torch_backend import TorchBackend
from harness_plugins.backends.torch_backend.processor import KERNELS, ROUNDED, bfloat16_arithmetic
from harness_plugins.patterns.bank_balanced import BankBalanced
from parts import guarded, read

from harness.api import (
    LSTM,
    SGD,
    Activation,
    Adam,
    Cubic,
    Dense,
    DivergedError,
    Embedding,
    Epoch,
    Gradient,
    HarnessError,
    MaskUpdate,
    Network,
    PluginContractError,
    PluginUnavailableError,
    Settings,
    State,
)

EXPERIMENTS = {}


def experiment(function):
    """Run this function in the process that has PyTorch; its answer is JSON."""
    EXPERIMENTS[function.__name__] = function
    return function


def silent(step):
    """A progress callback."""


def session_of(problem, seed=0, **settings):
    session = TorchBackend().open(problem, Settings(seed=seed, **settings))
    session.load(State(problem.initial_weights(seed)))
    return session


def language(**options):
    network = language_network(
        **{key: options.pop(key) for key in ("words", "units", "rate", "layers") if key in options}
    )
    return TinyProblem(network, **options)


def images(**options):
    return TinyProblem(image_network(), classes=3, batch=8, **options)


def no_masks(update, index, session):
    """For epochs without updates."""
    raise AssertionError("there is no update")


def largest_difference(ours, theirs):
    assert ours.keys() == theirs.keys(), (ours.keys(), theirs.keys())
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)


# --- plain PyTorch, by other means ------------------------------------------------------------------------------------


class PlainModel:
    """A network as anyone would write it: nn modules, autograd from the loss on, dense gradients."""

    def __init__(self, network, weights):
        import torch
        from torch import nn

        self.network, self.modules, self.parts = network, {}, {}
        for layer in network.layers:
            match layer.type:
                case "embedding":
                    module = nn.Embedding(layer.words, layer.features)
                    parts = {"table": module.weight}
                case "lstm":
                    module = nn.LSTM(layer.inputs, layer.units, batch_first=True)
                    module.bias_hh_l0.data.zero_()
                    module.bias_hh_l0.requires_grad_(False)
                    parts = {"kernel": module.weight_ih_l0, "recurrent_kernel": module.weight_hh_l0}
                    parts["bias"] = module.bias_ih_l0
                case "dense":
                    module = nn.Linear(layer.inputs, layer.units)
                    parts = {"kernel": module.weight, "bias": module.bias}
                case "conv2d":
                    module = nn.Conv2d(
                        layer.inputs, layer.outputs, layer.kernel, stride=layer.stride, padding=layer.padding
                    )
                    parts = {"kernel": module.weight, "bias": module.bias}
                case _:
                    continue
            self.modules[layer.name] = module
            self.parts.update({f"{layer.name}.{part}": value for part, value in parts.items()})
        for name, part in self.parts.items():
            part.data.copy_(torch.tensor(weights[name]).reshape(part.shape))

    def logits(self, inputs, carried):
        import torch
        from torch import nn

        x = torch.tensor(inputs)
        for layer in self.network.layers:
            match layer.type:
                case "lstm":
                    x, (h, c) = self.modules[layer.name](x, carried.get(layer.name))
                    carried[layer.name] = (h.detach(), c.detach())
                case "activation":
                    x = getattr(torch, layer.function)(x)
                case "pool2d":
                    x = (nn.MaxPool2d if layer.kind == "max" else nn.AvgPool2d)(layer.size)(x)
                case "flatten":
                    x = nn.Flatten()(x)
                case "dropout":
                    pass
                case _:
                    x = self.modules[layer.name](x)
        return x

    def loss(self, batch, carried):
        import torch

        logits = self.logits(batch.inputs, carried)
        targets = torch.tensor(batch.targets).long().reshape(-1)
        nats = torch.nn.functional.cross_entropy(logits.reshape(len(targets), -1), targets, reduction="sum")
        return nats / len(batch.inputs)

    def weights(self, problem):
        return {t.name: self.parts[t.name].detach().numpy().reshape(t.shape) for t in problem.tensors()}

    def gradients(self, problem):
        return {t.name: self.parts[t.name].grad.numpy().reshape(t.shape) for t in problem.tensors()}


def plainly_trained(problem, weights, rule, rate, masks=None):
    """The losses and weights of one epoch with PyTorch's own clipping, and its optimisers or plain SGD."""
    import torch

    model, carried, losses = PlainModel(problem.network, weights), {}, []
    parts = list(model.parts.values())
    if isinstance(rule, Adam):
        optimiser = torch.optim.Adam(parts, lr=rate, betas=(rule.beta1, rule.beta2), eps=rule.epsilon)
    else:
        # nesterov=False, dampening=0: v = momentum * v + g + weight_decay * w, as ours.
        optimiser = torch.optim.SGD(parts, lr=rate, momentum=rule.momentum, weight_decay=rule.weight_decay)
    kept = {name: torch.tensor(mask).reshape(model.parts[name].shape) for name, mask in (masks or {}).items()}
    for batch in problem.batches("train", 0, None):
        loss = model.loss(batch, carried)
        optimiser.zero_grad()
        loss.backward()
        for name, mask in kept.items():
            model.parts[name].grad.masked_fill_(~mask, 0.0)
        norm = float(torch.sqrt(sum((part.grad**2).sum() for part in parts)))
        for part in parts:
            part.grad.mul_(problem.recipe.clip_norm / max(norm, problem.recipe.clip_norm))
        optimiser.step()
        losses.append(float(loss.detach()) * len(batch.inputs))
    return losses, model.weights(problem)


def both_ways(problem, rule, rate, sparsity=0.0):
    """How far our epoch and the plain one are apart."""
    session = session_of(problem)
    masks = {}
    if sparsity:
        masks = masker_of(problem)(MaskUpdate(step=0, sparsity=sparsity), 0, session)
        session.set_masks(masks)
    start = session.weights()
    result = session.train_epoch(Epoch(rates=rate), 0, no_masks, silent)
    losses, weights = plainly_trained(problem, start, rule, rate, masks)
    return {
        "weights_off": largest_difference(session.weights(), weights),
        "moved": largest_difference(session.weights(), start),
        "nats": [result.nats, sum(losses)],
        "items": result.items,
    }


@experiment
def twenty_steps():
    answers = {}
    for sparsity in (0.0, 0.75):
        plain = language(units=8, steps=20, clip_norm=1.0)
        with guarded(answers, f"sgd {sparsity}"):
            answers[f"sgd {sparsity}"] = both_ways(plain, plain.recipe.optimiser, 1.0, sparsity)
        for name, rule, rate in (("momentum", SGD(momentum=0.9, weight_decay=0.01), 0.1), ("adam", Adam(), 0.01)):
            with guarded(answers, f"{name} {sparsity}"):
                problem = language(units=8, steps=20, optimiser=rule, clip_norm=1.0)
                answers[f"{name} {sparsity}"] = both_ways(problem, rule, rate, sparsity)
    with guarded(answers, "decay"):
        decay = language(units=8, steps=20, optimiser=SGD(weight_decay=0.05))
        answers["decay"] = both_ways(decay, decay.recipe.optimiser, 0.1, 0.5)
    return answers


@experiment
def other_networks():
    def embedding(name="embedding"):
        return Embedding(name=name, words=11, features=6)

    def dense(name, inputs, units=11):
        return Dense(name=name, inputs=inputs, units=units, input_label="x")

    networks = {
        "embedding and dense": (embedding(), dense("out", 6)),
        "embedding and two dense": (embedding(), dense("middle", 6, 5), Activation(function="relu"), dense("out", 5)),
        "no dense layer at the end": (embedding(), dense("middle", 6), Activation(function="tanh")),
        "dense after lstm": (
            embedding(),
            LSTM(name="lstm_0", inputs=6, units=7, input_label="x"),
            dense("middle", 7, 5),
            Activation(function="sigmoid"),
            dense("out", 5),
        ),
    }
    answers = {}
    for name, layers in networks.items():
        with guarded(answers, name):
            problem = TinyProblem(Network(layers=layers), steps=6)
            answers[name] = both_ways(problem, problem.recipe.optimiser, 0.5)
    with guarded(answers, "one dense layer"):
        vectors = TinyProblem(Network(layers=(dense("out", 5, 3),), input_shape=(5,)), classes=3, steps=6)
        answers["one dense layer"] = both_ways(vectors, vectors.recipe.optimiser, 0.5)
    with guarded(answers, "convolutions"):
        undropped = images(steps=6)
        kept = tuple(layer for layer in undropped.network.layers if layer.type != "dropout")
        undropped.network = Network(layers=kept, input_shape=undropped.network.input_shape)
        answers["convolutions"] = both_ways(undropped, undropped.recipe.optimiser, 0.5, 0.5)
    return answers


@experiment
def large_softmax():
    """A vocabulary that takes the vectorised paths, with hopeless logits among the rest."""
    problem = language(words=3001, units=16, classes=3001, steps=3, clip_norm=1000.0)
    weights = {name: value * 60 for name, value in problem.initial_weights(0).items()}
    session = session_of(problem)
    session.load(State(weights))
    result = session.train_epoch(Epoch(rates=0.01), 0, no_masks, silent)
    losses, plain = plainly_trained(problem, weights, SGD(), 0.01)
    return {
        "weights_off": largest_difference(session.weights(), plain),
        "nats": [result.nats, sum(losses)],
        "nats_per_word": result.nats / result.items,
    }


# --- our rules --------------------------------------------------------------------------------------------------------


@experiment
def resumed():
    import tempfile

    def problem_with(rate):
        return language(rate=rate, units=8, steps=12, optimiser=SGD(momentum=0.5))

    epochs = epochs_of(Cubic(final=0.8, begin=2, end=8, every=7).updates(12), 12, 10, rate=0.5)
    problem = problem_with(0.5)

    def run(session, part):
        for index in part:
            session.train_epoch(epochs[index], index, masker_of(problem), silent)
        return session.state()

    through = run(session_of(problem), range(10))
    half = run(session_of(problem), range(5))
    with tempfile.TemporaryDirectory() as folder:
        loaded = saved(half, Path(folder))
    fresh = TorchBackend().open(problem, Settings())
    fresh.load(loaded)
    returned = differing(fresh.state(), half)
    continued = run(fresh, range(5, 10))
    undropped = run(session_of(problem_with(0.0)), range(1))
    dropped = run(session_of(problem), range(1))
    other_seed = TorchBackend().open(problem, Settings(seed=1))
    other_seed.load(State(problem.initial_weights(0)))
    return {
        "round_trip": returned,
        "differ": differing(through, continued),
        "sparsity": [
            1 - np.mean(np.concatenate([m.ravel() for m in state.masks.values()])) for state in (half, through)
        ],
        "dropout_acts": bool(differing(undropped, dropped)),
        "seed_acts": bool(differing(run(other_seed, range(1)), dropped)),
        "moving": bool(np.any(through.slots["momentum/lstm_0.kernel"])),
    }


@experiment
def repeated():
    problem = language(rate=0.5, units=8, steps=12, optimiser=Adam())
    other = images(steps=6)
    answers = {}
    for name, tried, settings in (
        ("language", problem, {}),
        ("images", other, {}),
        ("bfloat16", problem, {"precision": "bfloat16"}),
    ):
        with guarded(answers, name):
            states = []
            for _ in range(2):
                session = session_of(tried, **settings)
                session.train_epoch(Epoch(rates=0.05), 0, no_masks, silent)
                states.append(session.state())
            answers[name] = differing(*states)
    return answers


@experiment
def masked_weights():
    answers = {}
    rules = {"sgd": SGD(), "decay": SGD(weight_decay=0.1), "momentum": SGD(momentum=0.9), "adam": Adam()}
    for name, rule in rules.items():
        with guarded(answers, name):
            problem = language(layers=1, units=8, steps=6, optimiser=rule)
            session, rate = session_of(problem), 0.01 if name == "adam" else 0.3
            updates = (MaskUpdate(step=3, sparsity=0.5), MaskUpdate(step=6, sparsity=0.75))
            session.train_epoch(Epoch(rates=rate, updates=updates), 0, masker_of(problem), silent)
            middle = session.state()
            session.train_epoch(Epoch(rates=rate), 1, no_masks, silent)
            state = session.state()
            slots = {slot: value for slot, value in state.slots.items() if slot.partition("/")[2] in state.masks}
            masked = [state.weights[tensor][~mask] for tensor, mask in state.masks.items()]
            masked += [value[~state.masks[slot.partition("/")[2]]] for slot, value in slots.items()]
            answers[name] = {
                "sparsity": [1 - float(mask.mean()) for mask in state.masks.values()],
                "zero": all(not values.any() and not np.signbit(values).any() for values in masked),
                "slots": sorted({slot.partition("/")[0] for slot in state.slots}),
                "kept_move": all((middle.weights[t][m] != state.weights[t][m]).any() for t, m in state.masks.items()),
                "mask_kept": all((middle.masks[t] == m).all() for t, m in state.masks.items()),
                "count": float(state.slots["t"]) if "t" in state.slots else None,
            }
    return answers


@experiment
def updates_in_their_places():
    problem = language(layers=1, units=8, steps=12)
    session, seen, progress = session_of(problem), [], []
    masker = masker_of(problem, BankBalanced(banks=2))

    def watching(update, index, inner):
        seen.append((update.step, index, update.sparsity, float(np.mean(inner.weights()["lstm_0.kernel"] == 0))))
        return masker(update, index, inner)

    updates = tuple(MaskUpdate(step=step, sparsity=s) for step, s in ((0, 0.25), (7, 0.5), (7, 0.75), (12, 0.75)))
    session.train_epoch(Epoch(rates=(0.5,) * 12, updates=updates), 3, watching, progress.append)
    late = Epoch(rates=0.5, updates=(MaskUpdate(step=13, sparsity=0.8),))
    return {"seen": seen, "progress": progress, "late": sentence(session.train_epoch, late, 4, masker, silent)}


@experiment
def clipped_step_lengths():
    answers = {}
    for name, sparsity in {"dense": None, "pruned": 0.9}.items():
        with guarded(answers, name):
            # Two words in twenty places: every embedding row is repeated many times.
            problem = language(layers=1, units=8, steps=1, clip_norm=0.01, ids=2)
            session = session_of(problem)
            if sparsity:
                session.set_masks(masker_of(problem)(MaskUpdate(step=0, sparsity=sparsity), 0, session))
            before = session.weights()
            session.train_epoch(Epoch(rates=1.0), 0, no_masks, silent)
            moved = [(value.astype(np.float64) - before[key]) for key, value in session.weights().items()]
            answers[name] = float(np.sqrt(sum((part**2).sum() for part in moved)))
    return answers


@experiment
def divergence():
    problem = language(layers=1, units=8, steps=6, clip_norm=None)
    answers = {}
    for name, bad in (("huge rate", 3e38), ("infinite rate", float("inf"))):
        with guarded(answers, name):
            session = session_of(problem)
            try:
                session.train_epoch(Epoch(rates=(1.0, 1.0, bad, 1.0, 1.0, 1.0)), 0, no_masks, silent)
            except DivergedError as error:
                answers[name] = {"step": error.step, "sentence": str(error)}
    return answers


@experiment
def gradients_on_the_side():
    problem = language(rate=0.5, layers=2, units=8, steps=4)
    session, wanted = session_of(problem), {}
    mask = np.zeros((32, 8), bool)
    mask[::2] = True
    session.set_masks({"lstm_0.kernel": mask})
    plain, carried = PlainModel(problem.network, session.weights()), {}
    before = session.state()
    given = session.gradients(2, 3)
    for _, batch in zip(range(2), problem.batches("train", 3, None), strict=False):
        plain.loss(batch, carried).backward()
    wanted = {t.name: plain.gradients(problem)[t.name] / 2 for t in matrices(problem)}

    states = []
    for look in (False, True):
        again = session_of(problem)

        def masker(update, index, inner, look=look):
            if look:
                inner.gradients(2, index)
                inner.evaluate("valid")
            return {}

        again.train_epoch(Epoch(rates=0.5, updates=(MaskUpdate(step=2, sparsity=0.5),)), 0, masker, silent)
        states.append(again.state())
    scored = session_of(problem)
    update = MaskUpdate(step=1, sparsity=0.5, score=Gradient(batches=2))
    scored.train_epoch(Epoch(rates=0.5, updates=(update,)), 0, masker_of(problem), silent)
    return {
        "off": largest_difference(given, wanted),
        "size": max(float(np.abs(value).max()) for value in wanted.values()),
        "masked_has_gradient": bool(given["lstm_0.kernel"][~mask].any()),
        "left_alone": differing(before, session.state()),
        "epoch_undisturbed": differing(*states),
        "kept_by_gradient": [float(mask.mean()) for mask in scored.masks().values()],
    }


@experiment
def evaluations():
    from harness.api import Batch

    answers = {}
    for name, problem in (("language", language(rate=0.5, units=8, steps=6)), ("images", images(steps=4))):
        with guarded(answers, name):
            session, plain, carried = session_of(problem), PlainModel(problem.network, problem.initial_weights(0)), {}
            nats = correct = items = 0
            for batch in problem.batches("valid", 0, None):
                before = dict(carried)
                logits = plain.logits(batch.inputs, carried).detach().numpy()
                correct += int((logits.argmax(-1) == batch.targets).sum())
                nats += float(plain.loss(batch, before).detach()) * len(batch.inputs)
                items += batch.targets.size
            given = session.evaluate("valid")
            answers[name] = {"given": given.model_dump(), "wanted": [nats, items, correct]}

    class Segments:
        """One stream cut into pieces of some length, at batch 1."""

        def __init__(self, length):
            self.length = length

        def __call__(self, split, epoch, rng):
            stream = np.random.default_rng(3).integers(0, 11, 1201).astype(np.int32)
            for start in range(0, 1200, self.length):
                end = start + self.length
                yield Batch(stream[None, start:end], stream[None, start + 1 : end + 1])

    problem = language(units=8)
    for length in (1, 600):
        problem.batches = Segments(length)
        with guarded(answers, f"segments of {length}"):
            answers[f"segments of {length}"] = session_of(problem).evaluate("test").nats
    return answers


@experiment
def low_precision():
    problem = language(units=32, steps=20, words=50, classes=50, clip_norm=5.0)
    answers = {}
    for precision in ("float32", "bfloat16"):
        with guarded(answers, precision):
            session = session_of(problem, precision=precision)
            losses = [session.train_epoch(Epoch(rates=0.5), index, no_masks, silent).nats for index in range(3)]
            answers[precision] = [*losses, session.evaluate("valid").nats]
            answers[f"{precision} types"] = sorted({str(value.dtype) for value in session.weights().values()})
            weights = session.weights()["softmax.kernel"]
            answers[f"{precision} bits"] = bool((weights.view(np.uint32) & 0xFFFF).any())
    for name, looked_first in (("trained", False), ("evaluated and trained", True)):
        with guarded(answers, name):
            session = session_of(problem, precision="bfloat16")
            if looked_first:
                session.evaluate("valid")
            answers[name] = session.train_epoch(Epoch(rates=0.5), 0, no_masks, silent).nats
    with guarded(answers, "images"):
        answers["images"] = session_of(images(steps=4), precision="bfloat16").evaluate("valid").nats
    answers["images float32"] = session_of(images(steps=4)).evaluate("valid").nats
    return answers


@experiment
def low_precision_without_kernels():
    """The way that works on every processor, beside the kernels where there are some."""
    from harness_plugins.backends.torch_backend.rounded import has_kernels

    ways = [ROUNDED, KERNELS] if has_kernels() else [ROUNDED]
    answers = {"ways": ways, "own": bfloat16_arithmetic()}
    tasks = {
        "language": language(units=32, steps=20, words=50, classes=50, clip_norm=5.0),
        "two layers and dropout": language(units=24, layers=2, rate=0.5, steps=12, clip_norm=5.0),
        "images": images(steps=8),
    }
    for name, problem in tasks.items():
        for way in ("float32", *ways):
            with guarded(answers, f"{name} {way}"):
                precision = {} if way == "float32" else {"precision": "bfloat16", "arithmetic": way}
                session = session_of(problem, **precision)
                gradient = session.gradients(1, 0)
                losses = [session.train_epoch(Epoch(rates=0.3), index, no_masks, silent).nats for index in range(2)]
                test = session.evaluate("test")
                answers[f"{name} {way}"] = {
                    "nats": [*losses, test.nats],
                    "density": test.activation_density,
                    "gradient": {name: value.ravel().tolist() for name, value in gradient.items()},
                }
    with guarded(answers, "masked zero"):
        state = session_of(language(units=8), precision="bfloat16", arithmetic=ROUNDED)
        state.set_masks(masker_of(language(units=8))(MaskUpdate(step=0, sparsity=0.5), 0, state))
        state.train_epoch(Epoch(rates=0.3), 0, no_masks, silent)
        answers["masked zero"] = all(not state.weights()[name][~mask].any() for name, mask in state.masks().items())
    return answers


@experiment
def bfloat16_that_was_planned_elsewhere():
    """As on a processor whose libraries have no bfloat16 LSTM, while the plan counts on one."""
    from unittest.mock import patch

    import torch

    def lstm(*_):
        raise RuntimeError("could not create a primitive descriptor")

    from harness_plugins.backends.torch_backend import rounded

    rounded.has_kernels.cache_clear()
    with patch.object(torch.nn.LSTM, "forward", lstm):
        planned = Settings(precision="bfloat16", arithmetic=KERNELS)
        refused = sentence(TorchBackend().open, language(units=8), planned)
    rounded.has_kernels.cache_clear()
    return refused


LOW = """
name: low
task: {name: lstm_lm, corpus: synthetic, hidden: 12, epochs: 1, train_tokens: 2000, eval_tokens: 500}
scope: [lstm]
precision: bfloat16
matrix:
  backend: [torch]
  pattern: [unstructured]
  strategy: [{name: fine_tuning, epochs: 1}]
  sparsity: [0.5]
  seed: [0]
"""


@experiment
def a_bfloat16_run_without_kernels():
    """A whole run as on a processor with AVX2, by the command."""
    import os
    import subprocess
    import tempfile

    from harness.results import records

    with tempfile.TemporaryDirectory() as folder:
        spec, store = Path(folder) / "low.yaml", Path(folder) / "store"
        spec.write_text(LOW)
        done = subprocess.run(
            [sys.executable, "-m", "harness", "run", str(spec), "--store", str(store), "--progress", "none"],
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
            check=False,
            capture_output=True,
            text=True,
        )
        (written,) = store.glob("runs/*/records.json")
        report = written.with_name("report.md").read_text()
        return {
            "code": done.returncode,
            "printed": done.stdout + done.stderr + report,
            "records": [(record.status, record.facts.get("arithmetic")) for record in records.read(written)],
        }


@experiment
def low_head():
    """Beside autograd: fewer rows than one piece of the loss has, and a number that pieces do not divide."""
    import torch
    from harness_plugins.backends.torch_backend.head import LowHead

    answers = {}
    for rows, rounds in ((20, False), (120, False), (20, True), (120, True)):
        with guarded(answers, f"{rows} {rounds}"):
            layer = Dense(name="softmax", inputs=24, units=301, role="softmax", input_label="x")
            head = LowHead(layer, torch.device("cpu"), rounds=rounds)
            draw = torch.Generator().manual_seed(rows)
            for weight in head.weights.values():
                weight.normal_(generator=draw)
            hidden = torch.randn(rows, 24, generator=draw).requires_grad_()
            targets = torch.randint(0, 301, (rows,), generator=draw)
            nats, down, gradients = head.backward(hidden.detach(), targets, 0.25)
            sources = [hidden, *(weight.clone().requires_grad_() for weight in head.weights.values())]
            logits = torch.nn.functional.linear(*sources)
            loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
            wanted = dict(zip(("hidden", *gradients), torch.autograd.grad(loss * 0.25, sources), strict=True))
            found = {"hidden": down, **gradients}
            off = {name: float((found[name] - value).norm() / value.norm()) for name, value in wanted.items()}
            answers[f"{rows} {rounds}"] = {"nats": [nats, float(loss.detach())], "off": off}
    return answers


@experiment
def copies():
    problem = language(units=8, steps=2)
    session = session_of(problem)
    given = problem.initial_weights(0)
    session.load(State(given))
    answers = {}
    for name, array in (("weights", session.weights()), ("state", session.state().weights)):
        answers[name] = [bool(value.flags["C_CONTIGUOUS"] and value.flags["OWNDATA"]) for value in array.values()]
        for value in array.values():
            value[:] = 7
    mask = np.ones((11, 8), bool)
    session.set_masks({"softmax.kernel": mask})
    mask[:] = False
    session.masks()["softmax.kernel"][:] = False
    answers["mask_kept"] = bool(session.masks()["softmax.kernel"].all())
    answers["unchanged"] = largest_difference(session.weights(), given)
    return answers


@experiment
def wrong_states():
    problem = language(layers=1, units=8)
    session, good = session_of(problem), problem.initial_weights(0)
    transposed = {**good, "softmax.kernel": good["softmax.kernel"].T.copy()}
    return {
        "missing": sentence(session.load, State({n: w for n, w in good.items() if n != "softmax.bias"})),
        "shape": sentence(session.load, State(transposed)),
        "slot": sentence(session.load, State(good, slots={"momentum/softmax.bias": good["softmax.bias"]})),
        "mask_name": sentence(session.set_masks, {"lstm_9.kernel": np.ones((2, 2), bool)}),
        "mask_shape": sentence(session.set_masks, {"softmax.kernel": np.ones((8, 11), bool)}),
        "mask_type": sentence(session.set_masks, {"softmax.kernel": np.ones((11, 8), np.float32)}),
        "device": sentence(TorchBackend().open, problem, Settings(device="cuda:77")),
    }


def sentence(function, *arguments):
    try:
        function(*arguments)
    except HarnessError as error:
        return [type(error).__name__, str(error)]
    return None


@experiment
def threads():
    import torch

    session_of(language(), threads=1)
    return [torch.get_num_threads(), torch.get_num_interop_threads(), list(TorchBackend().devices())]


@experiment
def skips():
    return {d: TorchBackend().why_not(language(), Settings(device=d)) for d in ("cpu", "mps", "cuda:x")}


@experiment
def on_a_gpu():
    import torch

    if not torch.cuda.is_available():
        return None
    answers = {}
    for precision in ("float32", "bfloat16"):
        with guarded(answers, precision):
            problem = language(rate=0.5, units=8, steps=12, optimiser=SGD(momentum=0.5))
            session = session_of(problem, device="cuda:0", precision=precision)
            updates = (MaskUpdate(step=6, sparsity=0.5),)
            session.train_epoch(Epoch(rates=0.3, updates=updates), 0, masker_of(problem), silent)
            state = session.state()
            answers[f"{precision} zero"] = all(not state.weights[n][~m].any() for n, m in state.masks.items())
            answers[precision] = (
                session_of(language(units=8), device="cuda:0", precision=precision).evaluate("valid").nats
            )
            answers[f"{precision} cpu"] = session_of(language(units=8), precision=precision).evaluate("valid").nats
    return answers


# --- the tests --------------------------------------------------------------------------------------------------------

pytestmark = pytest.mark.torch


BEFOREHAND = {"torch answers": ("-W", "error", __file__)}


@pytest.fixture(scope="module")
def results(ran_beforehand):
    """What every experiment answered."""
    run, _ = ran_beforehand("torch answers")
    assert run.returncode == 0, run.stderr
    return read(run.stdout.splitlines()[-1])


@pytest.fixture
def result(results):
    """One experiment's answer; of one that raised, its traceback fails the test."""
    return results.__getitem__


@pytest.mark.parametrize(
    "rule",
    ["sgd 0.0", "momentum 0.0", "adam 0.0", "sgd 0.75", "momentum 0.75", "adam 0.75", "decay"],
)
def test_twenty_steps_equal_those_of_a_plain_loop_dense_and_pruned(result, rule):
    answer = result("twenty_steps")[rule]

    assert answer["weights_off"] < 1e-4
    assert answer["moved"] > 0.05
    assert answer["nats"][0] == pytest.approx(answer["nats"][1], rel=1e-5)
    assert answer["items"] == 20 * 4 * 5


@pytest.mark.parametrize(
    "network",
    ["embedding and dense", "embedding and two dense", "no dense layer at the end", "dense after lstm",
     "one dense layer", "convolutions"],
)  # fmt: skip
def test_every_kind_of_network_trains_as_a_plain_loop_does(result, network):
    answer = result("other_networks")[network]

    assert answer["weights_off"] < 1e-5
    assert answer["moved"] > 1e-3
    assert answer["nats"][0] == pytest.approx(answer["nats"][1], rel=1e-5)


def test_hopeless_logits_give_their_true_loss_and_gradient(result):
    answer = result("large_softmax")

    assert answer["nats_per_word"] > 30
    assert answer["nats"][0] == pytest.approx(answer["nats"][1], rel=1e-5)
    assert answer["weights_off"] < 1e-3


def test_ten_epochs_equal_five_saved_loaded_and_five_more(result):
    answer = result("resumed")

    assert answer["differ"] == []
    assert answer["round_trip"] == []
    assert answer["moving"]
    assert 0.3 < answer["sparsity"][0] < answer["sparsity"][1]
    assert answer["sparsity"][1] == pytest.approx(0.8, abs=0.01)


def test_dropout_acts_and_depends_on_the_seed(result):
    assert result("resumed")["dropout_acts"]
    assert result("resumed")["seed_acts"]


@pytest.mark.parametrize("kind", ["language", "images", "bfloat16"])
def test_the_same_seed_gives_the_same_bytes(result, kind):
    assert result("repeated")[kind] == []


@pytest.mark.parametrize(
    ("rule", "slots"), [("sgd", []), ("decay", []), ("momentum", ["momentum"]), ("adam", ["m", "t", "v"])]
)
def test_masked_weights_and_slots_stay_zero_while_the_others_move(result, rule, slots):
    answer = result("masked_weights")[rule]

    assert answer["zero"]
    assert answer["slots"] == slots
    assert answer["kept_move"]
    assert answer["mask_kept"]
    assert answer["sparsity"] == pytest.approx([0.75] * 4, abs=0.01)


def test_adam_counts_its_steps_in_the_state(result):
    assert result("masked_weights")["adam"]["count"] == 12


def test_updates_come_before_their_step_in_order_and_one_after_the_last(result):
    seen = result("updates_in_their_places")["seen"]

    assert [entry[:3] for entry in seen] == [[0, 3, 0.25], [7, 3, 0.5], [7, 3, 0.75], [12, 3, 0.75]]
    assert [entry[3] for entry in seen] == [0, 0.25, 0.5, 0.75]


def test_progress_is_told_every_ten_steps_and_at_the_end(result):
    assert result("updates_in_their_places")["progress"] == [10, 12]


def test_an_update_beyond_the_epoch_is_refused(result):
    kind, text = result("updates_in_their_places")["late"]

    assert kind == PluginContractError.__name__
    assert "12 steps" in text and "[13]" in text


@pytest.mark.parametrize("kind", ["dense", "pruned"])
def test_a_clipped_step_is_as_long_as_the_clip_norm_with_repeated_words(result, kind):
    assert result("clipped_step_lengths")[kind] == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("kind", ["huge rate", "infinite rate"])
def test_a_loss_that_is_not_finite_names_its_step(result, kind):
    answer = result("divergence")[kind]

    assert answer["step"] == 3
    assert "at step 3" in answer["sentence"]


def test_gradients_are_the_mean_without_dropout_clipping_or_masks(result):
    answer = result("gradients_on_the_side")

    assert answer["off"] < 1e-6
    assert answer["size"] > 0.02
    assert answer["masked_has_gradient"]


def test_looking_at_gradients_and_scores_leaves_a_training_as_it_was(result):
    answer = result("gradients_on_the_side")

    assert answer["left_alone"] == []
    assert answer["epoch_undisturbed"] == []


def test_pruning_by_gradient_keeps_what_was_asked(result):
    assert result("gradients_on_the_side")["kept_by_gradient"] == pytest.approx([0.5] * 6, abs=0.01)


def test_evaluation_sums_what_plain_modules_say(result):
    for kind in ("language", "images"):
        given, (nats, items, correct) = result("evaluations")[kind].values()

        assert given["nats"] == pytest.approx(nats, rel=1e-6)
        assert given["items"] == items
        assert given["correct"] == (correct if kind == "images" else None)


def test_one_stream_gives_the_same_nats_however_it_is_cut(result):
    answer = result("evaluations")

    assert answer["segments of 600"] == pytest.approx(answer["segments of 1"], rel=1e-6)


def test_bfloat16_follows_float32_with_float32_weights(result):
    answer = result("low_precision")

    assert answer["bfloat16"] == pytest.approx(answer["float32"], rel=0.02)
    assert answer["bfloat16"] != answer["float32"]
    assert answer["bfloat16 types"] == ["float32"]
    assert answer["bfloat16 bits"]
    assert answer["images"] == pytest.approx(answer["images float32"], rel=0.02)


@pytest.mark.parametrize("task", ["language", "two layers and dropout", "images"])
def test_bfloat16_without_kernels_for_it_follows_float32_and_is_not_it(result, task):
    answer = result("low_precision_without_kernels")
    rounded, exact = answer[f"{task} {ROUNDED}"], answer[f"{task} float32"]

    assert rounded["nats"] == pytest.approx(exact["nats"], rel=0.002)
    assert rounded["nats"] != exact["nats"]
    for name, gradient in rounded["gradient"].items():
        # Below a max-pooling some gradients arrive elsewhere: of two values that rounding makes equal, one is taken.
        assert 1e-4 < relative_distance(gradient, exact["gradient"][name]) < 0.1, name


@pytest.mark.parametrize("task", ["language", "two layers and dropout", "images"])
def test_bfloat16_without_kernels_equals_the_kernels_within_rounding(result, task):
    answer = result("low_precision_without_kernels")
    if KERNELS not in answer["ways"]:
        pytest.skip("this processor has no bfloat16 kernels to compare with")
    rounded, kernels = answer[f"{task} {ROUNDED}"], answer[f"{task} {KERNELS}"]

    assert rounded["nats"] == pytest.approx(kernels["nats"], rel=0.0002)
    assert rounded["density"] == pytest.approx(kernels["density"], abs=0.005)
    for name, gradient in rounded["gradient"].items():
        assert relative_distance(gradient, kernels["gradient"][name]) < 0.02, name


def relative_distance(ours, theirs):
    return np.linalg.norm(np.subtract(ours, theirs)) / np.linalg.norm(theirs)


def test_a_bfloat16_run_on_a_processor_without_kernels_ends_well_and_says_how_it_computed(result):
    answer = result("a_bfloat16_run_without_kernels")

    assert answer["code"] == 0, answer["printed"]
    assert answer["records"] == [["ok", ROUNDED]] * 2
    assert f"in bfloat16 ({ROUNDED})" in " ".join(answer["printed"].split())


def test_masked_weights_stay_zero_in_bfloat16_without_kernels(result):
    assert result("low_precision_without_kernels")["masked zero"]


def test_the_arithmetic_that_a_plan_foresees_is_one_that_this_machine_has(result):
    answer = result("low_precision_without_kernels")

    assert answer["own"] in answer["ways"]


def test_a_processor_without_the_planned_kernels_refuses_in_a_sentence(result):
    kind, text = result("bfloat16_that_was_planned_elsewhere")

    assert kind == PluginUnavailableError.__name__
    assert "precision: float32" in text and "ONEDNN_MAX_CPU_ISA=AVX2" in text


@pytest.mark.parametrize(
    ("flags", "limit", "arithmetic"),
    [
        ("fpu sse4_1 avx2 avx512f avx512bw avx512dq avx512vl", "", KERNELS),
        ("fpu sse4_1 avx2 avx512f avx512bw avx512dq avx512vl", "AVX512_CORE_BF16", KERNELS),
        ("fpu sse4_1 avx2 avx512f avx512bw avx512dq avx512vl", "avx2", ROUNDED),
        ("fpu sse4_1 avx2 avx512f avx512bw avx512dq avx512vl", "SSE41", ROUNDED),
        ("fpu sse4_1 avx2 avx512f avx512cd", "", ROUNDED),
        ("fpu sse4_1 avx2 avx_vnni", "", ROUNDED),
        ("", "", ROUNDED),
    ],
)
def test_the_arithmetic_of_bfloat16_is_known_from_the_processors_flags(tmp_path, monkeypatch, flags, limit, arithmetic):
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    listed = tmp_path / "cpuinfo"
    listed.write_text(f"model name\t: some\nflags\t\t: {flags}\n\n" if flags else "Features\t: asimd\n")

    assert bfloat16_arithmetic(listed) == arithmetic
    assert bfloat16_arithmetic(tmp_path / "none") == ROUNDED


@pytest.mark.parametrize(
    ("settings", "is_told"),
    [(Settings(), False), (Settings(precision="bfloat16", device="cuda:0"), False),
     (Settings(precision="bfloat16"), True)],
)  # fmt: skip
def test_only_bfloat16_on_a_cpu_has_several_arithmetics(settings, is_told):
    assert bool(TorchBackend().arithmetic(settings)) == is_told


def test_an_evaluation_before_a_training_in_bfloat16_leaves_it_as_it_was(result):
    answer = result("low_precision")

    assert answer["evaluated and trained"] == answer["trained"]


@pytest.mark.parametrize("rounds", [False, True], ids=["kernels", "rounded"])
@pytest.mark.parametrize("rows", [20, 120])
def test_the_softmax_layer_in_bfloat16_follows_autograd_in_float32(result, rows, rounds):
    answer = result("low_head")[f"{rows} {rounds}"]

    assert answer["nats"][0] == pytest.approx(answer["nats"][1], rel=1e-3)
    # bfloat16 keeps 8 bits; products of many terms average the rounding out.
    assert max(answer["off"].values()) < 0.01


def test_what_is_handed_out_and_in_are_copies_in_row_order(result):
    answer = result("copies")

    assert all(answer["weights"]) and all(answer["state"])
    assert answer["unchanged"] == 0
    assert answer["mask_kept"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "softmax.bias"),
        ("shape", "softmax.kernel must have shape (11, 8), got (8, 11)"),
        ("slot", "momentum/softmax.bias"),
        ("mask_name", "lstm_9.kernel"),
        ("mask_shape", "(11, 8)"),
        ("mask_type", "float32"),
    ],
)
def test_a_state_or_mask_of_another_model_is_refused_by_name(result, kind, words):
    error, text = result("wrong_states")[kind]

    assert error == PluginContractError.__name__
    assert words in text


def test_a_gpu_that_is_not_there_is_named_with_what_there_is(result):
    error, text = result("wrong_states")["device"]

    assert error == PluginUnavailableError.__name__
    assert "cuda:77" in text and "cpu" in text


def test_no_more_threads_are_used_than_settings_say(result):
    threads, interop, devices = result("threads")

    assert (threads, interop) == (1, 1)
    assert devices[-1] == "cpu"


def test_a_gpu_computes_what_the_cpu_does(result):
    answer = result("on_a_gpu")
    if answer is None:
        pytest.skip("this machine has no NVIDIA GPU that PyTorch can use")

    assert answer["float32"] == pytest.approx(answer["float32 cpu"], rel=1e-5)
    assert answer["bfloat16"] == pytest.approx(answer["bfloat16 cpu"], rel=0.02)
    assert answer["float32 zero"] and answer["bfloat16 zero"]


def test_availability_and_versions_are_known_without_importing_the_framework():
    backend = TorchBackend()

    assert backend.why_unavailable() is None
    assert set(backend.versions()) == {"torch", "numpy"}
    assert "torch" not in sys.modules


@pytest.mark.parametrize("device", ["mps", "cuda:x"])
def test_an_unknown_device_is_a_declared_skip(result, device):
    reason = result("skips")[device]

    assert f"`{device}`" in reason
    assert "cpu" in reason


def test_the_cpu_is_never_a_reason_to_skip(result):
    assert result("skips")["cpu"] is None


if __name__ == "__main__":
    answers = {}
    for name, function in EXPERIMENTS.items():
        with guarded(answers, name):
            answers[name] = function()
    print(json.dumps(answers))
