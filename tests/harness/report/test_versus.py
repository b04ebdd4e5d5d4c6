"""Two sides compared: what is paired, what is refused, what gates decide, and several runs joined to one study."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats  # noqa: TID253  # the reference, wanted in every test
from toy_site import Shell

from harness.api import EmptySelectionError, SpecError, StoreError
from harness.cli.judgement import _what_differs
from harness.report import markdown, rich
from harness.report.versus import Side, joined, parse, versus
from harness.results.records import OF_A_CELL, Record, Stored
from harness.results.statistics import exceeds_p

NOISE = (0.02, -0.03, 0.01, 0.04, -0.02)


def record(pattern="dense", seed=0, value=100.0, **changes):
    is_dense = pattern == "dense"
    fields = {
        "run": "one", "cell": f"{pattern} {seed}", "task": "lm", "backend": "torch", "pattern": pattern,
        "strategy": "dense" if is_dense else "gradual", "scope": ("lstm",), "target_sparsity": 0.0 if is_dense else 0.9,
        "sparsity": 0.0 if is_dense else 0.9, "seed": seed, "metric": "perplexity", "value": value + seed,
        "status": "ok",
        "task_params": {"hidden": 8}, "facts": {"tokens": 1000, "cpu": "x"}, "total_epochs": 4,
        "hardware": {"fpga": {"cycles": 90, "latency_us": 0.9}}, "versions": {"torch": "1"}, "precision": "float32",
    }  # fmt: skip
    return Record(**(fields | changes))


def side(name="a", shift=0.0, seeds=5, **changes):
    """Cells whose values are those of every other side, moved by `shift` and a little noise."""
    records = []
    for pattern, value in (("dense", 100.0), ("banks", 103.0)):
        for seed in range(seeds):
            noise = NOISE[(seed + len(name)) % 5] * bool(shift)
            records.append(record(pattern, seed, value + shift + noise, **changes))
    return Side(name, records)


def text(found):
    return " ".join(markdown.text(found.document()).replace("\\", "").split())


# --- pairing --------------------------------------------------------------------------------------------------------


def test_cells_are_paired_by_labels_sparsity_and_seed():
    found = versus(side(), side("bb", 2.0))

    assert [line.row.setting.pattern for line in found.lines] == ["dense", "banks"]
    for line in found.lines:
        assert line.comparison.difference.mean == pytest.approx(2.0, abs=0.05)
        assert line.comparison.difference.half < 0.1 and line.verdict == "worse"
    assert "+2.0" in text(found) and "bb minus a, lower is better" in text(found)


def test_equal_sides_are_said_to_be_equal_to_the_last_digit():
    found = versus(side(), side("b"))

    assert "2 of them with the same values to the last digit" in text(found)
    assert all(line.comparison.difference.mean == 0 for line in found.lines)


def test_what_is_on_one_side_only_is_told():
    lost = Side("b", [r for r in side().records if r.cell != "banks 1"])
    failed = Side("b", [r.model_copy(update={"status": "failed", "value": None}) if r.cell == "banks 1" else r
                        for r in side().records])  # fmt: skip

    for other in (lost, failed):
        found = versus(side(), other)
        assert found.pairing.lost == 1 and "1 cell with a result in a have none in b" in text(found)
        assert versus(other, side()).pairing.lost == 0


CONDITIONS = {
    "metric": {"metric": "loss"},
    "data": {"facts": {"tokens": 2000, "cpu": "x"}},
    "recipe": {"task_params": {"hidden": 16}},
    "parameters": {"pattern_params": {"banks": 4}},
    "precision": {"precision": "bfloat16"},
    "budget": {"total_epochs": 5},
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_what_differs_in_a_condition_is_refused_by_name_and_compared_when_told(name):
    other = side("b", **CONDITIONS[name])

    with pytest.raises(SpecError, match=f"a and b differ in {name} of") as error:
        versus(side(), other)

    if name == "metric":
        assert "no common unit" in str(error.value)
        with pytest.raises(SpecError, match="differ in metric"):
            versus(side(), other, across=["metric"])
    else:
        assert f"--across {name}" in str(error.value)
        assert len(versus(side(), other, across=[name]).lines) == 2


def test_every_condition_that_differs_is_named_at_once():
    with pytest.raises(SpecError, match=r"data of .*tokens 1000 and 2000.*precision of .*float32 and bfloat16"):
        versus(side(), side("b", precision="bfloat16", facts={"tokens": 2000}))


def test_machines_may_differ_and_are_shown():
    other = side("b", versions={"torch": "2"}, facts={"tokens": 1000, "cpu": "y"}, threads=4)

    told = text(versus(side(), other))

    assert "What else differs" in told
    assert "| versions | torch 1 | torch 2 |" in told and "| processor | x | y |" in told


@pytest.mark.parametrize("fact", sorted(OF_A_CELL))
def test_facts_of_a_cell_are_no_other_data(fact):
    """A validation value that overflowed on the way, say, is of one training and not of what it was trained on."""
    other = side("b", facts={"tokens": 1000, "cpu": "x", fact: {"stage": "train"}})

    assert len(versus(side(), other).lines) == 2


def test_two_backends_are_compared_across_their_label():
    other = side("b", 1.0, backend="keras")

    with pytest.raises(EmptySelectionError, match="backend torch and keras; compare them with --across backend"):
        versus(side(), other)
    assert len(versus(side(), other, across=["backend"]).lines) == 2
    with pytest.raises(StoreError, match="has two cells for"):
        versus(Side("a", [*side().records, *other.records]), other, across=["backend"])


def test_a_name_that_is_no_label_and_no_condition_is_refused():
    with pytest.raises(SpecError, match="expected some of task, backend"):
        versus(side(), side("b"), across=["colour"])


# --- gates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "shift", "holds"),
    [
        ("perplexity > +1% @95%", 2.0, False),
        ("perplexity > +1% @95%", 0.5, True),
        ("perplexity > +1.9", 2.0, False),
        ("perplexity > +2.1", 2.0, True),
        ("value > +1.9 @99%", 2.0, False),
        ("perplexity < -1", -2.0, False),
        ("perplexity > 104", 0.0, False),
        ("perplexity > 120", 0.0, True),
        ("cycles > +0%", 2.0, True),
        ("cycles > 80", 0.0, False),
        ("latency_us<0.5", 0.0, True),
        ("total_epochs > 3", 0.0, False),
    ],
)
def test_a_gate_fails_beyond_its_bound(gate, shift, holds):
    found = versus(side(), side("bb", shift), gates=[parse(gate)])

    assert found.holds is holds
    assert (f"FAILED: {gate}" in text(found)) is not holds and (f"holds: {gate}" in text(found)) is holds


def test_a_gate_with_a_confidence_fails_only_if_the_difference_is_shown():
    values = {0: 4.0, 1: -3.0, 2: 5.0}
    noisy = Side("b", [r.model_copy(update={"value": r.value + values[r.seed]}) for r in side(seeds=3).records])

    assert versus(side(seeds=3), noisy, gates=[parse("perplexity > +1")]).holds is False
    assert versus(side(seeds=3), noisy, gates=[parse("perplexity > +1 @95%")]).holds is True


@pytest.mark.parametrize("gate", ["accuracy < -0.1", "accuracy < -0.1 @50%", "value > +0 @50%"])
def test_what_lies_on_a_bound_but_for_rounding_is_not_beyond_it(gate):
    """91.3 - 91.2 is not 0.1 in floats, and two such drops differ by rounding only."""
    sides = [
        Side(name, [record(seed=n, value=v - n, metric="accuracy", better="higher") for n, v in enumerate(values)])
        for name, values in (("a", (91.3, 92.6)), ("b", (91.2, 92.5)))
    ]

    found = versus(*sides, gates=[parse(gate)])

    assert found.holds, text(found)
    assert "all 2 equal" in text(found)


def test_a_gate_tells_how_many_it_could_not_judge_and_claims_nothing_of_what_is_not_shown():
    fewer = side("b", 0.2)
    fewer = Side("b", [r for r in fewer.records if r.is_dense or r.seed == 0])

    found = versus(Side("a", [r for r in side().records if r.is_dense or r.seed == 0]), fewer,
                   gates=[parse("perplexity > +1% @95%")])  # fmt: skip

    assert found.holds
    assert "perplexity > +1% @95% is shown in none of 1" in text(found)
    assert "1 more cannot be judged (lm · torch · lstm · banks · uniform · gradual · 90 %: one seed)" in text(found)


@pytest.mark.parametrize("gate", ["cycles > +50%", "cycles > +50% @95%", "cycles > 1000"])
def test_a_cost_that_is_there_no_more_fails_its_gates(gate):
    """An engine that refuses a mask now has no number: leaving it out would let every bound hold."""
    refused = {"fpga": {"reason": "engine bank cannot run it"}}
    other = Side(
        "b", [r if r.is_dense or r.seed else r.model_copy(update={"hardware": refused}) for r in side().records]
    )

    found = versus(side(), other, gates=[parse(gate)])

    assert not found.holds
    assert found.gates[0].failed == (
        "lm · torch · lstm · banks · uniform · gradual · 90 %, fpga: none any more with 1 seed",
    )
    assert versus(other, side(), gates=[parse(gate)]).holds


def test_a_part_of_a_value_is_of_its_size_and_of_zero_there_is_none():
    def valued(name, *values):
        return Side(name, [record(seed=n, value=value - n, metric="log") for n, value in enumerate(values)])

    gate = parse("log > +1%")
    assert not versus(
        valued("a", -100.0, -100.0), valued("b", -98.0, -98.0), gates=[gate]
    ).holds  # nearer to zero is more
    assert versus(valued("a", -100.0, -100.0), valued("b", -102.0, -102.0), gates=[gate]).holds
    zero = versus(valued("a", 0.0, 0.0), valued("b", 1.0, 1.0), gates=[gate, parse("log > +2")])
    assert [each.holds for each in zero.gates] == [False, True]
    assert "CANNOT BE JUDGED: log > +1%: lm · torch · dense: there is no part of 0; leave the % out." in text(zero)


def test_settings_that_differ_in_their_scope_alone_are_rows_and_gates_of_their_own():
    def both(name, shifts):
        scopes = ((("lstm",), shifts[0]), (("all",), shifts[1]))
        return Side(name, [
            record("banks", seed, 103.0 + shift, scope=scope, cell=f"{scope} {seed}")
            for scope, shift in scopes for seed in range(3)
        ])  # fmt: skip

    for shifts in ((2.0, 0.0), (0.0, 2.0)):
        found = versus(both("a", (0.0, 0.0)), both("b", shifts), gates=[parse("perplexity > +1")])
        assert not found.holds and len(found.gates[0].failed) == 1, text(found)
        assert ("· lstm ·" in found.gates[0].failed[0]) is (shifts[0] > 0)
        assert "| scope |" in text(found)


def test_verdicts_are_corrected_for_all_comparisons_whichever_way_is_better():
    """With p = 0.03 each: alone it is evidence, of two it is not."""
    moved = {0: 1.0, 1: 1.9, 2: 1.4, 3: 0.4}
    sides = []
    for name, shift in (("a", 0.0), ("b", 1.0)):
        records = [record(seed=seed, value=100.0 + shift * moved[seed]) for seed in moved]
        records += [
            record(seed=seed, value=90.0 - shift * moved[seed], task="images", metric="accuracy", better="higher",
                   cell=f"images {seed}") for seed in moved
        ]  # fmt: skip
        sides.append(Side(name, records))

    both = versus(*sides)
    one = versus(*(Side(each.name, each.records[:4]) for each in sides))

    assert [line.verdict for line in one.lines] == ["worse"]
    assert [line.verdict for line in both.lines] == ["not enough evidence"] * 2 and both.comparisons == 2


def test_an_overflowed_value_is_a_lost_result_and_no_number():
    over = Side("b", [r.model_copy(update={"value": 1e200}) if r.cell == "banks 1" else r for r in side().records])

    found = versus(side(), over, gates=[parse("perplexity > +1")])

    assert found.pairing.lost == 1 and not found.holds
    assert [line.comparison.difference.mean for line in found.lines] == [0.0, 0.0]


def test_cycles_are_of_the_fastest_engine_that_fits():
    costs = {"small": {"cycles": 90, "fits": True}, "large": {"cycles": 10, "fits": False}}
    both = [side(name, hardware=costs) for name in "ab"]
    neither = [side(name, hardware={"large": costs["large"]}) for name in "ab"]

    assert {line.cycles for line in versus(*both).lines} == {(90.0, 90.0)}
    assert {line.cycles for line in versus(*neither).lines} == {(10.0, 10.0)}


def test_a_gate_that_cannot_be_judged_is_no_success():
    found = versus(side(seeds=1), side("b", seeds=1), gates=[parse("perplexity > +1% @95%")])

    assert not found.holds and "CANNOT BE JUDGED" in text(found)
    assert versus(side(seeds=1), side("b", seeds=1), gates=[parse("perplexity > +1%")]).holds


def test_a_result_that_is_lost_fails_every_gate():
    lost = Side("b", [r for r in side().records if r.cell != "banks 1"])

    assert not versus(side(), lost, gates=[parse("perplexity > +50%")]).holds
    assert versus(side(), lost).holds


@pytest.mark.parametrize(
    "text", ["perplexity", "perplexity > ", "> 1", "perplexity = 1", "perplexity > 1 @ 5", "a > 1 @100%", "a > 1 @20%"]
)
def test_a_gate_that_cannot_be_read_is_refused_with_an_example(text):
    with pytest.raises(SpecError, match="compare: expected"):
        parse(text)


def test_a_gate_on_what_the_records_do_not_have_is_refused():
    with pytest.raises(SpecError, match=r"expected one of perplexity, sparsity.*got 'accuracy'"):
        versus(side(), side("b"), gates=[parse("accuracy < -1")])


@given(
    values=st.lists(st.integers(-50, 50).map(lambda n: n / 4), min_size=2, max_size=8),
    bound=st.sampled_from([0.0, 1.0]),
)
def test_the_p_of_a_bound_is_the_one_sided_t_tests(values, bound):
    if len(set(values)) > 1:
        reference = stats.ttest_1samp(values, bound, alternative="greater").pvalue
        assert exceeds_p(values, bound) == pytest.approx(reference, rel=1e-9)
    else:
        assert exceeds_p(values, bound) == (2.0 ** -len(values) if values[0] > bound else 1.0)


def test_the_json_of_a_comparison_has_every_number_unrounded():
    found = versus(side(), side("bb", 2.0), gates=[parse("perplexity > +1%")])

    values = json.loads(json.dumps(found.values()))

    assert values["holds"] is False and values["gates"][0]["failed"]
    assert values["rows"][1]["difference"]["mean"] == found.lines[1].comparison.difference.mean
    assert values["rows"][1]["cycles"] == [90.0, 90.0]


def kilobits(count, *widths):
    """Storage of one matrix of 100,000 weights, for these widths of a weight."""
    return {
        width: Stored(bits=1000 * count, dense_bits=100_000 * int(width), tensors={"a": {"format": "csb", "bits": 1}})
        for width in widths
    }


def test_what_the_masks_take_is_shown_on_both_sides_with_the_difference_in_percent():
    found = versus(side(storage=kilobits(200, "16")), side("b", storage=kilobits(150, "16")))
    same = versus(side(storage=kilobits(200, "16")), side("b", storage=kilobits(200, "16")))

    assert "stored kbit" in text(found) and "200.0 → 150.0 (-25.00 %)" in text(found)
    assert "with weights of 16 bits" in text(found)
    assert "| 200.0 |" in text(same) and "→" not in text(same)
    assert found.values()["rows"][0]["storage"] == {"16": [200_000.0, 150_000.0]}
    assert "stored" not in text(versus(side(), side("b")))


def test_every_width_has_its_storage_and_one_side_alone_has_none():
    both = versus(side(storage=kilobits(200, "8", "16")), side("b", storage=kilobits(100, "8", "16")))
    first = side(storage=kilobits(200, "8", "16"))
    half = versus(first, Side("b", [r for r in side(storage=kilobits(100, "8")).records]))
    none = side(seeds=1, storage=kilobits(200, "8"))
    lacking = versus(none, Side("b", [none.records[0], record("banks", 0, 103.0)]))

    assert "stored, w8 kbit" in text(both) and "stored, w16 kbit" in text(both)
    assert "w16" not in text(half) and "200.0 → 100.0 (-50.00 %)" in text(half)
    assert "–¹" in text(lacking) and "storage was not counted on both sides" in text(lacking)


@pytest.mark.parametrize(
    ("gate", "holds"),
    [("stored_bits > +0%", True), ("stored_bits > -30%", False), ("stored_bits < -10000", False),
     ("stored_bits > 150000 @95%", True)],
)  # fmt: skip
def test_a_gate_may_be_about_storage(gate, holds):
    found = versus(side(storage=kilobits(200, "16")), side("b", storage=kilobits(150, "16")), gates=[parse(gate)])

    assert found.holds is holds
    assert holds or "weights of 16 bits" in found.gates[0].failed[0]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_comparison_fits_the_terminal(width):
    sides = [side(name * 12, 2.0 * (name == "b"), storage=kilobits(200 + ord(name), "8", "16")) for name in "ab"]
    lines = rich.text(versus(*sides).document(), width).splitlines()

    assert max(map(len, lines)) <= width


# --- joined ---------------------------------------------------------------------------------------------------------


def test_runs_are_joined_with_shared_cells_once():
    more = Side("b", [*side().records[:5], *(record("block", seed) for seed in range(5))])

    records = joined([side(), more])

    assert [r.pattern for r in records] == ["dense"] * 5 + ["banks"] * 5 + ["block"] * 5


def test_a_result_goes_before_a_cell_that_has_none():
    failed = Side("a", [record(status="failed", value=0.0).model_copy(update={"value": None})])

    assert joined([failed, Side("b", [record()])])[0].status == "ok"
    assert joined([Side("b", [record()]), failed])[0].status == "ok"


def test_one_cell_with_two_values_is_refused():
    with pytest.raises(StoreError, match=r"has the value 100.0 in a and 101.5 in b; compare the runs"):
        joined([Side("a", [record()]), Side("b", [record(value=101.5)])])


def test_equal_labels_for_different_things_are_refused():
    with pytest.raises(StoreError, match="call two different cells alike"):
        joined([Side("a", [record()]), Side("b", [record(cell="other")])])
    with pytest.raises(StoreError, match=r"2 data sets are called 'lm': tokens 1000 and 7"):
        joined([Side("a", [record()]), Side("b", [record("banks", facts={"tokens": 7})])])


# --- the commands ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Two experiments that share their dense baselines, in one store."""
    shell = Shell(tmp_path_factory.mktemp("toy"))
    for name, pattern in (("one", "unstructured"), ("two", "{name: bank_balanced, banks: 5}")):
        spec = shell.spec(f"{name}.yaml", name, pattern)
        result = shell("run", spec, "--store", "s", "--workers", "1", "--progress", "none")
        assert result.exit_code == 0, result.output
    return shell


