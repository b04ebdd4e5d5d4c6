"""What every plugin has in common: a frozen model whose fields are its specification."""

import json
from typing import ClassVar, Literal

import pluggy
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic import JsonValue as JsonValue

from harness.errors import HarnessError

API_VERSION = 2
"""The interface between the harness and its plugins; it grows by one when something a plugin relies on changes."""

Kind = Literal[
    "task", "pattern", "strategy", "score", "schedule", "backend", "hardware", "engine", "column", "check",
    "tracker",
]  # fmt: skip

hookimpl = pluggy.HookimplMarker("harness")


class Frozen(BaseModel):
    """A value: immutable, comparable, hashable, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Component(Frozen):
    """A plugin of any kind: its class is found by discovery, its fields are its parameters.

    Subclasses set `name` (snake_case, unique within the kind) and give every field a default, so that a name alone in
    an experiment file is a realistic setting.
    """

    kind: ClassVar[Kind]
    name: ClassVar[str]
    api_version: ClassVar[int] = API_VERSION
    result_version: ClassVar[int] = 1
    """Raise this when the same parameters give other results than before: cached stages are then run again."""

    own_label: str | None = Field(default=None, alias="label", exclude=True, repr=False, description="name in tables")

    def parameters(self) -> dict[str, JsonValue]:
        """All parameters as JSON values, defaults included."""
        # By JSON, so that tuples are lists and enums texts, as in a file that is read again.
        return json.loads(self.model_dump_json(by_alias=True))  # type: ignore[no-any-return]  # json.loads is untyped

    def effective_parameters(self) -> dict[str, JsonValue]:
        """The parameters as they are used: in place of those left open (None) what stands in for them.

        Records and `harness show` tell these. Override it where a preset or a rule of the component fills something in.
        """
        return self.parameters()

    def label(self) -> str:
        """The name used in tables: the author's `label`, or the name with its non-default parameters."""
        if self.own_label is not None:
            return self.own_label
        defaults = type(self)().parameters()
        # Against a default instance, not the fields' defaults: a validator may fill in what was left out.
        changed = {key: value for key, value in self.parameters().items() if value != defaults.get(key)}
        if not changed:
            return self.name
        return f"{self.name}({', '.join(f'{key}={_plain(value)}' for key, value in changed.items())})"

    def identity(self) -> dict[str, JsonValue]:
        """What a cache key needs of this component: name, parameters and result version; never the label."""
        # Without the label: renaming an entry must not train anything again.
        return {"name": self.name, "parameters": self.parameters(), "result_version": self.result_version}


def nested(kind: Kind, value: object, info: ValidationInfo) -> object:
    """A component that is the field of another one, from its name or its mapping; for a field's validator.

    The registry that makes the outer component makes the inner one too, and hands its `create` in through the context.
    Made directly in Python, the field takes a component.
    """
    # What is no entry is left to the field's own validation, which says what it wanted.
    if not isinstance(value, str | dict) or (isinstance(value, dict) and not isinstance(value.get("name"), str)):
        return value
    create = (info.context or {}).get("create")
    if create is None:
        raise ValueError(f"a name needs the registry to be looked up; give an object of a class of kind {kind}")
    try:
        return create(kind, value)
    except ValidationError as error:
        mistakes = (
            # One sentence for the field: an error inside an error would be told with the outer one's place alone.
            f"{'.'.join(map(str, each['loc'])) or kind}: {each['msg']}, got {each['input']!r}"
            for each in error.errors(include_url=False)
        )
        raise ValueError("; ".join(mistakes)) from error
    except HarnessError as error:
        raise ValueError(str(error)) from error


def _plain(value: JsonValue) -> str:
    if isinstance(value, dict) and isinstance(value.get("name"), str):  # a component inside this one
        rest = ", ".join(f"{key}={_plain(part)}" for key, part in value.items() if key != "name")
        return f"{value['name']}({rest})"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
