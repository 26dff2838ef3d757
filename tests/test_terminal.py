"""Wrapped lines, commands, tables and colours, for a terminal and elsewhere."""

import io
import shlex

import pytest

from nanosq import terminal
from nanosq.privacy import MaskedStream

LINK = "http://127.0.0.1:5000/#/experiments/1?workflowType=machine_learning&orderByColumn=metrics"
SENTENCE = "#4: val perplexity 3.4123; 7 of 27, best 3.41 (#4), about 2 min left, then some more words at the end"


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def written(text: str, stream: io.StringIO) -> list[str]:
    MaskedStream(stream).write(text)
    return stream.getvalue().split("\n")


def test_lines_are_wrapped_by_words_on_a_terminal_only() -> None:
    assert written(f"{SENTENCE}\n  {SENTENCE}", io.StringIO()) == [SENTENCE, f"  {SENTENCE}"]
    lines = written(f"{SENTENCE}\n  {SENTENCE}", Terminal())
    assert max(map(len, lines)) <= 80
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 0, 2, 2]
    assert " ".join(lines).split() == [*SENTENCE.split(), *SENTENCE.split()]


def test_a_link_is_not_broken_and_stands_alone() -> None:
    assert written(f"table: {LINK} and more", Terminal()) == ["table:", LINK, "and more"]


def test_a_progress_bar_is_left_alone() -> None:
    assert written(f"\r{SENTENCE}", Terminal()) == [f"\r{SENTENCE}"]


def test_a_command_that_is_wrapped_is_the_same_command() -> None:
    words = ["python", "run.py", "--config-dir", "a folder with a long name/", *["loss.note=two words"] * 4]
    text = terminal.command(shlex.join(words), Terminal())
    assert text.count(" \\\n") == 2
    assert max(map(len, text.splitlines())) <= 80
    assert shlex.split(text.replace("\\\n", "")) == words
    assert written(text, Terminal()) == text.split("\n")
    assert terminal.command(shlex.join(words), io.StringIO()) == shlex.join(words)


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("COLUMNS", "80")])
def test_colours(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    has_colours = name == "COLUMNS"
    assert terminal.style("error:", "red", Terminal()) == ("\x1b[31merror:\x1b[0m" if has_colours else "error:")
    assert terminal.style("error:", "red", io.StringIO()) == "error:"


def test_colours_do_not_count_as_columns() -> None:
    line = " ".join([terminal.style("word", "green", Terminal())] * 16)
    assert written(line, Terminal()) == [line]


def test_numbers_of_a_table_are_aligned_at_the_point() -> None:
    rows = [["a", "3.4", "82.5%", "x"], ["bb", "12.31", "9%", ""], ["c", "1,281", "", "y z"]]
    assert terminal.table(["name", "ppl", "acc", "text"], rows).splitlines() == [
        "name       ppl    acc  text",
        "a         3.4   82.5%  x",
        "bb       12.31   9%",
        "c     1,281            y z",
    ]


def test_columns_that_do_not_fit_follow_below() -> None:
    header = ["trial", *(f"column_{number}" for number in range(12))]
    rows = [[str(row), *[f"{row}.{column}" for column in range(12)]] for row in range(3)]
    text = terminal.table(header, rows)
    assert max(map(len, text.splitlines())) <= 80
    blocks = [[line.split() for line in block.splitlines()] for block in text.split("\n\n")]
    assert [name for block in blocks for name in block[0][1:]] == header[1:]
    assert [[row[0] for row in block] for block in blocks] == [["trial", "0", "1", "2"]] * 2
    assert terminal.table(header, rows, columns=1000).count("\n\n") == 0
    assert terminal.table(["a", "b"], []) == "a  b"


def test_long_cells_are_wrapped_by_words() -> None:
    first, second, third = terminal.table(["name", "text"], [["a", SENTENCE], ["b", "1"]], columns=70).splitlines()[1:]
    assert [line[:6] for line in (first, second, third)] == ["a     ", "      ", "b     "]
    assert f"{first[6:]} {second[6:]}" == SENTENCE
