"""One stage at a time on a built model: load, train an epoch, prune, evaluate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.api import (
    Batch,
    Device,
    DivergedError,
    Dropout,
    Epoch,
    EpochResult,
    Evaluation,
    Mask,
    Masker,
    MaskUpdate,
    Measurement,
    NumPyOperations,
    Operations,
    PluginContractError,
    PluginUnavailableError,
    Problem,
    Session,
    Settings,
    Split,
    State,
    StraightThrough,
    batch_rng,
    dropout_seed,
)

from . import measuring, rounded
from .activity import Activity
from .model import Model, Pass
from .operations import TorchOperations
from .optimiser import RowGradient, clip_scale, mask_gradients, stepper
from .processor import KERNELS
from .through import Through

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PROGRESS_STEPS = 10


class TorchSession(Session):
    """A problem's network in PyTorch.

    Args:
        problem: network, data and recipe.
        settings: seed, device, precision, threads.
        devices: what there is to choose from.

    Raises:
        PluginUnavailableError: `settings.device` is not among the devices, or this processor lacks the kernels that
            `settings.arithmetic` counts on.
    """

    def __init__(self, problem: Problem, settings: Settings, devices: tuple[Device, ...]) -> None:
        device = prepared(settings, devices)
        if settings.arithmetic == KERNELS and not rounded.has_kernels():
            raise PluginUnavailableError(
                f"torch: the experiment was planned for a processor with {KERNELS}, this one has none; use processors "
                "of one kind, or set `precision: float32`, or the environment variable ONEDNN_MAX_CPU_ISA=AVX2 for all "
                "of them, which computes bfloat16 in the same way everywhere"
            )
        self._problem = problem
        self._settings = settings
        self._device = device
        self._tensors = {tensor.name: tensor for tensor in problem.tensors()}
        self._model = Model(problem.network, self._device, settings.precision, settings.arithmetic)
        self._weights = self._model.weights
        self._keep: dict[str, Tensor] = {}
        self._masks: dict[str, Mask] = {}
        self._through = Through(self._weights)
        self._stepper = stepper(problem.recipe.optimiser, self._weights)
        self._dropouts = [i for i, layer in enumerate(problem.network.layers) if isinstance(layer, Dropout)]

    def load(self, state: State) -> None:
        """Take over weights, masks and optimiser slots; missing slots are zero.

        Raises:
            PluginContractError: the state is not of this network and optimiser.
        """
        import torch

        self._check_names(state)
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(_tensor(state.weights[name], weight))
            for name, slot in self._stepper.slots.items():
                slot.zero_()
                if name in state.slots:
                    slot.copy_(_tensor(state.slots[name], slot))
        self._masks, self._keep = {}, {}
        # The order matters: setting masks of a state whose dense weights live on would otherwise zero them.
        self._through.load(state.extra)  # first: masks hide what lives on under them, and zero it elsewhere
        self.set_masks(state.masks)

    def state(self) -> State:
        """A copy of weights, masks and optimiser slots."""
        slots = {name: _array(slot) for name, slot in self._stepper.slots.items()}
        masked = {name: _array(weight) for name, weight in self._weights.items()}
        return State(weights=masked, masks=self.masks(), slots=slots, extra=self._through.state())

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Copies of all weights; in straight-through training of those that live under the masks."""
        return {name: _array(weight) for name, weight in {**self._weights, **self._through.dense}.items()}

    def masks(self) -> dict[str, Mask]:
        """Copies of the masks set so far."""
        return {name: mask.copy() for name, mask in self._masks.items()}

    def set_masks(self, masks: Mapping[str, Mask]) -> None:
        """Replace the masks of these tensors; their masked weights and slots become zero.

        Raises:
            PluginContractError: a mask is not of a tensor's name, shape or type.
        """
        import torch

        for name, mask in masks.items():
            self._check_mask(name, mask)
            self._masks[name] = mask.copy()
            kept = torch.tensor(mask, device=self._device)
            # As the weight lies in memory: a product with a gradient of another layout would be ten times slower.
            self._keep[name] = torch.empty_like(self._weights[name], requires_grad=False).copy_(kept)
            if self._through.is_on:
                self._through.hide(self._keep)
                continue
            for target in (self._weights[name], *self._slots_of(name)):
                # Not a product: -1 * 0 would leave a negative zero, which other bytes and another digest follow from.
                target.detach().masked_fill_(~kept, 0.0)

    def gradients(self, batches: int, epoch: int) -> dict[str, NDArray[np.float32]]:
        """The mean gradient of the loss over the first training batches of an epoch, for every matrix."""
        import torch

        # One pass state through the batches, as in training: a recurrent state is carried.
        run, count = Pass(), 0
        sums = {name: torch.zeros_like(self._weights[name]) for name, t in self._tensors.items() if t.is_prunable}
        for batch in islice(self._batches("train", epoch), batches):
            _, gradients = self._model.loss_and_gradients(batch, run)
            for name, total in sums.items():
                gradient = gradients[name]
                total.add_(gradient.dense() if isinstance(gradient, RowGradient) else gradient)
            count += 1
        return {name: _array(total.div_(count)) for name, total in sums.items()}

    def measured(self, asked: Measurement, epoch: int) -> Mapping[str, NDArray[np.floating]]:
        """Gradients, input norms and moments, H g, or synaptic flow, over the first training batches of an epoch."""
        batches = islice(self._batches("train", epoch), asked.batches)
        matrices = [name for name, tensor in self._tensors.items() if tensor.is_prunable]
        match asked.what:
            case "input_norms" | "input_moments":
                return measuring.input_sums(self._model, batches, moments=asked.what == "input_moments")
            case "hessian_gradients":
                return measuring.hessian_gradients(self._model, list(batches), matrices, asked.temperature)
            case "synaptic_flow":
                return measuring.synaptic_flow(self._model, matrices)
        return super().measured(asked, epoch)

    def train_epoch(self, epoch: Epoch, index: int, masker: Masker, progress: Callable[[int], None]) -> EpochResult:
        """Run one epoch of SGD or Adam, pruning on the way.

        Raises:
            DivergedError: the loss is NaN or infinite; the weights are left as they are then.
        """
        run, nats, items, step = Pass(), 0.0, 0, 0
        updates = by_step(epoch)
        self._begin(epoch.through)
        for step, batch in enumerate(self._batches("train", index)):
            self._update_masks(updates.pop(step, ()), index, masker)
            run.dropout_seeds = {layer: self._dropout_seed(index, step, layer) for layer in self._dropouts}
            nats += self._train_step(batch, run, step, epoch.rate(step))
            items += batch.targets.size
            if (step + 1) % PROGRESS_STEPS == 0:
                progress(step + 1)
        # An update at the very end comes after the last step.
        self._update_masks(updates.pop(step + 1, ()), index, masker)
        if updates:
            raise PluginContractError(
                f"torch: mask updates must fall within the epoch's {step + 1} steps, got some at {sorted(updates)}; "
                "check the task's `steps_per_epoch`"
            )
        progress(step + 1)
        return EpochResult(nats=nats, items=items)

    def evaluate(self, split: Split) -> Evaluation:
        """Totals over a split, in nats summed in float64; on the test split with the density of activations."""
        import torch

        activity = Activity() if split == "test" else None
        run, nats, correct, items = Pass(activity=activity), 0.0, 0, 0
        needs_correct = self._problem.metric.needs_correct
        # Not inference mode: arrays kept from a first evaluation on would be closed to the training that follows.
        with torch.no_grad():
            for batch in self._batches(split, 0):
                batch_nats, batch_correct = self._model.evaluate(batch, run, count_correct=needs_correct)
                nats, correct, items = nats + batch_nats, correct + batch_correct, items + batch.targets.size
        return Evaluation(
            nats=nats,
            items=items,
            correct=correct if needs_correct else None,
            activation_density=activity.density() if activity else {},
        )

    def operations(self) -> Operations:
        """Arrays on the session's device; NumPy's on a CPU: the same bits, and less time for each small operation."""
        return NumPyOperations() if self._device.type == "cpu" else TorchOperations(self._device)

    def close(self) -> None:
        """Free the model and, on a GPU, its memory."""
        import torch

        self._weights.clear()
        self._keep.clear()
        self._stepper.slots.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _train_step(self, batch: Batch, run: Pass, step: int, rate: float) -> float:
        import torch

        nats, gradients = self._model.loss_and_gradients(batch, run)
        loss = nats / batch.targets.shape[0]
        # At once: a step later all weights would be NaN, and the step that did it unknown.
        if not math.isfinite(loss):
            raise DivergedError(step, loss)
        with torch.no_grad():
            if self._through.is_on:
                self._through.straighten(gradients, self._keep)
            else:
                mask_gradients(gradients, self._keep)
            scale = clip_scale(gradients, self._problem.recipe.clip_norm)
            # In straight-through training the dense weights are moved, and the model shows them masked again.
            self._stepper.step({**self._weights, **self._through.dense}, gradients, rate, scale)
            self._through.hide(self._keep)
        return nats

    def _begin(self, through: StraightThrough | None) -> None:
        """Let weights live on under their masks, or end that: what was hidden is gone then."""
        if through is not None:
            matrices = [name for name, tensor in self._tensors.items() if tensor.is_prunable]
            self._through.begin(through.decay, matrices)
        elif self._through.is_on:
            self._through.end()
            self.set_masks(self.masks())  # slots of masked weights become zero again

    def _update_masks(self, updates: tuple[MaskUpdate, ...], index: int, masker: Masker) -> None:
        for update in updates:
            self.set_masks(masker(update, index, self))

    def _batches(self, split: Split, epoch: int) -> Iterator[Batch]:
        return self._problem.batches(split, epoch, batch_rng(self._settings.seed, epoch))

    def _dropout_seed(self, index: int, step: int, layer: int) -> int:
        high, low = dropout_seed(self._settings.seed, index, step, layer)
        # One 62-bit seed of the two of 31 bits: PyTorch's generators take 64.
        return high << 31 | low

    def _slots_of(self, name: str) -> list[Tensor]:
        return [slot for key, slot in self._stepper.slots.items() if key.partition("/")[2] == name]

    def _check_names(self, state: State) -> None:
        if set(state.weights) != set(self._weights):
            # In both directions: a tensor too many is as wrong as one that is missing.
            wrong = sorted(set(state.weights) ^ set(self._weights))
            raise PluginContractError(
                f"torch: a state must hold the network's tensors, {wrong} differ; load a state of this task"
            )
        if unknown := sorted(set(state.slots) - set(self._stepper.slots)):
            raise PluginContractError(
                f"torch: a state must hold the slots of the task's optimiser, got {unknown}; load a state of this task"
            )
        shapes = {name: array.shape for name, array in state.weights.items()}
        for name, tensor in self._tensors.items():
            if shapes[name] != tensor.shape:
                raise PluginContractError(
                    f"torch: {name} must have shape {tensor.shape}, got {shapes[name]}; load a state of this task"
                )

    def _check_mask(self, name: str, mask: Mask) -> None:
        if name not in self._tensors:
            raise PluginContractError(
                f"torch: a mask must belong to a tensor of the network, got one of {name!r}; tensors are "
                f"{', '.join(self._tensors)}"
            )
        shape = self._tensors[name].shape
        if mask.dtype != np.bool_ or mask.shape != shape:
            raise PluginContractError(
                f"torch: the mask of {name} must be bool of shape {shape}, got {mask.dtype} of shape {mask.shape}; "
                "return it as NumPy booleans"
            )


