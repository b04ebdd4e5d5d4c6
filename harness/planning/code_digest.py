"""Digests of the code that makes results: they enter the keys of stages, so that edited code never gets old numbers.

A digest is taken of the parsed source without comments, docstrings and layout, so that these retrain nothing. What is
digested depends on whose code it is:

- a third party's plugin: its module and what that imports within its distribution; where that cannot be known, as with
  imports by a computed name, every module and data file of the distribution;
- a plugin of the harness: its own module or package, and what that imports within the plugins;
- a file of the user's: the file, and what it imports from its folder; where that cannot be known, all code in it;
- the harness itself: the definitions that run a stage (`stages`) and that make masks (`masks`), and nothing else.

Everything is read once per process.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from pydantic import BaseModel

from harness import DISTRIBUTION
from harness.api import Component, JsonValue, Score, Task
from harness.discovery.distributions import file_name
from harness.planning import code_files, code_text
from harness.planning.code_imports import syntax
from harness.user_files import folder_of

OWN = DISTRIBUTION
"""The distribution of the harness and its plugins."""

_TOP = "harness"  # its import name

STAGES: Mapping[str, tuple[str, ...]] = {
    "harness.execution.worker": ("Worker.run",),
    "harness.api.backend": ("batch_rng",),
    "harness.api.network": ("dropout_seed",),
}
"""What runs a stage, by module: these definitions and what they use of their module. They enter at the root.

A method stands for itself and the methods it calls: how a worker talks to its parent decides no number. Networks,
recipes, rates and updates are in the keys as values: the code that makes them needs no digest.
"""

MASKS: Mapping[str, tuple[str, ...]] = {
    "harness.masks.updates": ("MaskMaker",),
    "harness.selection.kernel": ("select",),
    "harness.selection.layout": ("Layout",),
    "harness.masks.allocation": (),
    "harness.selection.best": (),
    "harness.masks.coupling": (),
    "harness.api.pattern": ("Pattern",),
    "harness.arrays": ("keep_count",),
}
"""What makes masks, likewise (no names: the whole module). They enter with the first mask update of a chain."""

FIXED_POINT: Mapping[str, tuple[str, ...]] = {
    "harness.fixed_point": (),
    "harness.fixed_point.network": (),
    "harness.fixed_point.quantise": (),
    "harness.api.operations": (),
    "harness.api.number_format": (),
    "harness.execution.worker": ("Worker.evaluate_fixed",),
}
"""What evaluates a finished model in fixed point, likewise. They enter such evaluations only."""

OWN_FIXED_POINT: Mapping[str, tuple[str, ...]] = {
    **{module: names for module, names in FIXED_POINT.items() if module != "harness.execution.worker"},
    "harness.fixed_point.own": (),
    "harness.api.layers": (),
    "harness.execution.own_fixed": (),
    "harness.execution.worker": ("Worker.evaluate_own",),
}
"""The same of a user's own model: its framework calls a layer's arithmetic, as modules of its task say
(`evaluation_of`)."""

_WITH_DATA = ("task", "hardware", "engine")  # the kinds of plugin that may read files beside their modules


@dataclass(frozen=True, slots=True)
class CodeDigest:
    """What is known of a piece of code.

    Args:
        kind: `task`, `backend`, `pattern`, `score`, ..., or `harness` for its own definitions.
        name: the component's name.
        distribution: the installed package it came with; empty where none did.
        version: of that package. It is told, and enters no key: the same code under a new number is the same code.
        digest: 16 hexadecimal digits.
    """

    kind: str
    name: str
    distribution: str
    version: str
    digest: str

    @property
    def place(self) -> str:
        """What it is called among the inputs of a stage."""
        return f"{self.kind} {self.name}"

    def values(self) -> dict[str, JsonValue]:
        """What `stage.json` says of it."""
        return {"distribution": self.distribution, "version": self.version, "digest": self.digest}


@cache
def component(cls: type) -> CodeDigest:
    """The code of a component's or a score's class, with that of the classes it inherits from.

    Args:
        cls: a class of a plugin, or a score of the harness.
    """
    pieces: dict[str, str] = {}
    for base in cls.__mro__:
        top = base.__module__.partition(".")[0]
        if top == _TOP and folder_of(base.__module__) is None:
            # Of the harness's own base classes only scores compute anything; what patterns inherit is listed in MASKS.
            if issubclass(base, Score):
                pieces[f"{base.__module__}.{base.__qualname__}"] = _definitions(base.__module__, (base.__name__,))
        elif top not in ("builtins", "abc", "pydantic", "typing"):
            pieces[_unit(base)] = _code(base)
    kind = str(getattr(cls, "kind", "score" if issubclass(cls, Score) else "value"))
    owner = _owner(cls)
    name = str(getattr(cls, "name", cls.__name__))
    return CodeDigest(kind, name, owner[0], owner[1], code_text.digest(sorted(pieces.items())))


def parts(value: BaseModel) -> tuple[CodeDigest, ...]:
    """The code of a component and of every component or score inside its fields, outermost first."""
    found = {type(value): component(type(value))}
    for inner in _inside(value):
        # The outer one first, each class once: a strategy's score may be of a class that another field has too.
        found.setdefault(type(inner), component(type(inner)))
    return tuple(found.values())


@cache
def stages() -> CodeDigest:
    """The code of the harness that runs a stage."""
    return _own("stages", STAGES)


@cache
def masks() -> CodeDigest:
    """The code of the harness that turns a mask update into masks."""
    return _own("masks", MASKS)


@cache
def fixed_point() -> CodeDigest:
    """The code of the harness that evaluates a model in fixed point."""
    return _own("fixed_point", FIXED_POINT)


@cache
def own_fixed_point() -> CodeDigest:
    """The code of the harness that evaluates a user's own model in fixed point."""
    return _own("own_fixed_point", OWN_FIXED_POINT)


