"""Errors as a user sees them: one line on stderr that says what to change, and an exit status."""

import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from nanosq import terminal
from nanosq.errors import (
    OF_WRITING,
    FileError,
    InputError,
    NotRecordedError,
    OutOfMemoryError,
    TrainingError,
    is_out_of_memory,
    make_writable,
)
from nanosq.privacy import mask
from nanosq.suggestion import closest

SECONDS_FOR_FIRST = 5.0  # that other processes wait, so that the first one, which may be later, prints its error

# Lines and prefixes that Hydra and OmegaConf add to a message for their own developers.
NOISE = (
    *("full_key:", "object_type=", "reference_type=", "To append to your", "See https://hydra.cc", "^"),
    *("Error when parsing index", "Error parsing override", "LexerNoViableAltException"),
)


@contextmanager
def bad_input(*, is_single: bool, kind: type[InputError] = InputError) -> Iterator[None]:
    """Turn an error of input, of files or of Hydra in the block, which runs before training, into one of the user.

    A single run exits: Hydra would print the overrides of a task that raises. A trial of a sweep raises an error of
    this kind, so that the other trials continue.
    """
    try:
        yield
    except (ValueError, OSError, HydraException, OmegaConfBaseException) as error:
        if is_single:
            report(error)
            sys.exit(2)
        raise kind(one_line(error)) from error


@contextmanager
def out_of_memory(*, is_single: bool, batch_size: int, accumulate: int) -> Iterator[None]:
    """Turn a failed allocation of the block, a call that trains, into an error that says what to change.

    That and any other TrainingError end a single run with status 1.

    Args:
        is_single: Whether a single run exits. A trial of a sweep raises the error.
        batch_size: Windows of a batch.
        accumulate: Batches of a step.
    """
    try:
        yield
    except TrainingError as error:
        end_training(error, error.__cause__ or error, is_single=is_single)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        factor = next((n for n in range(2, batch_size + 1) if batch_size % n == 0), 1)
        batch = f"train.batch_size={batch_size // factor} train.accumulate={accumulate * factor}"
        same = f"set {batch}, which keeps the number of tokens in a step, or " if factor > 1 else ""
        failure = OutOfMemoryError(f"out of memory: {same}lower model.block_size, model.n_embd or model.n_layer")
        end_training(failure, error, is_single=is_single)


def end_training(failure: TrainingError, cause: BaseException, *, is_single: bool) -> NoReturn:
    """Exit with status 1 if this is a single run, else raise the failure, which the cause is the reason for.

    The next trial needs the memory of the variables. Launchers such as submitit store the error, so it has a text
    without passwords, the traceback of the cause, in place of the cause.
    """
    for error in (failure, cause):
        traceback.clear_frames(error.__traceback__)
    if is_single:
        sys.exit(report(failure))
    failure.args = (mask(str(failure)),)
    raise failure from RuntimeError(mask("".join(traceback.format_exception(cause))))


@contextmanager
def file_error(*, is_single: bool) -> Iterator[None]:
    """Turn an error of writing in the block, a call that trains, into a FileError. With it, a single run exits."""
    try:
        yield
    except OSError as error:
        if not isinstance(error, FileError) and error.errno not in OF_WRITING:
            raise
        failure = error
        if not isinstance(error, FileError):  # of another library, which copies files
            place = error.filename2 or error.filename or "a file"
            advice = f"{make_writable(error)}, and run the same command again"
            failure = FileError(f"cannot write {place} ({error.strerror}): {advice}")
        if is_single:
            sys.exit(report(failure))
        raise failure from error


def report(error: Exception) -> int:
    """Print an error on one line and return its exit status.

    Of several processes that fail alike, the first prints, because torchrun ends the others as soon as one has failed.
    A process that is not ended within seconds prints its own error.
    """
    rank = os.environ.get("RANK", "0")
    process = "" if rank == "0" else f"process {rank}: "
    if process:
        try:
            time.sleep(SECONDS_FOR_FIRST)
        except KeyboardInterrupt:
            sys.exit(130)
    print(f"{terminal.style('error:', 'red', sys.stderr)} {process}{one_line(error)}", file=sys.stderr)
    if isinstance(error, NotRecordedError):
        return 3
    return 1 if isinstance(error, TrainingError | FileError) else 2


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line, without passwords and what Hydra adds for its own developers."""
    text = str(error)
    if isinstance(error.__cause__, OmegaConfBaseException):
        text += f"\n{error.__cause__}"
    text = re.split(r"(?:Config s|S)earch path:", text)[0].removeprefix("In 'config': ")
    sentences: list[str] = []
    for line in dict.fromkeys(text.splitlines()):
        if line.startswith("\t") and sentences:  # an item of a list
            sentences[-1] += f"{'' if sentences[-1].endswith(':') else ','} {line.strip()}"
        elif line.strip() and not line.strip().startswith(NOISE):
            sentences.append(line.strip())
    words = _place(error, text) + "; ".join(sentence.rstrip(".") for sentence in sentences) + _closest(error)
    return mask(words) or type(error).__name__


def _place(error: BaseException, text: str) -> str:
    """Return what an error of Hydra or OmegaConf is about, where its message leaves that out."""
    if isinstance(error, OverrideParseException):
        advice = "" if "LexerNoViableAlt" not in text else "quote a value with special characters, as in 'key=\"a b\"'"
        return f"{error.override}: {advice}"
    key = error.full_key if isinstance(error, OmegaConfBaseException) else ""
    return f"{key}: " if key and key not in text.split("full_key:")[0] else ""


def _closest(error: BaseException) -> str:
    """Return a suggestion if an error is about a file of conf/ that does not exist. OmegaConf makes those for keys."""
    if not isinstance(error, MissingConfigException):
        return ""
    return closest(str(error.missing_cfg_file).rpartition("/")[2], error.options or [])
