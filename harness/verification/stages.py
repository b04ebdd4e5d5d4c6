"""The stages behind a record, read from the store's files by this module alone: checksums, keys, metrics, masks."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from harness._files import read_file
from harness.results.records import Record
from harness.store.arrays import check_size
from harness.verification.masks import RULES, Mask
from harness.verification.outcome import Outcome, close

Stage = dict[str, Any]
"""A `stage.json` as it stands in the store."""

_FILES = ("masks.safetensors", "state.safetensors")

_LIMIT = 1 << 26


@dataclass
class Store:
    """Stages by key, each read and checked once.

    Args:
        folder: the store.
    """

    folder: Path
    _stages: dict[str, Stage | None] = field(default_factory=dict)
    _masks: dict[str, dict[str, Mask]] = field(default_factory=dict)

    def stage(self, key: str, outcome: Outcome) -> Stage | None:
        """A stage whose checksums and key hold; None, with a problem, if there is none."""
        if key not in self._stages:
            self._stages[key] = self._checked(key, outcome)
        return self._stages[key]

    def chain(self, key: str, outcome: Outcome) -> list[Stage] | None:
        """The stages from the initial weights to this one; None if one of them cannot be trusted."""
        found: list[Stage] = []
        seen: set[str] = set()
        while key:
            stage = None if key in seen else self.stage(key, outcome)
            if stage is None:
                return None
            seen.add(key)
            found.append(stage)
            key = str(stage.get("parent") or "")
        return found[::-1]

    def masks(self, stage: Stage) -> dict[str, Mask]:
        """The masks after a stage; none of a dense one."""
        key = str(stage["key"])
        if key not in self._masks:
            arrays = self._arrays(key, "masks.safetensors") if "masks.safetensors" in stage["checksums"] else {}
            self._masks[key] = {
                name.removeprefix("bits/"): _unpacked(bits, arrays[f"shape/{name.removeprefix('bits/')}"])
                for name, bits in arrays.items() if name.startswith("bits/")
            }  # fmt: skip
        return self._masks[key]

    def weights(self, stage: Stage) -> dict[str, NDArray[Any]]:
        """The weights after a stage, where its state is kept."""
        key = str(stage["key"])
        if not (self._folder(key) / "state.safetensors").is_file():
            return {}
        arrays = self._arrays(key, "state.safetensors")
        return {name.removeprefix("weights/"): array for name, array in arrays.items() if name.startswith("weights/")}

    def _folder(self, key: str) -> Path:
        return self.folder / "stages" / key[:2] / key

    def _arrays(self, key: str, name: str) -> dict[str, NDArray[Any]]:
        return load(_content(self._folder(key) / name))

    def _checked(self, key: str, outcome: Outcome) -> Stage | None:
        # A key is part of a path: letters and digits lead nowhere else.
        if not key.isalnum():
            outcome.hold(False, "stages", key[:40], "expected the key of a stage, letters and digits")
            return None
        try:
            stage = json.loads(read_file(self._folder(key) / "stage.json", limit=_LIMIT))
            checksum = stage.pop("checksum")
            whole = sha256(json.dumps(stage, sort_keys=True).encode()).hexdigest()
            stage["checksums"], stage["inputs"], stage["kind"]  # it is a stage
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            outcome.hold(
                False, "stages", key, f"expected the record of the stage in the store, got {type(error).__name__}"
            )
            return None
        fits = outcome.hold(
            checksum == whole, "stages", key, "expected the record that its checksum is of, got another"
        )
        fits &= outcome.hold(
            # The key is computed anew: a record under the key of something else would be a result of other code or
            # data.
            stage.get("key") == key == _key(stage), "stages", key,
            "expected the key of what the stage says that it computed, got the key of something else",
        )  # fmt: skip
        for name in _FILES:
            fits &= self._fits(key, name, stage["checksums"].get(name), outcome)
        return stage if fits else None

    def _fits(self, key: str, name: str, checksum: object, outcome: Outcome) -> bool:
        """Whether a file is the one that the stage wrote; a state may have been dropped since."""
        path = self._folder(key) / name
        if not path.is_file():
            # States are dropped to save room; masks and records never are.
            if name == "state.safetensors" or checksum is None:
                return True
            return outcome.hold(False, "files", f"{key}/{name}", "expected the file that the stage wrote, got none")
        try:
            content = _content(path)
            fits = outcome.hold(
                sha256(content).hexdigest() == checksum, "files", f"{key}/{name}",
                "expected the file that the stage wrote, got another",
            )  # fmt: skip
            load(content)
        except (SafetensorError, OSError, ValueError) as error:
            return outcome.hold(
                False, "files", f"{key}/{name}", f"expected a safetensors file, got one that is none ({error})"
            )
        return fits


def _content(path: Path) -> bytes:
    """The bytes of a safetensors file, whose size is held against its header before all of it is read.

    Raises:
        OSError, ValueError: it is none.
    """
    check_size(path)
    return read_file(path)


def _key(stage: Stage) -> str:
    """The key of a stage from what it did and where it began, without the versions of code that only tell."""
    # As `harness.planning.stages` makes keys, written a second time on purpose.
    inputs = dict(stage["inputs"])
    source = inputs.pop("source", None)
    code = inputs.pop("code", None)
    if isinstance(code, dict):
        inputs["code"] = {place: each["digest"] for place, each in code.items() if isinstance(each, dict)}
    text = json.dumps({"kind": stage["kind"], "inputs": inputs}, sort_keys=True, separators=(",", ":"))
    work = sha256(text.encode()).hexdigest()[:32]
    return sha256(f"{work}:{stage.get('parent') or ''}:{source or ''}".encode()).hexdigest()[:32]


def score_key(key: str) -> str:
    """The key of the test score of a stage."""
    return _key({"kind": "test", "inputs": {}, "parent": key})


def _unpacked(bits: NDArray[Any], shape: NDArray[Any]) -> Mask:
    rows, cols = (int(length) for length in shape)
    return np.unpackbits(bits.astype(np.uint8), count=rows * cols).reshape(rows, cols).astype(np.bool_)


# --- a record against its stages ------------------------------------------------------------------------------------


def check_stages(record: Record, store: Store, outcome: Outcome) -> None:
    """Whether a record says what its stages computed."""
    if not record.is_done:
        return
    if not outcome.hold(bool(record.stage), "stages", record.cell, "expected the key of the finished model, got none"):
        return
    chain, score = store.chain(record.stage, outcome), store.stage(score_key(record.stage), outcome)
    if chain is None or score is None:
        problem = "expected a chain of whole stages and a test score behind the result, not all of it holds"
        outcome.hold(False, "stages", record.cell, problem)
        return
    trusted = record.facts.get("trusted_code")
    if isinstance(trusted, list) and any(stage["key"] in trusted for stage in chain):
        outcome.skip("stages of older code were trusted: their keys hold, their code is another")
    _check_beginning(record, chain, outcome)
    _check_metric(record, chain, score, outcome)
    _check_fixed_point(record, store, outcome)
    _check_budget(record, chain, outcome)
    _check_masks(record, chain, store, outcome)


def _check_beginning(record: Record, chain: Sequence[Stage], outcome: Outcome) -> None:
    """The cell that the stages were run for is the one that the record names."""
    # Only mask updates carry masking: the last one is that of the finished model.
    root, updates = chain[0]["inputs"], [stage["inputs"] for stage in chain if "masking" in stage["inputs"]]
    told: list[tuple[str, object, object]] = [
        ("seed", record.seed, root.get("seed")),
        ("precision", record.precision, root.get("precision")),
        ("parameters of the backend", record.backend_params, root.get("backend", {}).get("parameters")),
        ("metric", record.metric, root.get("metric", {}).get("name")),
    ]
    if record.is_dense:
        told.append(("number of mask updates", 0, len(updates)))
    elif outcome.hold(bool(updates), "labels", record.cell, "expected mask updates behind a pruned cell, got none"):
        masking, last = updates[-1]["masking"], updates[-1]["updates"][-1]
        told += [
            ("pattern", record.pattern_name, masking["pattern"]["name"]),
            ("parameters of the pattern", record.pattern_params, masking["pattern"]["parameters"]),
            ("last sparsity asked for", record.target_sparsity, last[1]),
        ]
        if isinstance(masking["allocation"], str):
            told.append(("allocation", record.allocation, masking["allocation"]))
    for what, said, found in told:
        outcome.hold(said == found, "labels", record.cell, f"expected the {what} {found!r} that was run, got {said!r}")


def _check_metric(record: Record, chain: Sequence[Stage], score: Stage, outcome: Outcome) -> None:
    """The values follow from the totals that the stages counted."""
    values = [_value(record, stage.get("valid")) for stage in chain if stage["kind"] == "train"]
    test = _value(record, score.get("test"))
    if test is None:
        outcome.skip(f"the metric {record.metric!r} is not one that this checker can compute from totals")
        return
    outcome.hold(
        close(test, record.value), "metric", record.cell,
        f"expected the test {record.metric} {test!r} of the stage's totals, got {record.value!r}",
    )  # fmt: skip
    history = list(record.valid_history)
    outcome.hold(
        len(values) == len(history) and all(close(a, b) for a, b in zip(values, history, strict=False)),
        "metric", record.cell, f"expected the validation {record.metric} of every epoch as stages counted, got another",
    )  # fmt: skip


def _check_fixed_point(record: Record, store: Store, outcome: Outcome) -> None:
    """Scores in the numbers of hardware follow from the totals of their own stages, and are of the finished model."""
    for label, score in record.fixed_point.items():
        if "value" not in score:
            continue
        stage = store.stage(str(score.get("stage") or ""), outcome)
        place = f"{record.cell} on {label}"
        if not outcome.hold(stage is not None, "stages", place, "expected the stage of the score in its numbers"):
            continue
        assert stage is not None
        outcome.hold(
            stage.get("parent") == record.stage, "stages", place,
            "expected a score of the finished model in its numbers, got that of another model",
        )  # fmt: skip
        found, said = _value(record, stage.get("test")), score["value"]
        if found is not None:
            outcome.hold(
                isinstance(said, int | float) and close(found, said), "metric", place,
                f"expected the test {record.metric} {found!r} of the stage's totals in its numbers, got {said!r}",
            )  # fmt: skip


def _value(record: Record, totals: Mapping[str, Any] | None) -> float | None:
    if not totals:
        return None
    if isinstance(totals.get("value"), int | float):
        return float(totals["value"])
    if record.metric == "perplexity":
        # Its own formulas, two of them: what else a task measures cannot be checked by totals.
        return math.exp(totals["nats"] / totals["items"])
    if record.metric == "accuracy" and totals.get("correct") is not None:
        return float((100.0 if record.unit == "%" else 1.0) * totals["correct"] / totals["items"])
    return None


def _check_budget(record: Record, chain: Sequence[Stage], outcome: Outcome) -> None:
    kinds = [stage["kind"] for stage in chain]
    first = kinds.index("prune") if "prune" in kinds else len(kinds)
    epochs, after = kinds.count("train"), kinds[first:].count("train")
    outcome.hold(
        (epochs, after) == (record.total_epochs, record.retrain_epochs), "budget", record.cell,
        f"expected {epochs} epochs, {after} of them after the first prune, as were run; got {record.total_epochs} and "
        f"{record.retrain_epochs}",
    )  # fmt: skip
    if record.mask_updates is not None:
        updates = sum(len(stage["inputs"].get("updates", ())) for stage in chain)
        outcome.hold(
            updates == record.mask_updates, "budget", record.cell,
            f"expected {updates} mask updates, as were made, got {record.mask_updates}",
        )  # fmt: skip
        outcome.hold(
            len(record.prunings) in (0, min(updates, 100)), "budget", record.cell,
            f"expected {min(updates, 100)} of the {updates} prunings that were made, got {len(record.prunings)}",
        )  # fmt: skip


def _check_masks(record: Record, chain: Sequence[Stage], store: Store, outcome: Outcome) -> None:
    masks = store.masks(chain[-1])
    if not masks:
        outcome.hold(record.is_dense, "masks", record.cell, "expected masks of a pruned cell, got none")
        return
    kept, size = sum(int(mask.sum()) for mask in masks.values()), sum(mask.size for mask in masks.values())
    outcome.hold(
        record.sparsity is not None and close(1 - kept / size, record.sparsity, 1e-6), "masks", record.cell,
        f"expected the sparsity {1 - kept / size:.6g} that the masks have, got {record.sparsity}",
    )  # fmt: skip
    rule = RULES.get(record.pattern_name)
    for name, mask in masks.items():
        found = 1 - float(mask.mean())
        outcome.hold(
            close(found, record.tensor_sparsity.get(name), 1e-6), "masks", record.cell,
            f"expected the sparsity {found:.6g} of {name}, as its mask has, got {record.tensor_sparsity.get(name)}",
        )  # fmt: skip
        if rule is not None:
            told = rule(mask, record.pattern_params)
            outcome.hold(not told, "masks", record.cell, f"{record.pattern_name} in {name}: {told}")
    if rule is None:
        outcome.skip(
            f"no rule for the pattern {record.pattern_name!r} here: its sparsity was counted, its form not looked at"
        )
    for name, weight in store.weights(chain[-1]).items():
        if name in masks and weight.shape == masks[name].shape:
            # Weights under a mask that are not zero mean that something trained them after all.
            alive = int((weight[~masks[name]] != 0).sum())
            outcome.hold(
                alive == 0,
                "masks",
                record.cell,
                f"expected zeros where {name} is masked, got {alive} weights that are none",
            )