@cache
def evaluation_of(task: type[Task]) -> CodeDigest | None:
    """The code of a task that only evaluates its finished models in fixed point; None where it has no such modules."""
    owner = _owner(task)
    # A third party's modules all count for whatever its task does.
    if not task.fixed_point_modules or owner[0] != OWN:
        return None
    code = code_files.modules_of(code_files.plugin_module(task.__module__), task.fixed_point_modules)
    return CodeDigest("fixed point of", task.name, owner[0], owner[1], code)


def forget() -> None:
    """Read all code again: for a process that lives on while its plugins are edited, such as a notebook's."""
    files = (
        code_files.distributions,
        code_files.third_party,
        code_files.plugin,
        code_files.modules_of,
        code_files.user_file,
    )
    own = (component, stages, masks, fixed_point, own_fixed_point, evaluation_of)
    for function in (*own, *files, code_text.content, syntax):
        function.cache_clear()


def _own(name: str, listed: Mapping[str, tuple[str, ...]]) -> CodeDigest:
    pieces = [(module, _definitions(module, names)) for module, names in sorted(listed.items())]
    return CodeDigest("harness", name, OWN, version(OWN), code_text.digest(pieces))


def _definitions(module: str, names: Sequence[str]) -> str:
    path = code_files.located(module)
    assert path is not None, f"code_digest lists {module}, which is not there"
    return code_text.definitions(path, names)


def _inside(value: object) -> Iterator[BaseModel]:
    """Components and scores in the fields of a model, at any depth."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            field = getattr(value, name)
            if isinstance(field, Component | Score):
                yield field
            yield from _inside(field)
    elif isinstance(value, Mapping):
        for field in value.values():
            yield from _inside((field,))
    elif isinstance(value, tuple | list | frozenset):
        for field in value:
            if isinstance(field, Component | Score):
                yield field
            yield from _inside(field)


# --- whose code it is -----------------------------------------------------------------------------------------------


def _owner(cls: type) -> tuple[str, str]:
    # What is told to people: the file for a file of theirs, else the package that they can install in another version.
    if folder_of(cls.__module__) is not None:
        return file_name(cls.__module__), ""
    if cls.__module__.partition(".")[0] == _TOP:
        return OWN, version(OWN)
    found = code_files.distribution(cls.__module__)
    if found is not None:
        return found.name, found.version
    top = cls.__module__.partition(".")[0]
    try:
        return top, version(top)
    except PackageNotFoundError:
        return "", ""


def _unit(cls: type) -> str:
    """The name under which a class's code is digested: equal for classes that share it."""
    if folder_of(cls.__module__) is not None:
        return file_name(cls.__module__)  # wherever its folder lies
    found = code_files.distribution(cls.__module__)
    ours = found is not None and found.name == OWN
    return code_files.plugin_module(cls.__module__) if ours else cls.__module__


def _code(cls: type) -> str:
    if folder_of(cls.__module__) is not None:
        return code_files.user_file(cls.__module__)
    found = code_files.distribution(cls.__module__)
    with_data = getattr(cls, "kind", "") in _WITH_DATA
    if found is not None and found.name == OWN:
        without = cls.fixed_point_modules if issubclass(cls, Task) else ()
        return code_files.plugin(code_files.plugin_module(cls.__module__), with_data=with_data, without=without)
    return code_files.third_party(cls.__module__, with_data=with_data)
