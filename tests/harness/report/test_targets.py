"""Patterns at equal targets, from hand-made records: each beside what it needs, and the reference there."""

import csv
from io import StringIO

from harness.report import render
from harness.report.answer import first_page
from harness.report.cells import section
from harness.report.rich import text
from harness.report.tables import tables
from harness.report.targets import brief, targets
from harness.results.records import Record, Stored

LATENCY, STORAGE = "latency_us 0.3 on card", "storage_kib 4 on 16-bit weights"


def record(pattern="dense", sparsity=0.0, seed=0, *, value=10.0, solved=(), reason="", latency=1.0, kib=8.0):
    facts = {"targets": [{"value": None, "dense": 1.0, **each} for each in solved]} if solved else {}
    done = {
        "status": "ok",
        "value": value + 0.1 * seed,
        "sparsity": sparsity,
        "hardware": {"card(engine=bank)": {"model": "card", "engine": "bank", "latency_us": latency, "cycles": 9}},
        "storage": {"16": Stored(bits=int(kib * 8192), dense_bits=10**6, tensors={})},
    }
    return Record(
        run="r", cell=f"{pattern}{sparsity}{seed}", task="t", backend="torch", pattern=pattern,
        strategy="dense" if pattern == "dense" else "fine_tuning", scope=("all",), target_sparsity=sparsity, seed=seed,
        metric="perplexity", better="lower", facts=facts,
        **({"status": "skipped", "reason": reason} if reason else done),
    )  # fmt: skip


def told(target, value, engine="bank"):
    return {"target": target, "value": value, **({"engine": engine} if engine else {})}


def records():
    both = [told(LATENCY, 0.3), told(STORAGE, 3.9, "")]
    miss = f"{LATENCY} cannot be reached by block: the nearest is 0.4 at sparsity 0.99"
    found = []
    for seed in (0, 1):
        found += [
            record(seed=seed),
            record("unstructured", 0.8, seed, value=11.0, solved=both[:1], latency=0.33),
            record("unstructured", 0.7, seed, value=10.5, solved=both[1:], kib=3.9),
            # One sparsity reaches both.
            record("bank_balanced", 0.6, seed, value=10.2 + 0.05 * seed, solved=both, latency=0.29, kib=4.0),
            record("block", 0.0, seed, solved=[{"target": LATENCY, "reason": miss}], reason=miss),
        ]
    return found


def rows():
    (table,) = tables(records())
    (section,) = targets(table)
    titles = [" ".join(column.title.split()) for column in section.grid.columns]
    return [dict(zip(titles, (cell.text for cell in row), strict=True)) for row in section.grid.rows], section


def test_every_pattern_stands_beside_the_reference_at_the_same_target():
    found, _ = rows()
    by_place = {(row["target"], row["pattern"]): row for row in found}

    assert by_place[LATENCY, "unstructured"]["counted"] == "0.33"
    assert by_place[LATENCY, "unstructured"]["foreseen"] == "0.3"
    banks = by_place[LATENCY, "bank_balanced"]
    assert (banks["sparsity %"], banks["counted"]) == ("60", "0.29")
    assert banks["to unstructured"].startswith("-0.7")  # 10.2 and 10.35 against 11.0 and 11.1
    assert by_place[STORAGE, "bank_balanced"]["to unstructured"].startswith("-0.2")
    assert by_place[STORAGE, "bank_balanced"]["counted"] == "4"


def test_a_target_that_is_missed_is_a_row_with_its_reason_and_takes_no_place_among_sparsities():
    found, section = rows()
    (missed,) = [row for row in found if row["pattern"] == "block"]

    assert missed["target"] == LATENCY
    assert missed["sparsity %"].startswith("–")
    assert any("the nearest is 0.4 at sparsity 0.99" in note for note in (*section.grid.notes, *section.grid.caption))
    first = render(records(), format="rich", title="run", margin=None)
    assert " 0 %" not in first


def test_records_without_targets_have_no_such_section():
    (table,) = tables([record(), record("unstructured", 0.5)])

    assert targets(table) == []


def screen(found):
    return text(first_page(found, title="run", margin=None), 80)


def opening():
    (table,) = tables(records())
    (section,) = brief(table)
    titles = [column.title for column in section.grid.columns]
    return [dict(zip(titles, (cell.text for cell in row), strict=True)) for row in section.grid.rows], section


def test_the_answer_tells_what_each_target_came_to():
    found, section = opening()
    by_place = {(row["target"], row["pattern"]): row for row in found}

    assert section.heading == "t at equal targets: perplexity, lower is better"
    assert by_place[LATENCY, "bank_balanced"]["at %"] == "60"
    assert by_place[LATENCY, "bank_balanced"]["needs"] == "0.29"
    # Trained masks need more than random ones did.
    assert by_place[LATENCY, "unstructured"]["needs"] == "0.33 !"
    assert "!: the target is missed" in section.grid.caption[0]


def test_a_solved_sparsity_is_a_level_of_no_other_table():
    first = screen(records())
    asked = screen([*records(), record("bank_balanced", 0.5, 2), record("unstructured", 0.5, 2), record(seed=2)])

    assert "t at equal targets" in first
    assert "t against unstructured" not in first
    assert "t against unstructured" in asked
    assert "50 %" in asked
    assert "60 %" not in asked


