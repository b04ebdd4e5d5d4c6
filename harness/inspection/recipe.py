"""What a cell's stages really did, in words: from the values in their keys, every default resolved."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from harness._text import listed, plural
from harness.api import JsonValue

Inputs = Mapping[str, JsonValue]

_MOST_RATES = 8
"""Different learning rates of a training that are listed; of more, the first and the last are told."""


class Step(NamedTuple):
    """A stage of a chain: its kind, its key, and what decides its result."""

    kind: str
    key: str
    inputs: Inputs


def model_of(inputs: Inputs) -> str:
    """The layers of a network with their sizes, from the inputs of a chain's initial weights."""
    network = inputs.get("network")
    if not isinstance(network, dict):
        return ""
    layers, trained = network.get("layers"), network.get("trained")
    # What was found in a user's model stands in place of layers.
    if isinstance(trained, list):
        return f"the user's own, of {network.get('framework')}: {plural(len(trained), 'trained tensor')}"
    return listed(_layer(layer) for layer in layers if isinstance(layer, dict)) if isinstance(layers, list) else ""


def _layer(layer: Inputs) -> str:
    sizes = {name: value for name, value in layer.items() if isinstance(value, int | float | list)}
    # Labels tell what an axis counts, not how large a layer is; the repeat is of the input, not of the layer.
    told = " ".join(f"{name}={_plain(value)}" for name, value in sizes.items() if name != "input_repeat")
    name = str(layer.get("name") or layer.get("type"))
    return f"{name} ({told})" if told else name


def optimiser_of(inputs: Inputs) -> str:
    """The optimiser with its settings, and where gradients are clipped, from the inputs of the initial weights."""
    optimiser, clip = inputs.get("optimiser"), inputs.get("clip_norm")
    if not isinstance(optimiser, dict):
        return ""
    settings = listed(
        f"{name}={_plain(value)}" for name, value in optimiser.items() if name != "type" and value is not None
    )
    clipped = "gradients not clipped" if clip is None else f"gradients clipped at norm {_plain(clip)}"
    return f"{optimiser.get('type')}{f' ({settings})' if settings else ''}, {clipped}"


def recipe_of(steps: Iterable[Step]) -> list[str]:
    """What was done one after the other, a line for each: trainings with their rates and mask updates, prunes, rewinds.

    Args:
        steps: of a chain, in their order.
    """
    return [line for lines in map(_told, _phases(steps)) for line in lines]


def _phases(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Stages of one kind that follow one another; a training is one phase up to where it begins or ends to prune."""
    ended: dict[str, int] = {}
    # By kind, and by whether masks move: the same rates before and after would else hide where pruning begins.
    for _, group in groupby(steps, key=lambda step: (step.kind, bool(step.inputs.get("updates")))):
        phase = list(group)
        for step in phase:
            if step.kind == "train":
                ended[step.key] = _epoch(step) + 1
        if phase[0].kind == "rewind":
            # A rewind names a key; a reader counts epochs.
            phase = [
                step._replace(inputs={**step.inputs, "to": ended.get(str(step.inputs.get("source")), 0)})
                for step in phase
            ]
        yield phase


def _told(phase: Sequence[Step]) -> list[str]:
    kind = phase[0].kind
    if kind == "train":
        first, last = _epoch(phase[0]) + 1, _epoch(phase[-1]) + 1
        epochs = f"epoch {first}" if first == last else f"epochs {first} to {last}"
        updates = _updates_of(phase)
        return [f"train {epochs}, learning rate {_rates(phase)}" + (f"; {_gradually(updates)}" if updates else "")]
    if kind == "prune":
        return [f"prune to {_percent(update[1])} by {_score(update[2])}" for update in _updates_of(phase)]
    if kind == "rewind":
        return [_rewound(step.inputs) for step in phase]
    return []


def _rewound(inputs: Inputs) -> str:
    if inputs.get("weights") == "new":
        return "draw initial weights afresh, the masks stay"
    if not inputs.get("to"):
        return "put the initial weights back, the masks stay"
    return f"put weights and optimiser back to those after epoch {inputs['to']}, the masks stay"


def _updates_of(phase: Sequence[Step]) -> list[list[JsonValue]]:
    found = [step.inputs.get("updates") for step in phase]
    return [each for updates in found if isinstance(updates, list) for each in updates if isinstance(each, list)]


def _gradually(updates: Sequence[Sequence[JsonValue]]) -> str:
    """The updates of a training by what they reach: a regrowth goes up and down again."""
    scores = listed(dict.fromkeys(_score(update[2]) for update in updates))
    reached = [update[1] for update in updates if isinstance(update[1], float | int)]
    if len(reached) < 2:
        way = f"to {_percent(updates[0][1])}"
    elif reached == sorted(reached):
        way = f"from {_percent(reached[0])} to {_percent(reached[-1])}"
    else:
        way = f"between {_percent(min(reached))} and {_percent(max(reached))}, the last to {_percent(reached[-1])},"
    return f"{plural(len(updates), 'mask update')} {way} by {scores}"


def _rates(phase: Sequence[Step]) -> str:
    """The learning rates of a training, equal neighbours together."""
    told = [step.inputs.get("rates") for step in phase]
    rates = [rate for each in told for rate in (each if isinstance(each, list) else [each])]
    groups = [(rate, len(list(group))) for rate, group in groupby(rates)]
    # Only step-wise rates are lists: then the groups count steps.
    per_step = any(isinstance(step.inputs.get("rates"), list) for step in phase)
    unit = "step" if per_step else "epoch"
    if len(groups) == 1:
        return _plain(groups[0][0])
    if len(groups) > _MOST_RATES:
        return f"{_plain(groups[0][0])} in the first {plural(groups[0][1], unit)}, {_plain(groups[-1][0])} in the last"
    return listed(_plain(rate) + (f" ({plural(count, unit)})" if count > 1 else "") for rate, count in groups)


def _epoch(step: Step) -> int:
    index = step.inputs.get("epoch_index")
    return index if isinstance(index, int) else 0


def _score(score: JsonValue) -> str:
    if not isinstance(score, dict):
        return str(score)
    parameters = score.get("parameters")
    told = listed(f"{key}={_plain(value)}" for key, value in parameters.items()) if isinstance(parameters, dict) else ""
    return f"{score.get('name')}({told})" if told else str(score.get("name"))


def _percent(sparsity: JsonValue) -> str:
    return f"{100 * sparsity:.4g} %" if isinstance(sparsity, int | float) else str(sparsity)


def _plain(value: JsonValue) -> str:
    if isinstance(value, list):
        return " x ".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