def test_the_command_compares_two_runs_and_a_failed_gate_ends_with_six(shell):
    same = shell("compare", "one", "two", "--store", "s", "--across", "pattern", "--fail-if", "accuracy < -99")
    refused = shell("compare", "one", "two", "--store", "s", "--across", "pattern", "--fail-if", "accuracy > 1")

    assert (same.exit_code, refused.exit_code) == (0, 6), same.output + refused.output
    assert "against one-" in same.stdout and "FAILED: accuracy > 1" in " ".join(refused.stdout.split())


def test_the_command_takes_files_of_records_and_writes_markdown_for_a_pull_request(shell):
    [one] = (shell.folder / "s/runs").glob("one-*")

    result = shell("compare", str(one / "records.json"), str(one), "-o", "new/pr.md")

    assert result.exit_code == 0, result.output
    assert (shell.folder / "new/pr.md").read_text().startswith("# one-")


folders = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4).map(tuple)


@given(folders, folders, folders)
def test_two_paths_go_by_what_differs_in_them(one, other, shared):
    names = _what_differs((*shared, *one, *shared), (*shared, *other, *shared))

    paths = ["/".join((*shared, *middle, *shared)) for middle in (one, other)]
    assert (names[0] == names[1]) == (one == other)
    assert all(name in path for name, path in zip(names, paths, strict=True))
    if one != other and len(one) == len(other) == 1:
        assert names == (one[0], other[0])


