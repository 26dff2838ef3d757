"""Options and printed output that the commands of the report share."""

import argparse
import sys
from pathlib import Path

from analysis.page import Section, Table, Text
from nanosq import terminal
from nanosq.tracking.location import default_experiment


def parser(
    doc: str | None, arguments: str = "", *, module: str = "analysis.report", out: str = "report"
) -> argparse.ArgumentParser:
    """Return a parser with options for the tracking server, the experiment and the output folder."""
    result = terminal.parser(module, doc, arguments)
    result.add_argument("--tracking-uri", metavar="URI", help="MLflow's store or server; default: as `mlflow ui`")
    result.add_argument("--experiment", default=default_experiment(), metavar="NAME", help="default: %(default)s")
    result.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help="default: %(default)s")
    return result


def tell(section: Section) -> None:
    """Print the texts of a section, wrapped by words, and its tables."""
    for block in section.blocks:
        if isinstance(block, Table) and not block.folded:
            print(block.text(), end="\n\n")
        elif isinstance(block, Text) and block.kind == "code":
            print(terminal.command(block.text, sys.stdout), end="\n\n")
        elif isinstance(block, Text):
            style = "bold" if block.kind == "verdict" else ""
            print(terminal.style(terminal.wrap(block.text, terminal.width()), style, sys.stdout), end="\n\n")


def show(section: Section, folder: Path) -> None:
    """Print the texts and tables of a section, write its files to a folder, and print their paths."""
    tell(section)
    if paths := section.save(folder):
        print(*paths, sep="\n")
