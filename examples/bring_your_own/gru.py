"""A GRU language model in Keras on the Penn Treebank, with the most frequent words alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import tf_keras as keras

from harness.api import Adam, OwnModel

STEPS = 20


def model(words: int, units: int) -> keras.Model:
    """Tokens to logits of the next token, (batch, steps, words)."""
    return keras.Sequential(
        [
            keras.layers.Embedding(words, units, name="words"),
            keras.layers.GRU(units, return_sequences=True, dropout=0.1, name="gru"),
            keras.layers.Dense(words, name="logits"),
        ]
    )


def pieces(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(items, steps) of tokens, and of the tokens that follow."""
    items = (len(tokens) - 1) // STEPS
    inputs, targets = tokens[: items * STEPS], tokens[1 : items * STEPS + 1]
    return inputs.reshape(items, STEPS), targets.reshape(items, STEPS)


def task(
    data_dir: Path | None, words: int = 2000, units: int = 64, tokens: int | None = None, epochs: int = 4
) -> OwnModel:
    """What the harness asks for; all but `data_dir` may be set in the experiment."""
    assert data_dir is not None, "pass --data-dir, or set HARNESS_DATA"
    texts = {
        split: (data_dir / "ptb" / f"ptb.{split}.txt").read_text().replace("\n", " <eos> ").split()
        for split in ("train", "valid", "test")
    }
    common = [word for word, _ in Counter(texts["train"]).most_common(words)]
    number = {word: place for place, word in enumerate(common)}
    texts["train"] = texts["train"][:tokens]
    unknown = number["<unk>"]
    data = {
        split: pieces(np.array([number.get(word, unknown) for word in text], np.int32)) for split, text in texts.items()
    }
    return OwnModel(
        model=lambda: model(words, units),
        **data,
        measure="perplexity",
        epochs=epochs,
        batch=32,
        optimiser=Adam(),
        learning_rate=lambda epoch: 5e-3 * (1 - epoch / epochs),
        clip_norm=1.0,
        facts={"data": "Penn Treebank", "words": words, "train_tokens": len(texts["train"])},
    )
