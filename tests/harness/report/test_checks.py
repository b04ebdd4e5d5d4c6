"""Named checks: each fires on a planted case and is silent on a clean one; what they are listed as."""

import json
from pathlib import Path

import pytest

from harness.report import render
from harness.report.answer import first_page
from harness.report.checks import CHECKS, beforehand, look, noted
from harness.report.rich import text
from harness.results.records import Finding, Record, read

DOCS = Path(__file__).parents[3] / "docs" / "checks.md"


def cost(**changes):
    details = {"weight_bits": 32, "validated_by": "somebody's", "parts": {"fill_drain": 5.0, "elementwise": 5.0}}
    details["hardware_class"] = "time-shared"
    return {"cycles": 100, "latency_us": 1.0, "fits": True, "engine": "bank", "details": details | changes}


def record(pattern="dense", strategy="dense", seed=0, **changes):
    """A sound cell; six seeds of it can be judged."""
    is_dense = pattern == "dense"
    fields = {
        "cell": f"{pattern} {strategy} {seed}",
        "task": "lm",
        "backend": "torch",
        "pattern": pattern,
        "strategy": strategy,
        "scope": ("all",),
        "target_sparsity": 0.0 if is_dense else 0.9,
        "sparsity": 0.0 if is_dense else 0.9,
        "model_sparsity": 0.0 if is_dense else 0.8,
        "tensor_sparsity": {} if is_dense else {"kernel": 0.9},
        "seed": seed,
        "metric": "perplexity",
        "value": 100.0 + 0.1 * seed + (0 if is_dense else 3),
        "valid_value": 104.0 + seed,
        "valid_history": (150.0, 110.0, 105.0, 104.5, 104.4, 104.3, 104.2, 104.1) if is_dense else (104.1, 104.0),
        "total_epochs": 8,
        "mask_updates": 0 if is_dense else 8,
        "gradual_updates": 0 if is_dense else 8,
        "start_rate": 1.0,
        "status": "ok",
        "hardware": {"fpga": cost()},
        "facts": {"published_dense_test_perplexity": 101.0, "without_a_model_perplexity": 700.0},
    }
    return Record(**(fields | changes))


def study(**changes):
    """A study that no check has anything to say of; `changes` are those of its pruned cells."""
    pruned = [
        record(pattern, strategy, seed, **changes)
        for pattern in ("unstructured", "banks")
        for strategy in ("gradual", "linear")
        for seed in range(6)
    ]
    return [record(seed=seed) for seed in range(6)] + pruned


def one(records, place, **changes):
    """The same with one record changed."""
    found = list(records)
    found[place] = found[place].model_copy(update=changes)
    return found


def turning(luts=1200):
    """A study on two classes of hardware: banks are ahead in cycles and behind in LUTs."""
    circuit = cost(hardware_class="unrolled")
    sizes = {"banks": (70, luts), "unstructured": (100, 1000)}
    return [
        r if r.is_dense else r.model_copy(
            update={
                "hardware": {
                    "shared": cost() | {"cycles": sizes[r.pattern][0]},
                    "circuit": circuit | {"lut": sizes[r.pattern][1]},
                }
            }
        )
        for r in study()
    ]  # fmt: skip


def dense(**changes):
    """The clean study with its dense cells changed."""
    return [r.model_copy(update=changes) if r.is_dense else r for r in study()]


