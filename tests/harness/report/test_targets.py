"""Patterns at equal targets, from hand-made records: each beside what it needs, and the reference there."""

from harness.report import render
from harness.report.tables import tables
from harness.report.targets import targets
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
