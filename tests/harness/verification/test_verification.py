"""The independent check: clean runs are clean, and each planted fraud is caught, with the store and without."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save
from toy_site import Shell

from harness.api import SpecError, StoreError
from harness.verification import verify
from harness.verification.masks import RULES

ROOT = Path(__file__).parents[3]

SPEC = """
name: toy
task: toy
scope: [softmax]
tolerance: 0.05
margin: 5
matrix:
  backend: [numpy]
  pattern: [unstructured, {name: bank_balanced, banks: 5}]
  strategy: [{name: fine_tuning, epochs: 2}]
  sparsity: [0.5, 0.75]
  seed: [0, 1, 2]
hardware: [{name: cycle_simulator, engine: {name: bank, pes: 2, lanes: 2}}]
"""

KEYED = '"checksum"'


class Run:
    """A copy of a finished run, to be tampered with.

    Args:
        folder: with the experiment and its store; shell: the command line there.
    """

    def __init__(self, folder, shell):
        self.folder, self.shell = folder, shell
        self.store = folder / "store"
        [self.run] = (self.store / "runs").iterdir()
        self.records = json.loads((self.run / "records.json").read_text())["records"]

    def cell(self, pattern="bank_balanced", sparsity=0.5, seed=0):
        [found] = [
            r for r in self.records
            if (r["pattern_name"], r["target_sparsity"], r["seed"]) == (pattern, sparsity, seed)
        ]  # fmt: skip
        return found

    def write(self):
        lines = ",\n".join(json.dumps(record) for record in self.records)
        (self.run / "records.json").write_text(f'{{"format": 1, "records": [\n{lines}\n]}}\n')

    def stage(self, key):
        return self.store / "stages" / key[:2] / key

    def edit_stage(self, key, change):
        """Change a stage's record and give it the checksum of what it says now, as somebody careful would."""
        path = self.stage(key) / "stage.json"
        values = json.loads(path.read_text())
        del values["checksum"]
        change(values)
        values["checksum"] = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps(values))

    def edit_file(self, key, name, change):
        """Change a file of a stage and its checksum with it."""
        path = self.stage(key) / name
        arrays = load_file(path)
        change(arrays)
        content = save(arrays)
        path.write_bytes(content)
        self.edit_stage(key, lambda values: values["checksums"].update({name: hashlib.sha256(content).hexdigest()}))

    def with_store(self):
        """Everything: records, spec, report, stages."""
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(self.shell.site))
            return verify(self.run, self.store)

    def alone(self):
        """The file of records and nothing else."""
        path = self.folder / "alone" / "records.json"
        path.parent.mkdir()
        shutil.copy(self.run / "records.json", path)
        return verify(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    shell = Shell(tmp_path_factory.mktemp("toy"))
    (shell.folder / "experiment.yaml").write_text(SPEC)
    result = shell("run", "experiment.yaml", "--store", "store", "--workers", "1", "--progress", "none")
    assert result.exit_code == 0, result.output
    return shell


@pytest.fixture
def fraud(finished, tmp_path):
    shutil.copytree(finished.folder / "store", tmp_path / "store", symlinks=True)
    return Run(tmp_path, finished)


def about(outcome):
    return {problem.about for problem in outcome.problems}


# --- clean runs -----------------------------------------------------------------------------------------------------


def test_a_run_as_it_was_made_is_clean_with_its_store(fraud):
    outcome = fraud.with_store()

    assert outcome.problems == [] and not outcome.unchecked
    kinds = {
        "schema",
        "grid",
        "seeds",
        "labels",
        "sparsity",
        "budget",
        "metric",
        "stages",
        "files",
        "masks",
        "hardware",
        "storage",
    }
    assert kinds | {"sources", "tables"} == set(outcome.checked)


def test_records_alone_are_clean_and_it_is_said_what_that_leaves_out(fraud):
    outcome = fraud.alone()

    assert outcome.problems == []
    assert {why.partition(":")[0] for why in outcome.unchecked} == {
        "what the experiment asked for", "what test values follow from, stages, masks and weights",
        "costs by their models",
    }  # fmt: skip


PUBLISHED = sorted((ROOT / "docs" / "results").glob("*/records.json"))
"""Two tasks of one name with reports of both, engines that skip zeros, a seed alone: what real runs have."""


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_what_this_repository_publishes_is_clean(path):
    outcome = verify(path)

    assert outcome.problems == []
    assert outcome.checked["schema"] > 5 and outcome.checked.total() > 50 * outcome.checked["schema"]
    assert any("no store is given" in why for why in outcome.unchecked)


@pytest.mark.parametrize("seed", [0, 7])
def test_a_selection_that_the_experiment_declares_is_no_missing_cell(fraud, seed):
    spec = (fraud.run / "spec.yaml").read_text()
    (fraud.run / "spec.yaml").write_text(
        spec + f"exclude: [{{pattern: bank_balanced, sparsity: 0.75, seed: {seed}}}]\n"
    )
    fraud.records = [r for r in fraud.records if r["cell"] != fraud.cell("bank_balanced", 0.75, 0)["cell"]]
    fraud.write()

    outcome = fraud.with_store()

    assert ("seeds" in about(outcome)) is (seed == 7)


def test_a_part_of_an_experiment_that_was_run_by_itself_is_clean_and_said_to_be_one(finished):
    options = ("--store", "part", "--workers", "1", "--progress", "none", "--only", "seed=0")
    assert finished("run", "experiment.yaml", *options).exit_code == 0

    result = finished("verify", "--store", "part")

    assert result.exit_code == 0, result.output
    assert "not checked: seeds 1, 2 of the experiment are in no record" in " ".join(result.stdout.split())


# --- frauds ---------------------------------------------------------------------------------------------------------


def edited_metric(run):
    run.cell()["value"] += 2.0


def edited_history(run):
    run.cell()["valid_history"][0] += 2.0


def one_weight_too_many(run):
    def add(arrays):
        [name] = [name for name in arrays if name.startswith("bits/")]
        bits = np.unpackbits(arrays[name])
        bits[np.flatnonzero(bits == 0)[0]] = 1
        arrays[name] = np.packbits(bits)

    run.edit_file(run.cell()["stage"], "masks.safetensors", add)


def weights_of_another_pattern(run):
    """As many weights as before, not equally many in every bank."""

    def move(arrays):
        [name] = [name for name in arrays if name.startswith("bits/")]
        mask = np.unpackbits(arrays[name])[:60].reshape(3, 20)
        mask[0] = [1] * 10 + [0] * 10
        arrays[name] = np.packbits(mask)

    run.edit_file(run.cell()["stage"], "masks.safetensors", move)


def a_living_weight_under_the_mask(run):
    def revive(arrays):
        [name] = [name for name in arrays if name.startswith("weights/") and arrays[name].ndim == 2]
        arrays[name] = arrays[name].copy()
        arrays[name][arrays[name] == 0] = 0.5

    run.edit_file(run.cell()["stage"], "state.safetensors", revive)


def a_missing_seed(run):
    run.records.remove(run.cell(seed=2))


def a_seed_that_is_gone_everywhere(run):
    run.records[:] = [record for record in run.records if record["seed"] != 2]


def a_missing_combination(run):
    for seed in range(3):
        run.records.remove(run.cell("bank_balanced", 0.75, seed))


def a_dropped_failure_of_every_seed_but_one(run):
    for seed in (0, 1):
        run.records.remove(run.cell("unstructured", 0.75, seed))


def a_swapped_file(run):
    other = run.stage(run.cell(seed=1)["stage"]) / "masks.safetensors"
    shutil.copy(other, run.stage(run.cell(seed=0)["stage"]) / "masks.safetensors")


def a_missing_file(run):
    (run.stage(run.cell()["stage"]) / "masks.safetensors").unlink()


def a_relabelled_cell(run):
    """The unstructured result sold as the bank-balanced one, and the other way round."""
    one, other = run.cell("unstructured"), run.cell("bank_balanced")
    for name in ("pattern", "pattern_name", "pattern_params"):
        one[name], other[name] = other[name], one[name]


def another_label_only(run):
    run.cell("unstructured")["pattern"] = "bank_balanced(banks=5)"


def a_cost_from_another_mask(run):
    run.cell(sparsity=0.5)["hardware"] = run.cell(sparsity=0.75)["hardware"]


def fewer_cycles(run):
    """Every figure that follows from the cycles is changed with them."""
    for cost in run.cell()["hardware"].values():
        cost["cycles"] -= 1
        cost["latency_us"] = cost["cycles"] / cost["clock_mhz"]
        cost["speedup"] = cost["streams"] * cost["dense_cycles"] / cost["cycles"]


def fewer_memory_blocks(run):
    for cost in run.cell()["hardware"].values():
        cost["ram_blocks"] -= 1


def a_result_that_is_hidden_as_failed(run):
    """In all seeds; the report still shows it."""
    for seed in range(3):
        run.cell("bank_balanced", 0.75, seed).update(
            {"status": "failed", "reason": "RuntimeError: out of luck", "value": None, "hardware": {}, "storage": {}}
        )


def an_edited_score_in_the_numbers_of_hardware(run):
    score = next(iter(run.cell()["fixed_point"].values()))
    score["value"] += 2.0


def a_score_of_another_model(run):
    score, other = (next(iter(run.cell(seed=seed)["fixed_point"].values())) for seed in (0, 1))
    score.update({name: other[name] for name in ("value", "stage")})


def fewer_bits_in_all(run):
    run.cell()["storage"]["16"]["bits"] -= 8


def fewer_bits_of_a_matrix(run):
    """The sum is changed with it."""
    stored = run.cell()["storage"]["16"]
    stored["bits"] -= 8
    next(iter(stored["tensors"].values()))["bits"] -= 8


def a_dense_model_that_takes_fewer_bits(run):
    for dense in (record for record in run.records if not record["pattern_name"]):
        stored = dense["storage"]["16"]
        stored["bits"] -= 8
        next(iter(stored["tensors"].values()))["bits"] -= 8


def a_shorter_budget(run):
    run.cell()["total_epochs"] -= 1


def a_higher_sparsity(run):
    run.cell()["sparsity"] = 0.54


def one_seed_sold_as_another(run):
    source, target = run.cell(seed=0), run.cell(seed=1)
    kept = {name: target[name] for name in ("cell", "seed")}
    target |= source | kept


def an_invented_result(run):
    """A failed cell that is given a value."""
    cell = run.cell()
    cell["stage"] = "0" * 32
    cell["value"] = 99.0


def a_key_of_other_work(run):
    """The stage says that it trained at another rate than the one its key is of."""
    run.edit_stage(run.cell()["stage"], lambda values: values["inputs"].update({"rates": 0.2}))


def a_number_published_nowhere(run):
    run.cell()["facts"]["published_dense_test_accuracy"] = 50.0


def a_measured_value_called_published(run):
    run.cell()["origin"]["value"] = "published"


def a_skipped_product_of_an_engine_that_skips_none(run):
    """A measured density of the vector excuses only engines that look at it."""
    record = run.cell()
    record["facts"]["activation_density"] = {"output": 0.1}
    cost = next(iter(record["hardware"].values()))
    cost["multipliers"] = 1


def an_edited_report(run):
    path = run.run / "report.md"
    text = path.read_text()
    row = next(line for line in text.splitlines() if line.startswith("| numpy | bank_balanced") and "75.0" in line)
    cells = row.split("|")
    place = next(place for place, cell in enumerate(cells) if "±" in cell)
    cells[place] = " 99.9 ± 0.1 "
    path.write_text(text.replace(row, "|".join(cells)))


FRAUDS = {
    edited_metric: ("metric", None),
    edited_history: ("metric", "metric"),
    one_weight_too_many: ("masks", None),
    weights_of_another_pattern: ("masks", None),
    a_living_weight_under_the_mask: ("masks", None),
    a_missing_seed: ("seeds", "seeds"),
    a_seed_that_is_gone_everywhere: ("grid", None),
    a_missing_combination: ("grid", "grid"),
    a_dropped_failure_of_every_seed_but_one: ("seeds", "seeds"),
    a_swapped_file: ("files", None),
    a_missing_file: ("files", None),
    a_relabelled_cell: ("labels", "labels"),
    another_label_only: ("labels", "labels"),
    a_cost_from_another_mask: ("hardware", "hardware"),
    fewer_cycles: ("hardware", "hardware"),
    fewer_memory_blocks: ("hardware", "hardware"),
    a_result_that_is_hidden_as_failed: ("tables", None),
    an_edited_score_in_the_numbers_of_hardware: ("metric", None),
    a_score_of_another_model: ("stages", None),
    fewer_bits_in_all: ("storage", "storage"),
    fewer_bits_of_a_matrix: ("storage", None),
    a_dense_model_that_takes_fewer_bits: ("storage", "storage"),
    a_shorter_budget: ("budget", "budget"),
    a_higher_sparsity: ("masks", "sparsity"),
    one_seed_sold_as_another: ("labels", "seeds"),
    an_invented_result: ("stages", None),
    a_key_of_other_work: ("stages", None),
    a_number_published_nowhere: ("sources", "sources"),
    a_measured_value_called_published: ("sources", "sources"),
    a_skipped_product_of_an_engine_that_skips_none: ("hardware", "hardware"),
    an_edited_report: ("tables", None),
}
"""What each is told as: with the store, and by the records alone; None where records alone cannot know."""


@pytest.mark.parametrize("plant", FRAUDS, ids=lambda plant: plant.__name__)
def test_a_planted_fraud_is_caught(fraud, plant):
    with_store, alone = FRAUDS[plant]
    plant(fraud)
    fraud.write()

    assert with_store in about(fraud.with_store())
    found = about(fraud.alone())
    assert (alone in found) if alone else not found


def test_a_fraud_is_told_with_its_cell_what_was_expected_and_what_is_there(fraud):
    edited_metric(fraud)
    value = fraud.cell()["value"]
    fraud.write()

    [problem] = [each for each in fraud.with_store().problems if each.about == "metric"]

    assert problem.place == fraud.cell()["cell"]
    assert problem.text == f"expected the test accuracy {value - 2.0!r} of the stage's totals, got {value!r}"


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_ends_with_six_for_a_problem_and_nought_for_none(fraud):
    shell = fraud.shell
    clean = shell("verify", "toy", "--store", str(fraud.store))
    edited_metric(fraud)
    fraud.write()
    wrong = shell("verify", str(fraud.run), "--json")

    assert (clean.exit_code, wrong.exit_code) == (0, 6)
    assert "clean:" in clean.stdout and "not checked" not in clean.stdout
    told = json.loads(wrong.stdout)
    assert {each["about"] for each in told["problems"]} == {"metric", "tables"} and told["checked"]["stages"] > 0


def test_what_is_no_run_and_no_store_is_said(fraud, tmp_path):
    with pytest.raises(StoreError, match=r"nothing\.json"):
        verify(tmp_path / "nothing.json")
    with pytest.raises(SpecError, match="expected a store with stages"):
        verify(fraud.run, tmp_path / "nowhere")
    fraud.records = []
    fraud.write()
    with pytest.raises(SpecError, match="expected records in"):
        verify(fraud.run)


# --- rules of patterns ----------------------------------------------------------------------------------------------

PATTERNS = {
    "row_balanced": {}, "bank_balanced": {"banks": 3}, "block": {"height": 2, "width": 3}, "n_m": {"n": 2, "m": 4},
    "mcbbs": {"cluster": 2, "range_clusters": 3}, "shared_index_banks": {"rows_sharing": 2, "banks": 4},
    "vector": {"length": 2}, "density_bound_block": {"most": 2, "size": 4}, "filter": {},
}  # fmt: skip


def test_every_rule_but_the_free_one_is_tried_on_masks_of_its_pattern():
    assert set(PATTERNS) == set(RULES) - {"unstructured"}


@pytest.mark.parametrize("name", PATTERNS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), flip=st.integers(0, 12 * 24 - 1))
def test_a_mask_that_the_pattern_made_follows_its_rule_and_one_with_a_flipped_weight_does_not(name, seed, flip):
    from harness.discovery.finding import discover

    parameters = PATTERNS[name]
    pattern = _REGISTRY.setdefault("it", discover()).create("pattern", {"name": name, **parameters})
    mask = pattern.mask(np.random.default_rng(seed).normal(size=(12, 24)).astype(np.float32), 0.5)
    broken = mask.copy()
    broken.flat[flip] = not broken.flat[flip]
    is_fewer = not broken.flat[flip]

    assert RULES[name](mask, pattern.parameters()) == ""
    # A bound from above is not broken by a weight fewer.
    assert (RULES[name](broken, pattern.parameters()) != "") is not (name == "density_bound_block" and is_fewer)


