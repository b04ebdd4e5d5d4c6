"""Which known word somebody may have meant: by its letters, and by the words that it is made of."""

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

_CUTOFF = 0.6
"""Of a likeness between 0 and 1, below which a suggestion would only mislead."""

_LONGEST = 200
"""Characters of a word that may be a misspelt one; comparing longer ones takes long and finds nothing."""

_SAME_WORD = 0.8
"""Likeness of two words above which one is the other misspelt."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, None if none is.

    Letters find what was misspelt; words find what was called by another form of its name, such as
    `learning_rate_rewinding` for `lr_rewinding`, which by letters alone is nearer to `weight_rewinding`.

    Args:
        word: what was written.
        known: what could have been; of two that are equally like it, the first is taken.
    """
    if len(word) > _LONGEST:
        return None
    best, found = _CUTOFF, None
    for each in known:
        # By letters for misspelt words, by words for abbreviations: `lr_rewinding` is far from
        # `learning_rate_rewinding` by letters.
        likeness = max(_by_letters(word.lower(), each.lower()), _by_words(_parts(word), _parts(each)))
        if likeness > best or (found is None and likeness == best):
            best, found = likeness, each
    return found


def suggestion(word: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known word, or nothing."""
    close = closest(word, known) if isinstance(word, str) else None
    return f"; did you mean '{close}'?" if close else ""


def _by_letters(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def _parts(text: str) -> list[str]:
    """The words of a name, however they are joined: `lr_rewinding`, `lr-rewinding`, `LrRewinding`."""
    return re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text).replace("_", " ").replace("-", " ").lower().split()


def _by_words(one: Sequence[str], other: Sequence[str]) -> float:
    """The part of all words that have a partner among the others."""
    if not one or not other:
        return 0.0
    return (_paired(one, other) + _paired(other, one)) / (len(one) + len(other))


def _paired(words: Sequence[str], others: Sequence[str]) -> float:
    """How many of the words stand among the others too: as they are, misspelt, or by their initials."""
    found = 0.0
    for place, word in enumerate(words):
        likest = max(_by_letters(word, other) for other in others)
        # In this order: a word like another one is no abbreviation of it.
        found += likest if likest >= _SAME_WORD else _is_short(word, others) or _is_spelt_out(place, words, others)
    return found


def _is_short(word: str, others: Sequence[str]) -> bool:
    """Whether a word is made of the initials of neighbours among the others: `lr` of `learning`, `rate`."""
    initials = "".join(other[0] for other in others)
    return len(word) > 1 and word in initials


def _is_spelt_out(place: int, words: Sequence[str], others: Sequence[str]) -> bool:
    """Whether a word is one of those whose initials stand among the others."""
    for other in others:
        size = len(other)
        starts = range(max(0, place - size + 1), min(place, len(words) - size) + 1)
        if size > 1 and any("".join(word[0] for word in words[start : start + size]) == other for start in starts):
            return True
    return False
