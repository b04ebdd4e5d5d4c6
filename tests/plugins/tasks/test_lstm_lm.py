"""The LSTM language model: presets, batching, texts, initial weights, and what records say of them."""

import os
from pathlib import Path

import numpy as np
import pytest
from harness_plugins.tasks import _corpora
from harness_plugins.tasks.lstm_lm import PRESETS, TEST_SEGMENT, LstmLm
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.api import DataError, Evaluation

RNG = np.random.default_rng(0)  # batches of text never draw from it


def write(folder, train, valid="a b\n", test="a b\n"):
    for split, content in {"train": train, "valid": valid, "test": test}.items():
        (folder / f"{split}.txt").write_text(content, encoding="utf-8")
    return folder


def tiny(folder, **parameters):
    return LstmLm(corpus="text", **{"hidden": 4, "batch": 1, "steps": 1, **parameters}).load(folder)


def synthetic(**parameters):
    return LstmLm(**{"hidden": 4, "synthetic": {"tokens": 1000}, "batch": 4, "steps": 5, **parameters}).load(None)


def batches(problem, split, epoch=0):
    return list(problem.batches(split, epoch, RNG))


@pytest.fixture(scope="module")
def ptb_folder():
    folder = Path(os.environ.get("HARNESS_DATA") or Path(__file__).parents[4] / "shared" / "data")
    if not any((place / "ptb.train.txt").is_file() for place in (folder, folder / "ptb")):
        pytest.skip("Penn Treebank is not beside the repository")
    return folder


# --- Penn Treebank, published counts: tensorflow/models @ 086660f and the files themselves ---


def test_penn_treebank_has_its_published_counts(ptb_folder):
    facts = LstmLm(corpus="ptb").load(ptb_folder).facts

    assert facts["tokens"] == {"train": 929589, "valid": 73760, "test": 82430}
    assert facts["vocabulary"] == 10000
    assert facts["predicted_tokens"] == {"train": 929200, "valid": 73600, "test": 82429}
    assert facts["is_cut"] is False
    assert facts["published_dense_test_perplexity"] == 115.91


@pytest.mark.parametrize(
    ("size", "steps", "parameters"),
    [("small", 2323, 4_651_600), ("medium", 1327, 19_775_200), ("large", 1327, 66_022_000)],
)
def test_each_preset_has_the_published_steps_and_size(ptb_folder, size, steps, parameters):
    problem = LstmLm(corpus="ptb", size=size).load(ptb_folder)

    assert problem.recipe.steps_per_epoch == steps
    assert sum(tensor.size for tensor in problem.tensors()) == parameters


def test_cut_training_text_keeps_the_vocabulary_and_the_test_text(ptb_folder):
    facts = LstmLm(corpus="ptb", train_tokens=250_000).load(ptb_folder).facts

    assert facts["vocabulary"] == 10000
    assert facts["tokens"] == {"train": 250_000, "valid": 73760, "test": 82430}
    assert facts["train_tokens"] == 250_000
    assert facts["is_cut"] is True
    assert "published_dense_test_perplexity" not in facts


# --- recipe ---


def test_the_presets_are_those_of_the_published_code():
    # hidden, steps, init, dropout, clip norm, full epochs, epochs, decay: tensorflow/models @ 086660f, ptb_word_lm.py
    published = {
        "small": (200, 20, 0.1, 0.0, 5, 4, 13, 0.5),
        "medium": (650, 35, 0.05, 0.5, 5, 6, 39, 0.8),
        "large": (1500, 35, 0.04, 0.65, 10, 14, 55, 1 / 1.15),
    }
    fields = ("hidden", "steps", "init", "dropout", "clip_norm", "full_epochs", "epochs", "decay")

    presets = {size: LstmLm(size=size).settings() for size in published}

    assert {size: tuple(getattr(preset, field) for field in fields) for size, preset in presets.items()} == published
    assert {(preset.layers, preset.batch, preset.learning_rate) for preset in presets.values()} == {(2, 20, 1.0)}


def test_the_last_learning_rates_are_those_of_the_published_recipes():
    # facts: decay ** (epochs - max_epoch), TensorFlow's rule
    published = {"small": 0.001953125, "medium": 0.000633825, "large": 0.003246299}

    last = {
        size: LstmLm(size=size, synthetic={"tokens": 8000}, hidden=2).load(None).recipe.last_rate for size in published
    }

    assert last == pytest.approx(published, rel=1e-6)


