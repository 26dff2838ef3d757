"""Texts wrapped while they are written, and side by side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosq.typesetting import WordWrap, side_by_side, width, wrap

TEXT = "Once upon a time there was a little girl named Lily.\n\nShe had a very-very-very-very-long word."


@given(st.text(), st.integers(2, 30), st.lists(st.integers(1, 9)))
def test_pieces_are_wrapped_as_the_whole_text(text: str, columns: int, sizes: list[int]) -> None:
    written: list[str] = []
    lines = WordWrap(columns, written.append)
    begin = 0
    for size in sizes:
        lines.add(text[begin : begin + size])
        begin += size
    lines.add(text[begin:])
    lines.end()
    whole = wrap(text, columns)
    assert max(map(width, "".join(written).split("\n"))) <= columns
    assert max(map(width, whole)) <= columns
    if all(width(word) <= columns for word in text.split()):
        assert "".join(written).split("\n") == whole


def test_words_stay_whole_and_a_long_one_is_broken() -> None:
    assert wrap(TEXT, 20) == [
        *["Once upon a time", "there was a little", "girl named Lily.", "", "She had a"],
        *["very-very-very-very-", "long word."],
    ]
    assert wrap("Chinese: " + "\u732b" * 7, 10) == ["Chinese:", "\u732b" * 5, "\u732b" * 2]


def test_finished_words_are_written_at_once() -> None:
    written: list[str] = []
    lines = WordWrap(20, written.append)
    for piece, expected in [("Once", ""), (" up", "Once"), ("on", "Once"), (" a\n", "Once upon a")]:
        lines.add(piece)
        assert "".join(written) == expected


def test_no_text_can_move_the_cursor() -> None:
    assert wrap("a\x1b[2Jb\rc\td\x07\x9b", 80) == ["a\ufffd[2Jb c d\ufffd\ufffd"]


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("e\u0301", 1), ("\u732b", 2), ("", 0)])
def test_width(text: str, columns: int) -> None:
    assert width(text) == columns


def test_two_columns() -> None:
    expected = """
Once upon a time     One day, \u732b\u732b
there was a little   slept.
girl named Lily.

She had a
very-very-very-very
-long word."""
    assert side_by_side([TEXT, "One day, \u732b\u732b slept."], 40) == expected.removeprefix("\n")