PLANTED = {
    "SPN001": (dense(valid_history=(150.0, 140.0, 130.0, 120.0)), "130.00 to 120.00 in the last 1 epoch of 8"),
    "SPN002": (dense(value=104.0), "dense perplexity 104.00 against 101.00 as published"),
    "SPN003": (study(value=90.0), "4 of 4 pruned settings better the dense model"),
    "SPN004": (study(retrain_rate=0.001953125), "gradual retrains at a rate of 0.00195, 1/512 of the 1 it began with"),
    "SPN005": ([r.model_copy(update={"total_epochs": 13}) if r.strategy == "linear" else r for r in study()],
               "gradual has 8 epochs in all, linear 13"),
    "SPN006": (study(gradual_updates=1), "gradual makes 1 mask update in its training: hardly gradual"),
    "SPN007": ([r for r in study() if r.seed == 0], "one seed"),
    "SPN008": ([r for r in study() if r.seed < 5], "5 seeds: without assuming normal differences no test goes below"),
    "SPN009": ([r.model_copy(update={"sparsity": 0.86}) if r.pattern == "banks" else r for r in study()],
               "2 settings kept clearly more or fewer weights"),
    "SPN010": (study(model_sparsity=0.028), "90 % of all is 2.8 % of the model's weights"),
    "SPN011": (study(hardware={"fpga": cost(weight_bits=16)}), "a model with 16-bit weights, perplexity of float32"),
    "SPN012": (study(hardware={"fpga": cost(parts={"launch": 70.0, "compute": 30.0})}), "70 % of the cycles"),
    "SPN013": (study(tensor_sparsity={"kernel": 1.0}), "kernel has no weight left in 24 cells"),
    "SPN014": (study(hardware={"fpga": cost(validated_by="")}), "no external figure validates bank"),
    "SPN015": (one(study(), 7, facts={"not_reproduced": ["ab"]}), "1 cell gave other bytes"),
    "SPN016": (one(study(), 7, facts={"trusted_code": ["ab"]}), "1 cell rest on stages that older code computed"),
    "SPN017": (one(study(), 7, status="planned", value=None), "1 of 30 cells has not finished"),
    "SPN018": (one(study(), 7, status="diverged", value=None), "1 cell failed: 1 diverged"),
    "SPN019": (one(study(), 7, status="skipped", value=None), "1 cell skipped"),
    "SPN020": (study(hardware={"fpga": cost() | {"fits": False}}), "4 rows of hardware: no engine fits"),
    "SPN022": (turning(), "90 % banks takes 30 % fewer cycles on time-shared hardware than unstructured and 20 % more"),
    "SPN021": ([r.model_copy(update={"valid_value": r.value}) for r in study()], "agree to the last digit in 30 cells"),
}  # fmt: skip


@pytest.mark.parametrize("code", PLANTED)
def test_a_check_fires_on_a_planted_case(code):
    records, told = PLANTED[code]

    summary = look(records)

    [text] = [found.finding.text for found in summary.found if found.finding.code == code][:1]
    assert told in text
    assert code not in (*summary.passed, *summary.idle)


def test_every_check_has_a_planted_case():
    assert sorted(PLANTED) == sorted(check.code for check in CHECKS)


def test_every_check_is_silent_on_a_clean_study():
    summary = look(study(retrain_rate=0.5))

    assert [found.finding.text for found in summary.found] == []
    assert len(summary.passed) == len(CHECKS) and not summary.idle


@pytest.mark.parametrize(
    ("history", "fires"),
    [
        ((100.0,), True),
        ((), False),
        ((120.0, 100.0), True),
        ((101.0, 100.5), False),
        ((90.0, 100.0, 101.0, 99.0), False),
    ],
)
def test_a_dense_model_improves_if_its_last_quarter_does(history, fires):
    assert ("SPN001" in {each.finding.code for each in look(dense(valid_history=history)).found}) is fires


@pytest.mark.parametrize(("counting", "fires"), [(97.0, True), (9.5, False)])
def test_a_dense_model_has_to_beat_counting_in_the_direction_of_its_metric(counting, fires):
    """An accuracy of 98 is hardly better than that of the most frequent class with 97 %, and far better than 9.5 %."""
    facts = {"without_a_model_accuracy": counting}
    records = dense(metric="accuracy", better="higher", value=98.0, facts=facts)

    found = {each.finding.code for each in look([r for r in records if r.is_dense]).found}
    assert ("SPN002" in found) is fires


def test_rows_that_a_pattern_removes_on_purpose_are_no_dead_units():
    by_chance = study(facts={"empty_rows": {"kernel": 0.02}})
    on_purpose = study(facts={"empty_rows": {"kernel": 0.9}})

    assert "rows without a weight in 24 cells, up to 2.0 % of kernel" in " ".join(look(by_chance).lines())
    assert "SPN013" in look(on_purpose).passed


