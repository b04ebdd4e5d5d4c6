"""Scripts of several checks: what breaks in one fails the tests that ask for it alone."""

import json

import pytest
from parts import guarded, read


@pytest.fixture
def answers():
    """As the tests of a script get them, of which one check and a part of another broke."""
    found = {}
    for name, places in (("whole", 1), ("broken", 0), ("partly", None)):
        with guarded(found, name):
            inner = {}
            for place in ("one", "other"):
                with guarded(inner, place):
                    inner[place] = 1 / (place == "one" if places is None else places)
            if places == 0:
                raise ValueError("no such primitive")
            found[name] = inner
    return read(json.dumps(found))


def test_what_did_not_break_is_answered(answers):
    assert answers["whole"] == {"one": 1.0, "other": 1.0}
    assert answers["partly"]["one"] == 1.0


def test_what_broke_fails_with_the_traceback_of_the_script(answers):
    with pytest.raises(AssertionError, match="ValueError: no such primitive"):
        answers["broken"]
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        answers["partly"]["other"]


def test_an_answer_that_was_never_reached_says_what_broke_before_it(answers):
    with pytest.raises(AssertionError, match="no answer to 'third'") as failure:
        answers["partly"]["third"]

    assert "ZeroDivisionError" in str(failure.value)
