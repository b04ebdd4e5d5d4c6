"""Hardware costs that are kept between runs, and never beyond what decides them."""

from dataclasses import replace
from shutil import copytree
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from toy import experiment

from harness.api import Axis, Cost, HardwareModel, NativeModel, Place, SpecError, Tensor
from harness.execution.collect import Collector
from harness.execution.costs import Costs, model_digest, workload_digest
from harness.execution.run import run
from harness.planning import model_digest as model_digests
from harness.planning.plan import make_plan
from harness.planning.stages import digest
from harness.planning.workloads import workload_of
from harness.store import Store


class Counting(HardwareModel):
    """Costs as many cycles as weights are kept, and counts how often it was asked."""

    name: ClassVar[str] = "counting"
    asked: ClassVar[int] = 0
    device: str = "any"

    def cost(self, workload):
        Counting.asked += 1
        if self.device == "none":
            raise SpecError("counting: no device")
        kept = sum(int(np.count_nonzero(mask)) for mask in workload.masks.values())
        times = {"cycles": kept, "latency_us": 1.0, "clock_mhz": 1.0, "dense_cycles": 60, "dense_latency_us": 1.0}
        rates = {"speedup": 1.0, "gops": 1.0, "effective_gops": 1.0, "utilisation": 1.0}
        size = {"multipliers": 1, "dsp": 1, "ram_blocks": 1, "ram_kind": "M20K", "fits": True, "bound_by": "compute"}
        return Cost(engine="counting", **times, **rates, **size)


class Summing(Counting):
    """Costs what the finished weights add up to, as far as it is told them."""

    name: ClassVar[str] = "summing"

    def reads_weights(self):
        return True

    def cost(self, workload):
        told = sum(float(np.abs(weights).sum()) for weights in workload.weights.values())
        return super().cost(workload).model_copy(update={"details": {"told": told}})


@pytest.fixture(autouse=True)
def unasked():
    Counting.asked = 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    run(experiment(), store=store, workers=1)
    return store


def with_hardware(*models):
    return replace(experiment(), hardware=models)


def test_equal_masks_are_costed_once_also_across_runs(trained):
    first = run(with_hardware(Counting()), store=trained, workers=1)
    asked = Counting.asked
    second = run(with_hardware(Counting()), store=trained, workers=1)

    assert asked == Counting.asked == 2
    assert [record.hardware for record in first.records] == [record.hardware for record in second.records]
    assert second.records[1].hardware["counting"]["cycles"] == 30


def test_a_model_that_asks_for_weights_is_told_the_finished_ones_and_others_share_masks(trained):
    found = run(with_hardware(Counting(), Summing()), store=trained, workers=1)
    told = [record.hardware["summing"]["details"]["told"] for record in found.records]
    store = Store(trained)
    states = [store.state(store.read(record.stage)).weights for record in found.records]
    names = [list(store.masks(store.read(record.stage))) for record in found.records]

    # Of the dense cell the same matrices are told.
    wanted = [sum(float(np.abs(state[name]).sum()) for name in names[1]) for state in states]
    assert told == pytest.approx(wanted)
    assert told[1] > 0


def test_without_a_kept_state_it_is_told_none_and_that_is_another_cost(trained, tmp_path):
    kept = run(with_hardware(Summing()), store=trained, workers=1)
    copied = tmp_path / "copy"
    copytree(trained, copied)
    for state in copied.rglob("state.safetensors"):
        state.unlink()
    bare = run(with_hardware(Summing()), store=copied, workers=1)

    assert kept.records[1].hardware["summing"]["details"]["told"] > 0
    assert bare.records[1].hardware["summing"]["details"]["told"] == 0


def test_a_refusal_is_kept_too(trained):
    refused = [run(with_hardware(Counting(device="none")), store=trained, workers=1).records for _ in range(2)]

    assert Counting.asked == 2
    assert refused[0][1].hardware == refused[1][1].hardware
    assert refused[0][1].hardware["counting(device=none)"]["reason"] == "counting: no device"


def test_a_damaged_file_is_costed_anew(trained):
    records = run(with_hardware(Counting(device="x")), store=trained, workers=1).records
    for path in (trained / "costs").rglob("*.json"):
        path.write_text(path.read_text().replace('"cycles": 30', '"cycles": 31'))
    again = run(with_hardware(Counting(device="x")), store=trained, workers=1).records

    assert Counting.asked > 2
    assert again[1].hardware == records[1].hardware


def test_parameters_and_the_files_that_they_name_decide(tmp_path):
    device = tmp_path / "device.yaml"
    device.write_text("dsp: 1\n")
    before = model_digest(Counting(device=str(device)))
    again = model_digest(Counting(device=str(device)))
    device.write_text("dsp: 2\n")

    assert before == again
    assert model_digest(Counting(device=str(device))) != before
    assert model_digest(Counting()) != model_digest(Counting(device="b"))


def test_the_code_and_data_of_its_package_decide(monkeypatch):
    before = model_digest(Counting())
    monkeypatch.setattr(model_digests, "package_digest", lambda name: f"{name}, edited")

    assert model_digest(Counting()) != before


def test_a_package_is_all_its_code_and_data(tmp_path, monkeypatch):
    package = tmp_path / "costly"
    package.mkdir()
    for name in ("__init__.py", "helper.py", "devices.yaml"):
        (package / name).write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for name in ("helper.py", "devices.yaml", "notes.txt"):
        model_digests.package_digest.cache_clear()
        found.append(model_digests.package_digest("costly"))
        (package / name).write_text("# edited")
    model_digests.package_digest.cache_clear()
    found.append(model_digests.package_digest("costly"))

    assert len(set(found[:3])) == 3
    assert found[2] == found[3]


def test_costing_takes_no_more_time_than_it_is_given(trained, tmp_path):
    plan = make_plan(with_hardware(Counting(device="slow")), store=trained)
    collector = Collector(plan, finished=dict(plan.cached))
    early = collector.records(within=0.0)
    waiting, asked = collector.to_cost(0.0), Counting.asked
    late = collector.records()

    assert (asked, collector.to_cost(0.0)) == (0, 0)
    assert waiting == sum("not costed yet" in str(record.hardware) for record in early) > 0
    assert "not costed yet" in early[1].hardware["counting(device=slow)"]["reason"]
    assert late[1].hardware["counting(device=slow)"]["cycles"] == 30
    assert early[1].value == late[1].value


def test_costs_of_a_store_that_cannot_be_written_are_costs(tmp_path):
    (tmp_path / "costs").write_text("in the way")
    found = Costs(Store(tmp_path)).of(None, "ab12", Counting(device="none"), compute=True)

    assert found["reason"] == "counting: no device"


def test_steps_that_were_traced_are_told_and_are_another_cost():
    row = Axis(label="rnn.units", size=16, repeat=4, order="blocks")
    tensor = Tensor(name="w", layer="rnn", role="lstm", rows=row, cols=Axis(label="x", size=4))
    place = Place(tensor="w", parameter="w")

    def told(**steps):
        network = NativeModel(framework="torch", trained=(tensor,), places=(place,), steps=steps)
        workload = workload_of(None, SimpleNamespace(network=network), (tensor,), {}, {})
        return workload.steps, workload_digest(workload, digest(network.model_dump(mode="json")), "dense")

    assert told(rnn=20)[0] == {"rnn": 20}
    assert told(rnn=None)[0] == told()[0] == {}
    assert told(rnn=None)[1] == told()[1]
    assert len({told(rnn=20)[1], told(rnn=10)[1], told()[1]}) == 3
