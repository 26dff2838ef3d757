"""Options, errors and exit status that commands share."""

import argparse
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from nanosq import option, terminal
from nanosq.installation import add_current_folder
from nanosq.privacy import masked_output

if TYPE_CHECKING:
    from nanosq.pretrained import Pretrained

INTERRUPTED = "interrupted"
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
MODEL = (
    "id of a run (32 digits), best.pt of a run, a folder in Hugging Face's format, or a model of its hub such as "
    "openai-community/gpt2"
)


def parser(module: str, doc: str | None, arguments: str, *, nargs: str | None = None) -> option.Parser:
    """Return a parser of a command whose first argument is a model, or `nargs` models as in `add_argument`."""
    result = terminal.parser(module, doc, arguments)
    result.add_argument("model", metavar="MODEL", nargs=nargs, type=option.name, help=MODEL)
    add_tracking_uri(result)
    return result


def add_tracking_uri(parser: argparse.ArgumentParser, *, default: str = "as `mlflow ui`") -> None:
    """Add the option for the store of MLflow to a parser; `default` says which one it is without the option."""
    help = f"MLflow's store or server; default: {default}"
    parser.add_argument("--tracking-uri", type=option.name, metavar="URI", help=help)


def load(name: str, tracking_uri: str | None) -> "Pretrained":
    """Load a model, which may be that of a run of the store.

    Raises:
        ValueError: It does not exist or cannot be read.
    """
    from nanosq import pretrained
    from nanosq.tracking.mlflow_store import MLflowStore

    return pretrained.load(name, MLflowStore(uri=tracking_uri))


def show_interruption(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print one line for Ctrl-C before `run`, while a program imports its libraries. It is a `sys.excepthook`."""
    if issubclass(kind, KeyboardInterrupt):
        print(INTERRUPTED, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def run(work: Callable[[], int | None]) -> int:
    """Run a command and return its exit status.

    Bad input is status 2 and one line on stderr. Ctrl-C is one line too, and a reader of the output that has gone, as
    `head`, ends a command quietly.

    Args:
        work: Parses the arguments and does the work. It returns an exit status, or None for 0.
    """
    add_current_folder()
    with masked_output():
        try:
            try:
                return work() or 0
            finally:
                sys.stdout.flush()  # also after --help: at its end Python would print that the reader has gone
        except KeyboardInterrupt:
            print(INTERRUPTED, file=sys.stderr)
            return 130
        except (ValueError, OSError) as error:
            from nanosq.error_reports import report

            return report(error)
