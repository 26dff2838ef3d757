"""Text on a terminal: long lines are wrapped by words, tables fit, and a few words have a colour.

In files and pipes a line stays one line, without colours. Tables fit into 80 columns there.
"""

import argparse
import itertools
import logging
import os
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import TextIO

from nanosq.installation import program
from nanosq.option import Parser

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
ESCAPE = re.compile(r"\x1b\[\d*m")
NUMBER = re.compile(r"[-+\N{MINUS SIGN}]?[\d,.]+(e[-+]?\d+)?%?( ± [\d.]+)?|\N{EN DASH}|∞|")
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
GAP = "  "  # between the columns of a table


def width() -> int:
    """Return the number of columns of the terminal, at least 20; 80 without one."""
    return max(20, shutil.get_terminal_size().columns)


def fit(text: str, stream: TextIO) -> str:
    """Wrap the lines of a text by words if it is written to a terminal. A longer word, as a link, has its own line."""
    if "\r" in text or not stream.isatty():  # a progress bar, or a command that is wrapped already
        return text
    return "\n".join(wrap(line, width()) for line in text.split("\n"))


def wrap(line: str, columns: int) -> str:
    """Wrap a line by words. The next lines are indented as the first one."""
    if len(ESCAPE.sub("", line)) <= columns:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, tabsize=4
    )


def command(line: str, stream: TextIO) -> str:
    """Wrap a command of the shell if it is written to a terminal, so that it can still be copied."""
    if not stream.isatty():
        return line
    words = QUOTED.sub(lambda quoted: quoted[0].replace(" ", "\0"), line)  # no break inside of quotes
    return wrap(words, width() - 4).replace("\n", " \\\n  ").replace("\0", " ") + "\r"


def parser(module: str, doc: str | None, arguments: str = "") -> Parser:
    """Return a parser of a command. Its help begins with the names of the arguments and the docstring of the module."""
    return Parser(
        program(module),
        usage=f"%(prog)s [options] {arguments}".rstrip(),
        description=_help((doc or "").replace(f"python -m {module}", program(module))),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _help(doc: str) -> str:
    """Return a docstring for the width of the terminal. What a command does follows below the command if needed."""
    paragraphs = []
    for paragraph in doc.strip().split("\n\n"):
        lines = paragraph.split("\n") if paragraph.startswith(("python ", "nanosq-")) else [" ".join(paragraph.split())]
        narrow = [line if len(line) <= width() else re.sub(" {2,}", "\n    ", line) for line in lines]
        paragraphs.append("\n".join(wrap(line, width()) for line in "\n".join(narrow).split("\n")))
    return "\n\n".join(paragraphs)


def next_step() -> str:
    """Return the last line of a run and of a sweep."""
    return f"next: {program('analysis.report')}"


def style(text: str, name: str, stream: TextIO) -> str:
    """Return a text in a style, if there is one, for a terminal with colours. NO_COLOR=1 switches them off."""
    has_colours = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{STYLES[name]}m{text}\x1b[0m" if name and has_colours else text


def table(header: Sequence[str], rows: Sequence[Sequence[str]], columns: int | None = None) -> str:
    """Return a table whose numbers are aligned at the decimal point.

    Columns that do not fit into `columns` characters, by default those of the terminal, follow below, beside the first
    column again. Long cells are wrapped by words.
    """
    limit = columns or width()
    widest = min(limit // 2, max(len(row[0]) for row in (header, *rows)))
    lines = [line for row in rows for line in _wrapped(row, widest, limit - widest - len(GAP))]
    first, *others = (_aligned(name, cells) for name, *cells in zip(header, *lines, strict=True))
    blocks = [[first]]
    for column in others:
        if len(blocks[-1]) > 1 and sum(len(each[0]) + len(GAP) for each in blocks[-1]) + len(column[0]) > limit:
            blocks.append([first])
        blocks[-1].append(column)
    return "\n\n".join("\n".join(GAP.join(cells).rstrip() for cells in zip(*block, strict=True)) for block in blocks)


def _wrapped(row: Sequence[str], first: int, other: int) -> Iterator[Sequence[str]]:
    """Return the lines of a row whose first cell and other cells have at most this many characters."""
    cells = [wrap(cell, other if position else first).split("\n") for position, cell in enumerate(row)]
    return itertools.zip_longest(*cells, fillvalue="")


def _aligned(name: str, cells: Sequence[str]) -> list[str]:
    """Return the cells of a column, its name first, all with the same length."""
    if not cells or not all(map(NUMBER.fullmatch, cells)):
        size = max(map(len, (name, *cells)))
        return [cell.ljust(size) for cell in (name, *cells)]
    after = [len(cell) - len(re.split(r"[.%]", cell)[0]) for cell in cells]  # characters from the point on
    numbers = [cell + " " * (max(after) - size) for cell, size in zip(cells, after, strict=True)]
    size = max(map(len, (name, *numbers)))
    return [cell.rjust(size) for cell in (name, *numbers)]


class TerminalFormatter(logging.Formatter):
    """Format of messages for a terminal: progress is dim, warnings and errors have a colour.

    `plain` formats them elsewhere, and `stream` is the terminal.
    """

    def __init__(self, plain: logging.Formatter, stream: TextIO) -> None:
        super().__init__()
        self._plain, self._stream = plain, stream

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a message."""
        name = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else "dim"
        return style(fit(self._plain.format(record), self._stream), name, self._stream)


def format_logs() -> None:
    """Format the messages that are logged to a terminal. Call this whenever Hydra has configured logging anew."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream.isatty():
            plain = handler.formatter
            if plain is not None and not isinstance(plain, TerminalFormatter):
                handler.setFormatter(TerminalFormatter(plain, handler.stream))
