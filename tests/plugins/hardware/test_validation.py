import copy
from pathlib import Path

import pytest
from harness_plugins.hardware import _validation
from harness_plugins.hardware._rtl import cases as _rtl
from harness_plugins.hardware._validation import CAVEAT, DEFAULT_TARGETS, checks
from harness_plugins.hardware._validation.layers import macs, resnet50, vgg16
from ruamel.yaml import YAML

from harness.api import SpecError


def content():
    return YAML(typ="safe", pure=True).load(DEFAULT_TARGETS.read_text(encoding="utf-8"))


def written(tmp_path, data):
    path = tmp_path / "targets.yaml"
    with path.open("w", encoding="utf-8") as stream:
        YAML(typ="safe", pure=True).dump(data, stream)
    return path


def only(data, *rules):
    """The same file with some of its rules."""
    data["gates"]["rules"] = [rule for rule in data["gates"]["rules"] if rule["id"] in rules]
    return data


def scaled(data, place, factor):
    """The same file with one figure multiplied; a place reads `bbs.latency_us.value` or `eie.layers.rows[0].rows`."""
    data = copy.deepcopy(data)
    accelerator, name, *rest = place.split(".")
    group = next(entry for entry in data["accelerators"] if entry["id"] == accelerator)[name]
    if rest[0].startswith("rows["):
        row, column = group["rows"][int(rest[0][5:-1])], group["columns"].index(rest[1])
        row[column] *= factor
    else:
        group[rest[0]] *= factor
    return data


@pytest.fixture(scope="module")
def found():
    """All checks but those that need a simulator of Verilog, which have a test of their own."""
    known = {rule: run for rule, run in _validation.EVALUATIONS.items() if not rule.startswith("rtl_")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_validation, "EVALUATIONS", known)
        return [check for check in checks() if not check.id.startswith("rtl_")]


def of(found, rule):
    return [check for check in found if check.id == rule]


def test_every_gate_holds(found):
    gates = [check for check in found if check.kind != "report"]

    assert gates and all(check.passed for check in gates), [check for check in gates if not check.passed]


def test_reports_have_no_gate(found):
    assert all(check.passed is None and not check.gate for check in found if check.kind == "report")


def test_every_rule_of_the_file_is_there(found):
    ids = [rule["id"] for rule in content()["gates"]["rules"]]

    assert [rule for rule in ids if not rule.startswith("rtl_")] == list(dict.fromkeys(check.id for check in found))


def test_networks_are_the_published_ones():
    assert (len(vgg16()), len(resnet50())) == (16, 54)
    assert macs(vgg16()) == pytest.approx(15.47e9, rel=1e-3)
    assert macs(resnet50()) == pytest.approx(4.09e9, rel=1e-3)


def test_mcbbs_is_predicted_from_one_overhead_per_layer(found):
    errors = {check.what.split(",")[0]: check.error for check in of(found, "mcbbs")}
    overheads = {check.parameters["t_layer_us"] for check in of(found, "mcbbs")}

    assert errors == pytest.approx(
        {"vgg16 C1R4P16": 0.029, "vgg16 C2R4P8": -0.027, "resnet50 C2R4P8": -0.043}, abs=5e-4
    )
    assert list(overheads) == [pytest.approx(44.2, abs=0.1)]


def test_hisparse_predicts_the_four_middle_points(found):
    errors = [check.error for check in of(found, "hisparse")]

    assert errors == pytest.approx([0.074, 0.096, 0.004, -0.002], abs=3e-3)


def test_one_density_gives_both_penalties_of_tap_banking(found):
    penalties = [check.modelled for check in of(found, "tap_banking")]
    densities = {check.parameters["density"] for check in of(found, "tap_banking")}

    assert penalties == pytest.approx([1.173, 1.344], abs=6e-3)
    assert len(densities) == 1 and densities.pop() == pytest.approx(0.2, abs=0.01)


def test_brainwave_leaves_out_the_calibration_and_the_row_of_one_step(found):
    assert len(of(found, "brainwave_floor")) == 8


def test_calibrations_and_fits_name_their_parameters(found):
    fitted = [check for check in found if check.kind == "calibrate" or check.id in ("mcbbs", "hisparse")]

    assert fitted and all(check.parameters for check in fitted)


def test_ese_and_bbs_are_reported_with_and_without_the_declared_overhead(found):
    ese, bbs = of(found, "ese_real"), of(found, "bbs_latency")

    assert ese[0].error == pytest.approx(-0.28, abs=0.02) and ese[1].parameters["weight_stream_gbytes_per_s"] > 8
    assert [check.published / check.modelled for check in bbs[::2]] == pytest.approx([2.4, 4.8], abs=0.05)
    assert all(check.parameters["t_serial_us"] > 1 for check in bbs[1::2])


