"""The checks of tasks, backends and hardware models: what keeps its contract passes, a broken promise is named."""

from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pytest
from numpy_plugins import NumpyBackend, NumpySession, ToyProblem, ToyTask

from harness.api import Backend, Batch, HardwareModel, PluginContractError, PluginUnavailableError, SpecError, Task
from harness.cli.scaffold import write_file
from harness.discovery.finding import discover
from harness.testing import check_backend, check_hardware, check_task


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The classes of the templates."""
    folder, found = tmp_path_factory.mktemp("templates"), {}
    for kind, base in (("task", Task), ("backend", Backend), ("hardware", HardwareModel)):
        file = write_file(kind, f"a_{kind}", folder / f"a_{kind}.py", discover()).module
        spec = spec_from_file_location(f"templates_a_{kind}", file)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        found[kind] = next(
            each for each in vars(module).values()
            if isinstance(each, type) and issubclass(each, base) and each.__module__ == module.__name__
        )  # fmt: skip
    return found


def test_what_the_templates_write_passes(written):
    check_task(written["task"]())
    check_backend(written["backend"]())
    check_hardware(written["hardware"]())
    check_task(ToyTask())
    check_backend(NumpyBackend(), ToyProblem(ToyTask()))


# --- tasks ----------------------------------------------------------------------------------------------------------


class Unlike(ToyProblem):
    """Its fingerprint is another one every time."""

    count = 0

    @property
    def fingerprint(self):
        Unlike.count += 1
        return str(Unlike.count)


class Short(ToyProblem):
    def batches(self, split, epoch, rng):
        return iter(list(super().batches(split, epoch, rng))[:-1])


class Shuffled(ToyProblem):
    def batches(self, split, epoch, rng):
        return super().batches("train" if split == "valid" else split, epoch, rng)


class Doubled(ToyProblem):
    def initial_weights(self, seed):
        return {name: array.astype(np.float64) for name, array in super().initial_weights(seed).items()}


class Stubborn(ToyProblem):
    def initial_weights(self, seed):
        return super().initial_weights(0)


class Beyond(ToyProblem):
    def batches(self, split, epoch, rng):
        return (Batch(batch.inputs, batch.targets + 1) for batch in super().batches(split, epoch, rng))


class NotPlain(ToyProblem):
    @property
    def facts(self):
        return {"array": np.ones(2)}


class Endless(ToyProblem):
    def value(self, evaluation):
        return float("nan")


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (Unlike, "the same fingerprint when loaded twice"),
        (Short, "train: the contract expects 6 batches, as its recipe says, got 5"),
        (Shuffled, "valid: the contract expects the same batches in every epoch"),
        (Doubled, "float32, got float64"),
        (Stubborn, "other weights for another seed"),
        (Beyond, "targets in [0, 3)"),
        (NotPlain, "facts that are plain JSON values"),
        (Endless, "a metric that is a number, got nan"),
    ],
)
def test_a_task_that_breaks_its_contract_is_told_which_promise(problem, said, monkeypatch):
    monkeypatch.setattr(ToyTask, "load", lambda self, data_dir: problem(self))

    with pytest.raises(PluginContractError) as error:
        check_task(ToyTask())

    assert said in str(error.value)


# --- backends -------------------------------------------------------------------------------------------------------


class KeepsMasked(NumpySession):
    def set_masks(self, masks):
        self._masks.update({name: mask.copy() for name, mask in masks.items()})


class Revives(NumpySession):
    def train_epoch(self, epoch, index, masker, progress):
        result = super().train_epoch(epoch, index, masker, progress)
        for name in self._masks:
            self._weights[name] += np.float32(0.01)
        return result


class HandsOut(NumpySession):
    def weights(self):
        return self._weights


class Forgets(NumpySession):
    def load(self, state):
        super().load(state)
        self._weights = {name: np.round(array, 3) for name, array in self._weights.items()}


class NeverAsks(NumpySession):
    def _update(self, epoch, step, index, masker):
        pass


class AnyOrder(NumpySession):
    """Its second epoch depends on more than its state and index."""

    def __init__(self, problem, settings):
        super().__init__(problem, settings)
        self._trained = 0

    def train_epoch(self, epoch, index, masker, progress):
        self._trained += 1
        return super().train_epoch(epoch, index + 10 * self._trained, masker, progress)


class Masked(NumpySession):
    def gradients(self, batches, epoch):
        found = super().gradients(batches, epoch)
        return {name: array * self._masks.get(name, 1) for name, array in found.items()}


@pytest.mark.parametrize(
    ("session", "said"),
    [
        (KeepsMasked, "masked weights to be zero at once"),
        (Revives, "masked weights to stay zero after training"),
        (HandsOut, "weights handed out to be copies"),
        (Forgets, "`state` to give back what `load` took"),
        (NeverAsks, "one mask update at step 2 to be asked for, got none"),
        (AnyOrder, "an epoch after a stop to be the epoch without one"),
        (Masked, "gradients of masked weights too"),
    ],
)
def test_a_backend_that_breaks_its_contract_is_told_which_promise(session, said, monkeypatch):
    monkeypatch.setattr(NumpyBackend, "open", lambda self, problem, settings: session(problem, settings))

    with pytest.raises(PluginContractError) as error:
        check_backend(NumpyBackend(), ToyProblem(ToyTask()))

    assert said in str(error.value)


def test_a_backend_without_its_framework_is_not_broken(monkeypatch):
    monkeypatch.setattr(NumpyBackend, "why_unavailable", lambda self: "it is not installed; install it")

    with pytest.raises(PluginUnavailableError, match="install it"):
        check_backend(NumpyBackend())


# --- hardware -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"speedup": 9.0}, "speedup = dense_cycles * streams / cycles"),
        ({"latency_us": 99.0}, "latency_us = cycles / clock_mhz"),
        ({"utilisation": 1.5}, "a utilisation in [0, 1], got 1.5"),
        ({"origin": "measured"}, "an origin that says `modelled`"),
    ],
)
def test_a_cost_whose_figures_do_not_agree_is_told(change, said, written, monkeypatch):
    model, real = written["hardware"], written["hardware"].cost
    monkeypatch.setattr(model, "cost", lambda self, workload: real(self, workload).model_copy(update=change))

    with pytest.raises(PluginContractError) as error:
        check_hardware(model())

    assert said in str(error.value)


def test_a_model_that_changes_masks_or_its_mind_or_refuses_everything_is_told(written, monkeypatch):
    model, real, asked = written["hardware"], written["hardware"].cost, []

    def moody(self, workload):
        asked.append(1)
        return real(replace_multipliers(self, len(asked)), workload)

    def spoiling(self, workload):
        for mask in workload.masks.values():
            mask[...] = True
        return real(self, workload)

    def refusing(self, workload):
        raise SpecError("never")

    for cost, said in (
        (moody, "the same cost when asked twice"), (spoiling, "the masks to be left as they were"),
        (refusing, "it refuses them all: never"),
    ):  # fmt: skip
        monkeypatch.setattr(model, "cost", cost)
        with pytest.raises(PluginContractError) as error:
            check_hardware(model())
        assert said in str(error.value)


def replace_multipliers(model, count):
    return model.model_copy(update={"multipliers": count})


def test_a_refusal_of_some_masks_is_a_declared_skip(written, monkeypatch):
    model, real = written["hardware"], written["hardware"].cost

    def picky(self, workload):
        if not workload.banks:
            raise SpecError("only banks")
        return real(self, replace(workload))

    monkeypatch.setattr(model, "cost", picky)

    check_hardware(model())
