"""Kinds of errors, and what can be told from an error. nanosq/error_reports.py prints them.

A model that MLflow serves imports this module without Hydra.
"""

import errno
import os
import traceback
from collections.abc import Sequence
from pathlib import Path

from nanosq.installation import is_library, program
from nanosq.privacy import mask

# What PyTorch and the libraries below it say if an allocation fails.
NO_MEMORY = ("out of memory", "allocate memory", "bad_alloc")

PACKAGE = f"{Path(__file__).parent}{os.sep}"
FULL = (errno.ENOSPC, errno.EDQUOT)  # errors of a full disk
OF_WRITING = (*FULL, errno.EROFS, errno.EFBIG)  # errors that only writing has


class InputError(ValueError):
    """Bad input: the message tells the user in one line what to change. The exit status is 2."""


class InfeasibleError(InputError):
    """A configuration that cannot be trained, whatever the state of stores, files and networks is."""


class TrainingError(RuntimeError):
    """Training has failed for a reason that the user can change: the message tells it in one line. The status is 1."""


class OutOfMemoryError(TrainingError):
    """Training does not fit into memory."""


class FileError(OSError):
    """A file of a run cannot be written or read back: the message tells in one line what to change.

    The exit status is 2 before training, and 1 in training.
    """


class NotRecordedError(RuntimeError):
    """There is a result, but the tracking store has not received all of it. The exit status is 3.

    Args:
        journals: Folders of what it has not received.
    """

    def __init__(self, journals: Sequence[str]) -> None:
        one = len(journals) == 1
        command = f"{program('nanosq.sync')} {journals[0]}" if one else program("nanosq.sync")
        super().__init__(
            f"{'the run is' if one else f'{len(journals)} runs are'} not recorded completely, because the tracking "
            f"store cannot be used: later, `{command}` or the same command delivers what is missing"
        )


def make_writable(error: OSError) -> str:
    """Return what to do about an error of writing a file."""
    return "make room" if error.errno in FULL else "make it writable"


def forget_variables(error: BaseException) -> None:
    """Delete the local variables that the traceback of an error refers to, such as a model. Its lines stay.

    A sweep keeps the errors of its trials until it ends.
    """
    found: BaseException | None = error
    while found is not None:
        traceback.clear_frames(found.__traceback__)
        found = found.__cause__ or found.__context__


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, in main memory or on a GPU."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in NO_MEMORY)


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an error of another library, or the name of its type if it is empty.

    Passwords are masked.
    """
    return mask((str(error).strip() or type(error).__name__).splitlines()[0])


def reason(error: BaseException) -> str:
    """Describe an error in the user's code: its type, message and line."""
    name, message, line = type(error).__name__, first_line(error), user_line(error)
    return (name if message == name else f"{name}: {message}") + (f" ({line})" if line else "")


def user_line(error: BaseException) -> str:
    """Return the innermost line of the user's own code in a traceback, "mine.py, line 3", or an empty text."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", PACKAGE)) and not is_library(Path(frame.filename))
    ]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
