"""The paragraph that says how to repeat a run, and its digests."""

from records_at_random import every_fate

from harness.report import render
from harness.report.methods import results_digest, section


def test_it_says_what_to_install_which_cells_and_seeds_and_that_costs_are_modelled():
    found = section(every_fate())

    [told] = found.sentences
    assert "21 cells were planned (3 dense baselines)" in told and "seeds 0, 1, 2" in told and "90 %" in told
    assert "costs modelled by fpga_analytic" in told
    facts = dict(found.facts)
    assert facts["install"] == "sparsity-harness 0.1.0 with torch 2.9.0"
    assert facts["run"] == "fates-1a2b3c" and facts["command"].startswith("harness run ")


def test_equal_results_have_one_digest_whatever_their_order_and_whether_they_were_cached():
    records = every_fate()
    again = [r.model_copy(update={"status": "cached"}) if r.status == "ok" else r for r in reversed(records)]
    other = [records[0].model_copy(update={"value": 1.0}), *records[1:]]

    assert results_digest(records) == results_digest(again) != results_digest(other)


def test_every_long_report_has_it():
    for format in ("rich", "md", "html", "latex"):
        assert results_digest(every_fate())[:16] in render(every_fate(), format=format)
