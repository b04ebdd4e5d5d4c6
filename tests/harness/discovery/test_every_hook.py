"""Whatever a plugin of any kind does wrong in any of its methods: its own cell has failed, and all others have not."""

import re
from dataclasses import replace

import pytest
import saboteurs
from saboteurs import (
    HOW,
    SaboteurBackend,
    SaboteurHardware,
    SaboteurPattern,
    SaboteurScope,
    SaboteurStrategy,
    SaboteurTask,
)
from toy import experiment

from harness.api import PluginContractError
from harness.discovery.asking import circuit_of, designs_of, simulated_by, variants_of
from harness.execution.run import run

PROBLEM = ("network", "recipe", "metric", "fingerprint", "facts", "tensors", "initial_weights", "batches", "value")
PATTERN = ("frame", "mask", "for_tensor", "reachable", "banks_per_row", "why_not", "why_not_scope")
SESSION = (
    "load",
    "state",
    "weights",
    "masks",
    "set_masks",
    "gradients",
    "measured",
    "train_epoch",
    "evaluate",
    "close",
)
COSTING = ("cost", "group", "number_format", "reads_weights")
MADE_OF = ("lr.at", "schedule.updates", "score.scores", "score.measurements")
METHODS = {
    "task": ("load", *PROBLEM),
    "pattern": (*PATTERN, "masks"),
    "strategy": ("program", "hyper_parameters", *MADE_OF),
    "backend": (
        "why_unavailable", "versions", "why_not", "arithmetic", "open", *(f"session.{name}" for name in SESSION),
    ),
}  # fmt: skip
FAULTS = [f"{kind} {method}:{how}" for kind, methods in METHODS.items() for method in methods for how in HOW]

ALLOWED = {
    # None is the answer of a plugin that has nothing to say, and nobody looks at what `close` gives back.
    *(f"pattern {method}:none" for method in ("banks_per_row", "why_not", "why_not_scope")),
    *(f"backend {method}:none" for method in ("why_unavailable", "why_not")),
    *(f"backend session.close:{how}" for how in HOW),
}


def cell_of(dense, fault):
    """A cell with one faulty part; what is not at fault is the same in all cells."""
    kind, _, rest = fault.partition(" ")
    task = SaboteurTask(fault=rest if kind == "task" else "")
    backend = SaboteurBackend(fault=rest if kind == "backend" else "")
    whole = rest.startswith("masks:")
    pattern = (SaboteurScope if whole else SaboteurPattern)(fault=rest if kind == "pattern" else "")
    strategy = SaboteurStrategy(
        fault=rest if kind == "strategy" else "", needs_gradients="gradients:" in rest or "measured:" in rest
    )
    return replace(
        dense, task=task, backend=backend, pattern=pattern, strategy=strategy, sparsity=0.5, allocation="uniform"
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """One run of them all, with a sound cell at either end; by fault."""
    plain = experiment(name="sabotage", task=SaboteurTask())
    faults = ["sound ", *FAULTS, "last "]
    cells = [cell_of(plain.cells[0], fault) for fault in faults]
    cells[-1] = replace(cells[-1], seed=1)
    found = run(replace(plain, cells=tuple(cells)), store=tmp_path_factory.mktemp("store"), workers=1).records
    return dict(zip(faults, found, strict=True))


def test_cells_whose_plugins_are_sound_have_results(records):
    assert [records[name].status for name in ("sound ", "last ")] == ["ok", "ok"]


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ALLOWED])
def test_a_fault_in_any_method_fails_its_cell_and_is_told_with_its_place(records, fault):
    record = records[fault]
    kind = fault.partition(" ")[0]
    named = "score saboteur_score" if "score." in fault else rf"{kind} saboteur_\w+"
    if fault.startswith("task batches:") and not fault.endswith(("raises", "exits")):
        named = r"(task|backend) saboteur_\w+"  # it is the backend's loop that stumbles over them

    if record.status == "diverged":  # a loss that is not a number needs nobody's mending
        assert fault.endswith(":nan")
        return
    assert record.status == "failed", record.reason
    place = r"\((saboteurs|numpy_plugins)\.py:\d+\)"
    assert re.search(rf"{named}.*{place}.*; (mend the plugin|see docs)", record.reason), record.reason
    assert record.value is None