def test_the_first_full_epochs_run_at_the_full_rate():
    rate = synthetic().recipe.learning_rate

    assert [rate.at(epoch) for epoch in range(6)] == [1.0, 1.0, 1.0, 1.0, 0.5, 0.25]


OTHER = {
    "hidden": 3, "layers": 3, "steps": 4, "batch": 5, "init": 0.3, "dropout": 0.25, "clip_norm": 2.0, "epochs": 7,
    "full_epochs": 1, "decay": 0.9, "learning_rate": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_every_number_of_a_preset_can_be_overridden_alone(name):
    settings = LstmLm(size="medium", **{name: OTHER[name]}).settings()

    assert settings.model_dump() == {**PRESETS["medium"].model_dump(), name: OTHER[name]}


@pytest.mark.parametrize("name", OTHER)
def test_every_override_changes_network_recipe_or_weights(name):
    def seen(problem):
        weights = problem.initial_weights(0)["lstm_0.kernel"]
        return problem.network, problem.recipe, problem.fingerprint, float(np.abs(weights).max())

    assert seen(synthetic(**{name: OTHER[name]})) != seen(synthetic())


@pytest.mark.parametrize("name", ["epochs", "full_epochs", "decay", "learning_rate", "clip_norm"])
def test_the_length_and_the_rates_of_the_recipe_leave_the_fingerprint(name):
    assert synthetic(**{name: OTHER[name]}).fingerprint == synthetic().fingerprint


@pytest.mark.parametrize(
    "parameters",
    [{"train_tokens": 900}, {"eval_tokens": 90}, {"batch": 3}, {"steps": 4}, {"init": 0.2}, {"hidden": 5},
     {"synthetic": {"tokens": 1000, "seed": 1}}],
    ids=str,
)  # fmt: skip
def test_whatever_changes_data_batches_or_weights_changes_the_fingerprint(parameters):
    assert synthetic(**parameters).fingerprint != synthetic().fingerprint


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"corpus": "ptb", "path": "books"}, "path"),
        ({"corpus": "ptb", "synthetic": {"words": 50}}, "synthetic"),
        ({"corpus": "text", "synthetic": {"seed": 1}}, "synthetic"),
    ],
)
def test_a_parameter_that_the_corpus_would_ignore_is_refused(parameters, field):
    with pytest.raises(ValidationError, match=f"`{field}` belongs to corpus '(text|synthetic)' and corpus is"):
        LstmLm(**parameters)


@pytest.mark.parametrize(
    "parameters", [{"hidden": 0}, {"dropout": 1.0}, {"size": "tiny"}, {"corpus": "wikitext"}, {"units": 3}], ids=str
)
def test_parameters_out_of_range_are_refused(parameters):
    with pytest.raises(ValidationError):
        LstmLm(**parameters)


# --- network ---


def test_units_that_meet_have_the_same_label():
    tensors = {tensor.name: tensor for tensor in synthetic(layers=2).tensors()}

    assert tensors["lstm_0.kernel"].cols == tensors["embedding.table"].cols
    assert tensors["lstm_1.kernel"].cols.label == tensors["lstm_0.recurrent_kernel"].cols.label
    assert tensors["softmax.kernel"].cols.label == tensors["lstm_1.kernel"].rows.label
    assert tensors["lstm_0.kernel"].rows.repeat == 4


def test_dropout_stands_on_every_non_recurrent_path_and_nowhere_without_a_rate():
    kinds = [layer.type for layer in synthetic(dropout=0.5).network.layers]

    assert kinds == ["embedding", "dropout", "lstm", "dropout", "lstm", "dropout", "dense"]
    assert [layer.type for layer in synthetic().network.layers] == ["embedding", "lstm", "lstm", "dense"]


def test_lstm_biases_begin_at_zero_and_everything_else_within_init():
    weights = synthetic(init=0.25).initial_weights(seed=3)

    assert not weights["lstm_0.bias"].any() and not weights["lstm_1.bias"].any()
    for name in ("embedding.table", "lstm_0.kernel", "lstm_1.recurrent_kernel", "softmax.kernel", "softmax.bias"):
        assert weights[name].dtype == np.float32
        assert 0.15 < np.abs(weights[name]).max() <= 0.25


