"""Conformance of tasks, backends and hardware models: what `harness.testing` hands on of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from harness.api import (
    SGD,
    Activation,
    Backend,
    Batch,
    Constant,
    Cost,
    Dense,
    Epoch,
    Evaluation,
    HardwareModel,
    HarnessError,
    JsonValue,
    MaskUpdate,
    Metric,
    Network,
    Problem,
    Recipe,
    Session,
    Settings,
    Split,
    State,
    Task,
    Workload,
)
from harness.api.promises import demand

_SPLITS: tuple[Split, ...] = ("train", "valid", "test")
_STEPS, _BATCH, _FEATURES, _HIDDEN, _CLASSES = 6, 8, 12, 10, 3


# --- tasks ----------------------------------------------------------------------------------------------------------


def check_task(task: Task, data_dir: Path | None = None) -> None:
    """What a task promises of its data, weights and batches, tried on its smoke form.

    Args:
        task: the task, with any parameters.
        data_dir: the folder of its data sets.

    Raises:
        PluginContractError: the first promise it breaks.
        DataError: its data are not there.
    """
    short, where = task.smoke(), task.label()
    demand(isinstance(short, Task), where, f"`smoke` to give a task, got {type(short).__name__}")
    problem, again = short.load(data_dir), short.load(data_dir)
    demand(isinstance(problem, Problem), where, f"`load` to give a Problem, got {type(problem).__name__}")
    demand(problem.fingerprint, where, "a fingerprint that says what the data are, got an empty one")
    demand(problem.fingerprint == again.fingerprint, where, "the same fingerprint when loaded twice")
    _is_json(problem.facts, where, "facts")
    demand(problem.recipe.epochs >= 0 and problem.recipe.steps_per_epoch > 0, where, "a recipe with steps")
    demand(problem.metric.name and problem.metric.better in ("lower", "higher"), where, "a metric with a direction")
    if not isinstance(getattr(problem, "network", None), Network):
        return  # a model of the user's own: its data and weights are its framework's
    _check_weights(problem, again, where)
    for split in _SPLITS:
        _check_batches(problem, split, where)
    # Numbers that every metric can be computed from.
    value = problem.value(Evaluation(nats=12.0, items=10, correct=5))
    demand(isinstance(value, int | float) and math.isfinite(value), where, f"a metric that is a number, got {value!r}")


def _is_json(value: object, where: str, what: str) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        demand(False, where, f"{what} that are plain JSON values, got {error}")


def _check_weights(problem: Problem, again: Problem, where: str) -> None:
    tensors = {tensor.name: tensor.shape for tensor in problem.tensors()}
    weights, same = problem.initial_weights(1), again.initial_weights(1)
    demand(weights.keys() == tensors.keys(), where, f"initial weights of {sorted(tensors)}, got {sorted(weights)}")
    for name, array in weights.items():
        at = f"{where}, {name}"
        demand(array.shape == tensors[name], at, f"the shape {tensors[name]}, got {array.shape}")
        demand(array.dtype == np.float32, at, f"float32, got {array.dtype}")
        demand(np.isfinite(array).all(), at, "finite weights")
        demand(np.array_equal(array, same[name]), at, "the same weights for the same seed")
    other = problem.initial_weights(2)
    # Some tensors, biases say, may be alike; all of them never.
    differ = any(not np.array_equal(weights[name], other[name]) for name in tensors)
    demand(differ, where, "other weights for another seed")


def _check_batches(problem: Problem, split: Split, where: str) -> None:
    at = f"{where}, {split}"
    batches = list(problem.batches(split, 0, np.random.default_rng(3)))
    again = problem.batches(split, 0, np.random.default_rng(3))
    demand(batches, at, "at least one batch")
    shapes = {(batch.inputs.shape, batch.targets.shape) for batch in batches}
    if split == "train":
        steps = problem.recipe.steps_per_epoch
        demand(len(batches) == steps, at, f"{steps} batches, as its recipe says, got {len(batches)}")
        demand(len(shapes) == 1, at, f"batches of one shape, got {sorted(shapes)}")
    else:
        # Evaluation has nothing random: neither epoch nor seed may change its batches.
        other = problem.batches(split, 5, np.random.default_rng(4))
        demand(_equal(batches, list(other)), at, "the same batches in every epoch and for every seed")
    demand(_equal(batches, list(again)), at, "the same batches for the same generator")
    last = problem.tensors()[-1].rows.size
    for batch in batches:
        demand(batch.targets.dtype == np.int32, at, f"int32 targets, got {batch.targets.dtype}")
        demand(batch.inputs.dtype in (np.float32, np.int32), at, f"float32 or int32 inputs, got {batch.inputs.dtype}")
        inside = batch.targets.min() >= 0 and batch.targets.max() < last
        demand(inside, at, f"targets in [0, {last}), the units of the last layer, got {batch.targets.max()}")
        shape = problem.network.input_shape
        if shape:
            demand(batch.inputs.shape[1:] == shape, at, f"inputs (batch, *{shape}), got {batch.inputs.shape}")


def _equal(ones: list[Batch], others: list[Batch]) -> bool:
    return len(ones) == len(others) and all(
        np.array_equal(one.inputs, other.inputs) and np.array_equal(one.targets, other.targets)
        for one, other in zip(ones, others, strict=True)
    )


# --- backends -------------------------------------------------------------------------------------------------------


class _Clusters(Problem):
    """Noisy clusters for a network of one hidden layer, plain SGD: what every backend can train."""

    def __init__(self) -> None:
        self.network = Network(
            layers=(
                Dense(name="hidden", inputs=_FEATURES, units=_HIDDEN, input_label="features"),
                Activation(function="relu"),
                Dense(name="output", inputs=_HIDDEN, units=_CLASSES, role="softmax", input_label="hidden.units"),
            ),
            input_shape=(_FEATURES,),
        )
        self.recipe = Recipe(epochs=4, optimiser=SGD(), learning_rate=Constant(rate=0.2), steps_per_epoch=_STEPS)
        self.metric = Metric(name="accuracy", unit="%", better="higher", digits=1, needs_correct=True)
        rng = np.random.default_rng(1)
        centres = 2 * rng.normal(size=(_CLASSES, _FEATURES))
        self._labels = rng.integers(0, _CLASSES, _STEPS * _BATCH).astype(np.int32)
        self._inputs = (centres[self._labels] + rng.normal(size=(_STEPS * _BATCH, _FEATURES))).astype(np.float32)

    @property
    def fingerprint(self) -> str:
        return "clusters of the conformance check"

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        return {}

    def initial_weights(self, seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {
            tensor.name: (rng.normal(0, 0.3, tensor.shape) if tensor.is_prunable else np.zeros(tensor.shape)).astype(
                np.float32
            )
            for tensor in self.tensors()
        }

    def batches(self, split: Split, epoch: int, rng: np.random.Generator) -> Iterator[Batch]:
        order = rng.permutation(len(self._labels)) if split == "train" else np.arange(len(self._labels))
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            yield Batch(self._inputs[chosen], self._labels[chosen])

    def value(self, evaluation: Evaluation) -> float:
        return 100 * (evaluation.correct or 0) / evaluation.items


def check_backend(backend: Backend, problem: Problem | None = None) -> None:
    """What a backend promises of its sessions, tried on a few steps of a small network; it imports the framework.

    Args:
        backend: the backend, with any parameters.
        problem: what is trained; by default one hidden layer, SGD. Its training has to be the same when repeated.

    Raises:
        PluginContractError: the first promise it breaks.
        PluginUnavailableError: its framework is not installed here, as it says itself.
    """
    where, tried = backend.label(), problem or _Clusters()
    why = backend.why_unavailable()
    demand(why is None or isinstance(why, str), where, f"`why_unavailable` to give a sentence or None, got {why!r}")
    if why:
        from harness.api import PluginUnavailableError

        raise PluginUnavailableError(f"{where}: {why}")
    versions = backend.versions()
    plain = bool(versions) and all(isinstance(part, str) for item in versions.items() for part in item)
    demand(plain, where, f"names and versions as texts, at least one, got {versions!r}")
    settings = Settings(seed=1)
    refused = backend.why_not(tried, settings)
    demand(refused is None, where, f"to train one hidden layer by plain SGD; it refuses: {refused}")
    first = State(tried.initial_weights(1))
    # One session for all but the training, which needs fresh ones.
    session = backend.open(tried, settings)
    try:
        _check_state(session, first, where)
        _check_gradients(session, tried, where)
        _check_masks(session, where)
        _check_training(backend, tried, first, where)
        found = session.evaluate("test")
        demand(found.items > 0 and math.isfinite(found.nats), where, f"a finite evaluation of items, got {found}")
    finally:
        session.close()


def _check_state(session: Session, first: State, where: str) -> None:
    session.load(first)
    _same(session.state(), first, where, "`state` to give back what `load` took")
    taken = session.weights()
    name = next(iter(taken))
    demand(taken[name].dtype == np.float32, where, f"float32 weights, got {taken[name].dtype}")
    taken[name][...] = 7
    demand(not (session.weights()[name] == 7).all(), where, "weights handed out to be copies")


def _same(found: State, expected: State, where: str, what: str) -> None:
    for kind in ("weights", "masks", "slots"):
        ours, theirs = getattr(found, kind), getattr(expected, kind)
        demand(ours.keys() == theirs.keys(), where, f"{what}: {kind} of {sorted(theirs)}, got {sorted(ours)}")
        for name, array in ours.items():
            demand(np.array_equal(array, theirs[name]), where, f"{what}, bit for bit; {name} differs")


def _check_gradients(session: Session, problem: Problem, where: str) -> None:
    shapes = {tensor.name: tensor.shape for tensor in problem.tensors() if tensor.is_prunable}
    before, found = session.weights(), session.gradients(2, 0)
    got = {name: array.shape for name, array in found.items()}
    demand(got == shapes, where, f"gradients of every matrix, {shapes}, got {got}")
    demand(all(np.isfinite(array).all() for array in found.values()), where, "finite gradients")
    after = session.weights()
    left = all(np.array_equal(array, after[name]) for name, array in before.items())
    demand(left, where, "the model to be left as it was by `gradients`")


def _check_masks(session: Session, where: str) -> None:
    # The first matrix: a bias has no mask.
    name = next(name for name, array in session.weights().items() if array.ndim > 1)
    mask = np.ones(session.weights()[name].shape, np.bool_)
    mask.flat[::2] = False
    session.set_masks({name: mask})
    demand(np.array_equal(session.masks()[name], mask), where, "the masks that were set")
    demand(not session.weights()[name][~mask].any(), where, "masked weights to be zero at once")
    found = session.gradients(2, 0)[name]
    demand(found[~mask].any(), where, "gradients of masked weights too, which regrowth needs")


def _check_training(backend: Backend, problem: Problem, first: State, where: str) -> None:
    name = next(tensor.name for tensor in problem.tensors() if tensor.is_prunable)
    mask = np.ones(first.weights[name].shape, np.bool_)
    mask.flat[1::3] = False
    update = MaskUpdate(step=2, sparsity=0.25)
    epochs = (Epoch(rates=0.1, updates=(update,)), Epoch(rates=0.1))
    asked: list[int] = []

    def masker(asked_for: MaskUpdate, index: int, session: Session) -> dict[str, np.ndarray]:
        asked.append(asked_for.step)
        return {name: mask}

    def run(parts: tuple[tuple[int, Epoch], ...], state: State) -> tuple[State, list[int]]:
        session, told = backend.open(problem, Settings(seed=1)), list[int]()
        try:
            session.load(state)
            for index, epoch in parts:
                result = session.train_epoch(epoch, index, masker, told.append)
                demand(result.items > 0 and math.isfinite(result.nats), where, f"a finite loss, got {result}")
                left = session.weights()[name][~mask]
                demand(asked, where, "one mask update at step 2 to be asked for, got none")
                demand(not left.any(), where, "masked weights to stay zero after training")
            return session.state(), told
        finally:
            session.close()

    both, told = run(tuple(enumerate(epochs)), first)
    demand(asked == [2], where, f"one mask update at step 2 to be asked for, got {asked}")
    steps = problem.recipe.steps_per_epoch
    demand(not told or max(told) <= steps, where, f"progress of at most {steps} steps, got {told}")
    changed = any(not np.array_equal(array, first.weights[tensor]) for tensor, array in both.weights.items())
    demand(changed, where, "training to change the weights")
    half, _ = run(((0, epochs[0]),), first)
    whole, _ = run(((1, epochs[1]),), half)
    # In two sessions with the state stored between them, against one session without a stop.
    _same(whole, both, where, "an epoch after a stop to be the epoch without one")


# --- hardware -------------------------------------------------------------------------------------------------------


def check_hardware(model: HardwareModel) -> None:
    """What a hardware model promises of its costs, tried on dense, random and banked masks of a small network.

    Args:
        model: the model, with any parameters; one of those that `variants` gives.

    Raises:
        PluginContractError: the first promise it breaks, or it costs none of these workloads.
    """
    where, costed, refused = model.label(), 0, ""
    for name, workload in _workloads().items():
        at = f"{where} on {name} masks"
        before = {tensor: mask.copy() for tensor, mask in workload.masks.items()}
        try:
            cost = model.cost(workload)
        except HarnessError as error:  # a declared refusal is a reason in the report
            demand(str(error).strip(), at, "a refusal that says why")
            refused = str(error)
            continue
        costed += 1
        demand(isinstance(cost, Cost), at, f"a Cost, got {type(cost).__name__}")
        left = all(np.array_equal(mask, before[tensor]) for tensor, mask in workload.masks.items())
        demand(left, at, "the masks to be left as they were")
        # Costed twice, so that a model which remembers shows it.
        demand(model.cost(workload) == cost, at, "the same cost when asked twice")
        _check_figures(cost, name == "dense", at)
    demand(costed, where, f"a cost of dense, random or banked masks; it refuses them all: {refused}")


def _check_figures(cost: Cost, is_dense: bool, at: str) -> None:
    demand(cost.cycles > 0 and cost.dense_cycles > 0, at, f"cycles above 0, got {cost.cycles} and {cost.dense_cycles}")
    demand(cost.clock_mhz > 0, at, f"a clock above 0, got {cost.clock_mhz}")
    ratio = cost.latency_us * cost.clock_mhz / cost.cycles
    demand(math.isclose(ratio, 1, rel_tol=1e-6), at, f"latency_us = cycles / clock_mhz, got a factor of {ratio:.6g}")
    speedup = cost.dense_cycles * cost.streams / cost.cycles
    told = f"speedup = dense_cycles * streams / cycles = {speedup:.6g}, got {cost.speedup:.6g}"
    demand(math.isclose(cost.speedup, speedup, rel_tol=1e-6), at, told)
    demand(0 <= cost.utilisation <= 1 + 1e-9, at, f"a utilisation in [0, 1], got {cost.utilisation}")
    demand(cost.origin == "modelled", at, f"an origin that says `modelled`, got {cost.origin!r}")
    if is_dense:
        demand(cost.gops <= cost.effective_gops * (1 + 1e-6), at, "no more operations executed than dense ones")


def _workloads() -> dict[str, Workload]:
    rows, cols = 64, 48
    layers = (
        Dense(name="hidden", inputs=cols, units=rows, input_label="features"),
        Activation(function="relu"),
        Dense(name="output", inputs=rows, units=16, role="softmax", input_label="hidden.units"),
    )
    network = Network(layers=layers, input_shape=(cols,))
    matrices = tuple(tensor for tensor in network.tensors() if tensor.is_prunable)
    rng = np.random.default_rng(2)
    random = {tensor.name: rng.random(tensor.shape) < 0.25 for tensor in matrices}
    banked = {tensor.name: np.tile(np.arange(tensor.shape[1]) % 4 == 1, (tensor.shape[0], 1)) for tensor in matrices}
    return {
        "dense": Workload(network, matrices, {}),
        "random": Workload(network, matrices, random),
        "banked": Workload(network, matrices, banked, banks=dict.fromkeys(banked, 4)),
    }
