"""Workloads described by sizes and densities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Convolution, DataError, SpecError, keep_count
from harness.costing.workload import DESCRIPTIONS, described, read_given


def written(folder, text, name="workload.yaml"):
    path = folder / name
    path.write_text(text)
    return path


LSTM = "layers:\n  - {type: lstm, name: rnn, inputs: 10, units: 8, density: 0.25, recurrent_density: 0.5}\n"


def test_an_lstm_has_two_matrices_with_densities_of_their_own(tmp_path):
    workload = described(written(tmp_path, LSTM)).workload

    assert [tensor.name for tensor in workload.tensors] == ["rnn.kernel", "rnn.recurrent_kernel"]
    assert workload.kept == {"rnn.kernel": 80, "rnn.recurrent_kernel": 128}
    assert not workload.masks


def test_layers_without_density_are_dense(tmp_path):
    text = "layers:\n  - {type: dense, name: out, inputs: 10, outputs: 3}\n"

    workload = described(written(tmp_path, text)).workload

    assert workload.tensors[0].shape == (3, 10)
    assert workload.kept == {} and workload.banks == {}


def test_banks_keep_whole_numbers_of_weights(tmp_path):
    text = "layers:\n  - {type: dense, name: out, inputs: 50, outputs: 4, density: 0.25, banks: 10}\n"

    workload = described(written(tmp_path, text)).workload

    assert workload.banks == {"out.kernel": 10}
    assert workload.kept == {"out.kernel": 4 * 10 * 1}  # 1.25 of every 5 is one


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 100))
def test_without_banks_the_count_is_the_one_of_the_patterns(tmp_path_factory, rows, cols, percent):
    folder = tmp_path_factory.mktemp("w")
    entry = f"{{type: dense, name: out, inputs: {cols}, outputs: {rows}, density: {percent / 100}}}"

    kept = described(written(folder, f"layers:\n  - {entry}\n")).workload.kept.get("out.kernel", rows * cols)

    assert kept == keep_count(rows * cols, (100 - percent) / 100)


def test_outputs_of_convolutions_are_given_or_follow_from_the_image(tmp_path):
    conv = "type: conv2d, name: c, inputs: 1, outputs: 2, kernel: [3, 3], density: 0.5"
    given_size = described(written(tmp_path, f"layers:\n  - {{{conv}, output: [6, 5]}}\n")).workload
    image = described(
        written(tmp_path, f"input_shape: [1, 8, 8]\nlayers:\n  - {{{conv}}}\n  - {{type: pool2d, size: 2}}\n")
    ).workload

    assert given_size.output_pixels == {"c": 30}
    assert image.output_pixels == {} and image.network.input_shape == (1, 8, 8)
    assert [layer.type for layer in image.network.layers] == ["conv2d", "pool2d"]
    assert given_size.convolutions == {"c": Convolution(1, (3, 3), 1, (6, 5))}
    assert image.convolutions == {"c": Convolution(1, (3, 3), 1, (6, 6), image=(8, 8))}


def test_groups_and_strides_are_described_and_reach_the_engines(tmp_path):
    depthwise = "{type: conv2d, name: a, inputs: 8, outputs: 8, kernel: [3, 3], groups: 8, padding: 1, stride: 2}"
    point = "{type: conv2d, name: b, inputs: 8, outputs: 4, kernel: [1, 1]}"
    text = f"input_shape: [8, 9, 9]\nlayers:\n  - {depthwise}\n  - {point}\n"

    workload = described(written(tmp_path, text)).workload

    assert [tensor.shape for tensor in workload.tensors] == [(8, 9), (4, 8)]
    assert workload.convolutions == {
        "a": Convolution(8, (3, 3), 2, (5, 5), image=(9, 9), groups=8),
        "b": Convolution(8, (1, 1), 1, (5, 5), image=(5, 5)),
    }


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("groups: 3", "multiples of its 3 groups, got 8 and 8"),
        ("kernel: [9, 9]", "its window is larger than the 5 x 5 that it gets"),
    ],
)
def test_a_convolution_that_cannot_be_is_refused(tmp_path, changed, told):
    fields = {"kernel": "kernel: [3, 3]", changed.split(":")[0]: changed}
    entry = f"{{type: conv2d, name: a, inputs: 8, outputs: 8, {', '.join(fields.values())}}}"

    with pytest.raises(SpecError, match=told):
        described(written(tmp_path, f"input_shape: [8, 5, 5]\nlayers:\n  - {entry}\n"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty file"),
        ("3\n", "mapping"),
        ("layers: []\n", "at least 1"),
        ("layers:\n  - {type: gru, name: a}\n", "workload.yaml:2"),
        ("layers:\n  - {type: dense, name: a, inputs: 0, outputs: 2}\n", "above 0"),
        ("layers:\n  - {type: dense, name: a, inputs: 2}\n", "outputs"),
        ("layers:\n  - {type: dense, name: a, inputs: 2, outputs: 2, density: 101}\n", "at most 1"),
        ("layers:\n  - {type: dense, name: a, inputs: 2, outputs: 2, density: 10}\n", "got 10; write 0.1 for 10 %"),
        ("layers:\n  - {type: dense, name: a, inputs: 2, outputs: 2, density: 2.5 %}\n", "'2.5 %'; write 0.025 for"),
        ("layers:\n  - {type: Dense, name: a}\n",
         "2:12 layers[0].type: expected one of lstm, dense, conv2d, pool2d, got 'Dense'; did you mean 'de"),
        ("layers:\n  - {name: a, inputs: 2}\n", "workload.yaml:2:5 layers[0]: expected `type`, got nothing"),
        ("layers:\n  - {type: lstm, name: a, inputs: 2, units: 2, input: 3}\n", "did you mean 'inputs'?"),
        ("layers:\n  - {type: dense, name: a, inputs: 9000000, outputs: 9000000}\n", "got 8.1e+13 in 'a'"),
        ("layers:\n  - {type: dense, name: a, inputs: 2, outputs: 2, banks: 3}\n", "at most 2 banks, got 3"),
        ("layers:\n  - {type: dense, name: a, inputs: 2, outputs: 2, colour: red}\n", "colour"),
        ("layers:\n  - {type: pool2d, size: 2}\n", "only pooling"),
        ("layers:\n  - {type: conv2d, name: c, inputs: 1, outputs: 2, kernel: [3, 3]}\n", "`output`"),
        ("layers: [{type: dense, name: a, inputs: 2, outputs: 2}, {type: dense, name: a, inputs: 2, outputs: 2}]\n",
         "a name of its own, got 'a' twice"),
        ("version: 2\nlayers:\n  - {type: dense, name: a, inputs: 2, outputs: 2}\n", "workload.yaml:1"),
        ("layers: [\n", "workload.yaml"),
        *[(f"layers:\n  - {{type: dense, name: a, inputs: 2, outputs: 2, {key}: true}}\n",
           f"workload.yaml:2:{53 + len(key)} layers[0].{key}: expected a number or a text, got true")
          for key in ("density", "banks", "activation_density")],
        ("version: true\nlayers:\n  - {type: dense, name: true, inputs: 2, outputs: 2}\n", "layers[0].name: expec"),
        ("input_shape: [1, true, 4]\nlayers:\n  - {type: dense, name: a, inputs: 2, outputs: 2}\n", "input_shape[1]"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_the_file_and_the_value(tmp_path, text, told):
    path = written(tmp_path, text)

    with pytest.raises(SpecError, match=r"workload\.yaml") as raised:
        described(path)

    assert told in str(raised.value)


def test_one_mistake_of_one_layer_is_told_once(tmp_path):
    path = written(tmp_path, "layers:\n  - {type: dense, name: a, inputs: 0, outputs: 2}\n")

    with pytest.raises(SpecError) as raised:
        described(path)

    assert str(raised.value).splitlines() == [f"{path}:2:36 layers[0].inputs: expected a number above 0, got 0"]


def test_a_missing_description_is_told(tmp_path):
    with pytest.raises(SpecError, match=r"absent\.yaml.*no such file"):
        described(tmp_path / "absent.yaml")


def test_options_of_mask_files_are_refused_for_descriptions(tmp_path):
    path = written(tmp_path, LSTM)

    for options in ({"banks": 2}, {"layout": "rows_in"}, {"output_sizes": {"rnn": (2, 2)}}):
        with pytest.raises(SpecError, match="inside it"):
            read_given(path, **options)


def test_activation_densities_come_by_layer_or_for_all(tmp_path):
    path = written(
        tmp_path,
        LSTM + "  - {type: dense, name: out, inputs: 8, outputs: 3, activation_density: 0.9}\n",
        f"two{DESCRIPTIONS[1]}",
    )

    alone = read_given(path).workload
    one = read_given(path, activation_density={"rnn": 0.3}).workload
    both = read_given(path, activation_density={"": 0.5, "rnn": 0.3}).workload

    assert alone.activation_density == {"rnn": 1.0, "out": 0.9}
    assert one.activation_density == {"rnn": 0.3, "out": 0.9}
    assert both.activation_density == {"rnn": 0.3, "out": 0.5}


@pytest.mark.parametrize("densities", [{"cnn": 0.5}, {"rnn": 1.5}, {"": float("nan")}])
def test_a_wrong_activation_density_is_refused(tmp_path, densities):
    with pytest.raises(SpecError, match="--activation-density"):
        read_given(written(tmp_path, LSTM), activation_density=densities)


def test_a_file_of_masks_brings_its_notes(tmp_path):
    mask = np.eye(4, dtype=bool)
    np.savez(tmp_path / "masks.npz", layer=mask, bias=np.ones(4))

    given_file = read_given(tmp_path / "masks.npz")

    assert (given_file.workload.masks["layer"] == mask).all()
    assert any("bias" in note for note in given_file.told())


def test_a_damaged_file_of_masks_is_refused(tmp_path):
    (tmp_path / "masks.npz").write_bytes(b"nothing of the kind")

    with pytest.raises(DataError, match=r"masks\.npz"):
        read_given(tmp_path / "masks.npz")


@pytest.mark.parametrize(
    "text",
    [
        "layers: [{type: dense, name: a, inputs: 16777216, outputs: 16777216}]",
        "layers: [{type: lstm, name: a, inputs: 64, units: 131072}]",
        "layers: [{type: conv2d, name: a, inputs: 1, outputs: 1, kernel: [9, 9], output: [16777216, 16777216]}]",
        "layers: [{type: conv2d, name: a, inputs: 65536, outputs: 65536, kernel: [3, 3], output: [8, 8]}]",
        "input_shape: [3, 16777216, 16777216]\nlayers: [{type: conv2d, name: a, inputs: 3, outputs: 1, kernel: [1,1]}]",
        "input_shape: [3, 1000000000000, 5]\nlayers: [{type: conv2d, name: a, inputs: 3, outputs: 4, kernel: [3, 3]}]",
        "input_shape: [3, -1, 5]\nlayers: [{type: conv2d, name: a, inputs: 3, outputs: 4, kernel: [3, 3]}]",
        "layers: [{type: pool2d, size: 1000000000000}, {type: dense, name: a, inputs: 4, outputs: 4}]",
    ],
)
def test_sizes_that_no_layer_has_are_refused_before_anything_is_made(tmp_path, text):
    with pytest.raises(SpecError, match=r"expected (at most|a number)"):
        described(written(tmp_path, text))
