"""What a user writes in an `OwnModel`, looked at before anything is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from harness.api import SGD, Adam, AdamW, LearningRate, Metric, OwnModel, SpecError

_MEASURES = ("accuracy", "perplexity", "loss")


def check(own: OwnModel) -> None:
    """Pass if every field is of a kind that the harness can work with.

    Raises:
        SpecError: one is not; with what to write instead.
    """
    for name, (is_right, wanted) in _WANTED.items():
        value = getattr(own, name)
        if not is_right(value):
            raise SpecError(f"own: `{name}` must be {wanted}, got {_told(value)}")


def _is_function(value: Any) -> bool:
    return callable(value)


def _is_count(least: int) -> Callable[[Any], bool]:
    def is_count(value: Any) -> bool:
        return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least

    return is_count


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _or_none(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_right(value)


def _is_names(value: Any) -> bool:
    # One name is a sequence of letters.
    return isinstance(value, list | tuple | set) and all(isinstance(each, str) for each in value)


_WANTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "model": (_is_function, "a function that makes the model, such as `model=lambda: Net()`"),
    "loss": (_or_none(_is_function), "a function (outputs, targets) -> the mean over the items"),
    "items": (_or_none(_is_function), "a function of the targets"),
    "measure": (
        lambda value: callable(value) or value in _MEASURES,
        f"one of {', '.join(_MEASURES)}, or a function (outputs, targets) -> a sum over the items, with its `metric`",
    ),
    "finish": (_or_none(_is_function), "a function (sums, items) -> the value"),
    "metric": (_or_none(lambda value: isinstance(value, Metric)), "a `harness.api.Metric`"),
    "epochs": (_is_count(0), "a whole number, 0 or more"),
    "batch": (_is_count(1), "a whole number of items, 1 or more"),
    "steps_per_epoch": (_or_none(_is_count(1)), "a whole number, 1 or more"),
    "optimiser": (
        lambda value: isinstance(value, SGD | Adam | AdamW) or callable(value),
        "SGD(), Adam() or AdamW() of `harness.api`, or a function of the parameters that makes an optimiser, such as "
        "`optimiser=lambda parameters: torch.optim.RMSprop(parameters)`",
    ),
    "learning_rate": (
        lambda value: _is_number(value) or isinstance(value, LearningRate) or callable(value),
        "a number, a schedule of `harness.api`, or a function epoch -> the rate, or the rates of its steps",
    ),
    "clip_norm": (_or_none(lambda value: _is_number(value) and value > 0), "a number above 0, or None"),
    "prunable": (_is_names, "a list of names of parameters"),
    "same_units": (lambda value: isinstance(value, Mapping), "a mapping of labels of axes"),
}


def _told(value: Any) -> str:
    simple = isinstance(value, str | int | float | bool | type(None))
    return repr(value) if simple else f"a {type(value).__module__}.{type(value).__qualname__}"