@pytest.mark.parametrize("fault", sorted(ALLOWED))
def test_what_a_contract_allows_is_no_fault(records, fault):
    assert records[fault].status == "ok", records[fault].reason


# --- hardware ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    faults = [f"{method}:{how}" for method in COSTING for how in HOW]
    models = (SaboteurHardware(), *(SaboteurHardware(fault=fault) for fault in faults))
    grid = replace(experiment(name="costs"), hardware=models)
    (record, *_) = run(grid, store=tmp_path_factory.mktemp("store"), workers=1).records
    return record


@pytest.mark.parametrize(
    ("method", "how"),
    [(m, how) for m in COSTING for how in HOW if (m, how) != ("number_format", "none")],
)
def test_a_faulty_hardware_model_has_a_reason_where_others_have_costs(costs, method, how):
    reason = costs.hardware[f"saboteur_hardware(fault={method}:{how})"]["reason"]

    assert re.search(r"hardware saboteur_hardware.*\(saboteurs\.py:\d+\); mend the plugin", reason)
    assert costs.status == "ok" and costs.hardware["saboteur_hardware"]["cycles"] == 1


@pytest.mark.parametrize("how", HOW)
def test_variants_that_are_none_are_refused(how):
    with pytest.raises(PluginContractError, match=r"hardware saboteur_hardware.*\(saboteurs\.py:\d+\); mend"):
        variants_of(SaboteurHardware(fault=f"variants:{how}"), ())


@pytest.mark.parametrize("how", HOW)
def test_designs_that_are_none_are_refused(how):
    with pytest.raises(PluginContractError, match=r"hardware saboteur_hardware.*\(saboteurs\.py:\d+\); mend"):
        designs_of(SaboteurHardware(fault=f"designs:{how}"), None)


@pytest.mark.parametrize("how", HOW)
def test_circuits_that_are_none_are_refused(how):
    with pytest.raises(PluginContractError, match=r"hardware saboteur_hardware.*\(saboteurs\.py:\d+\); mend"):
        circuit_of(SaboteurHardware(fault=f"circuit:{how}"), None, None)


@pytest.mark.parametrize("how", [how for how in HOW if how != "none"])
def test_what_a_bench_found_is_refused_if_it_is_none(how, tmp_path):
    with pytest.raises(PluginContractError, match=r"hardware saboteur_hardware.*\(saboteurs\.py:\d+\); mend"):
        simulated_by(SaboteurHardware(fault=f"simulated:{how}"), tmp_path)


def test_every_method_of_every_kind_is_tried():
    """A hook that a contract gains later has to be thought of here."""
    from harness.api import Backend, HardwareModel, Pattern, Problem, Score, Session, Strategy, Task

    inherited = {"label", "parameters", "identity", "layout", "hyper_parameters"}
    tried = {method.split(".")[-1] for methods in METHODS.values() for method in methods} | inherited
    tried |= {*COSTING, "circuit", "designs", "simulated", "variants", "smoke", "effective_parameters"}
    # A worker calls these where nothing but its own stage can fail: for scores that solve, and for fixed point.
    tried |= {"set_weights", "operations"}
    classes = {"devices", "checks", "caveat"}  # of a class of hardware models; a backend's are asked in a process
    for contract in (Backend, HardwareModel, Pattern, Problem, Score, Session, Strategy, Task):
        own = {
            name for base in (contract,) for name, thing in vars(base).items()
            if not name.startswith(("_", "model_")) and (callable(thing) or isinstance(thing, property | classmethod))
        }  # fmt: skip
        assert own <= tried | classes, f"{contract.__name__}: {own - tried - classes}"
    assert saboteurs.HOW == HOW
