"""The two frameworks train the same model. Each runs in a process of its own, whose script is this file."""

import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from backend_problems import TinyProblem, image_network, language_network
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.block import Block
from harness_plugins.patterns.channel import Channel
from harness_plugins.patterns.filter import Filter
from harness_plugins.patterns.n_m import NM
from harness_plugins.patterns.row_balanced import RowBalanced
from harness_plugins.patterns.unstructured import Unstructured
from harness_plugins.scores.movement import MovementScore
from harness_plugins.strategies.sr_ste import DenseMagnitude
from parts import BROKEN, guarded

from harness.api import (
    SGD,
    Activation,
    Adam,
    Batch,
    CubicSchedule,
    Dense,
    Epoch,
    Gradient,
    MaskUpdate,
    Measurement,
    Network,
    NumberFormat,
    NumPyOperations,
    Settings,
    State,
    StraightThrough,
    keep_count,
)
from harness.fixed_point import FixedArithmetic, calibrated, evaluated
from harness.fixed_point.network import Pass
from harness.masks.updates import MaskMaker

PATTERNS = {
    "unstructured": Unstructured(),
    "bank_balanced": BankBalanced(bank_size=4),
    "row_balanced": RowBalanced(),
    "n_m": NM(),
    "block": Block(height=2, width=2),
}
STEPS = 20


def silent(step):
    """A progress callback."""


def backend_named(name):
    if name == "torch":
        from harness_plugins.backends.torch_backend import TorchBackend

        return TorchBackend()
    from harness_plugins.backends.keras_tfmot import KerasTfmot

    return KerasTfmot()


def language(**options):
    """Hidden size 8, two layers, carried state, loss summed over time; words repeat and the gradient is clipped."""
    network = language_network(words=12, units=8, layers=2)
    return TinyProblem(network, steps=STEPS, classes=12, **{"clip_norm": 0.5, "ids": 7, **options})


def images(**options):
    """Convolutions with padding and stride, both poolings, every activation."""
    network = image_network()
    kept = tuple(layer for layer in network.layers if layer.type != "dropout")
    return TinyProblem(network.model_copy(update={"layers": kept}), steps=STEPS, classes=3, **options)


CASES = {
    "language": lambda: (language(), 1.0),
    "language_momentum": lambda: (language(optimiser=SGD(momentum=0.9, weight_decay=0.001)), 0.3),
    "language_adam": lambda: (language(optimiser=Adam()), 0.01),
    "images": lambda: (images(optimiser=SGD(momentum=0.9), clip_norm=None), 0.1),
}


def matrices(problem):
    return [tensor for tensor in problem.tensors() if tensor.is_prunable]


class Probe:
    """A problem whose evaluation is one batch, chosen from outside: the way to logits through the interface alone."""

    def __init__(self, problem):
        self.problem = problem
        self.batch = None

    def __getattr__(self, name):
        return getattr(self.problem, name)

    def batches(self, split, epoch, rng):
        yield self.batch


def logits(backend, problem):
    """Logits of one item, recovered from the losses of every possible target.

    With the weights and the bias of class 0 at zero, its logit is zero, and that of class k is what the loss falls by
    when k is the target instead.
    """
    probe = Probe(problem)
    weights = problem.initial_weights(3)
    head = problem.network.layers[-1].name
    weights[f"{head}.kernel"][0] = 0
    weights[f"{head}.bias"][0] = 0
    session = backend.open(probe, Settings())
    session.load(State(weights))
    inputs = next(problem.batches("test", 0, None)).inputs[:1]
    places = inputs.shape[1] if problem.network.is_recurrent else 1

    def nats(place, target):
        targets = np.zeros((1, places) if problem.network.is_recurrent else (1,), np.int32)
        targets.reshape(-1)[place] = target
        probe.batch = Batch(inputs, targets)
        return session.evaluate("test").nats

    return np.array([[nats(0, 0) - nats(place, k) for k in range(problem.classes)] for place in range(places)])


class Given:
    """A problem whose every split is these batches."""

    def __init__(self, problem, batches):
        self.problem, self.given = problem, batches

    def __getattr__(self, name):
        return getattr(self.problem, name)

    def batches(self, split, epoch, rng):
        yield from self.given


