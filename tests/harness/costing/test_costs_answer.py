"""The first line of `hardware cost`, and which engine it names."""

from harness.api import Cost
from harness.costing.cost_tables import _rams, cost_document, first_page
from harness.costing.costs import Report, Row, fastest


def row(engine, cycles, *, fits=True, can_run=True, **details):
    cost = Cost(
        cycles=cycles, latency_us=cycles / 100, clock_mhz=100, dense_cycles=900, dense_latency_us=9, speedup=9.0,
        gops=1, effective_gops=1, utilisation=1, multipliers=1, dsp=1, ram_blocks=1, ram_kind="m20k", fits=fits,
        can_run=can_run, resident=fits, bound_by="compute", exact=True, shape="pes=2", details=details,
    )  # fmt: skip
    return Row("model", engine, cost)


def first_line(*rows):
    return cost_document(Report(rows, ())).sections[0].sentences[0]


def test_a_design_that_fits_beats_a_faster_one_that_streams_and_that_beats_one_that_cannot_be_built():
    fits, streams, broken = row("a", 30), row("b", 20, fits=False), row("c", 10, fits=False, can_run=False)

    assert fastest([broken, streams, fits]) is fits
    assert fastest([broken, streams]) is streams


def test_the_answer_names_engine_shape_cycles_and_what_would_be_faster_streamed():
    line = first_line(row("a", 30), row("b", 20, fits=False))

    assert line.startswith("best: a pes=2, 30 cycles, 0.300 µs, all weights on chip; bound by compute")
    assert line.endswith("with weights streamed, b would take 0.200 µs")


def test_an_answer_that_streams_or_cannot_be_built_says_so():
    assert "with weights streamed that do not fit" in first_line(row("b", 20, fits=False))
    assert "does not fit the device" in first_line(row("c", 10, fits=False, can_run=False))


def test_ram_blocks_of_two_kinds_are_told_apart_and_never_summed():
    two = row("a", 30, ram={"bram_18k": {"weights": 7, "vector": 2}, "uram": {"weights": 4}, "distributed": {}})

    text = _rams(two.cost)

    assert text == "9 bram_18k + 4 uram"


def test_a_long_list_in_a_note_is_cut_on_the_first_page_and_whole_in_full():
    names = [f"features.{index}.bias (2, {index})" for index in range(40)]
    note = f"taken as (outputs, inputs): {', '.join(names)}; if they are not, say layout rows_in"
    made = Report((row("a", 30),), (), notes=(note,))
    first, full = (document.sections[-1].sentences for document in (first_page(made), cost_document(made)))

    assert first[0].startswith("note: taken as (outputs, inputs): features.0.bias (2, 0), features.1.bias (2, 1)")
    assert first[0].endswith(" more; if they are not, say layout rows_in") and "features.39" not in first[0]
    assert full == (f"note: {note}",)
