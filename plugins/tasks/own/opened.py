"""A user's task in a process that has the framework: the model, its data, loss and metric, ready to be used."""

from __future__ import annotations

import hashlib
import inspect
import json
import random
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from math import exp
from pathlib import Path
from typing import Any

import numpy as np

from harness.api import (
    SGD,
    Constant,
    JsonValue,
    LearningRate,
    Metric,
    NativeModel,
    OwnCodeError,
    OwnModel,
    PluginUnavailableError,
    Rates,
    Recipe,
    SpecError,
    Split,
    theirs,
)

from . import checked, first_batch, source
from .data import Data
from .first_batch import kind
from .way import PACKAGES, Way
from .ways import loaded_ways, used_ways, way_of

_METRICS = {
    "accuracy": Metric(name="accuracy", unit="%", better="higher", digits=2),
    "perplexity": Metric(name="perplexity", better="lower", digits=2),
    "loss": Metric(name="loss", better="lower", digits=4),
}


class Listed(LearningRate):
    """The rates of a user's own schedule, epoch by epoch; the last one from then on."""

    rates: tuple[Rates, ...]

    def at(self, epoch: int) -> Rates:
        """The rate or rates of one epoch."""
        return self.rates[min(epoch, len(self.rates) - 1)]


class Opened:
    """What the function that an entry names has returned, and what follows from it.

    Args:
        entry: `my_model.py:task`.
        folder: of the experiment.
        parameters: what the experiment gives to the function.
        data_dir: where data sets lie; for a function with a parameter of that name.
        smoke: take one step and one batch of everything.

    Raises:
        SpecError: the entry or its parameters are wrong.
        OwnCodeError: the user's code raised.
    """

    def __init__(
        self, entry: str, folder: Path, parameters: Mapping[str, JsonValue], data_dir: Path | None, *, smoke: bool
    ) -> None:
        self.path, name = source.located(entry, folder)
        self.folder, self._smoke, self._parameters = self.path.parent, smoke, dict(parameters)
        # What a file draws while it is imported is the same in every process too.
        used = used_ways(source.modules(self.path))
        for way in used:
            way.seed(0)
        random.seed(0)
        np.random.seed(0)
        with _settings_kept(used):
            self.own = self._returned(name, data_dir)
        self._made: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._reader: object = None
        given = self.own
        checked.check(given)
        # Models can be called as well; of a function or a class no framework has to be asked.
        if not (inspect.isroutine(given.model) or inspect.isclass(given.model)):
            if any(way.is_model(given.model) for way in loaded_ways()):
                raise SpecError("own: `model` must be a function that makes the model; write `model=lambda: Net()`")
        with theirs(self.folder, "building the model"):
            # The model is made to look at it: which framework it is of decides how everything else is read.
            self.way: Way = way_of(given.model)
        self.way.check(given)
        with theirs(self.folder, "opening the data"):
            self._splits = {
                split: Data(self.way, split, getattr(given, split), given.batch, given.steps_per_epoch)
                for split in ("train", "valid", "test")
            }

    def _returned(self, name: str, data_dir: Path | None) -> OwnModel:
        module = _imported(self.path)
        function = getattr(module, name, None)
        if not callable(function):
            names = [each for each, value in vars(module).items() if inspect.isfunction(value)]
            raise SpecError(f"own: {self.path.name} has no function {name!r}; it has {', '.join(names) or 'none'}")
        for way in loaded_ways():
            way.seed(0)  # data that the function draws are the same in every process
        with theirs(self.folder, f"{name}()"):
            given = function(**self._arguments(function, name, data_dir))
        if not isinstance(given, OwnModel):
            raise SpecError(
                f"own: {self.path.name}:{name} must return a `harness.api.OwnModel`, got {type(given).__name__}"
            )
        return given

    def _arguments(self, function: Callable[..., object], name: str, data_dir: Path | None) -> dict[str, object]:
        known = inspect.signature(function).parameters
        takes_all = any(each.kind is each.VAR_KEYWORD for each in known.values())
        unknown = [each for each in self._parameters if each not in known and not takes_all]
        if unknown:
            there = ", ".join(each for each in known if each != "data_dir") or "none"
            # What a user means by `epochs: 0` beside the entry; the function says what it lets an experiment set.
            is_field = unknown[0] in OwnModel.__dataclass_fields__
            way_out = f"; set `{unknown[0]}=` of its OwnModel, or give it such a parameter" if is_field else ""
            raise SpecError(
                f"own: {self.path.name}:{name} takes no parameter '{unknown[0]}'; it takes {there}{way_out}"
            )
        missing = [
            each.name
            for each in known.values()
            if each.default is each.empty
            and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
            and each.name not in (*self._parameters, "data_dir")
        ]
        if missing:
            raise SpecError(f"own: {self.path.name}:{name} needs the parameter '{missing[0]}'; add it to the task")
        found: dict[str, object] = dict(self._parameters)
        if "data_dir" in known:
            found["data_dir"] = data_dir
        return found

    def built(self, seed: int) -> Any:
        """The model with its initial weights, or with those of the checkpoint it starts from."""
        # Before the seed: reading may draw, and is done once.
        inputs, _ = self.first
        self.way.seed(seed)
        with theirs(self.folder, "building the model"), _settings_kept([self.way]):
            model = self.way.plain(self.own.model())
        if not self.way.is_model(model):
            raise SpecError(f"own: `model` must make a {self.way.model_class}, got {kind(model)}")
        with theirs(self.folder, "the model on its first batch"):
            self.way.completed(model, inputs)
        self._note(self.way.trained(model))
        if self.own.start is not None:
            path = self._start_file()
            try:
                self.way.start(model, path)
            # Frameworks raise all sorts of errors for a wrong checkpoint: each means that it is not of this model.
            except Exception as error:
                text = " ".join(str(error).split())
                way_out = "" if isinstance(error, SpecError) else "; it must be of this very model"
                raise SpecError(f"own: the checkpoint {path} does not load: {text}{way_out}") from error
        return model

    def _note(self, trained: Mapping[str, Any]) -> None:
        """Remember what a model trains, to know it again.

        Raises:
            SpecError: it was another model's: its weights would go on from where that one has left them.
        """
        for name, each in trained.items():
            if self._made.get(id(each)) is each:
                raise SpecError(
                    f"own: `model` must make a new model whenever it is called, got the {name} of the one before; make "
                    "all of its layers inside the function, or `copy.deepcopy` what is outside"
                )
        self._made.update({id(each): each for each in trained.values()})

    def _start_file(self) -> Path:
        path = self.folder / Path(self.own.start or "").expanduser()
        if not path.is_file():
            raise SpecError(f"own: `start` must name a checkpoint, {path} is not there; correct it")
        return path

    @cached_property
    def first(self) -> tuple[Any, Any]:
        """A batch of training data, to look at."""
        with theirs(self.folder, "reading the data"):
            first = next(self._splits["train"].batches(np.random.default_rng(0)), None)
        if first is None:
            raise SpecError("own: `train` must yield at least one batch, got none; give more data or a smaller `batch`")
        return first

    @cached_property
    def network(self) -> NativeModel:
        """What is found in the model; one batch is sent through it, its loss and its metric."""
        found = first_batch.looked_at(self)
        # The model is gone by now, unless the user's code holds on to it: it may hand the same out again.
        if self._made:
            self.built(0)
        return found

    @cached_property
    def recipe(self) -> Recipe:
        """How it is trained, as the harness says it; a user's own optimiser counts through the code's digest."""
        own = self.own
        steps = 1 if self._smoke else self._splits["train"].steps()
        if steps < 1:
            raise SpecError("own: `train` must yield at least one batch, got none; give more data or a smaller `batch`")
        rate = own.learning_rate
        if callable(rate):
            with theirs(self.folder, "the learning rate"):
                rate = self.way.schedule(rate, steps)
                rates = tuple(_rates(rate(epoch), steps) for epoch in range(max(1, own.epochs)))
            rate = Listed(rates=rates)
        elif not isinstance(rate, LearningRate):
            rate = Constant(rate=float(rate))
        # A user's own optimiser is code: its digest is in the key, and the recipe's says nothing of it.
        optimiser = SGD() if callable(own.optimiser) else own.optimiser
        return Recipe(
            epochs=own.epochs, optimiser=optimiser, learning_rate=rate, clip_norm=own.clip_norm, steps_per_epoch=steps
        )

    @property
    def metric(self) -> Metric:
        """Name, unit and direction."""
        if self.own.metric is not None:
            return self.own.metric
        if isinstance(self.own.measure, str):
            return _METRICS[self.own.measure]
        raise SpecError("own: a `measure` of one's own needs its `metric` (name, unit and which way is better); add it")

    def fingerprint(self) -> str:
        """A digest of the user's code with what it imports, of its parameters, the data and the checkpoint."""
        with theirs(self.folder, "reading the data"):
            # A version that the user gives spares reading all data; keeping it true is then theirs.
            data = self.own.data_version or [data.digest() for data in self._splits.values()]
        parts = [source.closure(self.path), self._parameters, data, self._start_digest(), self._smoke]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _start_digest(self) -> str:
        if self.own.start is None:
            return ""
        files = self.way.start_files(self._start_file())
        if missing := next((file for file in files if not file.is_file()), None):
            raise SpecError(f"own: the checkpoint {files[0]} names {missing.name}, which is not beside it; add it")
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    @property
    def targets(self) -> list[Any]:
        """Those of every split whose targets are one array."""
        return [data.targets for data in self._splits.values() if hasattr(data.targets, "shape")]

    # --- what a session uses --------------------------------------------------------------------------------------

    def batches(self, split: Split, rng: np.random.Generator) -> Iterator[tuple[Any, Any]]:
        """(inputs, targets), exactly `steps_per_epoch` of them for training."""
        steps = self.recipe.steps_per_epoch if split == "train" else 1 if self._smoke else None
        done, left = 0, self._splits[split].batches(rng)
        reader, draws = object(), _draws_of(rng)
        while steps is None or done < steps:
            # What data and layers draw from Python and NumPy follows from the epoch too, and goes on from the step
            # where somebody else has read in between, as a score that needs gradients does.
            if self._reader is not reader:
                self._reader = reader
                random.seed(draws + done)
                np.random.seed((draws + done) % 2**32)
            # Around the one step that runs their code, not around what is done with the batch.
            with theirs(self.folder, f"reading batch {done + 1} of `{split}`"):
                batch = next(left, None)
            if batch is None and steps is None:
                break
            if batch is None:
                raise OwnCodeError(
                    f"{self.path.name}: `{split}` must yield {steps} batches an epoch, it ended after {done}; let it "
                    "yield as many every time, or set `steps_per_epoch`"
                )
            done += 1
            yield batch

    def may_draw(self, split: Split) -> bool:
        """Whether reading a split may draw random numbers."""
        return self._splits[split].may_draw

    def forward(self, model: Any, inputs: Any, *, training: bool = False) -> Any:
        """The model on a batch."""
        return self.way.forward(model, inputs, training=training)

    def loss(self, outputs: Any, targets: Any) -> Any:
        """The mean over the items of a batch."""
        if self.own.loss is None:
            return self.way.cross_entropy(outputs, targets)
        return self.way.called(self.own.loss, outputs, targets, mean=True)

    def items(self, targets: Any) -> int:
        """How many items a batch has."""
        if self.own.items is not None:
            return int(self.own.items(targets))
        of_classes = self.own.loss is None or self.own.measure in ("accuracy", "perplexity")
        return self.way.items(targets, self.way.ignored if of_classes else None)

    def measured(self, outputs: Any, targets: Any) -> Any:
        """The metric's sum, or sums, over the items of a batch; None where they follow from the loss."""
        measure = self.own.measure
        if callable(measure):
            return self.way.called(measure, outputs, targets, mean=False)
        return self.way.correct(outputs, targets) if measure == "accuracy" else None

    @staticmethod
    def sums(measured: Any, nats: float) -> Any:
        """What `measured` gave, or the loss summed over the items, in NumPy and float64."""
        if measured is None:
            return np.float64(nats)
        # In double precision before NumPy sees it, which has no bfloat16.
        return np.asarray(measured.detach().cpu().double() if hasattr(measured, "detach") else measured, np.float64)

    def value(self, sums: Any, items: int) -> float:
        """The metric over a whole split."""
        measure = self.own.measure
        if self.own.finish is not None:
            try:
                return float(self.own.finish(sums, items))
            except OverflowError:  # `math.exp` of a large loss: no mistake of the user's
                return float("inf")
        if np.ndim(sums):
            raise SpecError(f"own: a `measure` of {np.size(sums)} sums needs a `finish` that makes one number of them")
        mean = float(sums) / items
        if measure == "perplexity":
            # Beyond exp(700) a double is infinite.
            return exp(mean) if mean < 700 else float("inf")
        return 100 * mean if measure == "accuracy" else mean

    @property
    def loss_place(self) -> str:
        """Where the loss is computed: the user's function with its line, for a loss that is not finite."""
        code = getattr(self.own.loss, "__code__", None)
        return f"{self.path.name}:{code.co_firstlineno}" if code is not None else self.path.name


