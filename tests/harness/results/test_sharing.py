"""What records have in common: said once, and every record read back as it was, also by a reader of eight lines."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_at_random import every_fate, runs
from typer.testing import CliRunner

from harness.api import StoreError
from harness.cli import app
from harness.results import records, sharing
from harness.results.records import Record, dump, read, shared_names, write
from harness.results.schema import schema
from harness.results.sharing import Shared, common, difference
from harness.verification import verify

PAGE = Path(__file__).parents[3] / "docs" / "reports.md"

# Few names and few values, so that objects have much in common; 1, 1.0 and true are equal to Python alone.
_leaves = st.sampled_from((None, True, False, 0, 1, 0.0, -0.0, 1.0, 2.5, "", "a", [], [1], [1.0], [True, {"b": 1}]))
_values = st.recursive(_leaves, lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=4), max_leaves=8)
_objects = st.dictionaries(st.sampled_from("abcd"), _values, max_size=4)


def exact(value):
    """A JSON value as a text in which 1, 1.0 and true differ, whatever the order of names."""
    return json.dumps(value, sort_keys=True)


@pytest.fixture
def shared_anyway(monkeypatch):
    """Small files are written as large ones are."""
    monkeypatch.setattr(records, "PLAIN_BYTES", 0)


@given(objects=st.lists(_objects, min_size=1, max_size=5))
def test_every_object_is_the_common_one_with_its_own_fields_put_over_it(objects):
    before = copy.deepcopy(objects)

    base = common(objects)
    shared = Shared(1 << 30)
    shared.add("base", base, 1)

    for each in objects:
        line = {"like": "base", **difference(base, each)}
        assert exact(shared.whole(line)) == exact(each)
    assert exact(objects) == exact(before)


@given(found=runs(), noise=st.lists(_objects, min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_records_come_back_as_they_were_and_fit_the_schema(tmp_path_factory, found, noise):
    # Details at random, some of them equal in several cells.
    costs = [
        {"model": "m", "cycles": number, "details": {"parts": {"launch": 1.5}, **each}}
        for number, each in enumerate(noise)
    ]
    found = [
        each.model_copy(update={"hardware": {**each.hardware, "engine": costs[place % len(costs)]}, "facts": noise[0]})
        for place, each in enumerate(found)
    ]
    path = tmp_path_factory.mktemp("shared") / "records.json"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "PLAIN_BYTES", 0)
        write(path, found)
    plain = path.with_name("plain.json")
    write(plain, found, plain=True)

    assert json.loads(path.read_text())["format"] == 2 and json.loads(plain.read_text())["format"] == 1
    assert exact(dump(read(path))) == exact(dump(found)) == exact(dump(read(plain)))
    assert exact(dump(read(path, details=False))) == exact(dump(read(plain, details=False)))
    jsonschema.validate(json.loads(path.read_text()), schema())
    assert all(shared_names(path).values()) and not shared_names(plain)


def test_a_reader_of_a_few_lines_gets_the_same(tmp_path, shared_anyway):
    """The one that the page shows."""
    [code] = re.findall(r"```python\n(# records\.py.*?)```", PAGE.read_text(), re.DOTALL)
    write(tmp_path / "records.json", every_fate())

    names = {}
    exec(compile(code, str(PAGE), "exec"), names)

    assert names["records"](tmp_path / "records.json") == dump(every_fate())
    write(tmp_path / "records.json", every_fate(), plain=True)
    assert names["records"](tmp_path / "records.json") == dump(every_fate())


def test_a_line_says_what_its_cell_is_and_what_became_of_it(tmp_path, shared_anyway):
    write(tmp_path / "records.json", every_fate())

    lines = json.loads((tmp_path / "records.json").read_text())["records"]

    whole = dump(every_fate())
    assert [{name: line[name] for name in sharing.OF_EVERY_LINE} for line in lines] == [
        {name: record[name] for name in sharing.OF_EVERY_LINE} for record in whole
    ]
    text = (tmp_path / "records.json").read_text().splitlines()
    assert [json.loads(line.rstrip(","))["cell"] for line in text[-1 - len(whole) : -1]] == [r["cell"] for r in whole]


def test_what_equal_masks_cost_is_written_once(tmp_path):
    """By content: in one run such costs are one object, read from a file they are not."""
    details = {"layers": {f"lstm_{layer}": {"busy": list(range(500))} for layer in range(4)}}
    found = [
        Record(cell=f"{pattern} {seed}", task="t", backend="b", pattern=pattern, strategy="s", status="ok", seed=seed,
               hardware={"bank": {"cycles": 10 * number, "details": {**copy.deepcopy(details), "own": [pattern] * 99}}})
        for number, pattern in enumerate(("n_m", "block", "row"))
        for seed in range(60)
    ]  # fmt: skip

    write(tmp_path / "records.json", found)
    write(tmp_path / "plain.json", found, plain=True)

    text = (tmp_path / "records.json").read_text()
    assert text.count('"busy"') == 4 and text.count('"own"') == 3
    assert len(text) < (tmp_path / "plain.json").stat().st_size / 20
    back = read(tmp_path / "records.json")
    assert back == tuple(found) == read(tmp_path / "plain.json")
    # In memory too: what is said once is one object.
    assert len({id(each.hardware["bank"]["details"]) for each in back}) == 3


def test_a_small_file_says_every_record_whole(tmp_path):
    write(tmp_path / "records.json", every_fate())

    assert json.loads((tmp_path / "records.json").read_text()) == {"format": 1, "records": dump(every_fate())}


def test_equal_records_give_equal_bytes(tmp_path, shared_anyway):
    write(tmp_path / "a.json", every_fate())
    write(tmp_path / "b.json", copy.deepcopy(every_fate()))

    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("indent", [None, 2])
def test_a_file_laid_out_by_somebody_else_is_read(tmp_path, indent, shared_anyway):
    path = tmp_path / "records.json"
    write(path, every_fate())
    path.write_text(json.dumps(json.loads(path.read_text()), indent=indent))

    assert read(path) == tuple(every_fate())
    assert all(shared_names(path).values())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"like": "0123456789abcdef"}, r"`records\.1` of .* is like '0123456789abcdef', which is not among"),
        ({"like": 7}, r"`records\.1` of .* is like '7'"),
        ({"seed": "x"}, "wrong `seed`"),
        ({"unheard_of": 1}, "wrong `unheard_of`"),
        ({"hardware": {"bank": 1}}, "wrong `hardware.bank`"),
        ({"hardware": 1}, "wrong `hardware`"),
    ],
)
def test_a_line_that_is_wrong_is_refused_in_a_sentence(tmp_path, change, sentence, shared_anyway):
    path = tmp_path / "records.json"
    write(path, every_fate())
    content = json.loads(path.read_text())
    content["records"][1] |= change
    path.write_text(json.dumps(content))

    with pytest.raises(StoreError, match=sentence):
        read(path)


def test_what_is_shared_can_only_be_like_something_before_it(tmp_path):
    path = tmp_path / "records.json"
    path.write_text(json.dumps({"format": 2, "shared": {"a": {"like": "b"}, "b": {"like": "a"}}, "records": []}))

    with pytest.raises(StoreError, match=r"`shared\.a` of .* is like 'b', which is not among what is shared before it"):
        read(path)


@pytest.mark.parametrize("of", ["records", "costs", "shared"])
def test_a_small_file_cannot_say_more_than_a_large_one(tmp_path, of, monkeypatch):
    """A hundred lines that are like one large object are as long as a hundred of it; the bound is that of any file."""
    monkeypatch.setattr(records, "MAX_BYTES", 200_000)
    fields = {str(number): number for number in range(400)}
    shared = {"a": {"facts": fields} if of == "records" else fields}
    lines = [{"cell": str(number), "task": "t", "backend": "b"} for number in range(100)]
    if of == "records":
        lines = [{**line, "like": "a"} for line in lines]
    elif of == "costs":
        lines = [{**line, "hardware": {"bank": {"like": "a", "own": 1}}} for line in lines]
    else:
        shared |= {f"b{number}": {"like": "a", "own": number} for number in range(100)}
    path = tmp_path / "records.json"
    path.write_text(json.dumps({"format": 2, "shared": shared, "records": lines}))

    with pytest.raises(StoreError, match="says more than a file of records may"):
        read(path)


def test_verify_finds_a_shared_object_that_was_changed(tmp_path, shared_anyway):
    path = tmp_path / "records.json"
    write(path, every_fate())
    assert not [each for each in verify(path).problems if each.about == "files"]

    path.write_text(path.read_text().replace('"fits":true', '"fits":false'))

    [found] = [each for each in verify(path).problems if each.about == "files"]
    assert "under the beginning of its digest" in found.text


def test_a_command_writes_either_form_of_a_file_and_of_a_run(tmp_path, shared_anyway):
    run = tmp_path / "store" / "runs" / "fates-1a2b3c"
    write(run / "records.json", every_fate(), plain=True)
    small, whole = tmp_path / "small.json", tmp_path / "whole.json"

    done = CliRunner().invoke(app, ["records", "fates", "--store", str(tmp_path / "store"), "-o", str(small)])
    back = CliRunner().invoke(app, ["records", str(small), "-o", str(small), "--plain"])

    assert (done.exit_code, back.exit_code) == (0, 0), done.output + back.output
    assert "21 records" in done.stderr and "what was read had" in done.stderr
    assert small.read_bytes() == (run / "records.json").read_bytes()
    nothing = CliRunner().invoke(app, ["records", "other", "--store", str(tmp_path / "store"), "-o", str(whole)])
    assert nothing.exit_code == 2 and not whole.exists()
    # A folder of the user's stays where it is, and a file that cannot be written costs nothing.
    (tmp_path / "folder").mkdir()
    folder = CliRunner().invoke(app, ["records", str(small), "-o", str(tmp_path / "folder")])
    assert folder.exit_code == 2 and "it is a folder" in folder.output
    assert [path.name for path in tmp_path.iterdir() if "folder" in path.name] == ["folder"]
