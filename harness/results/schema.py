"""The JSON Schema of files of records."""

from typing import Any

from harness.api import JsonValue
from harness.results.records import FORMAT, PLAIN, Record
from harness.results.sharing import LIKE


def schema() -> dict[str, JsonValue]:
    """The JSON Schema of a file of records, for whoever reads or makes one without this package.

    Its `$id` has the number of the newest format; files of the plain one fit it as well. Fields with a default may be
    missing in files of earlier versions.
    """
    record: dict[str, Any] = Record.model_json_schema(ref_template="#/$defs/{model}")
    parts = record.pop("$defs", {})
    name: dict[str, JsonValue] = {"type": "string", "pattern": "^[0-9a-f]{16,64}$"}
    record["properties"][LIKE] = {
        **name,
        "description": "in format 2: the shared object whose fields hold where this record has none; `hardware` too",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"sparsity-harness-records-{FORMAT}",
        "title": "Records of a run: what became of every planned cell",
        "type": "object",
        "properties": {
            "format": {"enum": [PLAIN, FORMAT], "description": "grows by one when a reader has to learn something"},
            "shared": {
                "type": "object",
                "propertyNames": name,
                "additionalProperties": {"type": "object"},
                "description": "in format 2: what records, or costs under `hardware`, have in common, by the beginning "
                f"of its digest; one may itself be `{LIKE}` one before it",
            },
            "records": {
                "type": "array",
                "items": {"$ref": "#/$defs/Record"},
                "description": "in the order of the plan",
            },
        },
        "required": ["format", "records"],
        "additionalProperties": False,
        "$defs": {**parts, "Record": record},
    }
