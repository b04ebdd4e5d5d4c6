"""Costs computed again: the hardware models of the experiment, asked about the masks in the store."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harness._files import read_file
from harness.api import Cost, HardwareModel, HarnessError, Network, Pattern, Workload
from harness.discovery.asking import cost_of, reads_weights_of
from harness.discovery.finding import discover
from harness.results.records import Record
from harness.spec import load, recalled
from harness.verification.masks import Mask
from harness.verification.outcome import Outcome, close, several
from harness.verification.stages import Stage, Store, score_key

_COMPARED = ("cycles", "latency_us", "dense_cycles", "speedup", "multipliers", "dsp", "ram_blocks", "fits")


def check_models(path: Path, records: Sequence[Record], store: Store, outcome: Outcome) -> None:
    """Compare every cost with what its hardware model says of the cell's masks now.

    Args:
        path: the experiment's file.
        records: all of a run.
        store: the stages behind them.
        outcome: where findings go.
    """
    try:
        experiment = recalled(load(path, discover(files=_plugins(path.parent))), records)
    except HarnessError as error:
        outcome.skip(f"costs by their models: the experiment cannot be loaded here ({str(error).splitlines()[0]})")
        return
    models = {model.label(): model for model in experiment.hardware}
    patterns = {cell.id: cell.pattern for cell in experiment.cells}
    # A part of an experiment, made by `--only`, has another id and may lack cells.
    if any(record.run == experiment.run_id for record in records):  # all of it was run, and not a part
        missing = sorted(patterns.keys() - {record.cell for record in records})
        outcome.hold(not missing, "grid", experiment.run_id, f"expected every cell of it, without {several(missing)}")
    scopes = _scopes(records, store)
    answers: dict[tuple[str, str, str], Cost | str] = {}
    for record in records:
        # What does not stand whole was told where the stages were read.
        stages = store.chain(record.stage, Outcome()) if record.is_done and record.stage else None
        score = store.stage(score_key(record.stage), Outcome()) if stages else None
        if not stages or not score or not record.hardware:
            continue
        if record.cell not in patterns:
            outcome.hold(
                False, "labels", record.cell, "expected a cell of the experiment, got one that it does not have"
            )
            continue
        names = scopes.get(record.task, ())
        workload = _workload(stages, store.masks(stages[-1]), names, patterns[record.cell], score)
        if workload is None:
            outcome.skip("costs by their models: a model of the user's own, or no pruned cell that names the tensors")
            continue
        masks = str(stages[-1]["checksums"].get("masks.safetensors", "dense"))
        density = json.dumps(dict(workload.activation_density), sort_keys=True)
        for label, cost in record.hardware.items():
            if label not in models:
                outcome.hold(
                    False, "hardware", record.cell, f"expected costs of the experiment's models, got one of {label}"
                )
                continue
            if _reads_weights(models[label]):
                outcome.skip(f"costs by their models: {label} depends on the weights' values, not on masks alone")
                continue
            # A cost depends on masks, banks and zeros among the inputs alone: equal ones are asked for once.
            place = (label, masks + str(dict(workload.banks)), density)
            if place not in answers:
                answers[place] = _answer(models[label], workload)
            _compare(cost, answers[place], f"{record.cell} on {label}", outcome)


def _compare(cost: Mapping[str, object], answer: Cost | str, place: str, outcome: Outcome) -> None:
    if isinstance(answer, str):
        outcome.hold("cycles" not in cost, "hardware", place, f"expected no cost, got one: {answer}")
        return
    if "cycles" not in cost:
        outcome.hold(
            str(cost.get("reason", "")).startswith("not costed"), "hardware", place,
            f"expected a cost, got the reason {cost.get('reason')!r}",
        )  # fmt: skip
        return
    found = answer.model_dump(mode="json")
    for name in _COMPARED:
        said, wanted = cost.get(name), found.get(name)
        same = (
            close(float(said), float(wanted), 1e-9)
            if isinstance(said, int | float) and isinstance(wanted, int | float) else said == wanted
        )  # fmt: skip
        outcome.hold(
            same, "hardware", place, f"expected {name} {wanted}, as the model gives for these masks, got {said}"
        )


def _reads_weights(model: HardwareModel) -> bool:
    try:
        return reads_weights_of(model)
    except HarnessError:  # which its answer says
        return False


def _answer(model: HardwareModel, workload: Workload) -> Cost | str:
    try:
        return cost_of(model, workload)
    except HarnessError as error:
        return str(error)


def _scopes(records: Sequence[Record], store: Store) -> dict[str, tuple[str, ...]]:
    """Names of the pruned tensors, by task: dense cells are costed on the same ones."""
    found: dict[str, tuple[str, ...]] = {}
    for record in records:
        if record.is_done and not record.is_dense and record.task not in found:
            stages = store.chain(record.stage, Outcome()) or []
            for stage in stages:
                if "masking" in stage["inputs"]:
                    found[record.task] = tuple(stage["inputs"]["masking"]["scope"])
    return found


def _workload(
    stages: Sequence[Stage], masks: Mapping[str, Mask], names: Sequence[str], pattern: Pattern | None, score: Stage
) -> Workload | None:
    """What the engines were asked: the pruned matrices, their masks, banks, positions and zeros of the inputs."""
    given = stages[0]["inputs"]["network"]
    # Of a user's own model the geometry of convolutions is in no key: only its code, run again, would tell it.
    if "layers" not in given or "framework" in given or not names:
        return None
    network = Network.model_validate_json(json.dumps(given))
    tensors = tuple(tensor for tensor in network.tensors() if tensor.name in names)
    banks = {each.name: pattern.for_tensor(each).banks_per_row(*each.shape) for each in tensors} if pattern else {}
    layers = {tensor.layer for tensor in tensors}
    density = (score.get("test") or {}).get("activation_density") or {}
    return Workload(
        network=network,
        tensors=tensors,
        masks={name: np.asarray(mask) for name, mask in masks.items()},
        banks={name: count for name, count in banks.items() if count is not None},
        output_pixels=_positions(network),
        activation_density={layer: value for layer, value in density.items() if layer in layers},
    )


def _positions(network: Network) -> dict[str, int]:
    """How many positions a convolution is computed at."""
    found: dict[str, int] = {}
    if len(network.input_shape) == 3:
        size = list(network.input_shape[1:])
        for layer in network.layers:
            if layer.type == "conv2d":
                size = [
                    (n + 2 * layer.padding - k) // layer.stride + 1 for n, k in zip(size, layer.kernel, strict=True)
                ]
                found[layer.name] = size[0] * size[1]
            elif layer.type == "pool2d":
                size = [n // layer.size for n in size]
    return found


def _plugins(folder: Path) -> list[Path]:
    """Files of plugins that the run was given, where they still are."""
    try:
        listed = json.loads(read_file(folder / "plugins.json", limit=1 << 20))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [Path(name) for name in listed if isinstance(name, str) and Path(name).is_file()]
