"""The page of the study says what its records say."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("study_tables", ROOT / "examples" / "study_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_of_the_page_is_made_from_the_records(study):
    page = study.PAGE.read_text()

    assert study.filled(page) == page
    assert all(f"<!-- table: {name} -->" in page for name in study.tables())


def test_a_changed_number_is_found(study):
    page = study.PAGE.read_text()
    start = page.index("<!-- table: perplexity -->")
    digit = next(place for place in range(start, len(page)) if page[place].isdigit())
    changed = page[:digit] + str((int(page[digit]) + 1) % 10) + page[digit + 1 :]

    assert study.filled(changed) == page


def test_differences_are_paired_by_seed_and_one_seed_has_no_interval(study):
    records = study.read(study.RESULTS / "records.json")
    by_cell = study.by_cell(records)
    text = study.differences(records)

    assert len(text.splitlines()) > 2
    for (pattern, strategy, sparsity), seeds in by_cell.items():
        other = by_cell.get(("unstructured", strategy, sparsity), {})
        if pattern.startswith("bank_balanced") and seeds.keys() == other.keys() == {0}:
            difference = seeds[0].value - other[0].value
            assert f"| {strategy} | {sparsity:.0%} | {difference:+.2f} | one seed: no interval | 1 |" in text
