"""The plugins that were found: sound ones by kind and name, broken ones as rows that say what is wrong."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal, get_args

import pluggy
from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from harness._words import closest
from harness.api import Component, JsonValue, Kind, PluginUnavailableError, UnknownPluginError
from harness.discovery.asking import named
from harness.discovery.guard import making
from harness.user_files import checked

KINDS: tuple[Kind, ...] = get_args(Kind)
PLURALS: Mapping[Kind, str] = {
    "task": "tasks", "pattern": "patterns", "strategy": "strategies", "score": "scores",
    "schedule": "schedules", "backend": "backends", "hardware": "hardware",
    "engine": "engines", "column": "columns", "check": "checks", "tracker": "trackers",
}  # fmt: skip


@dataclass(frozen=True)
class PluginRow:
    """One plugin as `harness plugins list` shows it.

    Args:
        kind: what it is; None where a module broke before that was known.
        name: the component's name, or the last part of the module's where the module is broken.
        summary: first line of the docstring.
        distribution: the installed package it came with, and its `version`; of a plugin that is a file of the user's,
            the file, and no version.
        module: where its code is: the module, or the file.
        state: `ok`; `unavailable` (sound, but its framework is missing here); or `broken`.
        error: one line saying what is wrong, None if nothing is; `remedy`: what to do about it.
        component: the class, None where it is broken.
    """

    kind: Kind | None
    name: str
    summary: str
    distribution: str
    version: str
    module: str
    state: Literal["ok", "unavailable", "broken"]
    error: str | None = None
    remedy: str | None = None
    component: type[Component] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Registry:
    """Every plugin that was found, sound or broken, and the plugin manager that holds their hooks."""

    rows: tuple[PluginRow, ...]
    manager: pluggy.PluginManager = field(repr=False, compare=False)
    files: tuple[Path, ...] = ()
    entries: tuple[EntryPoint, ...] = field(default=(), repr=False, compare=False)
    discover: Callable[[tuple[EntryPoint, ...], tuple[Path, ...]], "Registry"] | None = field(
        default=None, repr=False, compare=False
    )  # what found all this: handed in, so that finding plugins rests on what was found and not the other way round

    def with_files(self, files: Iterable[Path]) -> "Registry":
        """This registry and the plugins of these files.

        Raises:
            SpecError: a file is not there, or is none of Python.
        """
        every = tuple(dict.fromkeys((*self.files, *(checked(file) for file in files))))
        if every == self.files:
            return self
        assert self.discover is not None, "a registry that was put together by hand finds nothing"
        return self.discover(self.entries, every)

    def faults(self, file: Path) -> list[str]:
        """What of a file of the user's cannot be used: a sentence each, with the file, the error and what to do."""
        # A file's row is named by its absolute path; without this, a broken plugin would only be "unknown" later on.
        broken = (row for row in self.rows if row.state == "broken" and row.module == os.path.abspath(file))
        return [f"{row.module}: {row.error}; {row.remedy}" for row in broken]

    def names(self, kind: Kind) -> tuple[str, ...]:
        """The names of all sound plugins of a kind, sorted; one of several distributions comes as `owner/name`."""
        sound = [row for row in self.rows if row.kind == kind and row.component is not None]
        # Of several packages with one name none is bare: which one was installed first must decide nothing.
        uses = Counter(row.name for row in sound)
        return tuple(sorted(row.name if uses[row.name] == 1 else f"{row.distribution}/{row.name}" for row in sound))

    def get(self, kind: Kind, name: str) -> type[Component]:
        """The class of that name; `distribution/name` says whose.

        Raises:
            UnknownPluginError: no plugin of this kind has the name; the sentence suggests one.
            PluginUnavailableError: the plugin is there, but broken.
        """
        component = self.row(kind, name).component
        assert component is not None  # `row` answers with sound plugins only
        return component

    def row(self, kind: Kind, name: str) -> PluginRow:
        """The row of a sound plugin; raises as `get` does."""
        owner, _, bare = name.rpartition("/")
        # Distribution names compare as indexes do it: `Acme.Patterns` is `acme-patterns`.
        mine = [row for row in self.rows if not owner or _normal(row.distribution) == _normal(owner)]
        sound = [row for row in mine if row.kind == kind and row.name == bare and row.component is not None]
        if len(sound) > 1:
            choices = sorted(f"'{row.distribution}/{bare}'" for row in sound)
            raise UnknownPluginError(
                f"{kind} '{name}' is offered by {len(sound)} packages; write {' or '.join(choices)}"
            )
        if sound:
            return sound[0]
        # Broken under this kind, or before its kind was known: either may be the one that is meant.
        broken = next((row for row in mine if row.name == bare and row.kind in (kind, None)), None)
        if broken is not None:
            whose = f"{broken.distribution} {broken.version}".rstrip()
            raise PluginUnavailableError(
                f"{kind} '{name}' cannot be used: {whose}, {broken.module}: {broken.error}; {broken.remedy}"
            )
        raise UnknownPluginError(
            f"unknown {kind} '{name}'; {did_you_mean(bare, self.names(kind))}"
            f"`harness plugins list {PLURALS[kind]}` shows all"
        )

    def create(self, kind: Kind, entry: str | Mapping[str, JsonValue], folder: Path | None = None) -> Component:
        """A component from a name, or from a mapping of `name`, parameters and, if wanted, `label`.

        Args:
            kind: of the plugin.
            entry: what is asked for.
            folder: where files that a parameter names are looked for; by default where the process is.

        Raises:
            UnknownPluginError, PluginUnavailableError: as `get`.
            pydantic.ValidationError: the parameters are not the component's.
            PluginContractError: the component's code is at fault.
        """
        given: Mapping[str, JsonValue] = {"name": entry} if isinstance(entry, str) else entry
        component = self.get(kind, str(given.get("name")))
        parameters = {key: value for key, value in given.items() if key != "name"}
        _refuse_endless(component, parameters)
        # As JSON, and strictly: a list is a tuple there, but '10' is no number and `true` no 1.
        # Handed to fields that hold other components, such as a strategy's score, which know no registry.
        context = {"create": partial(self.create, folder=folder), "folder": folder}
        with making(component):
            return named(component.model_validate_json(json.dumps(parameters), strict=True, context=context))


MOST = 10**9
"""Of a parameter that is a whole number: more of anything is neither held by a machine nor counted in time."""

MOST_EPOCHS = 100_000
"""Of a parameter that counts epochs or rounds: each is a stage with files of its own."""


def _refuse_endless(component: type[Component], parameters: Mapping[str, JsonValue]) -> None:
    """Refuse a number that would be computed without end at its field, whoever wrote the plugin.

    Raises:
        pydantic.ValidationError: there is one.
    """
    wrong: list[InitErrorDetails] = []
    for name, value in parameters.items():
        # A number that is no field of the plugin is refused by its own validation.
        if name not in component.model_fields or isinstance(value, bool) or not isinstance(value, int):
            continue
        is_stage = "epoch" in name or "round" in name
        most, why = (MOST_EPOCHS, "each is a stage of its own") if is_stage else (MOST, "no machine holds more")
        if abs(value) > most:
            error = ValueError(f"expected a number of at most {most}, as {why}")
            wrong.append({"type": "value_error", "loc": (name,), "input": value, "ctx": {"error": error}})
    if wrong:
        raise ValidationError.from_exception_data(component.__name__, wrong)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'? ` for the closest known word, or nothing."""
    close = closest(word, known)
    return f"did you mean '{close}'? " if close else ""


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
