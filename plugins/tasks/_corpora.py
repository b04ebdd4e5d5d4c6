"""Texts as arrays of word ids: Penn Treebank, a folder of the user's own, and an embedded Markov source."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from harness.api import DataError, JsonValue, Split, read_plain_text

from ._shared import find, given, missing

Tokens = NDArray[np.int32]

SPLITS: tuple[Split, ...] = get_args(Split)

EOS, UNK = "<eos>", "<unk>"

MAX_BYTES = 1 << 30
"""Larger texts would not fit in memory as lists of words; the largest corpus in common use of this kind has 0.5 GB."""


@dataclass(frozen=True)
class Corpus:
    """Three texts over one vocabulary.

    Args:
        name: e.g. `ptb`.
        texts: word ids by split, each (tokens,) int32.
        vocabulary: number of words; ids are below it.
        facts: what records should say of this corpus beyond the counts.
    """

    name: str
    texts: Mapping[Split, Tokens]
    vocabulary: int
    facts: Mapping[str, JsonValue] = field(default_factory=dict)


def ptb(data_dir: Path | None) -> Corpus:
    """Penn Treebank in Mikolov's preprocessing, from the three files everybody has.

    Raises:
        DataError: a file is missing, empty or not text.
    """
    folder = given(data_dir, "ptb", "lstm_lm")
    names = [f"ptb.{split}.txt" for split in SPLITS]
    paths = {name: find(folder, "ptb", [name]) for name in names}
    found = [path for path in paths.values() if path is not None]
    if len(found) < len(names):
        raise missing(folder, "ptb", [name for name in names if paths[name] is None], "lstm_lm")
    return _from_files("ptb", found)


def text(data_dir: Path | None, folder: str) -> Corpus:
    """Any text in `train.txt`, `valid.txt`, `test.txt` (or `NAME.train.txt`, ...) of a folder.

    Args:
        data_dir: the folder that `folder` is relative to; None if `folder` is absolute.
        folder: where the three files are.

    Raises:
        DataError: a file is missing, empty or not text, or a word of valid or test is unknown.
    """
    if data_dir is None and not Path(folder).is_absolute():
        raise DataError(
            f"lstm_lm with corpus 'text' reads the folder {folder!r} of the data folder and none is given; pass "
            "`--data-dir DIR`, set HARNESS_DATA, or write an absolute `path`"
        )
    place = Path(folder) if data_dir is None else data_dir / folder
    return _from_files("text", [_text_file(place, split) for split in SPLITS])


def _text_file(place: Path, split: Split) -> Path:
    exact = place / f"{split}.txt"
    found = [exact] if os.path.lexists(exact) else sorted(place.glob(f"*.{split}.txt"))
    if len(found) != 1:
        got = f"{len(found)} files: {', '.join(path.name for path in found)}" if found else "no such file"
        raise DataError(f"lstm_lm with corpus 'text' expects one {split}.txt or NAME.{split}.txt in {place}, got {got}")
    return found[0]


def _from_files(name: str, paths: Sequence[Path]) -> Corpus:
    # The time of the last change is part of the cache's key, so an edited text is read again.
    return _read(name, tuple((path, _changed(path)) for path in paths))


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0  # reading it says what is wrong


@lru_cache(maxsize=2)
def _read(name: str, files: tuple[tuple[Path, int], ...]) -> Corpus:
    read = [_words(path) for path, _ in files]
    # Sorting by the training text alone: words of the other texts are known from it, or not at all.
    counts = Counter(read[0].words)
    # By descending count, then by the alphabet: the order never depends on where a word came first.
    order = sorted(counts, key=lambda word: (-counts[word], word))
    ids = {word: index for index, word in enumerate(order)}
    texts = {split: _ids(read[i], ids, files[i][0]) for i, split in enumerate(SPLITS)}
    said: dict[str, JsonValue] = {split: found.facts for split, found in zip(SPLITS, read, strict=True) if found.facts}
    return Corpus(name=name, texts=texts, vocabulary=len(order), facts={"lines": said} if said else {})


@dataclass(frozen=True)
class _Text:
    """A text as words, the line of each, and what is unusual about its lines."""

    words: list[str]
    lines: NDArray[np.int32]
    facts: dict[str, JsonValue]


def _words(path: Path) -> _Text:
    """The words of a file, `<eos>` after every line: one that the line ends with already is not written twice.

    An empty line is a line: it gives an `<eos>`, as in the published readings of WikiText and Penn Treebank. Only in a
    text that writes every `<eos>` itself, an empty line is nothing.
    """
    # Not splitlines(): it also splits at form feeds and other rare signs that end no line in these corpora. A mark of
    # byte order within the text comes from joined files; it is no part of a word.
    content = read_plain_text(path, "a corpus", most=MAX_BYTES, error=DataError).replace("\ufeff", "")
    lines = [line.split() for line in content.removesuffix("\n").split("\n")]
    full = [line for line in lines if line]
    if not any(word != EOS for line in full for word in line):
        raise DataError(f"lstm_lm: {path} has no words in its {path.stat().st_size} bytes; give a text that has some")
    ended = sum(line[-1] == EOS for line in full)
    writes_its_own = ended == len(full)
    words: list[str] = []
    counts = np.zeros(len(lines), dtype=np.int32)
    for index, line in enumerate(lines):
        before = len(words)
        words += line
        if not (line and line[-1] == EOS) and (line or not writes_its_own):
            words.append(EOS)
        counts[index] = len(words) - before
    facts: dict[str, JsonValue] = {}
    if ended:
        facts["ended_by_eos_in_the_file"] = ended
    if len(full) < len(lines):
        facts["empty"] = len(lines) - len(full)
        facts["empty_are"] = "left out" if writes_its_own else f"one {EOS} each"
    return _Text(words, np.repeat(np.arange(1, len(lines) + 1, dtype=np.int32), counts), facts)


def _ids(text: _Text, ids: Mapping[str, int], path: Path) -> Tokens:
    words, unknown = text.words, ids.get(UNK, -1)
    # -1 where the text has no <unk> either: found below, with its line.
    tokens = np.fromiter((ids.get(word, unknown) for word in words), dtype=np.int32, count=len(words))  # (tokens,)
    if (tokens < 0).any():
        first = int(np.argmax(tokens < 0))
        line = int(text.lines[first])
        raise DataError(
            f"lstm_lm: the training text has neither {words[first]!r} ({path}, line {line}) nor {UNK}; write {UNK} for "
            "rare words in all three files"
        )
    tokens.setflags(write=False)  # the array is cached and shared
    return tokens
