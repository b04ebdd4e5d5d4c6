"""Whether the files of a stored stage can be what the stage left: a checksum tells only that nobody changed them since.

Shapes, types, counts of kept weights and the way from one stage to the next are known from the plan. What does not fit
them was written for another model, or by nobody's training, however well its checksum fits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.api import Mask, MaskUpdate, Tensor
from harness.masks.outcome import why_not_made
from harness.masks.updates import MaskMaker
from harness.planning.stages import Stage
from harness.store import StageRecord

ArrayTypes = Mapping[str, tuple[str, tuple[int, ...]]]
"""Type, as safetensors names it, and shape of every array of a file, by name."""

_WEIGHTS = "weights/"
_REALS = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True)
class Model:
    """The model whose stages they are.

    Args:
        tensors: those that may be pruned, by name.
        is_native: the user's own; its module may keep a tensor under another name.
        seed: the cell's.
    """

    tensors: Mapping[str, Tensor]
    is_native: bool = False
    seed: int = 0

    def why_not_record(self, stage: Stage, record: StageRecord) -> str:
        """What a record lacks that every stage of its kind has, or says otherwise; empty if nothing."""
        # Not its parent: one of older code may stand in a chain that is pieced together.
        if record.kind != stage.kind:
            return f"says that it is of the kind {record.kind[:20]!r}, expected {stage.kind!r}"
        totals = {"train": record.train and record.valid, "prune": record.valid, "test": record.test}
        return "" if totals.get(stage.kind, record) else "has not measured what it should have"

    def why_not_masks(self, stage: Stage, made_by: Stage | None, masks: Mapping[str, Mask]) -> str:
        """Why masks cannot be those after a stage, as the rest of a sentence; empty if they can.

        Args:
            stage: the stage as it is planned.
            made_by: the last stage up to it that made masks; None if none did.
            masks: as they lie in the store.
        """
        for name, mask in masks.items():
            tensor = self.tensors.get(name)
            if tensor is None or mask.shape != tensor.shape:
                wanted = "no mask of that name" if tensor is None else tensor.shape
                return f"has a mask of another model: {name[:80]!r} has shape {mask.shape}, expected {wanted}"
        masking = made_by.masking if made_by is not None else None
        if masking is None:
            whole = not stage.is_dense or all(mask.all() for mask in masks.values())
            return "" if whole else "has masks that prune, though nothing is pruned by then"
        scope = [self.tensors[name] for name in masking.scope]
        beyond = [name for name, mask in masks.items() if name not in masking.scope and not mask.all()]
        if beyond:
            return f"has a mask of {beyond[0]}, which is not among the tensors that are pruned"
        assert made_by is not None
        update = last_update(made_by)
        assert update is not None, "it makes masks"
        maker = MaskMaker(masking.pattern, masking.allocation, scope, self.seed, target=masking.target)
        own = {tensor.name: masks[tensor.name] for tensor in scope if tensor.name in masks}
        reason = why_not_made(own, maker, update)
        return f"has masks that its last update cannot have made: {reason}" if reason else ""

    def why_not_state(self, arrays: ArrayTypes) -> str:
        """Why a state cannot be one of this model, as the rest of a sentence; empty if it can."""
        for name, tensor in self.tensors.items():
            dtype, shape = arrays.get(_WEIGHTS + name, ("", ()))
            if not dtype and self.is_native:
                continue
            if shape != tensor.shape or dtype not in (_REALS if self.is_native else ("F32",)):
                got = f"{dtype} of shape {shape}" if dtype else "none"
                return f"has a state of another model: {name} is {got}, expected F32 of shape {tensor.shape}"
        return ""


def keeps_masks(stage: Stage) -> bool:
    """Whether the masks after a stage are those before it: training and rewinding alone change none."""
    through = stage.epoch is not None and stage.epoch.through is not None
    return not (stage.is_dense or stage.kind == "test" or through or last_update(stage))


def last_update(stage: Stage) -> MaskUpdate | None:
    """The update that made the masks after a stage; None where it made none."""
    if stage.update is not None:
        return stage.update
    updates = stage.epoch.updates if stage.epoch is not None else ()
    return max(reversed(updates), key=lambda update: update.step, default=None)  # of one step, the last
