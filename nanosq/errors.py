"""Errors as a user sees them: one line on stderr that says what to change, and an exit status."""

import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from nanosq import terminal
from nanosq.privacy import mask, masked_output

# Lines and prefixes that Hydra and OmegaConf add to a message for their own developers.
NOISE = ("full_key:", "object_type=", "reference_type=", "To append to your config")

# What PyTorch and the libraries below it say if an allocation fails.
NO_MEMORY = ("out of memory", "allocate memory", "bad_alloc")

LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class InputError(ValueError):
    """Bad input: the message tells the user in one line what to change. The exit status is 2."""


class InfeasibleError(InputError):
    """A configuration that cannot be trained, whatever the state of stores, files and networks is."""


class OutOfMemoryError(RuntimeError):
    """Training does not fit into memory: the message tells in one line what to change. The exit status is 1."""


def exit_status(task: Callable[[], Any]) -> int:
    """Run a Hydra application and return its exit status.

    The status is 0 for a result, 2 for bad input, 130 for Ctrl-C and 1 for any other exception. Those of memory are
    shown in one line too.
    """
    show_all = bool(os.environ.get("HYDRA_FULL_ERROR"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them and exiting
    with masked_output():
        try:
            task()
        except (InputError, OutOfMemoryError, HydraException, OmegaConfBaseException) as error:
            if show_all:
                raise
            status = report(error)
            return 1 if isinstance(error, OutOfMemoryError) else status
        except ValueError as error:
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if show_all or not str(frame.f_globals.get("__name__")).startswith("hydra."):
                raise
            return report(error)  # options exclude each other, such as -m and --cfg
        except SystemExit as error:
            if error.code != 1:
                raise
            return 2  # Hydra has printed that --package names no section
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
    return 0


@contextmanager
def bad_input(*, is_single: bool, kind: type[InputError] = InputError) -> Iterator[None]:
    """Turn a ValueError or OSError of the block, which runs before training starts, into an error of the user.

    A single run exits: Hydra would print the overrides of a task that raises. A trial of a sweep raises an error of
    this kind, so that the other trials continue.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        if is_single:
            sys.exit(report(error))
        raise kind(one_line(error)) from error


@contextmanager
def out_of_memory(*, is_single: bool, batch_size: int, accumulate: int) -> Iterator[None]:
    """Turn a failed allocation of the block, a call that trains, into an error that says what to change.

    Args:
        is_single: Whether a single run exits. A trial of a sweep raises OutOfMemoryError.
        batch_size: Windows of a batch.
        accumulate: Batches of a step.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        factor = next((n for n in range(2, batch_size + 1) if batch_size % n == 0), 1)
        batch = f"train.batch_size={batch_size // factor} train.accumulate={accumulate * factor}"
        same = f"set {batch}, which keeps the number of tokens in a step, or " if factor > 1 else ""
        failure = OutOfMemoryError(f"out of memory: {same}lower model.block_size, model.n_embd or model.n_layer")
        if is_single:
            sys.exit(terminal.fit(f"error: {failure}", sys.stderr))  # prints it; the status is 1
        raise failure from error


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


def report(error: Exception) -> int:
    """Print an error on one line and return the exit status of bad input. Of several processes, the first prints."""
    if os.environ.get("RANK", "0") == "0":
        print(f"{terminal.style('error:', 'red', sys.stderr)} {one_line(error)}", file=sys.stderr)
    return 2


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line, without passwords and what Hydra adds for its own developers."""
    text = str(error)
    if isinstance(error.__cause__, OmegaConfBaseException):
        text += f"\n{error.__cause__}"
    text = text.split("Config search path:")[0].removeprefix("In 'config': ")
    sentences: list[str] = []
    for line in dict.fromkeys(text.splitlines()):
        if line.startswith("\t") and sentences:  # an item of a list
            sentences[-1] += f"{'' if sentences[-1].endswith(':') else ','} {line.strip()}"
        elif line.strip() and not line.strip().startswith(NOISE):
            sentences.append(line.strip())
    return mask("; ".join(sentence.rstrip(".") for sentence in sentences)) or type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an error of another library, or the name of its type if it is empty.

    Passwords are masked.
    """
    return mask((str(error).strip() or type(error).__name__).splitlines()[0])


def reason(error: BaseException) -> str:
    """Describe an error in the user's code: its type, message and line.

    Call this in the function that called the user's code.
    """
    frames = traceback.extract_tb(error.__traceback__)[1:]
    lines = [
        f"{Path(f.filename).name}, line {f.lineno}" for f in frames if not f.filename.startswith(("<", *LIBRARIES))
    ]
    place = f" ({lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {first_line(error)}{place}"
