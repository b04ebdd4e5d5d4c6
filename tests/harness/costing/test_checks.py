"""Checks of all hardware models: each once, counted by kind, failed ones never hidden."""

from pathlib import Path

import pytest

from harness.api import Check, EmptySelectionError, HardwareModel
from harness.costing.checks import all_checks, caveats, has_failed, summary
from harness.discovery.registry import PluginRow, Registry


class Model(HardwareModel):
    name = "model"

    def cost(self, workload):
        raise NotImplementedError


class Held(Model):
    """A model that holds one gate and shares it."""

    name = "held"

    @classmethod
    def checks(cls, targets=None):
        return (Check(id="rule", kind="accept", what=str(targets), passed=True),)

    @classmethod
    def caveat(cls):
        return "nothing is known of clocks"


class Double(Held):
    """Another model with the same check and one of its own."""

    name = "double"

    @classmethod
    def checks(cls, targets=None):
        return (*super().checks(targets), Check(id="own", kind="report", what="a figure"))


def registry(*models):
    rows = [PluginRow("hardware", model.name, "", "acme", "1", "acme", "ok", component=model) for model in models]
    return Registry(tuple(rows), None)


def check(kind, passed):
    return Check(id="rule", kind=kind, what="figure", passed=passed)


def test_a_check_that_two_models_share_comes_once():
    found = all_checks(registry(Held, Double, Model), Path("targets.yaml"))

    assert [(each.id, each.what) for each in found] == [("own", "a figure"), ("rule", "targets.yaml")][::-1]
    assert caveats(registry(Held, Double, Model)) == ("nothing is known of clocks",)


def test_models_without_checks_are_no_success():
    with pytest.raises(EmptySelectionError, match="expected a hardware model with checks"):
        all_checks(registry(Model))


@pytest.mark.parametrize(
    ("kind", "passed", "failed"),
    [
        ("accept", True, False), ("accept", False, True), ("accept", None, True), ("arithmetic", None, True),
        ("calibrate", None, True), ("report", None, False), ("report", False, True),
    ],
)  # fmt: skip
def test_a_gate_without_an_outcome_has_failed_and_a_report_has_not(kind, passed, failed):
    assert has_failed(check(kind, passed)) is failed


def test_failed_checks_count_as_failed_and_not_as_their_kind():
    counts = summary([check("accept", True), check("accept", False), check("report", None), check("calibrate", True)])

    assert counts == {"accepted": 1, "arithmetic": 0, "calibrated": 1, "reported": 1, "failed": 1}
