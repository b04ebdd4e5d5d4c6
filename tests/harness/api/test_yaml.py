"""Tabs in YAML 1.2: white space between tokens, never indentation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml.error import YAMLError

from harness.api import SpecError, load_yaml, yaml12
from harness.spec.source import Place, read

SEPARATING = {
    "a: [1]\t# c": {"a": [1]},
    "a:\t1": {"a": 1},
    "a\t: 1": {"a": 1},
    "'a'\t:\t1": {"a": 1},
    "a: b\t": {"a": "b"},
    "a: b \t # c": {"a": "b"},
    "a: 'x'\t# c": {"a": "x"},
    "a: &x\t1\nb:\t*x\t": {"a": 1, "b": 1},
    "-\tx\n- \ty": ["x", "y"],
    "a:\n  -\t1\t\n  - 2\t# x\n": {"a": [1, 2]},
    "a: [1,\t2]": {"a": [1, 2]},
    "a: {x:\t1}": {"a": {"x": 1}},
    "a: [\n\t1,\n\t2]": {"a": [1, 2]},
    "a: [b\tc]": {"a": ["b\tc"]},
    "\t# comment\na: 1": {"a": 1},
    "a: b\n\t# c\nc: 1": {"a": "b", "c": 1},
    "a: 1\n\t\nb: 2\n \t \n": {"a": 1, "b": 2},
    "a:\t\n  b: 1": {"a": {"b": 1}},
    "a:\t# c\n  b: 1": {"a": {"b": 1}},
    "---\t\na: 1": {"a": 1},
    "a: |\t\n  x": {"a": "x"},
    "a: >-\t# c\n  x": {"a": "x"},
    "a: |2-\t\n    x": {"a": "  x"},
    "a: |\n  x\ty": {"a": "x\ty"},
    'a: "x\ty"': {"a": "x\ty"},
    "a: b\tc": {"a": "b\tc"},
    "a: b\n  \tc": {"a": "b c"},
    "a: b\n\n\t\n  c": {"a": "b\n\nc"},
    "a: b#c\t#d": {"a": "b#c"},
}

INDENTING = [
    "\ta: 1", "a:\n\tb: 1", "a:\n\t- 1", "-\t- a", "-\ta: 1", "a: b\n\tc", "a:\n  b: 1\n\t c: 2", "a: 1\n \tb: 2",
    "a:\n- b\n\t- c", "a: x\t: y",
]  # fmt: skip


@pytest.mark.parametrize("text", SEPARATING, ids=repr)
def test_a_tab_that_separates_is_white_space(text):
    assert yaml12().load(text) == SEPARATING[text]


@pytest.mark.parametrize("text", SEPARATING, ids=repr)
def test_places_are_those_of_the_text_as_it_is(text):
    """A tab is one column: what follows it is found where it is written."""
    lines = text.split("\n")
    _, problems = read(text, "spec.yaml")

    for path, place in problems.keys.items():
        assert lines[place.line - 1][place.column - 1 :].lstrip("'\"").startswith(str(path[-1]))


@pytest.mark.parametrize("text", INDENTING, ids=repr)
def test_a_tab_that_indents_is_refused(text):
    with pytest.raises(YAMLError):
        yaml12().load(text)


def test_a_tab_for_indentation_says_so():
    with pytest.raises(SpecError, match=r"spec.yaml:2:1 .*expected spaces for indentation, got a tab"):
        read("a:\n\tb: 1", "spec.yaml")


@pytest.mark.parametrize(
    ("text", "path", "place"),
    [
        ("a:\nb: 1\n", ("a",), (1, 3)),
        ("a:   # why\n\n\nb: 1\n", ("a",), (1, 3)),
        ("a  :\n", ("a",), (1, 5)),
        ("x:\n  a:\n  b:\n\n\n", ("x", "b"), (3, 5)),
        ("x: {a: , b: }\n", ("x", "b"), (1, 12)),
        ("'a':\nb: 1\n", ("a",), (1, 5)),
        ("? a\n? b\n", ("a",), (1, 4)),
        ("- 1\n-\n- 2\n", (1,), (2, 2)),
        ("a: ''\n", ("a",), (1, 4)),
    ],
    ids=repr,
)
def test_an_empty_value_is_placed_where_it_would_stand(text, path, place):
    _, problems = read(text, "spec.yaml")

    assert problems.values[path] == Place(*place)


BOMB = "a0: &a0 [1, 2]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "more than 100000 values"),
        ("a: &a [*a]", "contains itself"),
        ("a: &a {b: *a}", "contains itself"),
        ("[" * 5000 + "]" * 5000, "levels of nesting"),
        ("a: 2024-13-45", "month"),
    ],
    ids=["bomb", "list in itself", "mapping in itself", "deep", "no date"],
)
def test_a_document_that_is_made_to_do_harm_is_one_sentence(text, said):
    with pytest.raises(ValueError, match=said):
        load_yaml(text)


@given(st.text(alphabet="ab:-[]{}&*!#\n\t'\"0.9,<|>? ", max_size=40))
def test_no_text_whatever_breaks_the_reader(text):
    try:
        load_yaml(text)
    except (YAMLError, ValueError):
        pass
