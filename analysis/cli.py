"""Options and printed output that the commands of the report share."""

import sys
from pathlib import Path

from analysis.page import Section, Table, Text
from nanosq import command, option, terminal
from nanosq.tracking.location import default_experiment


def parser(
    doc: str | None, arguments: str = "", *, module: str = "analysis.report", out: str = "report"
) -> option.Parser:
    """Return a parser with options for the tracking server, the experiment and the output folder."""
    result = terminal.parser(module, doc, arguments)
    command.add_tracking_uri(result)
    help = "default: %(default)s"
    result.add_argument("--experiment", type=option.name, default=default_experiment(), metavar="NAME", help=help)
    result.add_argument("--out", type=option.folder, default=out, metavar="DIR", help=help)
    return result


def add_storage(parser: option.Parser, default: str) -> None:
    """Add the options for a study of Optuna to a parser."""
    help = f"storage of Optuna; default: {default}, if it exists"
    parser.add_argument("--storage", type=option.name, metavar="URL", help=help)
    help = "default: the study that was started last"
    parser.add_argument("--study", type=option.name, metavar="NAME", help=help)


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
