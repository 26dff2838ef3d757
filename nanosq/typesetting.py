"""Texts of models on a terminal: wrapped by words while they are written, or side by side."""

import re
from collections.abc import Callable, Sequence
from itertools import zip_longest
from unicodedata import category, combining, east_asian_width

GAP = "  "  # between two columns
NARROW = 60  # columns below which two texts do not fit side by side
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # they could move the cursor


def width(text: str) -> int:
    """Return the number of columns that a line takes: Chinese characters take two, accents none."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) or category(c) in ("Mn", "Cf") else 1 + (east_asian_width(c) in "WF") for c in text)


class WordWrap:
    """Write a text in pieces, as they come, in lines of at most `columns`.

    An unfinished word waits for its end. A word that is longer than a line is broken.
    """

    def __init__(self, columns: int, write: Callable[[str], object]) -> None:
        self._columns, self._write = columns, write
        self._used = 0  # columns of the current line
        self._waiting = ""

    def add(self, text: str) -> None:
        """Write the finished words."""
        *words, self._waiting = re.split(r"(?=\s)", self._waiting + CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))
        for word in words:
            self._put(word)
        if width(self._waiting) > self._columns:
            self._put(self._waiting)
            self._waiting = ""

    def end(self) -> None:
        """Write the last word."""
        self._put(self._waiting)
        self._waiting = ""

    def _put(self, word: str) -> None:
        """Write a word and the whitespace before it, if there is any."""
        space, word = (word[0], word[1:]) if word[:1].isspace() else ("", word)
        is_too_long = self._used > 0 and self._used + len(space) + width(word) > self._columns
        if space == "\n" or is_too_long:
            self._break()
        elif space:
            self._put_characters(" ")
        self._put_characters(word)

    def _put_characters(self, text: str) -> None:
        size = width(text)
        if self._used + size <= self._columns:
            self._write(text)
            self._used += size
            return
        for character in text:
            if self._used + width(character) > self._columns:
                self._break()
            self._write(character)
            self._used += width(character)

    def _break(self) -> None:
        self._write("\n")
        self._used = 0


def wrap(text: str, columns: int) -> list[str]:
    """Return the lines of a text."""
    pieces: list[str] = []
    lines = WordWrap(columns, pieces.append)
    lines.add(text)
    lines.end()
    return "".join(pieces).split("\n")


def side_by_side(texts: Sequence[str], columns: int) -> str:
    """Return texts beside each other, in lines of at most `columns` together."""
    column_width = (columns - len(GAP) * (len(texts) - 1)) // len(texts)
    rows = zip_longest(*(wrap(text, column_width) for text in texts), fillvalue="")
    return "\n".join(GAP.join(line + " " * (column_width - width(line)) for line in row).rstrip() for row in rows)