def test_worst_comes_first_and_notes_last():
    records = one(one(study(model_sparsity=0.01), 7, status="failed", value=None), 8, status="skipped", value=None)

    severities = [found.finding.severity for found in look(records).found]

    assert severities == sorted(severities, key=("error", "warning", "note").index)
    assert severities[0] == "error" and severities[-1] == "note"


def test_a_silenced_check_warns_no_more_and_is_listed():
    records = [r.model_copy(update={"ignore": ("SPN010",)}) for r in study(model_sparsity=0.028)]

    summary = look(records)

    assert not summary.found and [found.finding.code for found in summary.silenced] == ["SPN010"]
    assert "silenced by the experiment: SPN010" in render(records, format="md")


def test_records_say_which_warnings_they_are_of():
    records = noted(one(study(), 7, status="diverged", value=None))

    assert [finding.code for finding in records[7].checks] == ["SPN018"]
    assert not any(r.checks for place, r in enumerate(records) if place != 7)
    assert Record.model_validate_json(records[7].model_dump_json()) == records[7]


def test_what_the_check_of_a_plugin_found_is_taken_from_the_records():
    foreign = Finding(code="ACME001", severity="warning", title="t", text="the moon is full", remedy="wait")
    stale = Finding(code="SPN018", severity="error", title="t", text="from an earlier report", remedy="")
    records = one(study(), 7, checks=(foreign, stale))

    assert look(records).lines() == ["ACME001 the moon is full."]
    assert look(records).of(records[7].cell) == (foreign,)


def test_before_anything_ran_a_plan_tells_what_it_can():
    records = [
        r.model_copy(update={"status": "planned", "value": None, "sparsity": None, "hardware": {}})
        for r in study(gradual_updates=2, retrain_rate=0.001) if r.seed == 0
    ]  # fmt: skip

    assert {each.finding.code for each in beforehand(records).found} == {"SPN004", "SPN006", "SPN007"}


def test_the_page_of_checks_describes_every_one_with_its_title_weight_and_remedy():
    text = DOCS.read_text(encoding="utf-8")

    for check in CHECKS:
        [section] = [part for part in text.split("\n## ") if part.startswith(check.code)]
        assert section.startswith(f"{check.code}: {check.title}\n")
        assert f"**{check.severity}**" in section and check.remedy in " ".join(section.split())


def test_a_metric_in_the_numbers_of_the_hardware_needs_no_warning():
    scored = {"fpga": {"format": "w16 a16", "value": 103.0}}
    records = study(hardware={"fpga": cost(weight_bits=16) | {"model": "fpga"}}, fixed_point=scored)

    assert "SPN011" not in [found.finding.code for found in look(records).found]


@pytest.mark.parametrize(("luts", "fires"), [(1200, True), (1010, False), (900, False)])
def test_a_ranking_turns_only_where_a_pattern_is_clearly_ahead_here_and_behind_there(luts, fires):
    assert ("SPN022" in look(turning(luts)).notes()) is fires


def test_a_ranking_turns_also_in_records_that_are_read_without_details(tmp_path):
    path = tmp_path / "records.json"
    rows = [r.model_dump(mode="json") for r in turning()]
    path.write_text(json.dumps({"format": 1, "records": rows}))

    assert "SPN022" in look(read(path, details=False)).notes()


@pytest.mark.parametrize(("luts", "told"), [(1200, True), (900, False)])
def test_a_turn_between_arrays_and_circuits_is_part_of_the_answer(luts, told):
    """Who costs both asks how they differ: there it is an answer, elsewhere a note."""
    page = " ".join(text(first_page(turning(luts), title="r", margin=None), 80).split())

    assert ("The ranking turns with the class of hardware: at 90 % banks takes 30 % fewer cycles" in page) is told
    assert ("20 % more LUTs as an unrolled circuit" in page) is told


def test_a_turn_between_kinds_of_arrays_is_a_note_alone():
    both = [
        r if r.is_dense else r.model_copy(
            update={"hardware": {**r.hardware, "circuit": cost(hardware_class="systolic") | {"cycles": cycles}}}
        )
        for r, cycles in ((r, 200 if r.pattern == "banks" else 100) for r in turning())
    ]  # fmt: skip

    assert "SPN022" in look(both).notes()
    assert "The ranking turns" not in text(first_page(both, title="r", margin=None), 80)