def rectified():
    """Two images and one, all pixels zero but the first two of each, through convolutions with padding and ReLU."""
    network = images().network
    layers = tuple(
        layer.model_copy(update={"function": "relu"}) if layer.type == "activation" else layer
        for layer in network.layers
    )
    pixels = np.zeros((3, *network.input_shape), np.float32)
    pixels[:, 0, 0, :2] = 1.0
    pixels[2] = 1.0
    targets = np.zeros(3, np.int32)
    problem = TinyProblem(network.model_copy(update={"layers": layers}), classes=3)
    return Given(problem, [Batch(pixels[:2], targets[:2]), Batch(pixels[2:], targets[2:])]), {}


def gaps():
    """Two segments of unequal length; half of the words have a vector of zeros, and two units are dead."""
    problem = language()
    weights = problem.initial_weights(0)
    weights["embedding.table"][::2] = 0
    for part in ("kernel", "recurrent_kernel", "bias"):
        candidates = weights[f"lstm_0.{part}"].reshape(4, 8, -1)[2]  # gates in the order i, f, g, o
        candidates[:2] = 0
    words = np.array([[0, 1, 2, 4, 6, 8, 10]], np.int32)
    targets = np.zeros_like(words)
    cuts = [slice(0, 5), slice(5, 7)]
    return Given(problem, [Batch(words[:, cut], targets[:, cut]) for cut in cuts]), weights


def densities(backend, problem, weights):
    """The density of activations on the test split, layer by layer; there is none on the others."""
    session = backend.open(problem, Settings())
    session.load(State(problem.initial_weights(0) | weights))
    assert session.evaluate("valid").activation_density == {}
    found = session.evaluate("test").activation_density
    assert list(found) == [layer.name for layer in problem.network.layers if layer.type in ("lstm", "dense", "conv2d")]
    return np.array(list(found.values()))


FORMATS = (
    NumberFormat(),
    NumberFormat(weight_bits=8, activation_bits=8, accumulator_bits=16, scaling="row", percentile=99),
    NumberFormat(weight_bits=6, activation_bits=4),
    NumberFormat(codebook=16, activation_bits=8),
)


def operations_of(name, backend, problem):
    """A framework's own array operations: its sessions on a CPU have NumPy's, which are the same and sooner."""
    session = backend.open(problem, Settings())
    assert isinstance(session.operations(), NumPyOperations)
    if name == "torch":
        import torch
        from harness_plugins.backends.torch_backend.operations import TorchOperations

        return TorchOperations(torch.device("cpu"))
    from harness_plugins.backends.keras_tfmot.operations import TensorFlowOperations

    return TensorFlowOperations()


def in_fixed_point(operations, case, problem):
    """Steps, logits of three batches one behind the other, and totals of an evaluation."""
    found, weights = {}, problem.initial_weights(5)
    for form in FORMATS:
        name = f"fixed/{case}/{form.label()}"
        exponents = calibrated(problem, weights, form, operations, 0)
        arithmetic = FixedArithmetic(operations, problem.network, weights, form, exponents)
        tables = {n.removesuffix(".table"): operations.array(w) for n, w in weights.items() if n.endswith(".table")}
        run = Pass(problem.network, tables)
        batches = islice(problem.batches("test", 0, None), 3)
        found[f"{name}/logits"] = np.array(
            [operations.numpy(run.logits(batch.inputs, arithmetic)) for batch in batches]
        )
        found[f"{name}/steps"] = np.array([exponents[key] for key in sorted(exponents)])
        total = evaluated(problem, weights, form, "test", operations, 0)
        found[f"{name}/total"] = np.array([total.nats, total.items, total.correct or 0, total.wrapped])
    return found


def twenty_steps(session, problem, rate, *, pruned):
    """Weights before and after one epoch of twenty steps, and its loss."""
    session.load(State(problem.initial_weights(0)))
    updates = [(0, 0.25), (10, 0.5), (STEPS, 0.75)] if pruned else []
    epoch = Epoch(rates=rate, updates=tuple(MaskUpdate(step=step, sparsity=sparsity) for step, sparsity in updates))
    masker = MaskMaker(Unstructured(), "uniform", matrices(problem), seed=0)
    result = session.train_epoch(epoch, 0, masker, silent)
    return session.weights(), np.array([result.nats, result.items])


