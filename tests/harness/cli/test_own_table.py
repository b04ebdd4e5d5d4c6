"""What is printed of the tensors of a model of the user's own."""

from harness.api import Axis, ListedTensor, NativeModel, Place, Tensor
from harness.cli._own_table import own_model_document
from harness.report import rich


def matrix(name, layer, role="dense"):
    rows, cols = Axis(label=f"{layer}.units", size=300), Axis(label=f"{layer}.inputs", size=200)
    return Tensor(name=name, layer=layer, role=role, rows=rows, cols=cols)


def model(framework="torch", **changes):
    long = "encoder.layers.0.self_attention.very_long_name_of_a_layer"
    query, words = matrix(f"{long}.q.weight", f"{long}.q", "attention"), matrix("words.weight", "words", "embedding")
    bias = Tensor(name="out.bias", layer="out", role="bias", rows=Axis(label="out.units", size=300))
    values = {
        "framework": framework,
        "trained": (query, words, bias),
        "places": (
            Place(tensor=query.name, parameter=f"{long}.in_proj_weight", start=0, rows=300),
            Place(tensor="words.weight", parameter="words.weight"),
            Place(tensor="out.bias", parameter="out.bias"),
        ),
        "positions": {f"{long}.q": 49},
        "listed": (
            ListedTensor(tensor=query.name, kind="MultiheadAttention", shape=(300, 200)),
            ListedTensor(tensor="words.weight", kind="Embedding", shape=(300, 200), also=("logits.weight",)),
            ListedTensor(tensor="out.bias", kind="Linear", shape=(300,), left_out="a bias or a vector"),
            ListedTensor(tensor="stem.weight", kind="Conv2d", shape=(3, 3), left_out="frozen"),
        ),
    }
    return NativeModel(**(values | changes))


def shown(network, width=80):
    return rich.text(own_model_document("mine", network, network.trained[:1]), width)


def test_every_matrix_stands_with_its_shape_and_positions_and_whether_it_is_pruned():
    text = shown(model(), 160)

    assert "mine (torch): prunable tensors: 2; pruned here: 1" in text
    (line,) = [line for line in text.splitlines() if ".q.weight" in line and "300 x 200" in line]
    assert line.split()[1:] == ["attention", "yes", "300", "x", "200", "49", "MultiheadAttention"]


def test_what_is_left_out_stands_with_its_reason():
    text = shown(model())

    assert "never pruned, a bias or a vector: out.bias" in text
    assert "never pruned, frozen: stem.weight" in text


def test_tied_and_fused_parameters_are_told():
    text = " ".join(shown(model()).split())

    assert "tied, counted once: words.weight = logits.weight" in text
    assert "in_proj_weight: encoder.layers.0.self_attention.very_long_name_of_a_layer.q.weight" in text


def test_nothing_is_cut_at_eighty_columns():
    wide, narrow = shown(model(), 400), shown(model(), 80)

    # Rules and repeated key columns aside, the same words.
    assert {word for word in wide.split() if "─" not in word} == {word for word in narrow.split() if "─" not in word}


def test_a_keras_model_says_who_holds_its_masks():
    assert "TF-MOT's wrappers in conv, by the harness elsewhere" in shown(model("keras", wrapped=("conv",)))
    assert "Masks are held by the harness" in shown(model("keras"))
