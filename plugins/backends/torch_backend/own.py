"""A user's own module, trained under the same rules as a network of the harness.

Its parameters stay where they are: the session works on views of them in the harness's orientation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.api import (
    Array,
    Device,
    DivergedError,
    Epoch,
    EpochResult,
    Evaluation,
    Mask,
    Masker,
    Measurement,
    NativeModel,
    Place,
    PluginContractError,
    Problem,
    Settings,
    Split,
    State,
    batch_rng,
    dropout_seed,
    theirs,
)

from . import own_measuring
from .given_optimiser import GivenStepper
from .optimiser import clip_scale, mask_gradients, stepper
from .own_activity import OwnActivity
from .session import PROGRESS_STEPS, TorchSession, by_step, prepared
from .through import Through

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_BUFFER = "buffer/"


class OwnSession(TorchSession):
    """A `NativeModel` of PyTorch.

    Buffers (the statistics of batch norm, ...) are in the state: resuming takes them up, and a rewind brings back those
    of the epoch it goes to. They are not touched by pruning, so those of a model that is pruned and not retrained are
    the dense model's. Randomness of a step (dropout, augmentation) is drawn from (seed, epoch, step) alone.

    Args:
        problem: with `native()`: the user's model, data, loss and metric.
        settings: seed, device, precision, threads.
        devices: what there is to choose from.
    """

    def __init__(self, problem: Problem, settings: Settings, devices: tuple[Device, ...]) -> None:
        import torch

        self._problem, self._settings = problem, settings
        self._device = prepared(settings, devices)
        torch.backends.mha.set_fastpath_enabled(False)  # another way to compute, in evaluations only
        self._own: Any = problem.native()  # type: ignore[attr-defined]  # a problem with a native model has it
        network = problem.network
        assert isinstance(network, NativeModel)
        self._tensors = {tensor.name: tensor for tensor in network.trained}
        self._shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        self._module = self._own.built(settings.seed).to(self._device)
        self._parameters = dict(self._module.named_parameters())
        self._places = {place.tensor: place for place in network.places}
        self._weights = {
            # Views of the module's own memory: a step on them is a step of the module.
            name: self._view(place, self._parameters[place.parameter].detach())
            for name, place in self._places.items()
        }
        self._first_buffers = self._buffers()
        self._keep: dict[str, Tensor] = {}
        self._kept_bits: dict[str, Tensor] = {}
        self._masks: dict[str, Mask] = {}
        self._through = Through(self._weights)  # never begun: a user's optimiser works on the module itself
        if callable(self._own.own.optimiser):
            trained = {name: p for name, p in self._parameters.items() if p.requires_grad}
            self._given: GivenStepper | None = GivenStepper(self._own.own.optimiser, trained, self._own.folder)
            self._stepper = self._given
        else:
            self._given = None
            self._stepper = stepper(problem.recipe.optimiser, self._weights)

    def _view(self, place: Place, values: Tensor) -> Tensor:
        """A tensor within its parameter, as a matrix."""
        part = values if place.rows is None else values[place.start : place.start + place.rows]
        if place.axes:  # (inputs, outputs), as some modules hold their weights
            part = part.permute(place.axes)
        shape = self._shapes[place.tensor]
        # Mostly it has this shape, and a reshape of every gradient at every step would be felt.
        return part if part.shape == shape else part.reshape(shape)

    def load(self, state: State) -> None:
        """Take over weights, masks, optimiser state and buffers; without buffers they are as they were at first."""
        buffers = {key.removeprefix(_BUFFER): value for key, value in state.extra.items() if key.startswith(_BUFFER)}
        # A state without buffers is one of initial weights: moving averages begin where the model was built with them.
        self._set_buffers(buffers or self._first_buffers)
        if self._given is not None:
            self._given.load(state.extra)
        super().load(state)

    def state(self) -> State:
        """A copy of weights, masks, optimiser state and buffers."""
        found = super().state()
        found.extra.update({_BUFFER + name: values for name, values in self._buffers().items()})
        if self._given is not None:
            found.extra.update(self._given.state())
        return found

    def set_masks(self, masks: Mapping[str, Mask]) -> None:
        """Replace the masks of these tensors; their masked weights and the state of their optimiser become zero."""
        super().set_masks(masks)
        for name in masks if self._given is not None else ():
            # All bits of a kept weight, none of a masked one.
            self._kept_bits[name] = -self._keep[name].int()
        self._zero_given()

    def gradients(self, batches: int, epoch: int) -> dict[str, NDArray[np.float32]]:
        """The mean gradient of the loss over the first training batches of an epoch, the model as in evaluations."""
        import torch

        names = [name for name, tensor in self._tensors.items() if tensor.is_prunable]
        sums, count = {name: torch.zeros_like(self._weights[name]) for name in names}, 0
        # As in an evaluation: statistics of batch normalisation must not move by being looked at.
        self._module.eval()
        # cuDNN has no backward pass of a recurrent layer in evaluation.
        with self._kept_random(), torch.backends.cudnn.flags(enabled=False):
            for inputs, targets in islice(self._batches_of("train", epoch), batches):
                self._backward(inputs, targets)
                for name, gradient in self._gradients().items():
                    if name in sums:
                        sums[name].add_(gradient)
                count += 1
        # Gradients left behind would be added to by the next step.
        self._module.zero_grad(set_to_none=True)
        self._module.train()
        return {name: np.array((total / count).cpu().numpy(), dtype=np.float32) for name, total in sums.items()}

    def measured(self, asked: Measurement, epoch: int) -> Mapping[str, NDArray[np.floating]]:
        """Gradients, norms and moments of inputs, or H g, over the first training batches of an epoch."""
        batches = list(islice(self._batches_of("train", epoch), asked.batches))
        names = {name: place for name, place in self._places.items() if self._tensors[name].is_prunable}
        self._module.eval()
        try:
            with self._kept_random():
                if asked.what in ("input_norms", "input_moments"):
                    # Parts of a fused projection share one input: only whole parameters have sums of their own.
                    whole = {place.parameter: name for name, place in names.items() if place.rows is None}
                    return own_measuring.input_sums(
                        self._module, self._output, batches, whole, moments=asked.what == "input_moments"
                    )
                if asked.what == "hessian_gradients":
                    loss = partial(self._loss_at, temperature=asked.temperature)
                    # Of the matrices alone, as elsewhere: gradients of biases would mix in.
                    held = {place.parameter: self._parameters[place.parameter] for place in names.values()}
                    found = own_measuring.hessian_gradients(held, loss, batches)
                    return {name: self._matrix(place, found) for name, place in names.items()}
        finally:
            self._module.train()
        return super().measured(asked, epoch)

    def _output(self, inputs: Any) -> Any:
        with theirs(self._own.folder, "the forward pass"):
            return self._own.forward(self._module, inputs)

    def _loss_at(self, inputs: Any, targets: Any, *, temperature: float) -> Any:
        outputs = self._output(inputs)
        if temperature != 1:
            outputs = own_measuring.divided(outputs, temperature)
        with theirs(self._own.folder, "the loss"):
            return self._own.loss(outputs, targets)

    def _matrix(self, place: Place, found: Mapping[str, Tensor]) -> NDArray[np.float32]:
        return np.array(self._view(place, found[place.parameter].contiguous()).cpu().numpy(), dtype=np.float32)

    def train_epoch(self, epoch: Epoch, index: int, masker: Masker, progress: Callable[[int], None]) -> EpochResult:
        """Run one epoch, pruning on the way.

        Raises:
            DivergedError: the loss is NaN or infinite; the weights are left as they are then.
            OwnCodeError: the user's code raised.
        """
        nats, items, step, updates = 0.0, 0, 0, by_step(epoch)
        self._module.train()
        batches = self._batches_of("train", index)
        for step in range(self._problem.recipe.steps_per_epoch):
            self._update_masks(updates.pop(step, ()), index, masker)
            # By step, so that an epoch that is resumed draws what it would have drawn.
            _seed(self._dropout_seed(index, step, 0))  # of the data's augmentation as well
            inputs, targets = next(batches)
            count = self._own.items(targets)
            nats += self._train_own_step(inputs, targets, step, epoch.rate(step)) * count
            items += count
            if (step + 1) % PROGRESS_STEPS == 0:
                progress(step + 1)
        self._update_masks(updates.pop(step + 1, ()), index, masker)
        if updates:
            raise PluginContractError(
                f"torch: mask updates must fall within the epoch's {step + 1} steps, got some at {sorted(updates)}"
            )
        progress(step + 1)
        return EpochResult(nats=nats, items=items)

    def evaluate(self, split: Split) -> Evaluation:
        """Totals over a split, the user's metric among them; on the test split with the density of activations."""
        import torch

        nats, items, sums = 0.0, 0, np.float64(0)
        activity = OwnActivity(self._module, self._tensors.values()) if split == "test" else None
        self._module.eval()
        # For what draws even while evaluating: the same draws in every evaluation.
        torch.manual_seed(self._settings.seed)
        try:
            # Not inference mode: what a module keeps from it would be closed to the training that follows.
            with torch.no_grad():
                for inputs, targets in self._batches_of(split, 0):
                    with theirs(self._own.folder, f"evaluating the {split} split"):
                        outputs = self._own.forward(self._module, inputs)
                        count = self._own.items(targets)
                        loss = float(self._own.loss(outputs, targets))
                        sums = sums + self._own.sums(self._own.measured(outputs, targets), loss * count)
                    nats, items = nats + loss * count, items + count
        finally:
            if activity is not None:
                activity.close()
            self._module.train()
        with theirs(self._own.folder, f"the metric of the {split} split"):
            value = self._own.value(sums, items)
        return Evaluation(
            nats=nats, items=items, value=value, activation_density=activity.density() if activity else {}
        )

    def close(self) -> None:
        """Free the model and, on a GPU, its memory."""
        self._parameters.clear()
        del self._module
        super().close()

    # --- one step -------------------------------------------------------------------------------------------------

    def _train_own_step(self, inputs: Any, targets: Any, step: int, rate: float) -> float:
        import torch

        loss = self._backward(inputs, targets)
        if not math.isfinite(loss):
            raise DivergedError(step, loss, f"training loss ({self._own.loss_place})")
        gradients = self._gradients()
        with torch.no_grad():
            # Masked before the norm: what cannot move must not shrink the step of what can.
            mask_gradients(gradients, self._keep)
            scale = clip_scale(gradients, self._problem.recipe.clip_norm)
            self._stepper.step(self._weights, gradients, rate, scale)
        self._zero_given()
        return loss

    def _backward(self, inputs: Any, targets: Any) -> float:
        # None and not zero: autograd then writes a gradient instead of adding to one.
        for parameter in self._parameters.values():
            parameter.grad = None
        with theirs(self._own.folder, "the forward pass"):
            outputs = self._own.forward(self._module, inputs)
        with theirs(self._own.folder, "the loss"):
            loss = self._own.loss(outputs, targets)
        with theirs(self._own.folder, "the backward pass"):
            loss.backward()
        return float(loss.item())

    def _gradients(self) -> dict[str, Any]:
        """Gradients as views of the parameters' own, zero where the loss does not depend on one."""
        import torch

        for parameter in self._parameters.values():
            given = parameter.grad
            if given is None:
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)
            # Sparse gradients of an embedding as dense ones: masks and norms have one shape then.
            elif given.is_sparse:
                parameter.grad = given.to_dense().contiguous()
            # A convolution may leave its gradient in another layout, of which there is no matrix to view.
            elif not given.is_contiguous():
                parameter.grad = given.contiguous()
        return {name: self._view(place, self._parameters[place.parameter].grad) for name, place in self._places.items()}

    def _zero_given(self) -> None:
        """The state of a user's optimiser, and what it did to masked weights, become zero."""
        import torch

        if self._given is None:
            return
        for name, kept in self._keep.items():
            place = self._places[name]
            for values in (*self._given.like(place.parameter), self._parameters[place.parameter].detach()):
                # Through views, since a fused parameter holds several tensors.
                held = self._view(place, values)
                if held.dtype is torch.float32:
                    # The bits of a fill, which takes thirty times as long; a product would leave negative zeros.
                    held.view(torch.int32).bitwise_and_(self._kept_bits[name])
                else:
                    held.masked_fill_(kept == 0, 0.0)

    # --- data, buffers, randomness --------------------------------------------------------------------------------

    def _batches_of(self, split: Split, epoch: int) -> Iterator[tuple[Any, Any]]:
        for inputs, targets in self._own.batches(split, batch_rng(self._settings.seed, epoch)):
            yield (inputs, targets) if self._device.type == "cpu" else moved((inputs, targets), self._device)

    def _buffers(self) -> dict[str, Array]:
        return {name: np.array(buffer.detach().cpu().numpy()) for name, buffer in self._module.named_buffers()}

    def _set_buffers(self, values: Mapping[str, Array]) -> None:
        import torch

        # The list is taken first: setting a buffer changes what is being walked through.
        for name, buffer in dict(self._module.named_buffers()).items():
            if name not in values:
                raise PluginContractError(f"torch: a state must hold the buffer {name}; load a state of this task")
            given = torch.tensor(values[name], dtype=buffer.dtype, device=self._device)
            if given.shape == buffer.shape:
                buffer.copy_(given)
            else:  # one whose size the model changes as it goes
                owner, _, own = name.rpartition(".")
                setattr(self._module.get_submodule(owner), own, given)

    def _dropout_seed(self, index: int, step: int, layer: int) -> int:
        high, low = dropout_seed(self._settings.seed, index, step, layer)
        return high << 31 | low

    @contextmanager
    def _kept_random(self) -> Iterator[None]:
        """A training epoch under way draws on as if nothing had been drawn meanwhile."""
        import torch

        before = torch.get_rng_state()
        yield
        torch.set_rng_state(before)


def moved(value: Any, device: torch.device) -> Any:
    """A batch on a device: tensors and what else knows how to go there, in whatever holds them; the rest as it is."""
    if hasattr(value, "to"):  # first: a packed sequence is a tuple as well
        return value.to(device)
    if isinstance(value, dict):
        return {name: moved(inner, device) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        parts = [moved(inner, device) for inner in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _seed(seed: int) -> None:
    """Seed the generators of the CPU and of the GPUs in use.

    `torch.manual_seed` seeds every kind of accelerator, and for each that is not in use it writes down where it was
    called from, with the lines of all callers: a twentieth of a small model's step.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # without types in PyTorch
        torch.cuda.manual_seed_all(seed)