def main(name, out):
    backend, arrays, broken = backend_named(name), {}, {}
    for case, make in CASES.items():
        with guarded(broken, case):
            arrays |= of_case(backend, case, *make())
    for case, problem in {"language": language(), "images": images()}.items():
        with guarded(broken, f"logits of {case}"):
            arrays[f"logits/{case}"] = logits(backend, problem)
    for case, given in {"rectified": rectified(), "gaps": gaps(), "language": (language(), {})}.items():
        with guarded(broken, f"density of {case}"):
            arrays[f"density/{case}"] = densities(backend, *given)
    for case, problem in measured_problems().items():
        with guarded(broken, f"what is measured of {case}"):
            arrays |= measured(backend, case, problem)
    with guarded(broken, "straight-through"):
        if backend.trains_through:
            arrays |= straight_through(backend)
    for case, problem in {"language": language(), "images": images()}.items():
        with guarded(broken, f"fixed point of {case}"):
            arrays |= in_fixed_point(operations_of(name, backend, problem), case, problem)
    with guarded(broken, "own module"):
        if name == "torch":
            arrays |= of_own_module()
    with guarded(broken, "peers"):
        arrays |= PEERS[name]()
    np.savez(out, **arrays, **{f"{BROKEN}/{case}": np.array(answer[BROKEN]) for case, answer in broken.items()})


def of_case(backend, case, problem, rate):
    """Everything that is compared of one problem, as arrays by name."""
    arrays = {}
    session = backend.open(problem, Settings())
    for kind in ("dense", "pruned"):
        weights, loss = twenty_steps(session, problem, rate, pruned=kind == "pruned")
        arrays |= {f"{case}/{kind}/{tensor}": value for tensor, value in weights.items()}
        arrays[f"loss/{case}/{kind}"] = loss
    arrays |= {f"mask/{case}/{tensor}": mask for tensor, mask in session.masks().items()}
    session.load(State(problem.initial_weights(0)))
    evaluated = session.evaluate("valid")
    arrays[f"valid/{case}"] = np.array([evaluated.nats, evaluated.items, evaluated.correct or 0])
    gradients = session.gradients(3, 0)
    arrays |= {f"gradient/{case}/{tensor}": value for tensor, value in gradients.items()}
    return arrays | (same_weight_masks(session, problem) if case == "language" else {})


MEASURED = {
    "language": ("input_norms", "input_moments", "hessian_gradients"),
    "images": ("input_norms", "input_moments", "hessian_gradients", "synaptic_flow"),
    "mlp": ("input_norms", "input_moments", "hessian_gradients", "synaptic_flow"),
}
TEMPERATURE = 2.0


def mlp(**options):
    """6 - 5 - 3 with tanh between: small enough for a Hessian by hand."""
    layers = (
        Dense(name="hidden", inputs=6, units=5, input_label="pixels"),
        Activation(function="tanh"),
        Dense(name="output", inputs=5, units=3, input_label="hidden.units"),
    )
    return TinyProblem(Network(layers=layers, input_shape=(6,)), classes=3, **options)


def measured_problems():
    return {"language": language(), "images": images(), "mlp": mlp()}


def measured(backend, case, problem):
    """What scores ask for, by tensor; the weights must be left as they were."""
    session = backend.open(problem, Settings())
    session.load(State(problem.initial_weights(0)))
    before, answers = session.weights(), {}
    for what in MEASURED[case]:
        asked = Measurement(what=what, batches=2, temperature=TEMPERATURE if what == "hessian_gradients" else 1.0)
        answers |= {f"{what}/{case}/{tensor}": value for tensor, value in session.measured(asked, 0).items()}
    for name, value in session.weights().items():
        np.testing.assert_array_equal(value, before[name])
    return answers


DECAY, RATE = 0.05, 0.5


def through_epoch(every):
    updates = tuple(MaskUpdate(step=step, sparsity=0.5, score=DenseMagnitude()) for step in range(0, STEPS, every))
    return Epoch(rates=RATE, updates=updates, through=StraightThrough(decay=DECAY))


