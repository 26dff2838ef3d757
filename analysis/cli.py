"""What the commands of the report have in common: where the runs are, and one line about what is wrong."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def parser(doc: str | None, *, out: str = "report") -> argparse.ArgumentParser:
    """With the options that name a tracking server, an experiment and a folder for what is made."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--tracking-uri", metavar="URI", help="MLflow's store or server; default: as `mlflow ui`")
    made.add_argument("--experiment", default="nanosq", help="default: %(default)s")
    made.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help="default: %(default)s")
    return made


def run(work: Callable[[], None]) -> int:
    """The exit status: 2 where the input is bad, which is told in one line."""
    try:
        work()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
