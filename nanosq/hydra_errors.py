"""The end of a Hydra application: what Hydra, or the system while Hydra starts a job, refuses is one line of ours."""

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr
from itertools import dropwhile
from typing import Any, TextIO, cast

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from nanosq.error_reports import one_line, report
from nanosq.errors import FileError, InputError, NotRecordedError, TrainingError
from nanosq.privacy import READER_GONE, masked_output

# Errors whose message is for the user.
SHOWN = (InputError, TrainingError, FileError, NotRecordedError, HydraException, OmegaConfBaseException)


def exit_status(task: Callable[[], Any]) -> int:
    """Run a Hydra application and return its exit status.

    The status is 0 for a result, 3 for one that is not recorded, 2 for bad input, 130 for Ctrl-C, 141 if the reader of
    the output, as `head`, has gone, and 1 for any other exception. Those of training and of files are one line too.
    With HYDRA_FULL_ERROR=1, every error is shown with its traceback.
    """
    show_all = bool(os.environ.get("HYDRA_FULL_ERROR"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them and exiting
    with masked_output():
        startup = Startup(sys.stderr)
        try:
            with redirect_stderr(cast(TextIO, startup)):
                task()
            sys.stdout.flush()
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except SystemExit as error:
            failure = error.__context__
            if show_all and isinstance(failure, Exception):  # a single run has exited because of it
                raise failure from failure.__cause__
            if error.code in (0, None, READER_GONE) or not (said := startup.take().strip()):
                raise
            return report(InputError(said.splitlines()[-1].rpartition(" error: ")[2]))
        except Exception as error:
            if show_all or not (isinstance(error, SHOWN) or _is_before_job(error)):
                raise
            startup.take()
            return report(_named(error))
        finally:
            startup.release()
    return 0


class Startup:
    """The stream stderr, which holds back what Hydra writes before a run or a sweep begins."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._held: list[str] | None = []  # None: a run or a sweep has begun

    def write(self, text: str) -> int:
        """Write a text, now or when a run or a sweep begins."""
        if self._held is None:
            return self._stream.write(text)
        if HydraConfig.initialized() and HydraConfig.get().mode is not None:
            self.release()
            return self._stream.write(text)
        self._held.append(text)
        return len(text)

    def release(self) -> None:
        """Write what has been held back."""
        self._stream.write(self.take())

    def take(self) -> str:
        """Return what has been held back, so that it is not written. From now on nothing is held back."""
        held, self._held = self._held, None
        return "".join(held or [])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_before_job(error: Exception) -> bool:
    """Return whether Hydra, or what it called, raised an error before anything of this program ran in it."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    below = [*dropwhile(lambda name: not name.startswith("hydra."), modules)]
    return bool(below) and not any(name.split(".")[0] in ("nanosq", "analysis") for name in below)


def _named(error: Exception) -> Exception:
    """Return an error that says what it is about, if Hydra cannot create a folder or cannot use its own settings."""
    if isinstance(error, UnicodeDecodeError):
        return InputError(f"a file of the configuration is not text in UTF-8: {error}")
    if isinstance(error, (*SHOWN, ValueError)):
        return error
    if isinstance(error, OSError):
        is_folder = traceback.extract_tb(error.__traceback__)[-1].name == "mkdir"
        problem = "hydra.run.dir: {} cannot be created" if is_folder else "{} cannot be read"
        return InputError(f"{problem.format(error.filename)} ({error.strerror})")
    return InputError(f"Hydra cannot start with these settings: {one_line(error)}; HYDRA_FULL_ERROR=1 shows where")