def straight_through(backend):
    """Two epochs of it, the second once more from the state between; then an epoch without."""
    problem = mlp(optimiser=SGD(momentum=0.5), steps=STEPS, clip_norm=None)
    session = backend.open(problem, Settings())
    masker = MaskMaker(Unstructured(), "uniform", matrices(problem), seed=0)
    session.load(State(problem.initial_weights(0)))
    session.train_epoch(through_epoch(4), 0, masker, silent)
    between = session.state()
    arrays = {f"through/first/{name}": value for name, value in (between.weights | between.extra).items()}
    arrays |= {f"through/mask/{name}": value for name, value in between.masks.items()}
    ends = []
    for start in (None, between):
        if start is not None:
            session = backend.open(problem, Settings())
            session.load(start)
        session.train_epoch(through_epoch(4), 1, masker, silent)
        ends.append(session.state())
    (one, other) = ({**end.weights, **end.extra, **end.slots} for end in ends)
    arrays["through/resumed alike"] = np.array([np.array_equal(value, other[name]) for name, value in one.items()])
    arrays["through/second mask"] = ends[0].masks["hidden.kernel"]
    scores = MaskMaker(Unstructured(), "uniform", matrices(problem), seed=0)
    moved = scores(MaskUpdate(step=0, sparsity=0.5, score=MovementScore()), 2, session)
    arrays["through/by movement"] = moved["hidden.kernel"]
    arrays["through/movement"] = session.state().extra["movement/hidden.kernel"]
    session.train_epoch(Epoch(rates=RATE), 2, masker, silent)
    after = session.state()
    hidden = ~after.masks["hidden.kernel"]
    left = (after.weights["hidden.kernel"][hidden], after.slots["momentum/hidden.kernel"][hidden])
    arrays["through/left"] = np.array([len(after.extra), *(np.abs(values).sum() for values in left)])
    return arrays


def same_weight_masks(session, problem):
    answers = {}
    for label, pattern in PATTERNS.items():
        session.load(State(problem.initial_weights(0)))
        masker = MaskMaker(pattern, "uniform", matrices(problem), seed=0)
        masks = masker(MaskUpdate(step=0, sparsity=0.5), 0, session)
        answers |= {f"same/{label}/{tensor}": mask for tensor, mask in masks.items()}
    scored = MaskMaker(Unstructured(), "global", matrices(problem), seed=0)
    masks = scored(MaskUpdate(step=0, sparsity=0.5, score=Gradient()), 0, session)
    return answers | {f"scored/{tensor}": mask for tensor, mask in masks.items()}


