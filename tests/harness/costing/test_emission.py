"""From a file of masks or weights to the integers of a circuit, and to a folder that is there whole or not at all."""

import numpy as np
import pytest
from harness_plugins.hardware.cycle_simulator import CycleSimulator
from harness_plugins.hardware.engines.bank import Bank

from harness.api import HarnessError, NumberFormat, SpecError
from harness.costing import emission
from harness.costing.emission import Draw, emit, file_operands, one_layer
from harness.costing.workload import read_given
from harness.fixed_point.quantise import quantised

FORM = NumberFormat(weight_bits=6, activation_bits=8)


def pruned(rows, cols, density=0.4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, cols)) * (rng.random((rows, cols)) < density)


def read(path, form=FORM, layer=None, **options):
    workload = one_layer(read_given(path, **options).workload, layer)
    return workload, file_operands(path, workload, form, form.activation_bits, Draw(vectors=5, seed=1))


def test_weights_of_a_file_are_rounded_as_finished_models_are(tmp_path):
    weights = pruned(9, 14)
    np.savez(tmp_path / "file.npz", fc=weights)

    workload, found = read(tmp_path / "file.npz")

    expected, _ = quantised(weights, FORM)
    assert np.array_equal(found.weights, expected)
    assert not found.weights[~workload.masks["fc"]].any()
    assert found.vectors.shape == (5, 14)


def test_matrices_of_keras_are_turned(tmp_path):
    weights = pruned(8, 8, seed=2)
    np.savez(tmp_path / "file.npz", **{"dense/kernel:0": weights.T})

    _, found = read(tmp_path / "file.npz")

    assert np.array_equal(found.weights, quantised(weights, FORM)[0])


def test_the_matrices_of_an_lstm_layer_share_their_step(tmp_path):
    both = {"weight_ih_l0": pruned(16, 5), "weight_hh_l0": 9 * pruned(16, 4, seed=1)}
    np.savez(tmp_path / "file.npz", **both)

    _, found = read(tmp_path / "file.npz")

    assert np.array_equal(found.weights, quantised(np.hstack([*both.values()]), FORM)[0])


@pytest.mark.parametrize("scaling", ["tensor", "row"])
def test_drawn_vectors_overflow_no_accumulator_and_fill_the_results(tmp_path, scaling):
    form = NumberFormat(weight_bits=8, activation_bits=8, accumulator_bits=16, scaling=scaling)
    np.savez(tmp_path / "file.npz", fc=pruned(9, 200) * np.exp(np.arange(9))[:, None])

    _, found = read(tmp_path / "file.npz", form)

    exact = found.vectors @ found.weights.T
    assert np.array_equal(found.sums, exact)
    assert 64 <= np.abs(found.outputs).max() <= 127
    assert len(set(found.shifts.tolist())) == (1 if scaling == "tensor" else 9)


def test_a_file_of_masks_gets_drawn_weights_and_says_so(tmp_path):
    mask = pruned(9, 14) != 0
    np.savez(tmp_path / "file.npz", fc=mask)

    _, found = read(tmp_path / "file.npz")

    assert np.array_equal(found.weights != 0, mask)
    assert "drawn with seed 1 on the masks of fc" in found.origin[0]


def test_of_several_layers_one_is_named(tmp_path):
    np.savez(tmp_path / "file.npz", a=pruned(6, 7), b=pruned(7, 6))
    workload = read_given(tmp_path / "file.npz").workload

    with pytest.raises(SpecError, match=r"expected one of a(,| and) b, got none named"):
        one_layer(workload, None)
    with pytest.raises(SpecError, match="got 'c'"):
        one_layer(workload, "c")
    assert [tensor.name for tensor in one_layer(workload, "b").tensors] == ["b"]


def test_a_layer_that_an_item_runs_at_many_positions_is_costed_for_one_vector_as_the_circuit_takes_them(tmp_path):
    np.savez(tmp_path / "file.npz", a=pruned(6, 7), b=pruned(7, 6))
    workload = read_given(tmp_path / "file.npz", output_sizes={"b": (16,)}).workload

    assert workload.output_pixels == {"b": 16}
    assert one_layer(workload, "b").output_pixels == {"b": 1}


@pytest.fixture
def small(tmp_path):
    np.savez(tmp_path / "file.npz", fc=pruned(6, 7))
    return CycleSimulator(engine=Bank(pes=2, lanes=2)), *read(tmp_path / "file.npz", NumberFormat())


def test_a_design_is_put_into_a_new_or_empty_folder(small, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    (tmp_path / "empty").mkdir()

    for folder in (tmp_path / "deep" / "new", tmp_path / "empty"):
        made = emit(*small, folder)

        assert made.bench is None and made.holds
        written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert written == set(made.circuit.files)


def test_a_folder_with_something_in_it_is_left_as_it_is(small, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")

    with pytest.raises(SpecError, match="expected a folder that is not there, or an empty one"):
        emit(*small, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_nothing_remains_of_a_design_whose_bench_could_not_be_run(small, tmp_path, monkeypatch):
    def fails(model, folder):
        raise HarnessError("the simulator is broken; install it again")

    monkeypatch.setattr(emission, "simulated_by", fails)

    with pytest.raises(HarnessError, match="the simulator is broken"):
        emit(*small, tmp_path / "out" / "design")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(small, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(SpecError, match="cannot be written"):
        emit(*small, tmp_path / "file" / "design")