_REGISTRY = {}


@pytest.mark.parametrize(
    ("name", "parameters", "columns"),
    [
        ("bank_balanced", {"bank_size": 4}, 4),
        ("n_m", {}, 4),  # as published: two of every four
        ("density_bound_block", {"most": 2, "size": 4}, 4),
    ],
)
def test_a_rule_counts_in_the_stretches_that_the_pattern_names(name, parameters, columns):
    mask = np.tile([True, False, True, False], (3, 2))
    full = mask.copy()
    full[1, :4] = True

    assert RULES[name](mask, parameters) == ""
    assert RULES[name](full, parameters).startswith("expected ")
    assert f"of {columns}, got 6 columns" in RULES[name](mask[:, :6], parameters)


def test_the_page_on_results_of_others_shows_what_the_command_says():
    outcome = verify(ROOT / "docs" / "results" / "bring_your_own" / "gru" / "records.json")
    page = " ".join((ROOT / "docs" / "submit-results.md").read_text().split())

    assert f"clean: {outcome.checked.total()} facts hold" in page
    assert ", ".join(f"{count} {kind}" for kind, count in outcome.checked.items()) in page
    first, *_, last = (f"not checked: {why} ({cells} cells)" for why, cells in outcome.unchecked.items())
    assert first in page and last in page


def test_costs_of_a_model_of_ones_own_are_not_made_again_from_its_keys():
    """The geometry of its convolutions is in none of them."""
    from harness.api import NativeModel
    from harness.verification.recompute import _workload

    network = NativeModel(framework="torch", trained=(), places=()).model_dump(mode="json")

    assert "layers" in network
    assert _workload([{"inputs": {"network": network}}], {}, ("a.weight",), None, {}) is None