def of_own_module():
    """What is measured of a module of somebody's own that is the mlp."""
    import torch
    from harness_plugins.backends.torch_backend import own_measuring

    problem = mlp()
    weights = problem.initial_weights(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    names = {"0.weight": "hidden.kernel", "0.bias": "hidden.bias", "2.weight": "output.kernel", "2.bias": "output.bias"}
    module.load_state_dict({name: torch.tensor(weights[ours]) for name, ours in names.items()})
    batches = [
        (torch.tensor(batch.inputs), torch.tensor(batch.targets).long()) for batch in problem.batches("train", 0, None)
    ][:2]

    def loss(inputs, targets):
        return torch.nn.functional.cross_entropy(own_measuring.divided(module(inputs), TEMPERATURE), targets)

    matrices = {name: parameter for name, parameter in module.named_parameters() if parameter.dim() > 1}
    found = {"hessian_gradients": own_measuring.hessian_gradients(matrices, loss, batches)}
    for what in ("input_norms", "input_moments"):
        sums = own_measuring.input_sums(
            module, module, batches, {name: name for name in names}, moments=what == "input_moments"
        )
        found[what] = {name: torch.tensor(value) for name, value in sums.items()}
    return {
        f"own/{what}/{names[name]}": value.numpy() for what, values in found.items() for name, value in values.items()
    }


def peer_scores():
    """Weights of many different magnitudes: peers choose among equals as they please."""
    return np.random.default_rng(8).standard_normal((12, 40)).astype(np.float32)


def peers_of_torch():
    """Masks of torch.nn.utils.prune and of torch.ao.pruning, by their public interfaces."""
    import torch
    from torch.ao.pruning import WeightNormSparsifier
    from torch.nn.utils import prune

    weights, ones = torch.tensor(peer_scores()), torch.ones(12, 40)
    found = {
        "unstructured": prune.L1Unstructured(0.75).compute_mask(weights, ones),
        "filter": prune.LnStructured(0.75, n=1, dim=0).compute_mask(weights, ones),
        "channel": prune.LnStructured(0.75, n=1, dim=1).compute_mask(weights, ones),
        "half": prune.L1Unstructured(0.35).compute_mask(weights[:1, :10], ones[:1, :10]),
    }
    for name, shape, zeros, level in (("two_of_four", (1, 4), 2, 1.0), ("blocks", (4, 4), 16, 0.7)):
        model = torch.nn.Sequential(torch.nn.Linear(40, 12, bias=False))
        with torch.no_grad():
            model[0].weight.copy_(weights)
        sparsifier = WeightNormSparsifier(level, shape, zeros)
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        sparsifier.step()
        found[name] = model[0].parametrizations.weight[0].mask
    return {f"peer/{name}": mask.numpy().astype(bool) for name, mask in found.items()}


def peers_of_tensorflow():
    """TF-MOT's schedule, and its masks for 2:4; its kernels are transposed."""
    import tensorflow as tf
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_schedule, pruning_utils

    schedule = pruning_schedule.PolynomialDecay(0.1, 0.9, begin_step=20, end_step=120, power=3, frequency=10)
    sparsities = [float(schedule(tf.constant(step))[1]) for step in range(20, 121, 10)]
    upright = tf.constant(np.ascontiguousarray(peer_scores().T))
    groups = pruning_utils.weights_rearrange(tf.abs(upright))
    mask = pruning_utils.m_by_n_sparsity_mask_prepare(pruning_utils.generate_m_by_n_mask(groups, (2, 4)), upright.shape)
    return {"peer/schedule": np.array(sparsities), "peer/two_of_four": np.asarray(mask).T.astype(bool)}


PEERS = {"torch": peers_of_torch, "keras_tfmot": peers_of_tensorflow}
BEFOREHAND = {f"agreement {name}.npz": (__file__, name, "{out}") for name in ("torch", "keras_tfmot")}


@pytest.fixture(scope="module")
def both(ran_beforehand):
    """What the same script found in PyTorch and in Keras, as arrays by name."""
    found = []
    for name in BEFOREHAND:
        done, out = ran_beforehand(name)
        assert done.returncode == 0, done.stderr
        with np.load(out) as file:
            found.append(Arrays({key: file[key] for key in file.files}))
    return found


class Arrays(dict):
    """Arrays by name; a missing one fails with what broke in the script."""

    def __missing__(self, name):
        raise AssertionError("\n".join([f"the script has no {name}", *self.broken()]))

    def broken(self):
        return [str(value) for key, value in self.items() if key.startswith(f"{BROKEN}/")]


def start_of(prefix, both):
    one, other = (
        {key.removeprefix(prefix): value for key, value in part.items() if key.startswith(prefix)} for part in both
    )
    assert one, "\n".join(both[0].broken())
    assert one.keys() == other.keys(), "\n".join(both[0].broken() + both[1].broken())
    return one, other


def relative(one, other):
    return float(np.linalg.norm(one.astype(np.float64) - other) / np.linalg.norm(other))


pytestmark = [pytest.mark.torch, pytest.mark.tensorflow]
cases = pytest.mark.parametrize("case", list(CASES))


@pytest.mark.parametrize("case", ["language", "images"])
def test_the_same_weights_give_the_same_logits(both, case):
    one, other = both[0][f"logits/{case}"], both[1][f"logits/{case}"]

    assert np.ptp(one) > 0.05
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


@cases
def test_the_same_weights_give_the_same_loss_and_count(both, case):
    one, other = both[0][f"valid/{case}"], both[1][f"valid/{case}"]

    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1:].tolist() == other[1:].tolist()


@pytest.mark.parametrize("case", ["rectified", "gaps", "language"])
def test_the_same_weights_have_the_same_density_of_activations(both, case):
    one, other = both[0][f"density/{case}"], both[1][f"density/{case}"]

    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("place", [0, 1])
def test_a_density_counts_pixels_without_padding_over_batches_of_unequal_size(both, place):
    first, *behind_relu = both[place]["density/rectified"]

    assert first == pytest.approx((2 + 2 + 162) / (3 * 162))
    assert all(0 < density < 1 for density in behind_relu)


