import json
import re
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import EmptySelectionError, PluginUnavailableError, SpecError
from harness.discovery.finding import discover
from harness.discovery.registry import PluginRow
from harness.spec import check, document, load, loads, schema, scope_tensors

WRONG = sorted((Path(__file__).parent / "wrong_specs").glob("*.yaml"))

GRID = """
name: grid
task: letters
scope: [lstm]
matrix:
  backend: here
  pattern: [unstructured, {name: bank_balanced, banks: 4}, {name: bank_balanced, banks: 8, label: wide}]
  strategy: [fine_tuning, rewinding]
  sparsity: [0.5, 0.75, 0.9]
  seed: [0, 1]
"""


@pytest.fixture(scope="module")
def registry():
    return discover([EntryPoint("fakes", "spec_plugins", "harness.plugins")])


def message(text, registry):
    with pytest.raises(SpecError) as caught:
        loads(text, registry, filename="spec.yaml")
    return str(caught.value)


def matrix(**axes):
    lines = {"backend": "here", "pattern": "unstructured", "strategy": "fine_tuning", "sparsity": "0.9", **axes}
    return "name: x\ntask: letters\nmatrix:\n" + "".join(f"  {axis}: {text}\n" for axis, text in lines.items())


# --- wrong files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_a_wrong_spec_is_told_by_line_and_column(path, registry, golden):
    golden(f"wrong_specs/{path.stem}", message(path.read_text(encoding="utf-8"), registry))


def test_there_are_more_than_thirty_kinds_of_wrong_specs():
    assert len(WRONG) > 30


def test_every_error_names_file_line_column_and_path(registry):
    lines = message(WRONG[0].with_name("everything_at_once.yaml").read_text(encoding="utf-8"), registry).splitlines()

    assert len(lines) > 8
    assert all(re.match(r"spec\.yaml:\d+:\d+ \S+: expected .+, got .+", line) for line in lines)
    assert [int(line.split(":")[1]) for line in lines] == sorted(int(line.split(":")[1]) for line in lines)


@settings(deadline=None, max_examples=60)
@given(text=st.text(alphabet="abn: -[]{}&*!#\n\t'\"0.9,<|?", max_size=60))
def test_no_text_whatever_breaks_the_reader(registry, text):
    try:
        loads(text, registry)
    except SpecError as error:
        assert str(error)


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    )
)
def test_no_value_whatever_in_a_field_breaks_the_reader(registry, value):
    for field in ("task", "scope", "allocation", "matrix", "exclude", "include", "hardware", "keep_dense", "device"):
        try:
            loads(json.dumps({"name": "x", field: value}), registry)
        except SpecError as error:
            assert str(error)


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    )
)
def test_no_value_whatever_on_an_axis_breaks_the_reader(registry, value):
    for axis in ("task", "backend", "pattern", "allocation", "strategy", "sparsity", "seed"):
        for part in ({"matrix": {axis: value}}, {"exclude": {axis: value}}, {"include": {axis: value}}):
            try:
                loads(json.dumps({"name": "x", "task": "letters", **part}), registry)
            except SpecError as error:
                assert str(error)


def test_a_file_that_is_missing_or_a_folder_is_one_sentence(tmp_path, registry):
    with pytest.raises(SpecError, match=r"nowhere\.yaml: expected an experiment file, got no such file; check"):
        load(tmp_path / "nowhere.yaml", registry)
    with pytest.raises(SpecError, match="expected an experiment file, got a folder"):
        load(tmp_path, registry)


def test_a_file_larger_than_the_limit_is_not_parsed(tmp_path, registry):
    path = tmp_path / "large.yaml"
    path.write_text("#" * 1_000_001)

    with pytest.raises(SpecError, match="got 1000001 bytes, more than 1000000"):
        load(path, registry)


def test_a_file_that_is_no_utf_8_is_one_sentence(tmp_path, registry):
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: caf\xe9\n")

    with pytest.raises(SpecError, match="as UTF-8 text, got another byte at offset 9"):
        load(path, registry)


