"""Errors in the code of a component, which may be the user's: one line with the place in this code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nanosq import errors
from nanosq.errors import InputError, TrainingError
from nanosq.signals import Terminated

if TYPE_CHECKING:
    from nanosq.train import Progress

FAILURES = (Exception, SystemExit)  # a component must not end the program either


@contextmanager
def calling(name: str, contract: str = "") -> Iterator[None]:
    """Turn an error of the block, which calls a component before training, into one line.

    Errors of a component of this package stay: a ValueError says already what to change, and any other one is a bug.

    Args:
        name: Dotted name of the component.
        contract: What such a component must do, in one sentence.

    Raises:
        InputError: The component has raised an error. The message has the line in its code.
    """
    try:
        yield
    except FAILURES as error:
        if isinstance(error, InputError | Terminated) or errors.is_out_of_memory(error):
            raise
        if name.startswith("nanosq."):
            raise
        raise InputError("; ".join(filter(None, (f"{name} fails: {errors.reason(error)}", contract)))) from error


@contextmanager
def user_errors(progress: "Progress") -> Iterator[None]:
    """Turn an error in the user's code during the block, which trains, into one line.

    Raises:
        TrainingError: The user's code has raised an error after the steps of `progress`. The message has its line.
    """
    try:
        yield
    except FAILURES as error:
        if isinstance(error, Terminated) or not errors.user_line(error) or errors.is_out_of_memory(error):
            raise
        line = f"{errors.reason(error)}, after {progress.step} steps; HYDRA_FULL_ERROR=1 shows more"
        raise TrainingError(line) from error