@pytest.mark.parametrize("place", [0, 1])
def test_the_density_of_an_lstm_counts_its_inputs_and_its_outputs(both, place):
    first, second, softmax = both[place]["density/gaps"]

    assert first == pytest.approx((1 * 8 + 7 * 6) / (7 * 16))  # one word of seven has a vector, six units of eight live
    assert second == pytest.approx((7 * 6 + 7 * 8) / (7 * 16))
    assert softmax == 1


@pytest.mark.parametrize("case", ["language", "images"])
@pytest.mark.parametrize("form", FORMATS, ids=NumberFormat.label)
def test_fixed_point_is_equal_bit_for_bit_in_both_frameworks_and_in_numpy(both, case, form):
    problem = language() if case == "language" else images()
    expected = in_fixed_point(NumPyOperations(), case, problem)
    name = f"fixed/{case}/{form.label()}"

    assert np.ptp(expected[f"{name}/logits"]) > 0
    for part in both:
        assert part[f"{name}/steps"].tolist() == expected[f"{name}/steps"].tolist()
        assert part[f"{name}/logits"].tobytes() == expected[f"{name}/logits"].tobytes()
        np.testing.assert_allclose(part[f"{name}/total"], expected[f"{name}/total"], rtol=1e-12)


@cases
def test_the_same_weights_have_the_same_gradients(both, case):
    one, other = start_of(f"gradient/{case}/", both)

    assert {name for name in one if relative(one[name], other[name]) > 1e-3} == set()


@cases
@pytest.mark.parametrize("kind", ["dense", "pruned"])
def test_twenty_steps_keep_every_tensor_within_a_thousandth(both, case, kind):
    one, other = start_of(f"{case}/{kind}/", both)

    assert {name: relative(one[name], other[name]) for name in one if relative(one[name], other[name]) > 1e-3} == {}


@cases
@pytest.mark.parametrize("kind", ["dense", "pruned"])
def test_twenty_steps_report_the_same_training_loss(both, case, kind):
    one, other = both[0][f"loss/{case}/{kind}"], both[1][f"loss/{case}/{kind}"]

    assert one[0] == pytest.approx(other[0], rel=1e-4)
    assert one[1] == other[1]


@cases
def test_both_end_at_the_sparsity_asked_for_with_zeros_in_the_same_places(both, case):
    one, other = start_of(f"mask/{case}/", both)

    assert all(abs(1 - mask.mean() - 0.75) < 0.05 for mask in one.values())
    assert {name for name in one if (one[name] != other[name]).any()} == set()


@pytest.mark.parametrize("label", list(PATTERNS))
def test_masks_from_the_same_weights_are_equal_bit_for_bit(both, label):
    one, other = start_of(f"same/{label}/", both)

    assert all(0.4 < mask.mean() < 0.6 for mask in one.values())
    assert {name for name in one if one[name].tobytes() != other[name].tobytes()} == set()


def test_a_gradient_score_chooses_the_same_weights_in_both(both):
    one, other = start_of("scored/", both)
    size = sum(mask.size for mask in one.values())

    assert sum(int(mask.sum()) for mask in one.values()) == sum(int(mask.sum()) for mask in other.values())
    assert sum(int((one[name] != other[name]).sum()) for name in one) <= 0.01 * size


@pytest.mark.parametrize(("case", "what"), [(case, what) for case, needs in MEASURED.items() for what in needs])
def test_both_measure_the_same_of_the_same_weights(both, case, what):
    one, other = start_of(f"{what}/{case}/", both)

    assert all(np.abs(value).max() > 0 for value in one.values())
    assert {name for name in one if relative(one[name], other[name]) > 1e-3} == set()


