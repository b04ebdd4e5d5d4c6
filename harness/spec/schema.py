"""JSON Schema of experiment files, the parameters of every discovered plugin included."""

from typing import Any, get_args

from harness.api import Component, JsonValue, Kind
from harness.discovery.registry import KINDS, Registry
from harness.spec.codes import known_codes
from harness.spec.document import AXES, CODE, Document
from harness.spec.experiment import AllocationRule

Schema = dict[str, Any]  # JSON Schema is untyped by nature; it goes to editors only

_TEMPLATE = "#/$defs/{model}"


def schema(registry: Registry) -> dict[str, JsonValue]:
    """A JSON Schema (draft 2020-12) for editors.

    An entry is a plugin's name, or an object discriminated by `name` with that plugin's parameters.

    Args:
        registry: the plugins to describe, third-party ones included.
    """
    root: Schema = Document.model_json_schema(ref_template=_TEMPLATE)
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    root["title"] = "harness experiment"
    definitions: Schema = root["$defs"]
    for kind in (kind for kind in KINDS if kind not in ("column", "check", "tracker")):  # no experiment names one
        definitions[kind] = _entry(registry, kind, definitions)
    definitions["allocation"] = {
        "anyOf": [
            {"enum": [*get_args(AllocationRule)]},
            {
                "type": "object",
                "properties": {"densities_of": {"type": "string"}, "records": {"type": "string"}},
                "required": ["densities_of", "records"],
                "additionalProperties": False,
            },
            {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "exclusiveMaximum": 1}},
        ]
    }
    # pydantic knows entries as any JSON; what an editor should offer comes from the registry.
    _fill(root["properties"], {"task": True, "allocation": False, "hardware": True})
    for model, many in (("Matrix", True), ("Partial", True), ("Single", False)):
        _fill(definitions[model]["properties"], dict.fromkeys(AXES, many))
    forms: Schema = {
        "exclude": _one_or_many({"$ref": _TEMPLATE.format(model="Partial")}),
        "include": _one_or_many({"$ref": _TEMPLATE.format(model="Single")}),
        "scope": _one_or_many({"type": "string"}),
        "ignore": _one_or_many({"anyOf": [{"enum": known_codes(registry)}, {"type": "string", "pattern": CODE}]}),
        "keep_dense": {"type": ["integer", "string"]},
    }
    for field, form in forms.items():
        root["properties"][field] = _kept(root["properties"][field]) | form
    return root


def _entry(registry: Registry, kind: Kind, definitions: Schema) -> Schema:
    """A name of this kind, or an object with the parameters of one."""
    names = registry.names(kind)
    # A name in an exclude may also be a label, and `distribution/name` is a name too: the enum only proposes.
    forms: list[Schema] = [{"enum": list(names)}, {"type": "string"}]
    for name in names:
        # Definitions of two plugins may share a name, `Source` say: each goes under its plugin's.
        key = f"{kind}.{name}"
        definitions[key] = _described(registry.get(kind, name), key, definitions)
        forms.append({"$ref": _TEMPLATE.format(model=key)})
    return {"anyOf": forms}


def _described(component: type[Component], key: str, definitions: Schema) -> Schema:
    """The schema of one plugin's parameters, with `name` and without what it shares with others."""
    found: Schema = component.model_json_schema(ref_template=f"#/$defs/{key}.{{model}}")
    for model, inner in found.pop("$defs", {}).items():
        definitions[f"{key}.{model}"] = inner
    found["properties"] = {"name": {"const": component.name}, **_linked(found.get("properties", {}))}
    found["required"] = ["name", *found.get("required", [])]
    found["additionalProperties"] = False
    return found


def _linked(described: Any) -> Any:  # any node of a JSON Schema
    """The same with `{"component": kind}`, what a field says that holds another component, as a reference."""
    if isinstance(described, dict):
        if described.get("component") in KINDS:
            return {"$ref": _TEMPLATE.format(model=described["component"])}
        return {key: _linked(part) for key, part in described.items()}
    return [_linked(part) for part in described] if isinstance(described, list) else described


def _fill(properties: Schema, fields: dict[str, bool]) -> None:
    """Say of fields that hold entries what an entry is; of numbers, that one may stand for a list."""
    for field, many in fields.items():
        if field not in properties:
            continue
        described = properties[field]
        entry: Schema = {"$ref": _TEMPLATE.format(model="hardware" if field == "hardware" else field)}
        if field in ("sparsity", "seed"):
            numbers = [form.get("items", form) for form in described.get("anyOf", [described])]
            entry = next(form for form in numbers if form.get("type") in ("number", "integer"))
        properties[field] = _kept(described) | (_one_or_many(entry) if many else entry)


def _kept(described: Schema) -> Schema:
    return {key: part for key, part in described.items() if key in ("description", "default")}


def _one_or_many(entry: Schema) -> Schema:
    return {"anyOf": [entry, {"type": "array", "items": entry}]}