def test_initial_weights_depend_on_the_seed_and_nothing_else():
    first, again, other = (synthetic().initial_weights(seed) for seed in (1, 1, 2))

    assert all((first[name] == again[name]).all() for name in first)
    assert (first["softmax.kernel"] != other["softmax.kernel"]).any()
    assert (first["lstm_0.kernel"] != first["lstm_1.kernel"]).any()


def test_one_more_layer_leaves_the_weights_of_the_others_alone():
    two, three = synthetic(layers=2).initial_weights(0), synthetic(layers=3).initial_weights(0)

    assert all((two[name] == three[name]).all() for name in two)


# --- batches ---


@settings(deadline=None)
@given(tokens=st.integers(12, 400), batch=st.integers(1, 6), steps=st.integers(1, 9))
def test_batches_are_contiguous_streams_whose_targets_are_the_next_tokens(tokens, batch, steps):
    assume(tokens >= batch * (steps + 1))
    problem = LstmLm(train_tokens=tokens, batch=batch, steps=steps, synthetic={"tokens": 1000}, hidden=2).load(None)

    train = batches(problem, "train")

    whole = LstmLm(synthetic={"tokens": 1000}, hidden=2, batch=1, steps=1).load(None)
    text = np.array([int(each.inputs[0, 0]) for each in batches(whole, "train")])
    length = tokens // batch
    assert len(train) == problem.recipe.steps_per_epoch == (length - 1) // steps
    inputs = np.concatenate([each.inputs for each in train], axis=1)
    targets = np.concatenate([each.targets for each in train], axis=1)
    assert inputs.shape == (batch, len(train) * steps) and inputs.dtype == np.int32
    for stream in range(batch):
        start = stream * length
        assert (inputs[stream] == text[start : start + inputs.shape[1]]).all()
        assert (inputs[stream, 1:] == targets[stream, :-1]).all()


@settings(deadline=None)
@given(tokens=st.integers(6, 1500))
def test_the_test_text_is_predicted_whole_but_for_its_first_token(tokens):
    problem = LstmLm(synthetic={"tokens": 15_000}, eval_tokens=tokens, hidden=2, batch=2, steps=2).load(None)

    segments = batches(problem, "test")

    assert sum(segment.targets.size for segment in segments) == tokens - 1
    assert all(segment.inputs.shape == (1, TEST_SEGMENT) for segment in segments[:-1])
    inputs = np.concatenate([segment.inputs for segment in segments], axis=1)
    targets = np.concatenate([segment.targets for segment in segments], axis=1)
    assert (inputs[0, 1:] == targets[0, :-1]).all()


def test_every_epoch_has_the_same_batches_in_the_same_order():
    problem = synthetic()

    pairs = zip(batches(problem, "train", 0), batches(problem, "train", 7), strict=True)

    assert all((first.inputs == later.inputs).all() for first, later in pairs)


def test_predicted_tokens_are_counted_as_they_are_batched():
    problem = synthetic()

    counted = {
        split: sum(each.targets.size for each in batches(problem, split)) for split in ("train", "valid", "test")
    }

    assert problem.facts["predicted_tokens"] == counted


# --- texts ---


def test_ids_go_by_count_and_then_by_the_alphabet(tmp_path):
    problem = tiny(write(tmp_path, "b a c\nb a d\nb\n", test="d c a b\n"))

    # b and <eos> stand three times ('<' before 'b'), a twice, c and d once
    ids = [int(token) for each in batches(problem, "test") for token in (*each.inputs[0], *each.targets[0][-1:])]
    assert problem.facts["vocabulary"] == 5
    assert ids == [4, 3, 2, 1, 0]


def test_every_line_ends_in_eos_even_the_last_without_line_end(tmp_path):
    with_end = tiny(write(tmp_path, "a b\r\n\na", test="a b\n")).facts["tokens"]

    assert with_end == {"train": 6, "valid": 3, "test": 3}


