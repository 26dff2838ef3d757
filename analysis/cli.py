"""Options, printed output and error messages that the commands of the report share."""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from analysis.page import Section, Table, Text
from nanosq.privacy import masked_output
from nanosq.tracking.location import default_experiment


def parser(doc: str | None, *, module: str = "analysis.report", out: str = "report") -> argparse.ArgumentParser:
    """Return a parser with options for the tracking server, the experiment and the output folder."""
    result = argparse.ArgumentParser(
        f"python -m {module}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--tracking-uri", metavar="URI", help="MLflow's store or server; default: as `mlflow ui`")
    result.add_argument("--experiment", default=default_experiment(), metavar="NAME", help="default: %(default)s")
    result.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help="default: %(default)s")
    return result


def run(work: Callable[[], None]) -> int:
    """Run a command and return its exit status. Bad input is status 2 and one line on stderr."""
    with masked_output():
        try:
            work()
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return 0


def width() -> int:
    """Return the number of characters in a line of the terminal."""
    return shutil.get_terminal_size().columns


def tell(section: Section) -> None:
    """Print the texts of a section, wrapped between words."""
    for block in section.blocks:
        if isinstance(block, Text) and block.kind == "code":
            print(block.text, end="\n\n")  # in one line, to be copied
        elif isinstance(block, Text):
            print(textwrap.fill(block.text, width(), break_long_words=False, break_on_hyphens=False), end="\n\n")


def show(section: Section, folder: Path) -> None:
    """Print the texts and tables of a section, write its files to a folder, and print their paths."""
    for block in section.blocks:
        if isinstance(block, Table):
            if not block.folded:
                print(block.text(width()), end="\n\n")
        else:
            tell(Section("", [block]))
    print(*section.save(folder), sep="\n")