def prepared(settings: Settings, devices: tuple[Device, ...]) -> torch.device:
    """The device of a session, the framework set up for it.

    Raises:
        PluginUnavailableError: it is not among the devices.
    """
    import torch

    device = "cuda:0" if settings.device == "cuda" else settings.device
    if device not in devices:
        raise PluginUnavailableError(
            f"torch: the experiment wants device `{device}`, this machine has {', '.join(devices)}; change `device`"
        )
    _set_up_framework(settings, device)
    return torch.device(device)


def _set_up_framework(settings: Settings, device: Device) -> None:
    import torch

    torch.set_num_threads(settings.threads)
    # It may be set once in a process: a second session in the same worker finds it set.
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)
    if device != "cpu":
        # cuDNN would round float32 products to TensorFloat-32 unasked, and choose its kernels by stopwatch.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
        # Its LSTM wants all weights in one piece of memory and copies them together where they are not: no fault.
        warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")


def by_step(epoch: Epoch) -> dict[int, tuple[MaskUpdate, ...]]:
    """The updates by their step, in their order: two at one step are a pruning and a regrowth."""
    found: dict[int, tuple[MaskUpdate, ...]] = {}
    for update in epoch.updates:
        found[update.step] = (*found.get(update.step, ()), update)
    return found


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32, order="C")


def _tensor(array: NDArray[np.float32], like: Tensor) -> Tensor:
    import torch

    return torch.tensor(array, dtype=torch.float32, device=like.device)
