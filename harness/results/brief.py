"""Lines of records as they are parsed: with all details of costs, or with those that tables and checks need alone."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from harness.api import JsonValue

_FIRST = Field(union_mode="left_to_right")
"""An object is taken for one of the harness's own, also where a line says of it nothing that is kept."""


# Declared so that pydantic skips all other keys while it parses: the details of twenty engines are most of a file.
class _Device(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="ignore")  # type: ignore[misc]  # pydantic's way to configure a TypedDict
    id: JsonValue


class _Clock(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="ignore")  # type: ignore[misc]
    value: JsonValue
    origin: JsonValue


class _Parts(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="ignore")  # type: ignore[misc]
    launch: JsonValue
    fill_drain: JsonValue
    elementwise: JsonValue


class _Layer(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="ignore")  # type: ignore[misc]
    busy: JsonValue


class _Details(TypedDict, total=False):
    """What tables say of a cost's details; a model of somebody else's may give other things these names."""

    __pydantic_config__ = ConfigDict(extra="ignore")  # type: ignore[misc]
    device: Annotated[_Device | JsonValue, _FIRST]
    clock: Annotated[_Clock | JsonValue, _FIRST]
    parts: Annotated[_Parts | JsonValue, _FIRST]
    layers: Annotated[dict[str, _Layer] | JsonValue, _FIRST]
    weight_bits: JsonValue
    validated_by: JsonValue
    hardware_class: JsonValue


class Cost(TypedDict, total=False):
    """A cost on hardware, with the details that tables and checks need."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    details: Annotated[_Details | JsonValue, _FIRST]


class _Line(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    hardware: dict[str, dict[str, JsonValue]]


class _BriefLine(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    hardware: dict[str, Cost]


LINES: dict[bool, TypeAdapter[Any]] = {True: TypeAdapter(_Line), False: TypeAdapter(_BriefLine)}
"""Of a file with shared objects, by whether all details are wanted: what of a record is its own."""

# A shared object is of records or of costs; no record has `details`, so that one type is enough for both.
ENTRIES: dict[bool, TypeAdapter[Any]] = {
    True: TypeAdapter(dict[str, dict[str, JsonValue]]),
    False: TypeAdapter(dict[str, Cost]),
}
"""Lines of its table."""
