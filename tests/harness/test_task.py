"""Evaluations: what is stored of them."""

import hashlib
import json

import pytest
from pydantic import ValidationError

from harness.api import Evaluation
from harness.store import StageRecord, Store

KEY = "ab" + 30 * "0"


def test_an_evaluation_without_densities_is_stored_as_before_there_were_any():
    assert Evaluation(nats=1.5, items=3).model_dump(mode="json") == {"nats": 1.5, "items": 3, "correct": None}


def test_a_stage_stored_before_there_were_densities_is_still_whole(tmp_path):
    store = Store(tmp_path)
    record = StageRecord(key=KEY, parent=None, kind="test", inputs={}, test=Evaluation(nats=1.5, items=3))
    content = json.loads(record.model_dump_json())
    del content["processor_seconds"]  # which nobody measured then
    content["test"] = {"nats": 1.5, "items": 3, "correct": None}
    content["checksum"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    store.stage_folder(KEY).mkdir(parents=True)
    (store.stage_folder(KEY) / "stage.json").write_text(json.dumps(content))

    assert store.read(KEY).test.activation_density == {}


def test_densities_come_back_from_the_store_as_they_were(tmp_path):
    store = Store(tmp_path)
    test = Evaluation(nats=1.5, items=3, activation_density={"conv_0": 1 / 3, "softmax": 1.0})
    store.write(StageRecord(key=KEY, parent=None, kind="test", inputs={}, test=test), None)

    assert store.read(KEY).test == test


@pytest.mark.parametrize("density", [-0.1, 1.1, float("nan")])
def test_a_density_is_a_fraction(density):
    with pytest.raises(ValidationError):
        Evaluation(nats=1.5, items=3, activation_density={"conv_0": density})
