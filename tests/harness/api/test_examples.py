"""The examples in the docstrings of what plugins import do what they say."""

import doctest
import importlib
import pkgutil

import pytest

import harness.api

MODULES = [f"harness.api.{found.name}" for found in pkgutil.iter_modules(harness.api.__path__)]
EXAMPLES = {
    test.name: test
    for name in MODULES
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    if test.examples
}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_does_what_it_says(name):
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)

    failed, tried = runner.run(EXAMPLES[name], out=report.append)

    assert failed == 0, "".join(report)
    assert tried > 0


@pytest.mark.parametrize(
    "name", ["Pattern", "Score", "Schedule", "Strategy", "LearningRate", "ReportColumn", "NumberFormat"]
)
def test_what_plugins_subclass_or_take_has_an_example(name):
    found = getattr(harness.api, name)

    assert f"{found.__module__}.{found.__qualname__}" in EXAMPLES
