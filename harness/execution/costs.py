"""Hardware costs that are kept: equal masks on an equal hardware model are costed once, also across runs.

    STORE/costs/ab/abcd....json     of one workload: its cost on every hardware model that was asked for, its storage

The files are disposable: what is missing, unreadable or of other code is computed anew. The digest of a model is that
of its parameters, of all code and data of its plugin, of `harness.api`, and of every file that a parameter names.
"""

import json
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from harness._files import file_sha256
from harness.api import HardwareModel, HarnessError, JsonValue, PluginContractError, StoreError, Workload
from harness.discovery.asking import cost_of, group_of, number_format_of, reads_weights_of
from harness.fixed_point.quantise import quantised
from harness.formats import storage
from harness.planning.model_digest import model_digest
from harness.planning.stages import digest
from harness.results.records import Stored, StoredTensor
from harness.store import MASKS, DamagedStageError, StageRecord, Store

CostRecord = dict[str, JsonValue]
"""A cost as JSON, or its `reason`; `model` is what engines are grouped by."""


class Costs:
    """Costs of workloads, from the store or computed.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._models: dict[HardwareModel, str] = {}
        self._kept: dict[str, dict[str, CostRecord]] = {}

    def of(self, workload: Workload, identity: str, model: HardwareModel, *, compute: bool) -> CostRecord | None:
        """The cost of a workload; None if it is not known and not to be computed now.

        Args:
            workload: what is costed.
            identity: a digest of it.
            model: on what.
            compute: whether to compute what is not kept.
        """
        if model not in self._models:
            # Made once for each model: it reads the whole package's files.
            self._models[model] = model_digest(model)
        kept = self._read(identity)
        found = kept.get(self._models[model])
        if found is None and compute:
            found = kept[self._models[model]] = computed(model, workload)
            self._write(identity)
        return found

    def stored(self, workload: Workload, identity: str, weight_bits: int) -> Stored:
        """The bits of a workload in the smallest storage formats; milliseconds, so never left for later.

        Args:
            workload: the masks.
            identity: a digest of it.
            weight_bits: bits of a weight.
        """
        key = digest({"storage": weight_bits, "code": file_sha256(Path(storage.__file__))})
        kept = self._read(identity)
        with suppress(KeyError, ValidationError):
            return Stored.model_validate(kept[key])
        found = stored(workload, weight_bits)
        kept[key] = found.model_dump(mode="json")
        self._write(identity)
        return found

    def _path(self, identity: str) -> Path:
        # Folders of two letters: a folder of many thousand files is slow on some systems.
        return self._store.folder / "costs" / identity[:2] / f"{identity}.json"

    def _read(self, identity: str) -> dict[str, CostRecord]:
        if identity not in self._kept:
            self._kept[identity] = {}
            with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
                content = json.loads(self._path(identity).read_bytes())
                # A file that was cut off or edited is computed anew.
                if content["digest"] == digest(content["costs"]):
                    self._kept[identity] = dict(content["costs"])
        return self._kept[identity]

    def _write(self, identity: str) -> None:
        costs: dict[str, JsonValue] = dict(self._kept[identity])
        # A store that cannot be written says so where results are written; nothing is lost here.
        with suppress(OSError, StoreError):
            self._store.place(self._path(identity), json.dumps({"digest": digest(costs), "costs": costs}).encode())


def computed(model: HardwareModel, workload: Workload) -> CostRecord:
    """The cost of a workload on a model, or the reason why it has none."""
    found: CostRecord = {"model": model.label()}
    try:
        found["model"] = group_of(model)
        number_format_of(model)  # whose fault has no other place to be told
        reads_weights_of(model)  # likewise
        return found | cost_of(model, workload).model_dump(mode="json")
    except HarnessError as error:
        return found | {"reason": str(error)}


def stored(workload: Workload, weight_bits: int) -> Stored:
    """Every matrix of a workload in the storage format that is smallest for its mask.

    Args:
        workload: the matrices; one without a mask is dense.
        weight_bits: bits of a weight.
    """
    tensors, dense = {}, 0
    for tensor in workload.tensors:
        mask = workload.masks.get(tensor.name)
        size = tensor.size if mask is None else mask.size
        if size == 0:  # it has no weight to store
            continue
        dense += size * weight_bits
        # Not pruned: it is stored as it is.
        if mask is None:
            tensors[tensor.name] = StoredTensor(format="dense", bits=size * weight_bits)
        else:
            best = storage.best(storage.sizes(mask, weight_bits=weight_bits))
            tensors[tensor.name] = StoredTensor(format=best.name, bits=best.bits or 0)
    return Stored(bits=sum(each.bits for each in tensors.values()), dense_bits=dense, tensors=tensors)


def workload_digest(workload: Workload, network: str, masks: str, weights: str = "") -> str:
    """A digest of everything that a hardware model is told.

    Args:
        workload: what is costed.
        network: a digest of its network.
        masks: the checksum of its masks.
        weights: a digest of its weights, for models that are told them.
    """
    # Left out where there are none, so that costs of models that see none of them keep their place.
    told: dict[str, JsonValue] = {"weights": weights} if weights else {}
    told |= {"steps": dict(workload.steps)} if workload.steps else {}
    return digest(
        {
            **told,
            "network": network,
            "masks": masks,
            "tensors": [tensor.name for tensor in workload.tensors],
            "banks": dict(workload.banks),
            "pixels": dict(workload.output_pixels),
            "density": dict(workload.activation_density),
            "convolutions": {layer: asdict(each) for layer, each in workload.convolutions.items()},
        }
    )


def needs_weights(model: HardwareModel) -> bool:
    """Whether a model is to be told the weights; one that cannot say so is told none, and its cost says why."""
    try:
        return reads_weights_of(model)
    except PluginContractError:
        return False


def with_weights(workload: Workload, network: str, store: Store, end: StageRecord) -> tuple[Workload, str]:
    """The workload with the finished weights, as far as the store still has them, and a digest of both.

    Args:
        workload: the masks.
        network: a digest of its network.
        store: where states are kept.
        end: the stage whose weights are the finished ones.
    """
    weights: dict[str, NDArray[np.float64]] = {}
    if store.has_state(end.key):
        shapes = {tensor.name: tensor.shape for tensor in workload.tensors}
        with suppress(DamagedStageError):  # a model that lacks them says so in its cost
            state = store.state(end).weights
            known = {name for name, shape in shapes.items() if name in state and state[name].shape == shape}
            weights = {name: state[name].astype(np.float64) for name in sorted(known)}
    told = end.digest if weights and end.digest else "none known"
    identity = workload_digest(workload, network, end.checksums.get(MASKS, "dense"), told)
    return replace(workload, weights=weights, quantise=quantised), identity