def test_eie_is_close_on_average(found):
    rows = of(found, "eie_nine")

    assert len(rows) == 9
    assert sum(abs(check.error) for check in rows) / 9 < 0.10
    assert max(abs(check.error) for check in rows) < 0.25
    assert abs(of(found, "eie_alexnet")[0].error) < 0.10


def test_the_page_tells_the_errors_of_single_layers_too(found):
    errors = [100 * check.error for check in of(found, "eie_nine")]
    page = (Path(__file__).parents[3] / "docs" / "hardware-models.md").read_text()

    mean = sum(abs(error) for error in errors) / len(errors)
    assert f"| {min(errors):+.1f} to {max(errors):+.1f} %, {mean:.1f} % on average |" in page


def test_only_what_was_read_counts_as_published(found):
    assert not any(check.is_published for check in of(found, "eie_nine") + of(found, "bbs_latency"))
    assert all(check.is_published for check in of(found, "mcbbs") + of(found, "hisparse"))


def test_what_a_secondary_source_says_is_marked(found):
    assert "as quoted by somebody else" in of(found, "ese_real")[0].source


def test_the_caveat_says_that_nothing_validates_lstm_latency_on_banks():
    assert "No external figure validates the latency of an LSTM on the bank engine" in CAVEAT


def gated_places():
    """Every figure of the file that a gate compares with, found by the checks themselves."""
    return (
        "ese.ideal_us.value",
        "mcbbs.c1r4p16.vgg16_fc_conv_ms",
        "mcbbs.c2r4p8.vgg16_fc_conv_ms",
        "mcbbs.c2r4p8.resnet50_fc_conv_ms",
        *(f"hisparse.points.rows[{row}].gops" for row in (1, 2, 3, 4)),
        "tap_banking.penalty.t4",
        "tap_banking.penalty.t8",
        *(f"brainwave.deepbench.rows[{row}].us_per_step" for row in (0, 1, 2, 3, 6, 7, 9, 10)),
        *(f"alkaid.circuits.rows[{row}].adder_bits" for row in range(7)),
    )


def test_the_list_of_gated_figures_is_complete(found):
    assert {check.place for check in found if check.passed is not None and check.place} == set(gated_places())


FITTED = (
    "mcbbs.c1r4p16.resnet50_fc_conv_ms",
    "hisparse.points.rows[0].gops",
    "hisparse.points.rows[5].gops",
    "brainwave.deepbench.rows[4].us_per_step",
    "brainwave.deepbench.rows[8].us_per_step",
)
"""Figures that a gate is fitted on."""

RULES = {"ese": "ese_ideal", "mcbbs": "mcbbs", "hisparse": "hisparse", "tap_banking": "tap_banking",
         "brainwave": "brainwave_floor", "alkaid": "unrolled_adders"}  # fmt: skip


@pytest.mark.parametrize("place", [*gated_places(), *FITTED])
def test_a_gated_figure_times_one_and_a_half_fails(tmp_path, place):
    data = only(scaled(content(), place, 1.5), RULES[place.split(".")[0]])

    assert any(check.passed is False for check in checks(written(tmp_path, data)))


def test_a_rule_that_nobody_knows_fails(tmp_path):
    data = only(content(), "ese_ideal")
    data["gates"]["rules"].append({"id": "warp_drive", "kind": "report", "target": "speed", "tolerance": "none"})
    unknown = checks(written(tmp_path, data))[-1]

    assert unknown.passed is False
    assert unknown.note == "not evaluated: nothing here knows the rule 'warp_drive'"


def test_a_rule_without_rows_fails(tmp_path):
    data = only(content(), "hisparse")
    table = next(entry for entry in data["accelerators"] if entry["id"] == "hisparse")["points"]
    table["rows"] = [table["rows"][0], table["rows"][-1]]
    (check,) = checks(written(tmp_path, data))

    assert check.passed is False and "no row" in check.note


def test_figures_that_no_model_takes_fail_with_the_reason(tmp_path):
    data = only(scaled(content(), "hisparse.points.rows[5].sparsity", 1.5), "hisparse")
    (check,) = checks(written(tmp_path, data))

    assert check.passed is False
    assert "hisparse.points.rows[5].sparsity must be a fraction below 1, got 1.425" in check.note


def test_a_report_turned_into_a_gate_is_a_gate(tmp_path):
    data = only(content(), "spartus")
    rule(data).update(kind="accept", tolerance=0.1)
    (check,) = checks(written(tmp_path, data))

    assert check.passed is False and check.gate == "within 10 %"