def test_unknown_words_of_the_test_text_become_unk_where_there_is_one(tmp_path):
    problem = tiny(write(tmp_path, "a <unk> a b\n", test="a zebra b\n"))
    by_hand = tiny(write(tmp_path, "a <unk> a b\n", test="a <unk> b\n"))

    assert (batches(problem, "test")[0].inputs == batches(by_hand, "test")[0].inputs).all()


def test_an_unknown_word_without_unk_is_named_with_its_line(tmp_path):
    write(tmp_path, "a b\n", test="a b\nb a\na zebra\n")

    with pytest.raises(DataError, match=r"neither 'zebra' \(.*test\.txt, line 3\) nor <unk>"):
        tiny(tmp_path)


def test_a_folder_with_prefixed_names_is_read(tmp_path):
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine", "a b a b\n")
    for split in ("train", "valid", "test"):
        (tmp_path / "mine" / f"{split}.txt").rename(tmp_path / "mine" / f"novel.{split}.txt")

    assert tiny(tmp_path, path="mine").facts["tokens"]["train"] == 5


def test_an_edited_text_is_read_again(tmp_path):
    before = tiny(write(tmp_path, "a b a b\n"))
    write(tmp_path, "b a a b a\n")
    os.utime(tmp_path / "train.txt", ns=(1, 1))

    after = tiny(tmp_path)

    assert (before.facts["tokens"]["train"], after.facts["tokens"]["train"]) == (5, 6)
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize("content", ["", "\n\n\n", "  \n"])
def test_an_empty_corpus_is_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"train\.txt has no words"):
        tiny(write(tmp_path, content))


def test_bytes_that_are_no_text_are_refused_with_their_place(tmp_path):
    write(tmp_path, "a b\n")
    (tmp_path / "valid.txt").write_bytes(b"abc \xff")

    with pytest.raises(DataError, match=r"valid\.txt: expected a corpus as UTF-8 text, got another byte at offset 4"):
        tiny(tmp_path)


def test_a_text_too_short_for_one_segment_is_refused(tmp_path):
    write(tmp_path, "a b a\n")

    with pytest.raises(DataError, match=r"batch=2 and steps=2 need 6 tokens of train text, .* gives 4"):
        tiny(tmp_path, batch=2, steps=2)


@pytest.mark.parametrize(("field", "split"), [("train_tokens", "train"), ("eval_tokens", "valid")])
def test_more_tokens_than_there_are_is_refused(field, split):
    with pytest.raises(DataError, match=rf"{field}=2000 asks for more than the \d+ tokens of the {split} text"):
        synthetic(**{field: 2000})


def test_missing_files_are_named_with_the_places_looked_in(tmp_path):
    (tmp_path / "ptb.train.txt").write_text("a\n")

    with pytest.raises(DataError) as raised:
        LstmLm(corpus="ptb").load(tmp_path)
    assert str(raised.value) == (
        f"lstm_lm found no ptb.valid.txt, ptb.test.txt in {tmp_path / 'ptb'} or {tmp_path}; get the data set with "
        f"`harness data fetch ptb --data-dir {tmp_path}`, or give the folder that holds it"
    )


def test_without_a_data_folder_the_error_says_how_to_give_one():
    with pytest.raises(DataError, match=r"needs the data set 'ptb' and no data folder is given; pass `--data-dir DIR`"):
        LstmLm(corpus="ptb").load(None)
    with pytest.raises(DataError, match="reads the folder 'books' of the data folder and none is given"):
        LstmLm(corpus="text", path="books").load(None)


def test_a_text_folder_without_its_files_says_which(tmp_path):
    with pytest.raises(DataError, match=r"expects one train\.txt or NAME\.train\.txt in .*, got no such file"):
        tiny(tmp_path)


def test_a_text_folder_with_two_candidates_is_not_guessed_at(tmp_path):
    for name in ("a.train.txt", "b.train.txt"):
        (tmp_path / name).write_text("a\n")

    with pytest.raises(DataError, match=r"got 2 files: a\.train\.txt, b\.train\.txt"):
        tiny(tmp_path)


# --- metric and smoke ---


def test_perplexity_is_exp_of_the_mean_nats_per_token():
    value = synthetic().value(Evaluation(nats=np.log(50) * 10, items=10))

    assert value == pytest.approx(50)


def test_a_hopeless_perplexity_is_infinite_rather_than_an_error():
    assert synthetic().value(Evaluation(nats=1e6, items=1)) == float("inf")


