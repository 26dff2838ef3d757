"""Options, errors and exit status that commands share."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from nanosq import terminal
from nanosq.installation import add_current_folder
from nanosq.privacy import masked_output

if TYPE_CHECKING:
    from nanosq.pretrained import Pretrained

MODEL = "id of a run (32 digits), best.pt of a run, a folder in Hugging Face's format, or a model of its hub"


def parser(module: str, doc: str | None, arguments: str, *, nargs: str | None = None) -> argparse.ArgumentParser:
    """Return a parser of a command whose first argument is a model, or `nargs` models as in `add_argument`."""
    result = terminal.parser(module, doc, arguments)
    result.add_argument("model", metavar="MODEL", nargs=nargs, help=MODEL)
    result.add_argument("--tracking-uri", metavar="URI", help="MLflow's store or server; default: as `mlflow ui`")
    return result


def load(options: argparse.Namespace, name: str | None = None) -> "Pretrained":
    """Load the model that the options name, or another one from the same store.

    Raises:
        ValueError: It does not exist or cannot be read.
    """
    from nanosq import pretrained
    from nanosq.tracking.mlflow_store import MLflowStore

    return pretrained.load(options.model if name is None else name, MLflowStore(uri=options.tracking_uri))


def run(work: Callable[[], None]) -> int:
    """Run a command and return its exit status.

    Bad input is status 2 and one line on stderr. Ctrl-C, and a reader of the output that has gone, end it quietly.
    """
    add_current_folder()
    with masked_output():
        try:
            work()
            sys.stdout.flush()
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it again at its end
            return 141  # as of a program that SIGPIPE has ended
        except (ValueError, OSError) as error:
            print(f"{terminal.style('error:', 'red', sys.stderr)} {error}", file=sys.stderr)
            return 2
    return 0
