"""The published schema of records: what it says is what is written, and what was written before is still read."""

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from records_at_random import every_fate, runs

from harness import __version__
from harness.results.records import FORMAT, dump, read, write
from harness.results.schema import schema

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "docs" / "schema"


def test_the_published_schema_is_the_one_of_this_version():
    published = json.loads((PUBLISHED / f"records-{FORMAT}.json").read_text())

    assert published == schema(), f"harness schema --records -o docs/schema/records-{FORMAT}.json"
    jsonschema.Draft202012Validator.check_schema(published)


@given(runs())
@settings(max_examples=30, deadline=None)
def test_whatever_is_written_fits_the_schema(records):
    jsonschema.validate({"format": FORMAT, "records": dump(records)}, schema())


def test_a_file_fits_the_schema_and_a_wrong_one_does_not(tmp_path):
    write(tmp_path / "records.json", every_fate())
    found = json.loads((tmp_path / "records.json").read_text())
    jsonschema.validate(found, schema())

    for wrong in ({"status": "fine"}, {"target_sparsity": 1.5}, {"unheard_of": 1}):
        found["records"][0] |= wrong
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(found, schema())
        found["records"][0] = dump(every_fate())[0]


def test_files_of_earlier_versions_are_read_and_fit():
    path = ROOT / "docs" / "results" / "bring_your_own" / "gru" / "records.json"

    assert len(read(path)) == 21
    jsonschema.validate(json.loads(path.read_text()), schema())


def test_the_citation_is_of_this_version():
    lines = (ROOT / "CITATION.cff").read_text().splitlines()

    assert f"version: {__version__}" in lines and "cff-version: 1.2.0" in lines