def rule(data):
    return data["gates"]["rules"][0]


def broken(change):
    data = only(content(), "ese_ideal", "hisparse")
    change(data, {entry["id"]: entry for entry in data["accelerators"]})
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data, by: data.update(version=2), "expected 1 at version, got 2; write `version: 1`"),
        (lambda data, by: data.pop("gates"), "expected a list with at least one entry at gates.rules, got nothing"),
        (lambda data, by: data.update(accelerators={}), "at accelerators, got {}"),
        (lambda data, by: by["ese"].pop("nnz"), "expected a figure at accelerators.ese.nnz, got nothing"),
        (lambda data, by: by["ese"]["nnz"].update(value="many"), "0 at accelerators.ese.nnz.value, got 'many'"),
        (lambda data, by: by["ese"]["nnz"].update(value=0), "number above 0 at accelerators.ese.nnz.value, got 0"),
        (lambda data, by: by["ese"]["nnz"].update(value=True), "0 at accelerators.ese.nnz.value, got True"),
        (lambda data, by: by["ese"]["nnz"].update(origin="heard"), "at accelerators.ese.nnz.origin, got 'heard'"),
        (lambda data, by: by["ese"].update(id="else"), "expected an entry 'ese' at accelerators, got 'else, "),
        (lambda data, by: by["ese"].update(id="bbs"), "expected a name of its own at accelerators[1].id, got 'bbs'"),
        (lambda data, by: by["hisparse"]["points"].update(rows=[[1]]), "2 values, sparsity, gops, at hisparse.points"),
        (lambda data, by: by["hisparse"]["points"].pop("columns"), "`columns` and at least one of `rows` at hisparse"),
        (lambda data, by: rule(data).update(kind="maybe"), "at gates.rules.ese_ideal.kind, got 'maybe'"),
        (lambda data, by: rule(data).update(tolerance="tight"), "at gates.rules.ese_ideal.tolerance, got 'tight'"),
        (lambda data, by: data["gates"]["rules"].append("x"), "mapping with an `id` at gates.rules[2], got 'x'"),
        (lambda data, by: data.update(sources=["a"]), "expected a mapping of names to texts at sources"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_the_place_and_the_way_out(tmp_path, change, message):
    path = written(tmp_path, broken(change))

    with pytest.raises(SpecError) as error:
        checks(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value) and ";" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: [1", "expected YAML, got expected ',' or ']'"),
        (b"- 1", "got list"),
        (b"\xff\xfe\xff", "as UTF-16-LE text, got another byte"),
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_refused(tmp_path, text, message):
    path = tmp_path / "targets.yaml"
    path.write_bytes(text)

    with pytest.raises(SpecError, match=r"targets\.yaml") as error:
        checks(path)
    assert message in str(error.value)


def test_a_missing_file_is_refused():
    with pytest.raises(SpecError, match=r"got no such file; check the path"):
        checks(Path("nowhere.yaml"))


def test_both_rules_of_our_own_verilog_hold_on_the_recorded_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(_rtl, "find_simulator", lambda: None)
    bank, column = checks(written(tmp_path, only(content(), "rtl_bank", "rtl_column")))

    assert (bank.model, column.model) == ("bank", "column_fifo")
    assert bank.passed and column.passed and bank.modelled == column.modelled == 0
    assert "as recorded" in bank.source


@pytest.mark.parametrize(("deviation", "wrong"), [(1, 0), (0, 1)])
def test_verilog_that_departs_from_the_model_fails(tmp_path, monkeypatch, deviation, wrong):
    answer = _rtl.RtlCheck("bank", 3, 7, "7", deviation, wrong, is_live=True, simulator="none")
    monkeypatch.setattr(_rtl, "rtl_bank_check", lambda: answer)
    (check,) = checks(written(tmp_path, only(content(), "rtl_bank")))

    assert check.passed is False and check.gate == "0 cycles beyond one constant, 0 wrong products"


def test_adders_of_circuits_are_those_of_a_solver_made_for_them(found):
    errors = [check.error for check in of(found, "unrolled_adders")]

    assert len(errors) == 7 and max(map(abs, errors)) < 0.1
    assert all("; 0 wrong sums" in check.note for check in of(found, "unrolled_adders"))


def test_events_are_a_small_part_of_a_board_and_the_rest_of_one_board_is_about_that_of_the_other(found):
    ese, hisparse, foretold = of(found, "board_power")

    assert 0 < ese.modelled < 0.2 * ese.published and 0 < hisparse.modelled < 0.2 * hisparse.published
    assert foretold.modelled == pytest.approx(hisparse.modelled + ese.published - ese.modelled)
    assert foretold.error == pytest.approx(-0.094, abs=0.01)