class ByHand:
    """The mlp in NumPy, in float64: its gradient by back-propagation, its Hessian by differences of that."""

    def __init__(self):
        problem = mlp()
        weights = {name: value.astype(np.float64) for name, value in problem.initial_weights(0).items()}
        self.biases = weights["hidden.bias"], weights["output.bias"]
        self.matrices = [weights["hidden.kernel"], weights["output.kernel"]]
        self.batches = list(problem.batches("train", 0, None))[:2]

    def gradient(self, matrices):
        """Of the mean over batches of the cross-entropy per item, at the temperature."""
        total = [np.zeros_like(matrix) for matrix in matrices]
        for batch in self.batches:
            x = batch.inputs.astype(np.float64)
            hidden = np.tanh(x @ matrices[0].T + self.biases[0])
            logits = (hidden @ matrices[1].T + self.biases[1]) / TEMPERATURE
            slopes = np.exp(logits - logits.max(1, keepdims=True))
            slopes /= slopes.sum(1, keepdims=True)
            slopes[np.arange(len(x)), batch.targets] -= 1
            slopes /= len(x) * TEMPERATURE * len(self.batches)
            down = (slopes @ matrices[1]) * (1 - hidden**2)
            total = [total[0] + down.T @ x, total[1] + slopes.T @ hidden]
        return total

    def hessian_gradients(self, step=1e-4):
        gradient = self.gradient(self.matrices)
        ahead, behind = (
            self.gradient([matrix + sign * step * slope for matrix, slope in zip(self.matrices, gradient, strict=True)])
            for sign in (1, -1)
        )
        return [(first - second) / (2 * step) for first, second in zip(ahead, behind, strict=True)]

    def moments(self):
        x = np.concatenate([batch.inputs for batch in self.batches]).astype(np.float64)
        hidden = np.tanh(x @ self.matrices[0].T + self.biases[0])
        return [x.T @ x, hidden.T @ hidden]

    def norms(self):
        return [np.sqrt(np.diag(moments)) for moments in self.moments()]

    def flow(self):
        first, second = map(np.abs, self.matrices)
        hidden = np.tanh(first.sum(1) + np.abs(self.biases[0]))
        by_hidden = second.sum(0) * (1 - hidden**2)
        return [np.repeat(by_hidden[:, None], 6, axis=1), np.repeat(hidden[None, :], 3, axis=0)]


@pytest.mark.parametrize("place", [0, 1], ids=["torch", "keras_tfmot"])
@pytest.mark.parametrize(
    ("what", "by_hand"),
    [
        ("input_norms", ByHand.norms), ("input_moments", ByHand.moments), ("synaptic_flow", ByHand.flow),
        ("hessian_gradients", ByHand.hessian_gradients),
    ],
)  # fmt: skip
def test_what_is_measured_is_what_numpy_finds(both, place, what, by_hand):
    expected = dict(zip(("hidden.kernel", "output.kernel"), by_hand(ByHand()), strict=True))

    for name, values in expected.items():
        assert relative(both[place][f"{what}/mlp/{name}"], values) < 1e-3


@pytest.mark.parametrize(
    ("what", "by_hand"),
    [
        ("input_norms", ByHand.norms), ("input_moments", ByHand.moments),
        ("hessian_gradients", ByHand.hessian_gradients),
    ],
)  # fmt: skip
def test_what_is_measured_of_a_module_of_ones_own_is_what_numpy_finds(both, what, by_hand):
    for name, values in zip(("hidden.kernel", "output.kernel"), by_hand(ByHand()), strict=True):
        assert relative(both[0][f"own/{what}/{name}"], values) < 1e-3


@pytest.mark.parametrize("place", [0, 1], ids=["torch", "keras_tfmot"])
def test_the_inputs_of_recurrent_and_convolutional_matrices_have_their_number_of_columns(both, place):
    assert both[place]["input_norms/language/lstm_1.recurrent_kernel"].shape == (8,)
    assert both[place]["input_norms/images/conv_0.kernel"].shape == (2 * 3 * 2,)
    assert "input_norms/language/embedding.table" not in both[place]


