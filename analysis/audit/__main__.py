"""The student report's claims, each beside the number that its own settings and losses come to.

python -m analysis.audit                   the claims
python -m analysis.audit --stories FILE    also count which of GPT-2's tokens a sample of TinyStories uses
"""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from analysis import cli, runs
from analysis.audit import claims, retrained
from analysis.page import Section, Table, Text

HEADER = ("claim", "in the report", "found", "holds", "how it is shown")
NARROWEST = 8  # characters of a column in a terminal
LOSSES = (
    "Five losses have been called squentropy or mse in the report and its code. One of them can be what Figure 2 and "
    "Table 1 show only if it begins where the figure does and can fall as low as the table says. The unit of a loss is "
    "its own: these numbers say which loss was trained, not which is better."
)


def section(all_runs: Sequence[runs.RecordedRun], *, stories: Path | None = None) -> Section:
    """Every claim beside what is computed when this is called, in a second or two, or was read where the row says.

    all_runs: in which runs with the settings of Table 1 are looked for. stories: a sample of TinyStories, of any format
    of data=text; ValueError where it cannot be read.
    """
    said = claims.Report()
    rows = [*claims.facts(said), claims.ids(stories), *retrained.rows(said, all_runs)]
    n_true, n_false = (sum(row.holds is answer for row in rows) for answer in (True, False))
    verdict = (
        f"Statements that can be checked: {n_true + n_false}; that hold: {n_true}; that do not: {n_false}. "
        f"The other {len(rows) - n_true - n_false} rows give a number that the report does not, or lack one."
    )
    return Section(
        "The report, audited",
        [
            Text(verdict, "verdict"),
            _table("audit", "What the report says, and what its settings come to", rows),
            Text(LOSSES),
            _table(
                "audit-losses",
                "Losses of a new GPT-2, and the least of any model, with 50,304 classes",
                claims.losses(said),
            ),
        ],
    )


def _table(name: str, caption: str, rows: Iterable[claims.Row]) -> Table:
    words = {True: "yes", False: "no", None: "cannot be told"}
    return Table(name, HEADER, [(r.claim, r.reported, r.found, words[r.holds], r.how) for r in rows], caption)


def wrapped(table: Table, width: int) -> str:
    """The table for a terminal of so many columns: long texts go on below, the longest columns are cut first."""
    lines = [list(table.header), *([cell.text for cell in row] for row in table.cells())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) <= width:
        return table.text()
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    rows: list[list[str]] = []
    for line in lines:
        parts = [textwrap.wrap(text, size) or [""] for text, size in zip(line, widths, strict=True)]
        height = max(map(len, parts))
        rows += [
            *map(list, zip(*(part + [""] * (height - len(part)) for part in parts), strict=True)),
            [""] * len(line),
        ]
    # A header that is wrapped is no header to Table.
    return replace(table, header=rows[0], rows=rows[1:-1]).text()


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m analysis.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stories", type=Path, metavar="FILE", help="a sample of TinyStories; plain text may be packed"
    )
    parser.add_argument(
        "--tracking-uri", help="of MLflow, for runs with the settings of Table 1; default: MLflow's own"
    )
    arguments = parser.parse_args()
    width = shutil.get_terminal_size((160, 24)).columns

    def work() -> None:
        for block in section(runs.load(arguments.tracking_uri), stories=arguments.stories).blocks:
            if isinstance(block, Table):
                print(f"{block.caption}\n\n{wrapped(block, width)}\n")
            elif isinstance(block, Text):
                print(textwrap.fill(block.text, width), end="\n\n")

    return cli.run(work)


if __name__ == "__main__":
    sys.exit(main())
