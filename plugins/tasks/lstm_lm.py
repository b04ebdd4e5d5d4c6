"""The LSTM language model of Zaremba et al., scored by perplexity."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from harness.api import (
    LSTM,
    SGD,
    Batch,
    DataError,
    Dense,
    Dropout,
    Embedding,
    Evaluation,
    Frozen,
    JsonValue,
    Layer,
    Metric,
    Network,
    Problem,
    Recipe,
    Split,
    StepDecay,
    Task,
    hookimpl,
)

from . import _corpora, _markov, _shared
from ._corpora import SPLITS, Corpus, Tokens

TEST_SEGMENT = 500
"""Tokens per test batch. State is carried, so any length gives the result of one step at a time."""


class Preset(Frozen):
    """Sizes and dense recipe of one published model."""

    hidden: int
    steps: int
    init: float
    dropout: float
    clip_norm: float
    full_epochs: int
    epochs: int
    decay: float
    layers: int = 2
    batch: int = 20
    learning_rate: float = 1.0


# Published; read in tensorflow/models @ 086660f, tutorials/rnn/ptb/ptb_word_lm.py, where full_epochs is max_epoch.
PRESETS = {
    "small": Preset(hidden=200, steps=20, init=0.1, dropout=0.0, clip_norm=5, full_epochs=4, epochs=13, decay=0.5),
    "medium": Preset(hidden=650, steps=35, init=0.05, dropout=0.5, clip_norm=5, full_epochs=6, epochs=39, decay=0.8),
    "large": Preset(
        hidden=1500, steps=35, init=0.04, dropout=0.65, clip_norm=10, full_epochs=14, epochs=55, decay=1 / 1.15
    ),
}

# Published: the dense test perplexities in the docstring of the same file.
PUBLISHED_TEST = {"small": 115.91, "medium": 82.07, "large": 78.29}


class LstmLm(Task):
    """Embedding, stacked LSTM layers with carried state, untied softmax; a preset's recipe, each number overridable.

    The vocabulary is that of the whole training text, also where `train_tokens` cuts it: the model and its hardware
    cost stay those of the full task, and a smaller vocabulary would flatter the perplexity.

    Source:
        Zaremba, Sutskever, Vinyals, "Recurrent Neural Network Regularization", arXiv 1409.2329; numbers and rules as in
        tensorflow/models @ 086660f, tutorials/rnn/ptb/ptb_word_lm.py.
    """

    name: ClassVar[str] = "lstm_lm"
    corpus: Literal["synthetic", "ptb", "text"] = Field(default="synthetic", description="where the words come from")
    path: str = Field(default=".", description="folder of corpus `text`, in the data folder or absolute")
    synthetic: _markov.MarkovSource = Field(
        default=_markov.MarkovSource(),
        description="the language of corpus `synthetic`: words, tokens, order, classes, seed",
    )
    train_tokens: int | None = Field(default=None, gt=0, description="use the first tokens of the training text only")
    eval_tokens: int | None = Field(default=None, gt=0, description="use the first tokens of valid and of test only")
    size: Literal["small", "medium", "large"] = Field(default="small", description="whence all that is left None below")
    hidden: int | None = Field(default=None, gt=0, le=65_536, description="units per LSTM layer, and embedding size")
    layers: int | None = Field(default=None, gt=0, le=64, description="LSTM layers")
    steps: int | None = Field(default=None, gt=0, description="tokens of a segment: the reach of back-propagation")
    batch: int | None = Field(default=None, gt=0, description="streams the training text is cut into")
    init: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="initial weights are within +-init")
    dropout: float | None = Field(default=None, ge=0, lt=1, description="rate on every non-recurrent path")
    clip_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="global norm of the gradient")
    epochs: int | None = Field(default=None, gt=0, description="dense training, epochs")
    full_epochs: int | None = Field(default=None, ge=0, description="epochs at the full learning rate")
    decay: float | None = Field(default=None, gt=0, le=1, description="factor on the rate for every epoch after those")
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="the full learning rate")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        for corpus, field in (("text", "path"), ("synthetic", "synthetic")):
            # A corpus that is not used would be ignored silently, and still be part of the task's label.
            if self.corpus != corpus and getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(
                    f"lstm_lm: `{field}` belongs to corpus '{corpus}' and corpus is '{self.corpus}'; remove it or set "
                    f"`corpus: {corpus}`"
                )
        return self

    def settings(self) -> Preset:
        """The preset with what this task overrides."""
        preset = PRESETS[self.size]
        chosen = {name: getattr(self, name) for name in Preset.model_fields}
        return preset.model_copy(update={name: value for name, value in chosen.items() if value is not None})

    def effective_parameters(self) -> dict[str, JsonValue]:
        """What is left open is the preset's."""
        return self.parameters() | self.settings().model_dump()

    def load(self, data_dir: Path | None) -> "LanguageModel":
        """Read the corpus and cut it."""
        if self.corpus == "synthetic":
            whole = _markov.corpus(self.synthetic)
        elif self.corpus == "ptb":
            whole = _corpora.ptb(data_dir)
        else:
            whole = _corpora.text(data_dir, self.path)
        return LanguageModel(self, whole)

    def smoke(self) -> "LstmLm":
        """A hundred tokens, all epochs: strategies name epochs of the recipe.

        Up to 200 hidden units stay, or fine-grained patterns would no longer fit.
        """
        short = {"train_tokens": 101, "eval_tokens": 100, "batch": 4, "steps": 5}
        return self.model_copy(update={**short, "hidden": min(self.settings().hidden, 200)})