# --- YAML 1.2 ---------------------------------------------------------------------------------------------------------


def test_an_exponent_without_a_dot_is_a_number(registry):
    experiment = loads(matrix(strategy="{name: fine_tuning, lr: 1e-3}", sparsity="9e-1"), registry)

    assert experiment.cells[-1].strategy.lr == 0.001
    assert experiment.cells[-1].sparsity == 0.9


def test_words_and_times_of_yaml_1_1_are_text(registry):
    experiment = loads(
        matrix(strategy="{name: fine_tuning, label: 10:30}", pattern="{name: unstructured, label: no}"), registry
    )

    assert experiment.cells[-1].labels()["strategy"] == "10:30"
    assert experiment.cells[-1].labels()["pattern"] == "no"


def test_a_date_is_the_text_it_is_written_as(registry):
    assert loads(matrix().replace("name: x", "name: 2024-01-31"), registry).name == "2024-01-31"


def test_anchors_and_merges_are_written_out(registry):
    text = matrix(strategy="[&base {name: fine_tuning, epochs: 3}, {<<: *base, lr: 0.5}, {<<: [*base], epochs: 2}]")

    labels = {cell.labels()["strategy"] for cell in loads(text, registry).cells}

    assert labels == {"dense", "fine_tuning(epochs=3)", "fine_tuning(epochs=3, lr=0.5)", "fine_tuning(epochs=2)"}


def test_a_matrix_of_ten_thousand_cells_is_read(registry):
    seeds, sparsities = list(range(100)), [round(0.4 + 0.005 * step, 3) for step in range(100)]

    experiment = loads(matrix(seed=seeds, sparsity=sparsities), registry)

    assert len(experiment.cells) == 10_000 + 100
    assert len({cell.id for cell in experiment.cells}) == 10_100


# --- what a spec means ------------------------------------------------------------------------------------------------


def test_a_single_value_stands_for_a_list_of_one(registry):
    one = loads(matrix(seed="3"), registry)
    many = loads(matrix(backend="[here]", pattern="[{name: unstructured}]", sparsity="[0.9]", seed="[3]"), registry)

    assert one.digest == many.digest


def test_dense_cells_come_first_once_for_every_task_backend_and_seed(registry):
    cells = loads(GRID, registry).cells

    assert [(cell.is_dense, cell.seed) for cell in cells[:3]] == [(True, 0), (True, 1), (False, 0)]
    assert len(cells) == 2 + 3 * 2 * 3 * 2
    assert cells[0].labels() == {
        "task": "letters", "backend": "here", "pattern": "dense", "allocation": "dense", "strategy": "dense",
    }  # fmt: skip
    assert cells[0].sparsity == 0


def test_the_last_axis_runs_fastest(registry):
    cells = [cell for cell in loads(GRID, registry).cells if not cell.is_dense]

    assert [(cell.sparsity, cell.seed) for cell in cells[:4]] == [(0.5, 0), (0.5, 1), (0.75, 0), (0.75, 1)]
    assert cells[0].labels()["pattern"] == "unstructured"
    assert cells[-1].labels()["pattern"] == "wide"


def test_a_matrix_without_a_pattern_trains_the_dense_baseline_alone(registry):
    experiment = loads("name: x\ntask: letters\nmatrix: {backend: here, seed: [0, 1]}", registry)

    assert [cell.is_dense for cell in experiment.cells] == [True, True]


def test_exclude_takes_names_labels_lists_and_whole_entries(registry):
    text = (
        GRID
        + """
exclude:
  - {pattern: wide, sparsity: [0.5, 0.75]}
  - {pattern: {name: bank_balanced, banks: 4}, seed: 1}
  - {strategy: rewinding, pattern: bank_balanced}
"""
    )
    cells = [cell.labels() | {"s": cell.sparsity, "seed": cell.seed} for cell in loads(text, registry).cells]

    assert not [cell for cell in cells if cell["pattern"] == "wide" and cell["s"] < 0.9]
    assert {cell["seed"] for cell in cells if cell["pattern"] == "bank_balanced(banks=4)"} == {0}
    assert {cell["pattern"] for cell in cells if cell["strategy"] == "rewinding"} == {"unstructured"}
    assert len(cells) == 2 + (12 + 3 + 2)


