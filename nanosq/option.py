"""Options of a command: a parser whose errors are one line, and types that check a value before any work.

A type is a function of the text that a user has given. It raises ArgumentTypeError, and the parser names the option.
"""

import argparse
import itertools
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from nanosq.suggestion import closest

OPTION = re.compile(r"^ +(?:-\w[^-\n]*, )?(--[\w-]+)", re.MULTILINE)  # in the help of a parser
CHOICE = re.compile(r"invalid choice: '(.*?)' \(choose from (.*)\)", re.DOTALL)
NUMBER = re.compile(r"invalid (int|float) value: (.*)")
NUMBERS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """A parser that raises a ValueError of one line, with the closest option or choice."""

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parse arguments, by default those of the process."""
        return super().parse_args(self._checked(args), namespace)

    def parse_intermixed_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parse arguments, of which those without a name may stand between options."""
        return super().parse_intermixed_args(self._checked(args), namespace)

    def _checked(self, args: Sequence[str] | None) -> Sequence[str]:
        """Return arguments, or raise ValueError for an unknown option, before argparse misses one that is required."""
        words = sys.argv[1:] if args is None else args
        known = OPTION.findall(self.format_help())
        for word in itertools.takewhile(lambda word: word != "--", words):
            option = word.partition("=")[0]
            if option.startswith("--") and " " not in word and not any(each.startswith(option) for each in known):
                raise ValueError(f"there is no option {option}{closest(option, known)}")
        return words

    def error(self, message: str) -> NoReturn:
        """Raise a ValueError with a message of argparse."""
        if choice := CHOICE.search(message):
            choices = [name.strip("'\" ") for name in choice[2].split(",")]
            message = f"{message[: choice.start()]}{choice[1]!r} is not one of {', '.join(choices)}"
            message += closest(choice[1], choices)
        message = NUMBER.sub(lambda found: f"{found[2]} is not {NUMBERS[found[1]]}", message)
        raise ValueError(message.removeprefix("argument ").replace("unrecognized arguments", "too many arguments"))


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


def existing(value: str) -> Path:
    """Check that a file exists."""
    if not Path(name(value)).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {value}")
    return Path(value)


def file(value: str) -> Path:
    """Check that a file can be written."""
    from nanosq.filesystem import check_writable

    return _checked(value, check_writable)


def folder(value: str) -> Path:
    """Check that files can be written into a folder, which may not exist yet."""
    from nanosq.filesystem import check_creatable

    return _checked(value, check_creatable)


def _checked(value: str, check: Callable[[Path], None]) -> Path:
    try:
        check(Path(name(value)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(value)
