"""The pages of the study say what their records say."""

import importlib.util
from pathlib import Path

import pytest

from harness.report import tabular

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("study_tables", ROOT / "examples" / "study_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["study.md", "study_cnn.md"])
def page(study, request):
    """The text of a page and its tables."""
    path = ROOT / "docs" / request.param
    return path.read_text(), study.PAGES[path]()


def test_every_table_of_a_page_is_made_from_the_records(study, page):
    text, tables = page

    assert study.filled(text, tables) == text
    assert all(f"<!-- table: {name} -->" in text for name in tables)


def test_every_picture_shows_what_the_records_say(study):
    for folder in (study.RESULTS, study.CNN_RESULTS):
        found = study.pictures(folder)

        assert {chart.name.split("-")[0] for chart in found} == set(study.PICTURES)
        for chart in found:
            assert (folder / f"{chart.name}.csv").read_text() == tabular.lines(chart.data())
            assert (folder / f"{chart.name}.svg").read_text().rstrip().endswith("</svg>")


def test_a_changed_number_is_found(study, page):
    text, tables = page
    start = text.index("<!-- table: differences -->")
    digit = next(place for place in range(start, len(text)) if text[place].isdigit())
    changed = text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :]

    assert study.filled(changed, tables) == text


def test_differences_of_networks_are_paired_by_seed(study):
    records = study.read(study.CNN_RESULTS / "records.json")
    text = study.against_reference(records)

    for network, cells in study.networks(records).items():
        (pattern, strategy, sparsity), seeds = next(item for item in cells.items() if item[0][0] == "row_balanced")
        other = cells["unstructured", strategy, sparsity]
        assert seeds.keys() == other.keys()
        differences = [seeds[seed].value - other[seed].value for seed in seeds]
        row = next(line for line in text.splitlines() if line.startswith(f"| {network} | {pattern} | {strategy} |"))
        assert f"{sum(differences) / len(differences):+.2f}" in row.split("|")[4]


def test_differences_are_paired_by_seed_and_one_seed_has_no_interval(study):
    records = study.read(study.RESULTS / "records.json")
    by_cell = study.by_cell(records)
    text = study.differences(records)

    assert len(text.splitlines()) > 2
    for (pattern, strategy, sparsity), seeds in by_cell.items():
        other = by_cell.get(("unstructured", strategy, sparsity), {})
        if pattern.startswith("bank_balanced") and seeds.keys() == other.keys() == {0}:
            difference = seeds[0].value - other[0].value
            assert f"| {strategy} | {sparsity:.0%} | {difference:+.2f} | one seed: no interval |  |  | 1 |" in text
