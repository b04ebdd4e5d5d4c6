"""Allocations that are the layer densities of a cell that has run."""

import pytest
from harness_plugins.tasks.lenet import Lenet

from harness.api import SpecError
from harness.discovery.finding import discover
from harness.results.records import Record, write
from harness.spec import loads

DENSITIES = {"dense_0.kernel": 0.85, "dense_1.kernel": 0.5}
RECORDS = [
    Record(cell="aa11", task="t", backend="b"),
    Record(cell="ab22", task="t", backend="b", pattern="unstructured", tensor_sparsity=DENSITIES, status="ok"),
    Record(cell="cd33", task="t", backend="b", pattern="unstructured", status="skipped", reason="none"),
    Record(cell="ce44", task="t", backend="b", pattern="filter", tensor_sparsity={"x": 1.0}, status="ok"),
]


@pytest.fixture
def spec(tmp_path):
    write(tmp_path / "records.json", RECORDS)

    def of(entry):
        text = (
            f"name: like\ntask: {Lenet.name}\nscope: [dense]\nallocation: {entry}\n"
            "matrix: {backend: torch, pattern: unstructured, strategy: one_shot, sparsity: 0.8}\n"
        )
        return loads(text, discover(), path=tmp_path / "spec.yaml")

    return of


def test_every_tensor_gets_what_it_had_there(spec):
    experiment = spec("{densities_of: ab, records: records.json}")

    assert [cell.allocation for cell in experiment.cells if not cell.is_dense] == [DENSITIES]


def test_the_experiment_that_is_kept_holds_the_numbers_themselves(spec):
    assert "0.85" in str(spec("{densities_of: ab22, records: records.json}").document)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{densities_of: zz, records: records.json}", "names none"),
        ("{densities_of: a, records: records.json}", "names 2: aa11"),
        ("{densities_of: aa, records: records.json}", "the dense baseline"),
        ("{densities_of: cd, records: records.json}", "which is skipped"),
        ("{densities_of: ce, records: records.json}", "x is empty"),
        ("{densities_of: ab, records: other.json}", "other.json"),
        ("{densities_of: ab}", "expected {densities_of: CELL, records: FILE}"),
        ("{densities_of: ab, records: records.json, scale: 2}", "expected {densities_of: CELL, records: FILE}"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(spec, entry, message):
    with pytest.raises(SpecError) as raised:
        spec(entry)

    assert message in str(raised.value)
    assert ":4:13 allocation" in str(raised.value)
