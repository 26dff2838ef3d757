"""A part of GPT-2's vocabulary: the tokens to keep for a text, so that it is encoded as by GPT-2.

A token that is a whole piece of the text, as a word, needs nothing else. A token that is a part of a piece is reached
by merges, so it needs its ancestors: the two tokens that GPT-2 merges to it, their two, and so on. With these, every
merge that GPT-2 makes in the piece is possible, and each is still the first one that is possible, so the ids are the
same.
"""

import functools
import unicodedata
from collections.abc import Iterable

import numpy as np

from nanosq.data import bpe
from nanosq.data.bpe import GPT2_SIZE, N_BYTES

LETTER, NUMBER, OTHER, WHITE, UNKNOWN = range(5)  # classes of characters in GPT-2's pattern


def most_common(documents: Iterable[np.ndarray], size: int | None) -> list[int]:
    """Return the merged tokens to keep for a text: ascending ids of GPT-2.

    They are the most common ones that occur, with the ancestors that they need.

    Args:
        documents: GPT-2's ids of the text, in arrays of whole documents with an end of text after each.
        size: Number of merged tokens that may be kept. None: all that occur.
    """
    counts_V, is_part_V = np.zeros(GPT2_SIZE, np.int64), np.zeros(GPT2_SIZE, bool)
    for ids in documents:
        counts_V += np.bincount(ids, minlength=GPT2_SIZE)
        is_part_V[ids[may_be_part(ids)]] = True
    counts_V[:N_BYTES] = counts_V[GPT2_SIZE - 1] = 0
    kept: set[int] = set()
    for token in np.argsort(-counts_V, kind="stable")[: np.count_nonzero(counts_V)].tolist():
        new = {token, *(ancestors(token) if is_part_V[token] else ())} - kept
        if size is None or len(kept) + len(new) <= size:
            kept |= new
    return sorted(kept)


def may_be_part(ids: np.ndarray) -> np.ndarray:
    """Return which tokens of a text (n,) may share their piece of GPT-2's pattern with a neighbour.

    Two neighbours may be in one piece if the characters beside their border are of the same class, or the first one is
    a space, or a character is cut by the border.
    """
    first_V, last_V, begins_piece_V, ends_with_space_V = _borders()
    before, after = ids[:-1], ids[1:]
    first, last = first_V[after], last_V[before]
    is_joined = (first == last) | (first == UNKNOWN) | (last == UNKNOWN) | ends_with_space_V[before]
    is_joined &= ~begins_piece_V[after] & (before != GPT2_SIZE - 1)
    return np.append(is_joined, False) | np.append(False, is_joined)


def ancestors(token: int) -> set[int]:
    """Return the merged tokens that GPT-2 merges on the way to this one, without it."""
    found: set[int] = set()
    waiting = [token]
    while waiting:
        if (last := waiting.pop()) >= N_BYTES:
            waiting += _parts()[last - N_BYTES]
            found.add(last)
    return found - {token}


@functools.cache
def _parts() -> list[tuple[int, int]]:
    """Return the two tokens that GPT-2 merges to each merged token."""
    ids = {spelling: i for i, spelling in enumerate(bpe.spellings())}
    return [(ids[left], ids[right]) for left, right in bpe.merges()]


@functools.cache
def _borders() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return four arrays (GPT2_SIZE,) about the borders of tokens.

    They are: the classes of the first and of the last character, whether the token certainly begins a piece, as a space
    before a word does, and whether it ends with a space. An end of text is a piece of its own.
    """
    spellings = bpe.spellings()
    first = [_class(_first_character(spelling)) for spelling in spellings]
    last = [_class(_last_character(spelling)) for spelling in spellings]
    after_space = (_class(_first_character(spelling[1:])) for spelling in spellings)
    begins = [s[:1] == b" " and kind not in (WHITE, UNKNOWN) for s, kind in zip(spellings, after_space, strict=True)]
    begins[-1] = True
    ends_with_space = [spelling.endswith(b" ") for spelling in spellings]
    return np.array(first), np.array(last), np.array(begins), np.array(ends_with_space)


def _first_character(spelling: bytes) -> str:
    """Return the first character of some bytes, or an empty text if it is cut."""
    return next((c for n in range(1, 5) if (c := _decoded(spelling[:n]))), "")


def _last_character(spelling: bytes) -> str:
    """Return the last character of some bytes, or an empty text if it is cut."""
    return next((c for n in range(1, 5) if (c := _decoded(spelling[-n:]))), "")


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return ""


def _class(character: str) -> int:
    """Return the class of a character; UNKNOWN for those about which Python and the regular expression may disagree."""
    category = unicodedata.category(character or "\0")
    if category == "Cn" or not character or "\x1c" <= character <= "\x1f":
        return UNKNOWN
    return WHITE if character.isspace() else {"L": LETTER, "N": NUMBER}.get(category[0], OTHER)