def _imported(path: Path) -> Any:
    """The user's module; a framework that is missing is told as such.

    Raises:
        PluginUnavailableError: their file needs a framework that is not installed here.
    """
    try:
        return source.imported(path)
    except OwnCodeError as error:
        missing = getattr(error.__cause__, "name", None)
        if isinstance(error.__cause__, ModuleNotFoundError) and missing in PACKAGES:
            name, extra = PACKAGES[missing]
            raise PluginUnavailableError(
                f"own: {path.name} needs {name}, which is not installed here; run `pip install '.[{extra}]'`"
            ) from error
        raise


@contextmanager
def _settings_kept(ways: Iterable[Way]) -> Iterator[None]:
    """What user code sets for its whole process stays in it: the harness computes there too."""
    with ExitStack() as stack:
        stack.enter_context(np.errstate())
        for way in ways:
            stack.enter_context(way.kept())
        yield


def _draws_of(rng: np.random.Generator) -> int:
    """A seed that follows from a generator's own, and leaves the generator as it is."""
    own: Any = rng.bit_generator.seed_seq
    apart = np.random.SeedSequence(own.entropy, spawn_key=(*own.spawn_key, 0xD4A3))
    return int(apart.generate_state(1)[0])


def _rates(given: Any, steps: int) -> Rates:
    if np.ndim(given) == 0:  # a number of NumPy or of a framework as well
        return float(given)
    rates = tuple(float(rate) for rate in given)
    if len(rates) != steps:
        raise SpecError(f"own: `learning_rate` must give one rate or {steps} rates an epoch, got {len(rates)}")
    return rates
