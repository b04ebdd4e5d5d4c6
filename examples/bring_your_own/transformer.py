"""A small transformer language model on the Penn Treebank, with tied embedding and softmax."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from harness.api import AdamW, OwnModel


class Transformer(nn.Module):
    """Tokens to logits of the next token, each seeing only those before it."""

    def __init__(self, words: int, width: int, depth: int, steps: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(torch.zeros(steps, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.logits = nn.Linear(width, words, bias=False)
        nn.init.normal_(self.words.weight, std=0.02)
        self.logits.weight = self.words.weight
        self.register_buffer("ahead", nn.Transformer.generate_square_subsequent_mask(steps), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits, (batch, steps, words)."""
        return self.logits(self.layers(self.words(tokens) + self.places, mask=self.ahead, is_causal=True))


def pieces(tokens: np.ndarray, steps: int, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(items, steps) of tokens, and of the tokens that follow."""
    items = (len(tokens) - 1) // steps
    inputs, targets = tokens[: items * steps], tokens[1 : items * steps + 1]
    return inputs.reshape(items, steps)[:most], targets.reshape(items, steps)[:most]


def task(
    data_dir: Path | None, width: int = 64, epochs: int = 4, tokens: int | None = None, items: int | None = None
) -> OwnModel:
    """What the harness asks for; all but `data_dir` may be set in the experiment."""
    assert data_dir is not None, "pass --data-dir, or set HARNESS_DATA"
    texts = {
        split: (data_dir / "ptb" / f"ptb.{split}.txt").read_text().replace("\n", " <eos> ").split()
        for split in ("train", "valid", "test")
    }
    steps = 32
    number = {word: place for place, word in enumerate(sorted(set(texts["train"])))}
    texts["train"] = texts["train"][:tokens]
    data = {split: pieces(np.array([number[w] for w in text]), steps, items) for split, text in texts.items()}
    return OwnModel(
        model=lambda: Transformer(len(number), width, 2, steps),
        **data,
        measure="perplexity",
        epochs=epochs,
        batch=32 if items is None else 4,
        optimiser=AdamW(weight_decay=0.01),
        learning_rate=lambda epoch: 3e-3 * (1 - epoch / epochs),
        clip_norm=1.0,
        facts={"data": "Penn Treebank", "words": len(number), "train_tokens": len(texts["train"])},
    )
