"""Records: every planned cell, written whole or not at all, and read back as they were."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.api import StoreError
from harness.results.records import DONE, FAILED, PENDING, Record, dump, read, write

FINISHED = Record(
    run="grid-1a2b3c",
    cell="c1",
    task="lstm_lm",
    backend="torch",
    pattern="bank_balanced(banks=20)",
    strategy="gradual",
    pattern_params={"banks": 20, "bank_size": None},
    scope=("lstm", "softmax"),
    target_sparsity=0.9,
    sparsity=0.9004,
    tensor_sparsity={"lstm_0.kernel": 0.9004},
    seed=2,
    metric="perplexity",
    value=97.25,
    valid_history=(120.5, None, 101.25),
    status="ok",
    hardware={
        "engine": {"latency_us": 1.5, "fits": True, "details": {"parts": [1, 2]}},
        "other": {"reason": "too wide"},
    },
    threads=2,
    facts={"train_tokens": 250000, "cut": False},
)
SKIPPED = Record(cell="c2", task="lenet", backend="keras_tfmot", status="skipped", reason="no such layer")


def test_records_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "runs" / "records.json"

    write(path, [FINISHED, SKIPPED])

    assert read(path) == (FINISHED, SKIPPED)


def test_equal_records_give_equal_bytes(tmp_path):
    write(tmp_path / "a.json", [FINISHED])
    write(tmp_path / "b.json", [Record.model_validate_json(FINISHED.model_dump_json())])

    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@given(value=st.floats(), history=st.lists(st.floats(), max_size=3))
def test_a_value_that_is_not_finite_is_a_missing_one(value, history):
    record = Record(cell="c", task="t", backend="b", value=value, valid_history=history)

    assert record.value == (value if math.isfinite(value) else None)
    assert record.valid_history == tuple(item if math.isfinite(item) else None for item in history)
    assert Record.model_validate(dump([record])[0]) == record


def test_infinity_never_reaches_the_file(tmp_path):
    late = FINISHED.model_copy(update={"value": math.inf, "facts": {"loss": math.nan}})

    write(tmp_path / "records.json", [late])

    [back] = read(tmp_path / "records.json")
    assert back.value is None
    assert back.facts == {"loss": None}


def test_a_cell_that_did_not_run_has_no_results():
    assert not SKIPPED.is_done
    assert SKIPPED.value is None
    assert SKIPPED.sparsity is None
    assert SKIPPED.hardware == {}


def test_the_baseline_is_dense_by_label():
    assert Record(cell="c", task="t", backend="b").is_dense
    assert not FINISHED.is_dense


def test_every_status_but_a_declared_skip_is_done_pending_or_failed():
    statuses = set(Record.model_json_schema()["properties"]["status"]["enum"])

    assert statuses - {"skipped"} == DONE | PENDING | FAILED
    assert not DONE & PENDING and not DONE & FAILED and not PENDING & FAILED


def test_an_unknown_field_is_refused():
    with pytest.raises(ValidationError, match="valeu"):
        Record(cell="c", task="t", backend="b", valeu=1.0)


def test_two_records_do_not_share_their_dictionaries():
    first, second = (Record(cell=cell, task="t", backend="b") for cell in "ab")

    first.origin["value"] = "published"

    assert second.origin["value"] == "measured"


def test_a_folder_in_the_place_of_records_is_moved_aside_and_kept(tmp_path):
    target = tmp_path / "records.json"
    target.mkdir()
    (target / "of_a_user").write_text("kept")

    write(target, [FINISHED])

    assert [record.cell for record in read(target)] == [FINISHED.cell]
    assert [path.read_text() for path in tmp_path.rglob("of_a_user")] == ["kept"]


def test_a_folder_that_cannot_be_made_is_an_error_of_the_store(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="cannot write"):
        write(tmp_path / "file" / "records.json", [FINISHED])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "expected an object with `format` and `records`"),
        ('{"format": 1}', "expected an object with `format` and `records`"),
        ('{"format": 99, "records": []}', "has format 99, this version reads 1 and 2; update harness"),
        ('{"format": 1, "records": [{"task": "t", "backend": "b"}]}', "wrong `cell`"),
        ('{"format": 1, "records": [{"cell": "c", "task": "t", "backend": "b", "seed": "x"}]}', "wrong `seed`"),
    ],
)
def test_a_file_that_holds_no_records_is_refused_in_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "records.json"
    path.write_text(content)

    with pytest.raises(StoreError, match=sentence):
        read(path)


def test_a_missing_file_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(StoreError, match=r"expected a file of records, got no such file"):
        read(tmp_path / "records.json")


def test_every_record_has_a_line_of_its_own(tmp_path):
    write(tmp_path / "records.json", [FINISHED, SKIPPED])

    first, *lines, last = (tmp_path / "records.json").read_text().splitlines()

    assert (first, last) == ('{"format": 1, "records": [', "]}")
    assert [json.loads(line.rstrip(","))["cell"] for line in lines] == ["c1", "c2"]


@pytest.mark.parametrize("indent", [None, 1, 4])
def test_records_laid_out_by_somebody_else_are_read(tmp_path, indent):
    content = {"note": "edited", "records": dump([FINISHED, SKIPPED]), "format": 1}
    (tmp_path / "records.json").write_text(json.dumps(content, indent=indent))

    assert read(tmp_path / "records.json") == (FINISHED, SKIPPED)


@given(place=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_off_is_refused(tmp_path_factory, place):
    path = tmp_path_factory.mktemp("cut") / "records.json"
    write(path, [FINISHED, SKIPPED])
    whole = path.read_bytes().rstrip()

    path.write_bytes(whole[: int(place * len(whole))])

    with pytest.raises(StoreError, match="is not JSON"):
        read(path)


def test_something_after_the_end_is_refused(tmp_path):
    write(tmp_path / "records.json", [FINISHED])
    with (tmp_path / "records.json").open("a") as file:
        file.write('{"format": 1, "records": []}')

    with pytest.raises(StoreError, match="is not JSON"):
        read(tmp_path / "records.json")


def test_a_wrong_record_in_the_middle_is_named(tmp_path):
    write(tmp_path / "records.json", [FINISHED, SKIPPED])
    text = (tmp_path / "records.json").read_text()
    (tmp_path / "records.json").write_text(text.replace('"backend":"keras_tfmot"', '"backend":7'))

    with pytest.raises(StoreError, match="wrong `backend`"):
        read(tmp_path / "records.json")


def test_without_details_everything_else_is_there(tmp_path):
    details = {
        "device": {"id": "board", "family": "old"},
        "clock": {"value": 200.0, "origin": "assumed", "source": "a book"},
        "parts": {"launch": 3.5, "compute": 1.5},
        "layers": {"lstm_0": {"rows": 4, "busy": {"pes": [3]}}},
    }
    cost = {"latency_us": 1.5, "notes": ["slow"], "details": details}
    write(tmp_path / "records.json", [FINISHED.model_copy(update={"hardware": {"engine": cost}}), SKIPPED])

    first, second = read(tmp_path / "records.json", details=False)

    kept = {"device": {"id": "board"}, "clock": {"value": 200.0, "origin": "assumed"}, "parts": {"launch": 3.5}}
    kept["layers"] = {"lstm_0": {"busy": {"pes": [3]}}}
    assert first.hardware == {"engine": {"latency_us": 1.5, "notes": ["slow"], "details": kept}}
    assert first.model_dump(exclude={"hardware"}) == FINISHED.model_dump(exclude={"hardware"})
    assert second.model_dump() == SKIPPED.model_dump()


def test_details_of_another_kind_are_kept_as_they_are(tmp_path):
    costs = {
        "text": {"details": "none"},
        "list": {"details": [1, 2]},
        "names": {"details": {"device": "board", "clock": None, "parts": [1]}},
        "reason": {"reason": "too wide"},
    }
    write(tmp_path / "records.json", [FINISHED.model_copy(update={"hardware": costs})])

    [back] = read(tmp_path / "records.json", details=False)

    assert back.hardware == costs


def test_the_file_names_its_format(tmp_path):
    write(tmp_path / "records.json", [])

    assert json.loads((tmp_path / "records.json").read_text()) == {"format": 1, "records": []}