def by_hand_through():
    """An epoch of straight-through training in NumPy, in float64: weights under masks, biases, movement, masks."""
    problem = mlp(optimiser=SGD(momentum=0.5), steps=STEPS, clip_norm=None)
    dense = {name: value.astype(np.float64) for name, value in problem.initial_weights(0).items()}
    speed = {name: np.zeros_like(value) for name, value in dense.items()}
    movement = {name: np.zeros_like(dense[name]) for name in ("hidden.kernel", "output.kernel")}
    masks = {name: np.ones(dense[name].shape) for name in movement}
    for step, batch in enumerate(problem.batches("train", 0, None)):
        if step % 4 == 0:
            for name, mask in masks.items():
                order = np.argsort(-np.abs(dense[name]), axis=None, kind="stable")
                mask[:] = 0
                mask.ravel()[order[: keep_count(mask.size, 0.5)]] = 1
        seen = {name: value * masks.get(name, 1) for name, value in dense.items()}
        x = batch.inputs.astype(np.float64)
        hidden = np.tanh(x @ seen["hidden.kernel"].T + seen["hidden.bias"])
        logits = hidden @ seen["output.kernel"].T + seen["output.bias"]
        slopes = np.exp(logits - logits.max(1, keepdims=True))
        slopes /= slopes.sum(1, keepdims=True)
        slopes[np.arange(len(x)), batch.targets] -= 1
        slopes /= len(x)
        down = (slopes @ seen["output.kernel"]) * (1 - hidden**2)
        gradients = {
            "hidden.kernel": down.T @ x, "hidden.bias": down.sum(0),
            "output.kernel": slopes.T @ hidden, "output.bias": slopes.sum(0),
        }  # fmt: skip
        for name, gradient in gradients.items():
            if name in masks:
                movement[name] -= gradient * dense[name]
                gradients[name] = gradient + DECAY * (1 - masks[name]) * dense[name]
            speed[name] = 0.5 * speed[name] + gradients[name]
            dense[name] -= RATE * speed[name]
    return dense, masks, movement


def test_straight_through_training_is_what_numpy_finds(both):
    dense, masks, movement = by_hand_through()

    for name, mask in masks.items():
        np.testing.assert_array_equal(both[0][f"through/mask/{name}"], mask)
        assert relative(both[0][f"through/first/dense/{name}"], dense[name]) < 1e-3
        assert relative(both[0][f"through/first/movement/{name}"], movement[name]) < 1e-3
        np.testing.assert_array_equal(
            both[0][f"through/first/{name}"], both[0][f"through/first/dense/{name}"] * mask.astype(bool)
        )


def test_straight_through_training_goes_on_from_a_state_as_if_nothing_had_been(both):
    assert both[0]["through/resumed alike"].all()


def test_masks_of_straight_through_training_change_and_dense_weights_survive(both):
    first, second = both[0]["through/mask/hidden.kernel"], both[0]["through/second mask"]

    assert (second & ~first).any()
    assert (both[0]["through/first/dense/hidden.kernel"][~first] != 0).all()


def test_movement_ranks_by_what_training_has_moved_away_from_zero(both):
    moved, kept = both[0]["through/movement"], both[0]["through/by movement"]

    assert moved[kept].min() >= moved[~kept].max()


def test_training_after_it_forgets_what_lay_under_the_masks(both):
    assert both[0]["through/left"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("place", "name", "pattern", "sparsity"),
    [
        (0, "unstructured", Unstructured(), 0.75), (0, "filter", Filter(), 0.75), (0, "channel", Channel(), 0.75),
        (0, "two_of_four", NM(), 0.5), (1, "two_of_four", NM(), 0.5),
    ],
)  # fmt: skip
def test_peers_keep_the_same_weights(both, place, name, pattern, sparsity):
    np.testing.assert_array_equal(both[place][f"peer/{name}"], pattern.mask(np.abs(peer_scores()), sparsity))


def test_torch_rounds_the_number_it_prunes_half_to_even_and_we_the_number_we_keep_half_up(both):
    ours = Unstructured().mask(np.abs(peer_scores()[:1, :10]), 0.35)

    assert (both[0]["peer/half"].sum(), ours.sum()) == (6, 7)  # of ten; 3.5 would be pruned
    assert not (both[0]["peer/half"] & ~ours).any()


def test_torch_prunes_the_floor_of_its_blocks_and_ranks_them_by_squares(both):
    # 30 blocks at 70 %: 9 stay in both; ours are ranked by the mean of |w|, or here of what is handed in.
    ours = Block(height=4, width=4).mask(peer_scores() ** 2, 0.7)

    assert both[0]["peer/blocks"].sum() == ours.sum() == 9 * 16
    np.testing.assert_array_equal(both[0]["peer/blocks"], ours)


def test_the_toolkit_s_polynomial_decay_is_our_cubic_schedule(both):
    ours = [CubicSchedule().sparsity((step - 20) / 100, 0.1, 0.9) for step in range(20, 120, 10)]

    np.testing.assert_allclose(both[1]["peer/schedule"], [*ours, 0.9], rtol=1e-6)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