@pytest.mark.parametrize("size", list(PRESETS))
def test_smoke_is_short_and_loads(size):
    problem = LstmLm(size=size).smoke().load(None)

    assert problem.recipe.epochs == LstmLm(size=size).load(None).recipe.epochs
    assert problem.recipe.steps_per_epoch <= 20
    assert problem.facts["is_cut"] is True
    assert len(batches(problem, "valid")) > 0


def test_smoke_keeps_the_corpus(ptb_folder):
    facts = LstmLm(corpus="ptb").smoke().load(ptb_folder).facts

    assert facts["corpus"] == "ptb"
    assert facts["vocabulary"] == 10000
    assert facts["tokens"]["test"] < 500


# --- texts as people bring them ---


def words(folder, content, encoding="utf-8"):
    """The training text as words, and what is said of its lines."""
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_bytes(content.encode(encoding))
    corpus = _corpora.text(None, str(folder))
    ids = corpus.texts["train"]
    by_count = sorted(set(ids.tolist()))
    return len(by_count), ids.tolist(), corpus.facts.get("lines", {}).get("train", {})


PLAIN = "a b a\nb a\n"


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (PLAIN, "utf-8-sig"),
        (PLAIN, "utf-16"),
        ("\ufeff" + PLAIN, "utf-16-be"),
        ("\ufeff" + PLAIN, "utf-32-le"),
        (PLAIN.replace("\n", "\r\n"), "utf-8"),
        (PLAIN.replace("\n", "\r"), "utf-8"),
        (PLAIN.replace("\nb", "\n\ufeffb"), "utf-8"),
        ("\ufeff a b a \n b a \n", "utf-8"),
        (PLAIN.replace("\n", " <eos>\n"), "utf-8"),
        ("a b a <eos> b a <eos>", "utf-8"),
        (PLAIN.replace("\n", " <eos>\n\n"), "utf-8"),
        ("a b a\nb a <eos>\n", "utf-8"),
    ],
    ids=[
        "bom",
        "utf-16",
        "utf-16-be",
        "utf-32",
        "crlf",
        "cr",
        "bom within",
        "bom then blank",
        "own eos",
        "own eos in one line",
        "own eos and empty lines",
        "eos once",
    ],
)
def test_the_same_text_has_the_same_words_however_it_was_saved(tmp_path, content, encoding):
    (tmp_path / "plain").mkdir()
    (tmp_path / "other").mkdir()

    assert words(tmp_path / "other", content, encoding)[:2] == words(tmp_path / "plain", PLAIN)[:2]


def test_an_eos_that_is_in_the_file_already_is_said(tmp_path):
    assert words(tmp_path, "a b <eos>\nb a\n")[2] == {"ended_by_eos_in_the_file": 1}
    assert words(tmp_path, "a b\nb a\n")[2] == {}


def test_an_empty_line_is_a_line_and_is_said(tmp_path):
    (tmp_path / "full").mkdir()
    count, ids, facts = words(tmp_path, "a b\n\nb a\n")

    assert len(ids) == 7 and count == 3
    assert facts == {"empty": 1, "empty_are": "one <eos> each"}


def test_the_line_of_an_unknown_word_counts_every_line_of_the_file(tmp_path):
    write(tmp_path, "a b <eos>\n", test="a <eos>\n\n\nzebra <eos>\n")

    with pytest.raises(DataError, match=r"neither 'zebra' \(.*test\.txt, line 4\)"):
        tiny(tmp_path)


@pytest.mark.parametrize("make", ["pipe", "folder", "dangling", "loop"])
def test_what_is_no_text_file_is_told_by_what_it_is(tmp_path, make):
    write(tmp_path, "a b\n")
    path = tmp_path / "train.txt"
    path.unlink()
    if make == "pipe":
        os.mkfifo(path)
    elif make == "folder":
        path.mkdir()
    else:
        path.symlink_to(path if make == "loop" else tmp_path / "gone")
    said = {"pipe": "a pipe", "folder": "a folder", "dangling": "a link to nothing", "loop": "a link that leads back"}

    with pytest.raises(DataError, match=rf"train\.txt: expected a corpus, got {said[make]}"):
        tiny(tmp_path)