def test_a_seed_that_is_excluded_needs_no_dense_baseline(registry):
    text = matrix(backend="[here, there]", seed="[0, 1]") + "exclude: {backend: there, seed: 1}\n"

    dense = [(cell.backend.name, cell.seed) for cell in loads(text, registry).cells if cell.is_dense]

    assert dense == [("here", 0), ("here", 1), ("there", 0)]


def test_a_key_with_nothing_but_comments_below_it_is_an_empty_list(registry):
    text = matrix() + "exclude:\n  # - {seed: 0}\ninclude:\nhardware:\n"

    assert loads(text, registry).digest == loads(matrix(), registry).digest


def test_include_adds_a_cell_and_its_baseline(registry):
    text = matrix() + "include: {pattern: {name: bank_balanced, banks: 2}, sparsity: 0.5, seed: 7}\n"

    cells = loads(text, registry).cells

    assert [(cell.is_dense, cell.seed) for cell in cells] == [(True, 0), (True, 7), (False, 0), (False, 7)]
    assert cells[-1].pattern.banks == 2


def test_cells_may_be_listed_without_a_matrix(registry):
    text = "name: x\ntask: letters\ninclude:\n  - {backend: here, seed: 1}\n  - {backend: there, seed: 2}\n"
    sparse = text.replace("seed: 1}", "pattern: unstructured, strategy: rewinding, sparsity: 0.5, seed: 1}")

    assert [cell.is_dense for cell in loads(text, registry).cells] == [True, True]
    assert "expected `pattern`, got nothing" not in str(loads(text, registry))
    assert [cell.is_dense for cell in loads(sparse, registry).cells] == [True, True, False]


def test_allocations_may_be_an_axis(registry):
    cells = loads(matrix(allocation="[uniform, global, {lstm_0.kernel: 0.5}]"), registry).cells

    assert [cell.labels()["allocation"] for cell in cells] == ["dense", "uniform", "global", "{lstm_0.kernel: 0.5}"]
    assert len({cell.id for cell in cells}) == 4
    assert len(set(cells)) == 4


def test_tasks_may_be_several(registry):
    cells = loads(
        matrix().replace("task: letters", "task: [letters, {name: letters, hidden: 4}, pixels]"), registry
    ).cells

    assert [cell.task.label() for cell in cells] == ["letters", "letters(hidden=4)", "pixels"] * 2


def test_a_parameter_in_a_list_keeps_its_label_out_of_the_identity(registry):
    plain = loads(matrix(pattern="{name: bank_balanced, banks: 4}"), registry)
    named = loads(matrix(pattern="{name: bank_balanced, banks: 4, label: mine}"), registry)

    assert plain.cells[-1].id == named.cells[-1].id
    assert plain.digest != named.digest


def test_a_scope_and_a_precision_make_another_cell_but_no_scope_makes_another_baseline(registry):
    base = loads(matrix(), registry).cells
    scoped = loads(matrix() + "scope: softmax\n", registry).cells
    precise = loads(matrix() + "precision: bfloat16\n", registry).cells

    assert base[0].id == scoped[0].id != precise[0].id
    assert len({base[1].id, scoped[1].id, precise[1].id}) == 3


def test_defaults_are_what_the_documents_say(registry):
    experiment = loads(matrix(), registry)

    assert (experiment.scope, experiment.device, experiment.precision, experiment.threads) == (
        ("all",),
        "auto",
        "float32",
        1,
    )
    assert (experiment.tolerance, experiment.margin, experiment.data_dir) == (0.02, None, None)
    assert experiment.keep_dense == 4 * 10**9
    assert {cell.seed for cell in experiment.cells} == {0}


@pytest.mark.parametrize(("text", "size"), [("2GB", 2 * 10**9), ("1.5 MiB", 3 * 2**19), ("0", 0), ("123", 123)])
def test_keep_dense_is_a_size_in_bytes(registry, text, size):
    assert loads(matrix() + f"keep_dense: {text}\n", registry).keep_dense == size


