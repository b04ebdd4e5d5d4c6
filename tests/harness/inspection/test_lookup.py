"""Runs and cells as users name them."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.api import EmptySelectionError, SpecError
from harness.inspection import lookup
from harness.inspection.lookup import find_cell, find_run, meant, title
from harness.results import records
from harness.results.records import Record

PATTERNS = ("unstructured", "bank_balanced(banks=5)", "bank_balanced(banks=50)", "n_m")


def record(cell, **values):
    return Record(cell=cell, task="toy", backend="numpy", **values)


def pruned(cell, pattern="unstructured", sparsity=0.5, seed=0):
    return record(cell, pattern=pattern, strategy="gradual", target_sparsity=sparsity, seed=seed)


def written(store, run, *found, age=0.0):
    """The folder of a run with these records."""
    path = store / "runs" / run / "records.json"
    records.write(path, found)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path.parent


def test_a_cell_whose_target_has_no_sparsity_is_called_by_its_targets_and_never_by_0():
    targets = [{"target": "cycles 3 on card", "reason": "too far"}, {"target": "fits on card", "reason": "too far"}]
    missed = pruned("a", sparsity=0.0).model_copy(update={"facts": {"targets": targets}})

    assert title(missed).endswith(" · gradual · no sparsity for cycles 3 on card, fits on card · seed 0")
    assert title(pruned("b", sparsity=0.0)).endswith(" · gradual · no sparsity for a target · seed 0")


GRID = {
    f"{place:012x}": title(pruned(f"{place:012x}", pattern, sparsity, seed))
    for place, (pattern, sparsity, seed) in enumerate(
        (pattern, sparsity, seed) for pattern in PATTERNS for sparsity in (0.5, 0.9, 0.95) for seed in range(12)
    )
}


@given(cell=st.sampled_from(sorted(GRID)), order=st.randoms(use_true_random=False))
def test_a_cell_is_meant_by_its_id_and_by_its_labels_in_any_order(cell, order):
    words = GRID[cell].replace("·", " ").replace("seed ", "seed=").split()
    order.shuffle(words)

    assert meant(cell, GRID) == cell
    assert meant(" ".join(words).upper(), GRID) == cell


@given(cell=st.sampled_from(sorted(GRID)), length=st.integers(1, 12))
def test_the_beginning_of_an_id_is_enough_where_it_is_unique(cell, length):
    fitting = [other for other in GRID if other.startswith(cell[:length])]

    if len(fitting) == 1:
        assert meant(cell[:length], GRID) == cell
    else:
        with pytest.raises(SpecError, match=f"which fits {len(fitting)}: "):
            meant(cell[:length], GRID)


def test_a_whole_label_counts_for_more_than_a_part_of_one():
    found = meant("n_m 0.9 seed 1", GRID)

    assert GRID[found] == "toy · numpy · n_m · uniform · gradual · 0.9 · seed 1"


def test_several_cells_are_named_and_a_great_many_counted():
    with pytest.raises(SpecError) as few:
        meant("banks=50 0.9 seed", {cell: name for cell, name in GRID.items() if name.endswith(("seed 3", "seed 4"))})
    with pytest.raises(SpecError) as many:
        meant("gradual", GRID)

    assert "which fits 2: " in str(few.value) and "seed 3); " in str(few.value)
    assert f"and {len(GRID) - lookup.SHOWN} more; add a pattern, a sparsity and a seed, or write the id" in str(
        many.value
    )
    assert "(unstructured · 0.5 · seed 0)" in str(many.value) and len(str(many.value)) < 500


def test_of_several_runs_the_latest_is_named_first_and_each_with_its_run(tmp_path):
    written(tmp_path, "old-1", pruned("aaaa"), pruned("bbbb", seed=1), age=10)
    written(tmp_path, "new-2", pruned("cccc"), pruned("bbbb", seed=1))

    with pytest.raises(SpecError) as found:
        find_cell(tmp_path, "unstructured")

    assert str(found.value).endswith(
        "cccc (seed 0, run new-2); bbbb (seed 1, run new-2); aaaa (seed 0, run old-1); add a seed, name the run with "
        "--run, or write the id of one"
    )


@pytest.mark.parametrize("text", ["", " ", "·", "block", "unstructured n_m"])
def test_a_text_that_fits_no_cell_is_told(text):
    with pytest.raises(EmptySelectionError, match=f"fits none of {len(GRID)} cells"):
        meant(text, GRID)


def test_a_cell_of_several_runs_is_as_the_latest_left_it(tmp_path):
    written(tmp_path, "old-1", pruned("abc"), pruned("only", seed=1), age=10)
    written(tmp_path, "new-1", pruned("abc").model_copy(update={"status": "ok"}))

    assert find_cell(tmp_path, "abc").record.status == "ok"
    assert find_cell(tmp_path, "abc", "old").record.status == "planned"
    assert find_cell(tmp_path, "only").folder.name == "old-1"


def test_a_run_is_found_by_name_beginning_and_folder(tmp_path):
    first, second = written(tmp_path, "grid-1", age=5), written(tmp_path, "grid-12")

    assert lookup.runs(tmp_path) == [second, first]
    assert find_run(tmp_path, None) == second
    assert find_run(tmp_path, "grid-1") == first
    assert find_run(tmp_path, str(second)) == second
    assert find_run(tmp_path / "none", str(second / "records.json")) == second
    with pytest.raises(SpecError, match="2 runs begin with 'grid': grid-12, grid-1"):
        find_run(tmp_path, "grid")
    with pytest.raises(SpecError, match="got 'poster'; there are grid-12, grid-1"):
        find_run(tmp_path, "poster")


def test_a_place_without_a_run_is_told_as_a_place(tmp_path):
    written(tmp_path, "grid-1")
    (tmp_path / "other.json").write_text("{}")

    for place in ("nowhere/records.json", "nowhere.json", str(tmp_path / "runs" / "grid-2"), "/" + "x" * 300):
        with pytest.raises(SpecError, match=f"got '{place}', which is not there"):
            find_run(tmp_path, place)
    for place in (tmp_path, tmp_path / "other.json"):
        with pytest.raises(SpecError, match="which is none of them"):
            find_run(tmp_path, str(place))


def test_a_link_in_place_of_a_run_is_no_run(tmp_path):
    elsewhere = written(tmp_path / "elsewhere", "grid-1")
    (tmp_path / "store" / "runs").mkdir(parents=True)
    (tmp_path / "store" / "runs" / "grid-1").symlink_to(elsewhere)

    with pytest.raises(EmptySelectionError, match="no run in"):
        lookup.runs(tmp_path / "store")


def test_the_baseline_is_called_dense():
    assert title(record("abc", seed=3)) == "toy · numpy · dense · seed 3"
