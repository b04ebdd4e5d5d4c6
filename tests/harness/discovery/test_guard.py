"""What goes wrong inside a plugin is a sentence: whose, what, where; and a failed cell, never the end of a run."""

import json
import re

import numpy as np
import pytest
from broken_plugins import Costless, Divides, Exits, Fickle, Lists, NotANumber, Nothing, Scored, Shouts
from pydantic import ValidationError
from toy import FineTuning, experiment

from harness.api import Cost, Dense, Network, PluginContractError, Workload
from harness.discovery.asking import cost_of
from harness.discovery.guard import calling, is_foreign
from harness.execution.costs import computed
from harness.execution.run import run
from harness.planning.plan import make_plan
from harness.user_files import import_file

COST = {
    "cycles": 1, "latency_us": 1.0, "clock_mhz": 1.0, "dense_cycles": 1, "dense_latency_us": 1.0, "speedup": 1.0,
    "gops": 1.0, "effective_gops": 1.0, "utilisation": 1.0, "multipliers": 1, "dsp": 1, "ram_blocks": 1,
    "ram_kind": "M20K", "fits": True, "bound_by": "compute",
}  # fmt: skip


def workload():
    network = Network(layers=(Dense(name="a", inputs=8, units=4, role="softmax", input_label="x"),), input_shape=(8,))
    return Workload(network, network.tensors()[:1], {})


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run in which every cell is broken in its own way; the records by what broke them."""
    scores = [Exits(), Lists(), NotANumber(), Divides(), Shouts()]
    strategies = [Scored(score=score, label=score.name) for score in scores]
    folder = tmp_path_factory.mktemp("store")
    by_score = run(experiment(strategies), store=folder, workers=1)
    by_pattern = run(experiment([FineTuning()], patterns=[Fickle(), Nothing()], name="patterns"), store=folder)
    json.loads((by_score.folder / "records.json").read_bytes())
    return {
        "baseline": by_score.records[0],
        **{record.strategy: record for record in by_score.records},
        **{record.pattern: record for record in by_pattern.records if record.pattern},
    }


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("exits", r"score exits exited \(SystemExit: enough\) in scores \(broken_plugins\.py:\d+\); mend the plugin"),
        ("lists", r"score lists: expected floating-point numbers of shape \(3, 20\) for output\.kernel, one per "
                  r"weight, got list \(broken_plugins\.py:\d+\); mend the plugin"),
        ("not_a_number", r"score not_a_number: expected finite scores .*, got 60 NaN or infinite of 60 .*"),
        ("divides", r"score divides raised ZeroDivisionError: .* in scores \(broken_plugins\.py:\d+\); mend .*"),
        ("fickle", r"pattern fickle: expected the same mask for the same scores, got another one of output\.kernel "
                   r"when it was asked a second time \(broken_plugins\.py:\d+\); mend the plugin"),
        ("nothing", r"pattern nothing: expected a bool mask .*|pattern nothing: .*NoneType.*"),
    ],
)  # fmt: skip
def test_each_fault_of_a_plugin_has_its_own_true_sentence(broken, what, sentence):
    record = broken[what]

    assert record.status == "failed"
    assert re.fullmatch(sentence, record.reason), record.reason


def test_a_text_of_others_is_cleaned_and_bounded(broken):
    reason = broken["shouts"].reason

    assert len(reason) < 3000 and "5,000,0" in reason
    assert reason.isprintable() and "\\x1b[31m[bold]\\ud800\\x00xxx" in reason


def test_a_dense_model_is_not_lost_with_the_broken_cells(broken):
    assert broken["baseline"].status == "ok"


def test_an_answer_that_is_no_cost_is_the_reason_of_a_missing_one():
    found = computed(Costless(), workload())

    assert re.fullmatch(
        r"hardware costless: expected a Cost, got NoneType \(broken_plugins\.py:\d+\); mend the plugin", found["reason"]
    )


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["latency_us", "speedup", "gops", "energy_uj"])
def test_a_cost_is_a_number_and_never_negative(field, value):
    with pytest.raises(ValidationError, match=field):
        Cost(**{**COST, field: value})


def test_a_cost_that_was_made_without_validation_is_found_out():
    class Sly(Costless):
        name = "sly"

        def cost(self, workload):
            return Cost.model_construct(**{**COST, "cycles": -5})

    with pytest.raises(PluginContractError, match=r"hardware sly.*cycles"):
        cost_of(Sly(), workload())


def test_a_lack_of_memory_is_nobodys_mistake():
    with pytest.raises(MemoryError), calling(Costless()):
        np.zeros(1)
        raise MemoryError


def test_what_a_backend_does_not_supply_skips_the_cell_with_that_reason(tmp_path):
    class Norms(Lists):
        name = "norms"
        needs = ("input_norms",)

    planned = make_plan(experiment([Scored(score=Norms())]), store=tmp_path)

    reasons = {cell.skip for cell in planned.cells if cell.skip}
    assert len(reasons) == 1
    assert "norms needs input norms, which" in reasons.pop()


def test_code_of_a_users_own_file_is_named_with_its_path_and_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_costs.py").write_text(
        "from harness.api import HardwareModel\n"
        "class Own(HardwareModel):\n"
        "    name = 'own'\n"
        "    def cost(self, workload):\n"
        "        return 1 // 0\n"
    )
    model = import_file(tmp_path / "own_costs.py").Own()

    with pytest.raises(PluginContractError) as raised:
        cost_of(model, workload())

    assert re.fullmatch(
        r"hardware own of own_costs\.py raised ZeroDivisionError: .* in cost \(own_costs\.py:5\); .*", str(raised.value)
    )
    assert is_foreign(raised.value.__cause__)