def test_the_data_folder_is_seen_from_the_spec(tmp_path, registry):
    path = tmp_path / "inner" / "spec.yaml"
    path.parent.mkdir()
    path.write_text(matrix() + "data_dir: ../data\n")

    assert load(path, registry).data_dir.resolve() == (tmp_path / "data").resolve()


def test_cuda_alone_is_the_first_card(registry):
    assert loads(matrix() + "device: cuda\n", registry).device == "cuda:0"


# --- the run id -------------------------------------------------------------------------------------------------------


def test_comments_key_order_folders_and_budgets_do_not_enter_the_run_id(tmp_path, registry):
    path = tmp_path / "spec.yaml"
    path.write_text(
        "# a comment\nmatrix: {sparsity: 0.9, strategy: fine_tuning, pattern: unstructured, backend: here}\n"
        "data_dir: somewhere\nkeep_dense: 1GB\nhardware: []\ntask: [{hidden: 8, name: letters}]\nname: x\n"
    )

    assert load(path, registry).run_id == loads(matrix(), registry).run_id


@pytest.mark.parametrize(
    "addition",
    [
        "hardware: board", "margin: 1.0", "device: cpu", "threads: 2", "tolerance: 0.1", "precision: bfloat16",
        "scope: lstm", "allocation: global", "include: {seed: 5}",
    ],
)  # fmt: skip
def test_every_choice_that_changes_a_report_enters_the_run_id(registry, addition):
    assert loads(matrix() + addition + "\n", registry).digest != loads(matrix(), registry).digest


def test_the_document_with_its_defaults_is_a_spec_that_says_the_same(registry):
    hardware = "hardware: {name: board, clock_mhz: 100}\n"
    exclude = "exclude: {pattern: wide, seed: 1}\n"
    include = "include: {pattern: wide, seed: 9, strategy: rewinding, sparsity: 0.5}\n"
    experiment = loads(GRID + hardware + exclude + include, registry)

    again = loads(json.dumps(experiment.document), registry)

    assert again.cells == experiment.cells
    assert again.run_id == experiment.run_id
    assert again.document == experiment.document


# --- plugins that cannot be used --------------------------------------------------------------------------------------


@pytest.fixture
def with_a_broken_one(tmp_path, monkeypatch):
    (tmp_path / "tiles.py").write_text("raise RuntimeError('out of tiles')")
    monkeypatch.syspath_prepend(tmp_path)
    names = ("spec_plugins", "tiles")
    return discover([EntryPoint(name, name, "harness.plugins") for name in names])


def test_a_spec_that_needs_a_broken_plugin_says_so_once_all_else_is_right(with_a_broken_one):
    with pytest.raises(
        PluginUnavailableError, match=r"spec:5:12 pattern 'tiles' cannot be used.*out of tiles"
    ) as caught:
        loads(matrix(pattern="tiles"), with_a_broken_one)
    assert caught.value.exit_code == 4

    assert "spec.yaml:7:13 matrix.sparsity" in message(matrix(pattern="tiles", sparsity="1.0"), with_a_broken_one)


def test_a_spec_that_does_not_name_a_broken_plugin_is_unaffected(with_a_broken_one):
    assert len(loads(matrix(), with_a_broken_one).cells) == 2


def test_a_missing_framework_matters_only_where_it_has_to_train(registry):
    experiment = loads(matrix(backend="[here, there]"), registry)

    with pytest.raises(PluginUnavailableError, match=r"backend 'there' cannot be used: There is not installed; run"):
        experiment.require_backends()
    experiment.select("backend=here").require_backends()


