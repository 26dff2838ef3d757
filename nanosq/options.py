"""Options of a command: a parser whose errors are one line, and types that check a value before any work.

A type is a function of the text that a user has given. It raises ArgumentTypeError, and the parser names the option.
"""

import argparse
import difflib
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryFile
from typing import NoReturn

OPTION = re.compile(r"^ +(?:-\w[^-\n]*, )?(--[\w-]+)", re.MULTILINE)  # in the help of a parser
CHOICE = re.compile(r"invalid choice: '(.*?)' \(choose from (.*)\)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """A parser that raises a ValueError of one line, with the closest option or choice."""

    def error(self, message: str) -> NoReturn:
        """Raise a ValueError with a message of argparse."""
        if unknown := message.removeprefix("unrecognized arguments: ") if "unrecognized" in message else "":
            word = unknown.split()[0].split("=")[0]
            is_option = word.startswith("-")
            found = closest(word, OPTION.findall(self.format_help())) if is_option else ""
            message = f"there is no option {word}{found}" if is_option else f"too many arguments: {unknown}"
        elif choice := CHOICE.search(message):
            choices = [name.strip("'\" ") for name in choice[2].split(",")]
            message = f"{message[: choice.start()]}{choice[1]!r} is not one of {', '.join(choices)}"
            message += closest(choice[1], choices)
        raise ValueError(message.removeprefix("argument "))


def closest(wrong: str, names: Iterable[str]) -> str:
    """Return "; did you mean 'name'?" for the name that is most like a wrong one, or an empty text."""
    found = difflib.get_close_matches(wrong, list(names), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return the type of whole numbers from `low` to `high`."""
    limits = f"of at least {low}" if high is None else f"from {low} to {high}"

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {limits}")
        return value

    return convert


def positive(text: str) -> float:
    """Convert a text to a positive and finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


SEED = integer(0, 2**63 - 1)  # the seeds that NumPy and PyTorch both take


def text(value: str) -> str:
    """Check that a text can be encoded. The shell may give bytes that are not UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{value!r} is not UTF-8") from None
    return value


def name(value: str) -> str:
    """Check that a name or URL is not empty, as that of a variable of the shell that is not set."""
    if not value.strip():
        raise argparse.ArgumentTypeError("is empty")
    return text(value)


def folder(value: str) -> Path:
    """Check that a folder can be written, or that it can be created."""
    path = Path(value)
    if not value:
        raise argparse.ArgumentTypeError("is empty: give the name of a folder")
    try:
        existing = next(place for place in (path, *path.absolute().parents) if place.exists())
        if not existing.is_dir():
            raise argparse.ArgumentTypeError(f"cannot write {value}: {existing} is not a folder")
        with TemporaryFile(dir=existing):  # permissions alone do not tell whether a file can be written
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {value}: {error.strerror}") from None
    return path


def existing_folder(value: str) -> Path:
    """Check that a folder exists and can be read."""
    path = Path(value)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {value}" if not path.exists() else f"{value} is a file")
    if not os.access(path, os.R_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{value} does not let you read it")
    return path