def test_on_a_screen_a_target_has_its_best_pattern_alone_where_all_have_no_room():
    targets_of_many = [f"cycles {limit} on card" for limit in range(10, 26)]
    found = [record(seed=seed) for seed in (0, 1)]
    for place, target in enumerate(targets_of_many):
        for seed in (0, 1):
            found += [
                record("unstructured", 0.5 + place / 100, seed, value=11.0, solved=[told(target, 9)]),
                record("bank_balanced", 0.6 + place / 100, seed, value=10.0, solved=[told(target, 9)]),
            ]
    # What a pattern cannot reach is one cell, whatever the targets.
    missed = [{"target": target, "value": 40.0, "reason": "no"} for target in targets_of_many[:2]]
    missed += [{"target": "cycles 1 on card", "value": 30.0, "reason": "no"}]
    found += [record("block", 0.0, seed, solved=missed, reason="no") for seed in (0, 1)]
    shown = screen(found)

    assert "t at equal targets, the best pattern at each" in shown
    assert "cycles 10 on card  bank_balanced" in shown
    assert "unstructured" not in shown.split("at equal targets")[1].split("to unstructured")[-1].split("\n\n")[0]
    assert "No pattern reaches cycles 1 on card (nearest 30)." in " ".join(shown.split())


def test_rates_are_reached_from_below():
    solved = [{"target": "steps_per_s 1000000 on card", "value": 1.1e6, "engine": "bank"}]
    missed = record("unstructured", 0.5, solved=solved)
    cost = {**missed.hardware["card(engine=bank)"], "steps_per_s": 999_000.0}
    missed = missed.model_copy(update={"hardware": {"card(engine=bank)": cost}})
    (table,) = tables([record(), missed])
    (section,) = brief(table)

    assert [cell.text for cell in section.grid.rows[0]][:4] == [solved[0]["target"], "unstructured", "50", "999,000 !"]


def test_no_format_prints_a_sparsity_for_a_target_that_came_to_none():
    rows = list(csv.DictReader(StringIO(render(records(), format="csv"))))
    tidy = list(csv.DictReader(StringIO(render(records(), format="tidy"))))

    for found, name in ((rows, "target_sparsity"), (tidy, "target sparsity [fraction]")):
        assert {row[name] for row in found if row["pattern"] == "block"} == {""}
        assert {row[name] for row in found if row["pattern"] == "dense"} == {"0.0"}
    grid = section(records()).grid
    place = [column.title for column in grid.columns].index("asked %")
    assert {row[place].text for row in grid.rows} - {"0", "80", "70", "60"} == {"–²"}


def brief_rows(found, **options):
    (table,) = tables(found)
    (section,) = brief(table, **options)
    titles = [column.title for column in section.grid.columns]
    return [dict(zip(titles, (cell.text for cell in row), strict=True)) for row in section.grid.rows], section


def test_a_device_that_holds_only_some_of_the_trained_masks_is_a_missed_target():
    def on_card(seed, *, fits):
        made = record("unstructured", 0.5, seed, solved=[told("fits on card", 1.0)])
        cost = {**made.hardware["card(engine=bank)"], "fits": fits}
        return made.model_copy(update={"hardware": {"card(engine=bank)": cost}})

    ((held,), _) = brief_rows([record(), on_card(0, fits=True), on_card(1, fits=True)])
    ((partly,), section) = brief_rows([record(), on_card(0, fits=True), on_card(1, fits=False)])

    assert (held["needs"], partly["needs"]) == ("fits", "does not fit !")
    assert "!: the target is missed" in section.grid.caption[0]


def test_what_comes_nearest_to_a_missed_target_stands_in_brackets_and_what_dense_meets_has_no_row():
    near = {"target": "cycles 5 on card", "value": 8.0, "reason": "no"}
    # What the dense model meets was looked for with no pattern: its row says nothing.
    unknown = {"target": "cycles 6 on card", "value": None, "reason": "no"}
    found = [
        record(),
        record("block", 0.0, solved=[near, unknown], reason="no"),
        record("unstructured", 0.5, solved=[told("cycles 6 on card", 6.0)]),
    ]
    rows_, section = brief_rows(found)

    assert [(row["pattern"], row["at %"], row["needs"]) for row in rows_] == [
        ("block", "–", "(8)"), ("unstructured", "50", "9 !"),
    ]  # fmt: skip
    assert "(...): the nearest, the target is not reached" in section.grid.caption[0]
    full = targets(tables([each.model_copy(update={"unit": "nats"}) for each in found])[0])[0]
    assert "perplexity, nats\n(test)" in [column.header for column in full.grid.columns]


def test_on_a_screen_each_target_stands_over_its_rows_and_names_may_be_shorter():
    _, section = brief_rows(records(), most=9, plain={"bank_balanced": "banks"})
    whole, _ = brief_rows(records())

    order = [row["target"] for row in whole]
    assert section.grid.groups == {order.index(target): target for target in (LATENCY, STORAGE)}
    assert [row[0].text for row in section.grid.rows] == [
        row["pattern"].replace("bank_balanced", "banks") for row in whole
    ]  # fmt: skip