# --- narrowing down ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only", "sparse", "dense"),
    [
        ("pattern=unstructured", 12, 2),
        ("pattern=bank_balanced", 24, 2),
        ("pattern=wide|unstructured", 24, 2),
        ("pattern=bank_balanced(banks=4),seed<1", 6, 1),
        ("pattern!=wide", 24, 2),
        ("sparsity>=0.75", 24, 2),
        ("sparsity>0.75, strategy = rewinding", 6, 2),
        ("sparsity=.5|9e-1", 24, 2),
        ("sparsity<=0.5,seed!=0", 6, 1),
        ("strategy=dense", 0, 2),
        ("pattern=dense|wide,seed=1", 6, 1),
        ("task=letters,backend=here,allocation=uniform", 36, 2),
    ],
)
def test_only_keeps_the_cells_that_meet_every_condition_and_their_baselines(registry, only, sparse, dense):
    selected = loads(GRID, registry).select(only)

    assert sum(not cell.is_dense for cell in selected.cells) == sparse
    assert sum(cell.is_dense for cell in selected.cells) == dense


def test_a_selection_is_a_run_of_its_own_however_its_conditions_are_ordered(registry):
    grid = loads(GRID, registry)

    assert (
        grid.select("seed=0,pattern=wide|unstructured").run_id == grid.select("pattern=unstructured|wide,seed=0").run_id
    )
    assert grid.select("seed=0").run_id != grid.run_id


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ("pattern=wid", r"leaves none of the 38 cells: no pattern is called 'wid'; did you mean 'wide'\?"),
        ("backend=torch", "no backend is called 'torch'; there is here"),
        ("seed>5", "--only 'seed>5' leaves none of the 38 cells"),
        ("sparsity<0.1", "leaves none"),
    ],
)
def test_a_selection_of_nothing_says_why(registry, only, said):
    with pytest.raises(EmptySelectionError, match=said):
        loads(GRID, registry).select(only)


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ("pattern", "expected conditions such as"),
        ("", "expected conditions such as"),
        ("seed=", "expected conditions such as"),
        ("patern=x", r"expected an axis \(task, .*\), got 'patern'; did you mean 'pattern'\?"),
        ("seed<two", "expected a number for seed, got 'two'"),
        ("sparsity=90", "a sparsity is a fraction of zeros .* write 90 % as 0.9"),
        ("sparsity=90%", "expected a number for sparsity, got '90%'; write 90% as 0.9"),
        ("dense", "got 'dense'; dense models are strategy=dense"),
        ("seed=0,dense", "got '0,dense'; dense models are strategy=dense"),
        ("pattern=wide and seed=0", "parted by commas: 'pattern=wide,seed=0'"),
        ("pattern=wide && sparsity > 0.5", "parted by commas: 'pattern=wide,sparsity > 0.5'"),
        ("seed<1|2", "expected one value after '<', got '1|2'"),
        ("pattern<unstructured", "expected = or != for pattern, got '<'"),
    ],
)
def test_a_condition_that_cannot_be_read_says_what_was_expected(registry, only, said):
    with pytest.raises(SpecError, match=said):
        loads(GRID, registry).select(only)


@pytest.mark.parametrize(
    "label", ["rows, then banks", "a(b", "b)", "[4, 8", "banks (4, 8), wide", "rows and banks", "x=4", "a<b", "90 %"]
)
def test_only_selects_by_any_label_that_a_spec_may_have(registry, label):
    grid = loads(GRID.replace("label: wide", f"label: {json.dumps(label)}"), registry)

    selected = grid.select(f"pattern={label},seed=0")

    assert {cell.labels()["pattern"] for cell in selected.cells if not cell.is_dense} == {label}
    assert {cell.seed for cell in selected.cells} == {0}


@pytest.mark.parametrize("label", ["dense", "one|two", "x, seed=1", "x and seed=1", " x"])
def test_a_label_that_would_mean_something_else_is_refused(registry, label):
    text = GRID.replace("label: wide", f"label: {json.dumps(label)}")

    assert "label" in message(text, registry) and "matrix.pattern[2]" in message(text, registry)


