"""The tidy form: a row per cell and seed, the same in CSV, in a data frame and in a Parquet file."""

import csv
import math
from io import BytesIO, StringIO

import pandas  # noqa: TID253
from hypothesis import given, settings
from records_at_random import every_fate, runs
from typer.testing import CliRunner

from harness.cli import app
from harness.report import parquet, render
from harness.report.tables import tables
from harness.report.tidy import frame, rows
from harness.results.records import write


@given(runs())
@settings(max_examples=25, deadline=None)
def test_every_form_has_the_same_values(records):
    plain = rows(records)

    lines = list(csv.DictReader(StringIO(render(records, format="tidy"))))
    framed, stored = frame(records), pandas.read_parquet(BytesIO(parquet(records)))

    assert len(plain) == len(lines) == len(framed) == len(stored) == len(records)
    assert list(plain[0]) == list(lines[0]) == list(framed) == list(stored)
    for name in plain[0]:
        for place, row in enumerate(plain):
            value = row[name]
            if value is None:
                assert (
                    lines[place][name] == "" and pandas.isna(framed[name][place]) and pandas.isna(stored[name][place])
                )
            elif isinstance(value, bool):
                assert lines[place][name] == ("yes" if value else "no")
                assert framed[name][place] == stored[name][place] == value
            elif isinstance(value, int | float):
                assert float(lines[place][name]) == framed[name][place] == stored[name][place] == value
            else:
                assert lines[place][name] == framed[name][place] == stored[name][place] == value


@given(runs())
@settings(max_examples=25, deadline=None)
def test_a_mean_of_the_report_is_the_mean_of_its_cells(records):
    framed = frame(records)

    for table in tables(records):
        for row in table.rows:
            setting = row.setting
            own = framed[
                (framed["pattern"] == setting.pattern)
                & (framed["strategy"] == setting.strategy)
                & (framed["target sparsity [fraction]"] == setting.target_sparsity)
            ]["test perplexity"].dropna()
            assert (row.value is None) == own.empty
            assert row.value is None or math.isclose(row.value.mean, own.astype(float).mean(), rel_tol=1e-12)


def test_a_cell_without_a_result_is_a_row_with_its_status_and_reason():
    found = frame(every_fate()).set_index("status")

    assert {"failed", "diverged", "skipped", "planned", "oom"} <= set(found.index)
    assert found.loc["failed", "reason"] == "RuntimeError: out of luck"
    assert found.loc["failed", "test perplexity"] is None or math.isnan(found.loc["failed", "test perplexity"])
    assert "no such engine" in set(found["fpga_analytic reason"])


def test_a_score_in_the_numbers_of_hardware_and_what_was_built_have_columns():
    cost = {"shape": "pes=4", "multipliers": 64, "dsp": 32, "clock_mhz": 200.0, "cycles": 10, "fits": True}
    scored = {"sim": {"format": "w8 a8", "value": 91.5}, "other": {"format": "w4 a4", "reason": "no scale"}}
    records = [
        record.model_copy(update={"hardware": {"sim[bank]": cost}, "fixed_point": scored, "split": "test"})
        for record in every_fate()
        if record.is_done
    ]
    first = frame(records).iloc[0]

    assert first["sim test perplexity as w8 a8"] == 91.5
    assert not any(name.startswith("other ") for name in first.index)
    built = ["sim[bank] shape", "sim[bank] multipliers", "sim[bank] DSP blocks", "sim[bank] clock [MHz]"]
    assert first[built].tolist() == ["pes=4", 64.0, 32.0, 200.0]


def test_a_folder_in_the_place_of_a_parquet_file_is_told_and_left(tmp_path):
    write(tmp_path / "run" / "records.json", every_fate())
    (tmp_path / "out").mkdir()

    done = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "-f", "parquet", "-o", str(tmp_path / "out")])

    assert done.exit_code == 2 and "it is a folder" in " ".join(done.stderr.split())
    assert (tmp_path / "out").is_dir()
    unnamed = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "-f", "parquet"])
    assert unnamed.exit_code == 2 and "-o FILE" in unnamed.stderr
