"""Options and error messages that all commands of the report share."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def parser(doc: str | None, *, out: str = "report") -> argparse.ArgumentParser:
    """Return a parser with options for the tracking server, the experiment and the output folder."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--tracking-uri", metavar="URI", help="MLflow's store or server; default: as `mlflow ui`")
    made.add_argument("--experiment", default="nanosq", help="default: %(default)s")
    made.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help="default: %(default)s")
    return made


def run(work: Callable[[], None]) -> int:
    """Run a command and return its exit status. Bad input is status 2 and one line on stderr."""
    try:
        work()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