def test_smoke_keeps_every_combination_with_one_seed_and_two_sparsities_on_short_tasks(registry):
    grid = loads(GRID + "include: {pattern: wide, strategy: rewinding, sparsity: 0.99, seed: 5}\n", registry)

    smoke = grid.smoke()

    assert smoke.name == "grid-smoke"
    assert smoke.run_id.startswith("grid-smoke-")
    assert smoke.digest != grid.digest
    assert {cell.task.train_tokens for cell in smoke.cells} == {10}
    assert {cell.task.label() for cell in smoke.cells} == {"letters"}
    assert sum(not cell.is_dense for cell in smoke.cells) == 3 * 2 * 2
    # The highest sparsity of one combination exists under seed 5 only, and has its own baseline.
    assert [cell.seed for cell in smoke.cells if cell.is_dense] == [0, 5]


# --- what only shapes tell --------------------------------------------------------------------------------------------


def problems_of(experiment):
    return {task: task.load(None) for task in {cell.task for cell in experiment.cells}}


def checked(text, registry):
    experiment = loads(text, registry, filename="spec.yaml")
    with pytest.raises(SpecError) as caught:
        check(experiment, problems_of(experiment))
    return str(caught.value)


def test_a_sound_experiment_fits_its_shapes(registry):
    experiment = loads(GRID, registry)

    check(experiment, problems_of(experiment))


def test_every_misfit_is_told_at_once_with_its_place(registry, golden):
    text = """
name: misfits
task: letters
scope: [lstm, lstm_9, softmx, lstm_0.bias]
matrix:
  backend: here
  pattern:
    - unstructured
    - {name: bank_balanced, banks: 9}
  strategy: [{name: rewinding, epochs: 4}, fine_tuning]
  sparsity: [0.5, 0.9]
  seed: [0, 1]
  allocation: [uniform, {lstm_0.kernal: 0.5, softmax.kernel: 0.5}]
"""
    golden("spec_misfits", checked(text, registry))


def test_a_scope_entry_may_belong_to_one_task_only_but_each_task_needs_one(registry):
    both = matrix().replace("task: letters", "task: [letters, pixels]")
    fits = loads(both + "scope: [lstm, dense]\n", registry)

    check(fits, problems_of(fits))

    assert "scope: expected at least one matrix of the task, got lstm" in checked(both + "scope: lstm\n", registry)


def test_a_scope_names_roles_layers_and_tensors_in_network_order(registry):
    problem = registry.create("task", "letters").load(None)

    names = [tensor.name for tensor in scope_tensors(problem, ["softmax.kernel", "lstm_0", "embedding"])]

    assert names == ["embedding.table", "lstm_0.kernel", "lstm_0.recurrent_kernel", "softmax.kernel"]
    assert [tensor.name for tensor in scope_tensors(problem, ["all"])] == names
    with pytest.raises(SpecError, match=r"got lstn; did you mean 'lstm'\?; there is all, embedding, "):
        scope_tensors(problem, ["lstn"])


# --- the schema for editors -------------------------------------------------------------------------------------------


def test_the_schema_holds_every_plugin_with_its_parameters(registry):
    found = schema(registry)

    form = found["$defs"]["pattern.bank_balanced"]
    assert form["properties"]["name"] == {"const": "bank_balanced"}
    assert set(form["properties"]) == {"name", "banks", "bank_size", "label"}
    assert form["required"] == ["name"]
    assert not form["additionalProperties"]
    assert found["$defs"]["strategy"]["anyOf"][0] == {"enum": ["fine_tuning", "rewinding"]}
    assert set(found["properties"]) >= {"name", "task", "scope", "matrix", "exclude", "include", "hardware", "device"}


def test_every_reference_in_the_schema_leads_somewhere(registry):
    found = schema(registry)

    def references(value):
        if isinstance(value, dict):
            yield from ([value["$ref"]] if "$ref" in value else [])
            for part in value.values():
                yield from references(part)
        elif isinstance(value, list):
            for part in value:
                yield from references(part)

    targets = {reference.removeprefix("#/$defs/") for reference in references(found)}
    assert len(targets) > 10
    assert targets <= set(found["$defs"])
    json.dumps(found)


# --- the real plugins -------------------------------------------------------------------------------------------------