class LanguageModel(Problem):
    """The texts as streams of word ids, and the network that predicts each next word.

    Args:
        task: its parameters.
        corpus: the whole texts.

    Raises:
        DataError: a text is shorter than asked for, or too short for one segment.
    """

    metric = Metric(name="perplexity", better="lower", digits=2)

    def __init__(self, task: LstmLm, corpus: Corpus) -> None:
        """Cut the texts and build the network."""
        self._corpus, self._settings, self._version = corpus, task.settings(), task.result_version
        self._cuts: dict[Split, int | None] = {
            "train": task.train_tokens, "valid": task.eval_tokens, "test": task.eval_tokens,
        }  # fmt: skip
        self._texts = {split: self._cut(split) for split in SPLITS}
        is_whole = task.corpus == "ptb" and not any(self._cuts.values())
        # Only whole and unchanged is it the published experiment: anything else must not stand beside its figure.
        self._size, self._is_published = task.size, is_whole and task.settings() == PRESETS[task.size]
        settings = self._settings
        self.network = _network(settings, corpus.vocabulary)
        self.recipe = Recipe(
            epochs=settings.epochs,
            optimiser=SGD(),
            learning_rate=StepDecay(
                initial=settings.learning_rate, decay=settings.decay, full_epochs=settings.full_epochs
            ),
            clip_norm=settings.clip_norm,
            steps_per_epoch=self._segments("train"),
        )

    def _cut(self, split: Split) -> Tokens:
        text, tokens = self._corpus.texts[split], self._cuts[split]
        if tokens is not None and tokens > len(text):
            field = "train_tokens" if split == "train" else "eval_tokens"
            raise DataError(
                f"lstm_lm: {field}={tokens} asks for more than the {len(text)} tokens of the {split} text of corpus "
                f"'{self._corpus.name}'; lower it or leave it out"
            )
        # The first word of a text is never predicted; with batches, every stream needs one segment and its next word.
        batch, steps = self._settings.batch, self._settings.steps
        needed = 2 if split == "test" else batch * (steps + 1)
        if len(text[:tokens]) < needed:
            raise DataError(
                f"lstm_lm: batch={batch} and steps={steps} need {needed} tokens of {split} "
                f"text, corpus '{self._corpus.name}' gives {len(text[:tokens])}; use more text or lower batch or steps"
            )
        return text[:tokens]

    def _segments(self, split: Split) -> int:
        # Every stream needs one word more than it predicts.
        return (len(self._texts[split]) // self._settings.batch - 1) // self._settings.steps

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the texts as cut, the batching, the network and the initial weights' range."""
        settings = self._settings
        rules = f"{self._version} {self._corpus.vocabulary} {settings.batch} {settings.steps} {settings.init}"
        return _shared.digest([LstmLm.name, rules, self.network.model_dump_json()], list(self._texts.values()))

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """Corpus, tokens, vocabulary, predicted tokens; the best possible or the published perplexity, where known."""
        tokens: dict[str, JsonValue] = {split: len(text) for split, text in self._texts.items()}
        streams = self._settings.batch * self._settings.steps
        predicted: dict[str, JsonValue] = {
            "train": streams * self._segments("train"),
            "valid": streams * self._segments("valid"),
            "test": len(self._texts["test"]) - 1,
        }
        published: dict[str, JsonValue] = {}
        if self._is_published:
            published = {
                "published_dense_test_perplexity": PUBLISHED_TEST[self._size],
                "published_in": "tensorflow/models @ 086660f, tutorials/rnn/ptb/ptb_word_lm.py",
            }
        return {
            "corpus": self._corpus.name,
            "tokens": tokens,
            "train_tokens": len(self._texts["train"]),
            "is_cut": any(cut is not None for cut in self._cuts.values()),
            "vocabulary": self._corpus.vocabulary,
            "vocabulary_from": "the whole training text",
            "predicted_tokens": predicted,
            **self._corpus.facts,
            **published,
        }

    def initial_weights(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Uniform within +-init, softmax bias too; every LSTM bias is zero. So does the TensorFlow code."""
        limit = self._settings.init
        return {
            tensor.name: np.zeros(tensor.shape, dtype=np.float32)
            # As published: the LSTM's biases begin at zero, the softmax's like its weights.
            if tensor.role == "bias" and tensor.layer != "softmax"
            else _shared.uniform(tensor, limit, seed)
            for tensor in self.tensors()
        }

    def batches(self, split: Split, epoch: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Segments of contiguous streams, in their order: neither the epoch nor the generator changes them.

        Train and valid: `batch` streams of floor(tokens / batch) words, the rest dropped. Test: one stream of
        everything, so that every word but the first is predicted.

        Shapes:
            (batch, steps); the test (1, up to 500), the last one shorter.
        """
        text = self._texts[split]
        if split == "test":
            # One stream, so that every word of the test text but the first is predicted, and each once.
            streams, width = text[np.newaxis], TEST_SEGMENT  # (1, tokens)
            end = len(text) - 1
        else:
            length, width = len(text) // self._settings.batch, self._settings.steps
            streams = text[: length * self._settings.batch].reshape(self._settings.batch, length)  # (batch, length)
            # What does not fill a segment for every stream is left out: all batches have one shape.
            end = width * self._segments(split)
        for start in range(0, end, width):
            stop = min(start + width, end)
            yield Batch(inputs=streams[:, start:stop], targets=streams[:, start + 1 : stop + 1])

    def value(self, evaluation: Evaluation) -> float:
        """exp(total nats / predicted tokens); infinite where that overflows."""
        with np.errstate(over="ignore"):
            return float(np.exp(evaluation.nats / evaluation.items))


def _network(settings: Preset, vocabulary: int) -> Network:
    hidden = settings.hidden
    dropout: tuple[Layer, ...] = (Dropout(rate=settings.dropout),) if settings.dropout else ()
    layers: list[Layer] = [Embedding(name="embedding", words=vocabulary, features=hidden), *dropout]
    label = "embedding.features"
    for index in range(settings.layers):
        name = f"lstm_{index}"
        layers += [LSTM(name=name, inputs=hidden, units=hidden, input_label=label), *dropout]
        label = f"{name}.units"
    layers.append(Dense(name="softmax", inputs=hidden, units=vocabulary, role="softmax", input_label=label))
    return Network(layers=tuple(layers))


@hookimpl
def register_task() -> type[Task]:
    """Offer this task to the harness."""
    return LstmLm