def test_one_run_in_two_stores_is_compared_under_the_names_of_the_stores(shell):
    shutil.copytree(shell.folder / "s", shell.folder / "copy")
    [one] = (shell.folder / "s/runs").glob("one-*")

    result = shell("compare", str(one), f"copy/runs/{one.name}", "--format", "json")
    values = json.loads(result.stdout)

    assert values["b"] == "copy" and values["a"].endswith("/s")


def test_two_values_of_a_label_are_compared_within_one_study(shell):
    joined_records = shell("report", "one", "two", "--store", "s", "--format", "json")
    records = json.loads(joined_records.stdout)
    lines = ",\n".join(json.dumps(each) for each in records)
    (shell.folder / "both.json").write_text(f'{{"format": 1, "records": [\n{lines}\n]}}\n')

    result = shell("compare", "both.json", "--between", "pattern=unstructured,bank_balanced", "--format", "json")
    wrong = shell("compare", "both.json", "--between", "pattern=unstructured")
    unknown = shell("compare", "both.json", "--between", "pattern=unstructured,stripes")

    assert len(records) == 2 + 2 + 2
    values = json.loads(result.stdout)
    assert (values["a"], values["b"]) == ("unstructured", "bank_balanced") and len(values["rows"]) == 1
    assert wrong.exit_code == unknown.exit_code == 2
    assert "there is dense, unstructured, bank_balanced" in unknown.stderr.replace("\n", " ")


def test_a_report_of_two_runs_is_one_study(shell):
    result = shell("report", "one", "two", "--store", "s", "--format", "md")

    assert result.exit_code == 0, result.output
    title = result.stdout.splitlines()[0]
    assert "one-" in title and " + two-" in title.replace("\\", "")
    assert "6 of 6 planned cells have a result" in result.stdout


def test_a_difference_in_percent_that_rounds_to_zero_has_no_sign():
    found = versus(side(seeds=1), side("bb", -1e-5, seeds=1))

    assert "-0.00" not in text(found)