def test_the_spec_of_the_design_is_read_with_the_built_in_plugins():
    text = """
name: poster-grid
task: {name: lstm_lm, corpus: ptb, size: small}
scope: [lstm]                      # which tensors are pruned
allocation: uniform
matrix:
  backend: [torch, keras_tfmot]
  pattern: [unstructured, {name: bank_balanced, banks: 10}, {name: bank_balanced, banks: 20}]
  strategy: [{name: fine_tuning, epochs: 5}, gradual, {name: lr_rewinding, epochs: 5}]
  sparsity: [0.6, 0.75, 0.85, 0.9]
  seed: [0, 1, 2]
exclude:
  - {backend: keras_tfmot, seed: [1, 2]}
hardware:
  - {name: fpga_analytic, device: arria10_gx1150}
  - {name: cycle_simulator, engine: bank}
"""
    registry = discover()
    experiment = loads(text, registry)

    assert sum(cell.is_dense for cell in experiment.cells) == 4
    assert sum(not cell.is_dense for cell in experiment.cells) == 4 * 3 * 3 * 4
    # The first model names no engine: it is costed on every one that is installed and shares a budget of multipliers.
    shared = [name for name in registry.names("engine") if not registry.get("engine", name).unrolled]
    assert [model.label() for model in experiment.hardware] == [
        *(f"fpga_analytic[{engine}]" for engine in shared),
        "cycle_simulator[bank]",
    ]


# --- the documents ----------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[3] / "docs" / "spec.md"


def table_of(model):
    rows = ["| field | default | meaning |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        default = (
            "required" if field.is_required() else "" if field.default is None else f"`{json.dumps(field.default)}`"
        )
        rows.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(rows)


def test_the_tables_of_the_page_come_from_the_models(request):
    page = PAGE.read_text(encoding="utf-8")

    wanted = re.sub(
        r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{table_of(getattr(document, found[2]))}\n\n{found[3]}",
        page,
        flags=re.DOTALL,
    )

    if request.config.getoption("--update-golden"):
        PAGE.write_text(wanted, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == wanted


def test_every_example_of_the_page_is_read_with_the_built_in_plugins():
    examples = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    registry = discover()

    assert len(examples) > 3
    for text in examples:
        assert loads(text, registry).cells


# --- codes of checks --------------------------------------------------------------------------------------------------

OWN_CHECK = """
from harness.api import StudyCheck, hookimpl


class Few(StudyCheck):
    "Too few settings."
    name, code, title = "few", "ACME001", "too few settings"

    def look(self, rows):
        return []


@hookimpl
def register_check():
    return Few
"""


def test_a_code_that_only_the_specs_own_plugin_has_is_silenced_and_one_like_it_is_refused(registry, tmp_path):
    (tmp_path / "own.py").write_text(OWN_CHECK)
    text, path = matrix() + "plugins: own.py\n", tmp_path / "spec.yaml"

    assert loads(text + "ignore: ACME001\n", registry, path=path).ignore == ("ACME001",)
    with pytest.raises(
        SpecError, match=r":9:9 ignore: expected the code of a check, got 'ACME002'; did you mean 'ACME001'"
    ):
        loads(text + "ignore: ACME002\n", registry, path=path)


def test_what_a_broken_plugin_may_have_as_its_code_is_not_refused(registry):
    broken = PluginRow(None, "torn", "", "acme", "1", "acme.torn", "broken", "ImportError", "mend it")
    torn = replace(registry, rows=(*registry.rows, broken))

    assert loads(matrix() + "ignore: [ACME001]\n", torn).ignore == ("ACME001",)
    assert "SPN999" in message(matrix() + "ignore: [SPN999]\n", torn)


# --- homes that are nobody's ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["data_dir: ~no-such-user/data", "plugins: ~no-such-user/own.py"])
def test_the_home_of_nobody_is_a_folder_that_is_not_there_and_no_bug(registry, line):
    text = f"{matrix()}{line}\n"
    if line.startswith("plugins"):
        assert "~no-such-user/own.py, which is not there" in message(text, registry)
    else:
        assert str(loads(text, registry).data_dir) == "~no-such-user/data"
