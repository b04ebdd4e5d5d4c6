"""A model of the user's own: a file beside the experiment that returns an `OwnModel`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, PrivateAttr, ValidationInfo, model_validator

from harness.api import (
    Batch,
    Evaluation,
    JsonValue,
    LayerArithmetic,
    LearningRate,
    Metric,
    NativeModel,
    OwnCodeError,
    PluginContractError,
    PluginUnavailableError,
    Problem,
    Rates,
    Recipe,
    Split,
    Task,
    hookimpl,
)

if TYPE_CHECKING:
    from .opened import Opened

_BUFFER = "buffer/"
"""What a session puts before the name of a buffer in the state."""


class Own(Task):
    """A model, data, loss, metric and training of the user's own, from a Python file beside the experiment.

    Parameters other than `entry` go to the function it names. The file is imported in processes of their own only; what
    enters keys is its code with that of all files it imports, the parameters and the data.
    """

    # The parameters are those of the user's function, which nothing here knows before it is opened.
    model_config = ConfigDict(frozen=True, extra="allow")

    name: ClassVar[str] = "own"
    fixed_point_modules: ClassVar[tuple[str, ...]] = (
        "evaluated", "folding", "keras_layers", "keras_norms", "torch_layers", "torch_norms",
    )  # fmt: skip
    entry: str = Field(
        default="my_model.py:task", description="file (from the experiment's folder) and function: `my_model.py:task`"
    )
    _folder: Path = PrivateAttr(default=Path())
    _smoke: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _remember_the_folder(self, info: ValidationInfo) -> Own:
        # Paths start at the experiment's folder, wherever the process does.
        self._folder = ((info.context or {}).get("folder") or Path()).resolve()
        return self

    def load(self, data_dir: Path | None) -> OwnProblem:
        """Nothing is read yet: a worker needs no description, and has the framework at hand."""
        return OwnProblem(self, data_dir)

    def smoke(self) -> Own:
        """One step of training and one batch of each split."""
        cut = self.model_copy()
        cut._smoke = True
        return cut

    def asked(self, data_dir: Path | None) -> dict[str, JsonValue]:
        """What a process needs to open it."""
        return {
            "entry": self.entry,
            "folder": str(self._folder),
            "parameters": dict(self.model_extra or {}),
            "data_dir": str(Path(data_dir).resolve()) if data_dir is not None else None,
            "smoke": self._smoke,
        }


class Described(LearningRate):
    """A schedule as its rates, epoch by epoch; the last one from then on."""

    rates: tuple[Rates, ...]

    def at(self, epoch: int) -> Rates:
        """The rate or rates of one epoch."""
        return self.rates[min(epoch, len(self.rates) - 1)]


class OwnProblem(Problem):
    """A user's task: described by another process where it is planned, opened in the process that trains.

    Args:
        task: the entry and its parameters.
        data_dir: where data sets lie.
    """

    def __init__(self, task: Own, data_dir: Path | None) -> None:
        self._task, self._data_dir = task, data_dir
        self._opened: Opened | None = None
        self._folds: dict[str, str] | None = None

    def native(self) -> Opened:
        """The user's objects, in this process; imports their framework."""
        # It imports the framework: only a process that trains may have it.
        if self._opened is None:
            from .opened import Opened

            asked: Any = self._task.asked(self._data_dir)
            self._opened = Opened(
                asked["entry"],
                Path(asked["folder"]),
                asked["parameters"],
                Path(asked["data_dir"]) if asked["data_dir"] else None,
                smoke=asked["smoke"],
            )
        return self._opened

    @cached_property
    def _description(self) -> dict[str, Any]:
        """What a process of its own finds.

        Raises:
            SpecError: the entry is wrong.
            OwnCodeError: the user's code raised, or ended its process.
        """
        with tempfile.TemporaryDirectory() as folder:
            asked, answer = Path(folder, "asked.json"), Path(folder, "answer.json")
            asked.write_text(json.dumps(self._task.asked(self._data_dir)))
            # By its own interpreter and over files: what the user's code prints must not get between the answers.
            done = subprocess.run(
                [sys.executable, "-m", __name__, str(asked), str(answer)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
            )  # fmt: skip
            if not answer.exists():
                # A framework that dies in native code leaves no exception, only what it printed last.
                last = (done.stdout.strip().splitlines() or ["it printed nothing"])[-1]
                raise OwnCodeError(f"own: {self._task.entry} ended its process with code {done.returncode}: {last}")
            found: dict[str, Any] = json.loads(answer.read_text())
        if "error" in found:
            raise OwnCodeError(found["error"]) if found["kind"] != "plugin" else PluginUnavailableError(found["error"])
        return found

    @cached_property
    def network(self) -> NativeModel:  # type: ignore[override]  # found only when asked for
        """What was found in the model."""
        if self._opened is not None:
            return self._opened.network
        # What is in no key stands beside the network.
        beside = {name: self._description[name] for name in ("listed", "traced", "steps")}
        return NativeModel.model_validate({**self._description["network"], **beside})

    @cached_property
    def recipe(self) -> Recipe:  # type: ignore[override]
        """How the dense model is trained."""
        if self._opened is not None:
            return self._opened.recipe
        values = dict(self._description["recipe"])
        rates = tuple(rate if isinstance(rate, float) else tuple(rate) for rate in values.pop("rates"))
        return Recipe(**values, learning_rate=Described(rates=rates))

    @cached_property
    def metric(self) -> Metric:  # type: ignore[override]
        """Name, unit and direction."""
        if self._opened is not None:
            return self._opened.metric
        return Metric.model_validate(self._description["metric"])

    @property
    def fingerprint(self) -> str:
        """Code, parameters, data and checkpoint."""
        return str(self._description["fingerprint"])

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """The entry, and what the user says."""
        facts: Mapping[str, JsonValue] = self._description["facts"]
        return facts

    def initial_weights(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """The weights that the model is built with, or those of its checkpoint."""
        opened = self.native()
        parameters = opened.way.parameters(opened.built(seed))
        found = {}
        for place, tensor in zip(self.network.places, self.network.trained, strict=True):
            values = parameters[place.parameter]
            # Parts of a fused parameter are tensors of their own: queries, keys and values.
            part = values if place.rows is None else values[place.start : place.start + place.rows]
            found[place.tensor] = place.outward(part, tensor.shape).astype(np.float32, copy=False)
        return found

    def batches(self, split: Split, epoch: int, rng: np.random.Generator) -> Iterator[Batch]:
        """A native model's batches are its framework's tensors.

        Raises:
            PluginContractError: when the first one is taken, and no earlier: a session that measures something else of
                a model may have them at hand all the same.
        """
        yield from _no_batches()

    def evaluated_by(
        self,
        arithmetic: LayerArithmetic,
        weights: dict[str, NDArray[np.float32]],
        extra: dict[str, NDArray[np.generic]],
        split: Split,
        seed: int,
        items: int | None = None,
    ) -> tuple[Evaluation, tuple[str, ...]]:
        """The model with its known layers computed by another arithmetic, on the host; what is left is named.

        A batch norm that alone reads a layer's sums is a part of that layer.
        """
        from . import evaluated

        opened = self.native()
        if self._folds is None:
            self._folds = evaluated.norms_in_layers(opened, seed)
        buffers = {name.removeprefix(_BUFFER): value for name, value in extra.items() if name.startswith(_BUFFER)}
        found, done = evaluated.evaluated_by(opened, arithmetic, weights, buffers, self._folds, split, seed, items)
        layers = dict.fromkeys(tensor.layer for tensor in self.network.trained if tensor.role != "embedding")
        left = [layer for layer in layers if not any(f"{name}.".startswith(f"{layer}.") for name in done)]
        return found, tuple(left)

    def value(self, evaluation: Evaluation) -> float:
        """What the user's metric gave over the whole split."""
        if evaluation.value is None:
            raise PluginContractError("own expects an evaluation with its `value`, got None; the backend computes it")
        return evaluation.value


def _no_batches() -> Iterator[Batch]:
    raise PluginContractError("own: batches of a user's own model are those of `native()`; ask it for them")


@hookimpl
def register_task() -> type[Task]:
    """Offer this task to the harness."""
    return Own
