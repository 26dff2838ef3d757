"""The section of the report page that audits the student report, and its form for a terminal."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.audit import claims, table_1_runs
from analysis.page import Section, Table, Text
from analysis.recorded_run import RecordedRun
from nanosq import terminal

HEADER = ("claim", "in the report", "recomputed", "right", "how to check")
ANSWERS = {True: "yes", False: "no", None: "unknown"}
LOSSES = (
    "The report and its code call five losses squentropy or mse. The loss behind Figure 2 and Table 1 must start where "
    "the figure starts and must be able to reach the loss in the table. Every loss has its own unit, so these numbers "
    "show which loss was trained, not which is better."
)


def section(all_runs: Sequence[RecordedRun], *, stories: Path | None = None) -> Section:
    """Check every claim of the report; this takes a second or two.

    Args:
        all_runs: Runs among which those with the settings of Table 1 are looked up.
        stories: A sample of TinyStories in any format of data=text.

    Raises:
        ValueError: `stories` cannot be read.
    """
    reported = claims.ReportedNumbers()
    checked = [*claims.facts(reported), claims.vocabulary(stories), *table_1_runs.check(reported, all_runs)]
    n_right, n_wrong = (sum(claim.is_right is answer for claim in checked) for answer in (True, False))
    verdict = (
        f"We could check {n_right + n_wrong} of the student report's claims; {n_right} "
        f"{'is' if n_right == 1 else 'are'} right. The other {len(checked) - n_right - n_wrong} rows show numbers that "
        "the report does not give, or need data that we do not have."
    )
    title = "Losses of a new GPT-2, and the lowest loss of any model, with 50,304 classes"
    return Section(
        "The report, audited",
        [
            Text(verdict, "verdict"),
            _table("audit", "The report's claims, and what its settings give", checked),
            Text(LOSSES),
            _table("audit-losses", title, claims.losses(reported)),
        ],
    )


def _table(name: str, caption: str, checked: Iterable[claims.Claim]) -> Table:
    rows = [(claim.text, claim.reported, claim.computed, ANSWERS[claim.is_right], claim.check) for claim in checked]
    return Table(name, HEADER, rows, caption)


def as_text(audit: Section, width: int) -> str:
    """Return the section for a terminal: a paragraph for each claim, and the command that checks it on its own line."""
    lines = []
    for block in audit.blocks:
        if isinstance(block, Text):
            lines += [terminal.wrap(block.text, width), ""]
        elif isinstance(block, Table):
            lines += [block.caption, ""]
            for claim, reported, computed, right, check in block.cells():
                numbers = f"in the report: {reported.text}; recomputed: {computed.text}"
                texts = [terminal.wrap(f"{'':8}{text}", width) for text in (claim.text, numbers)]
                how = terminal.command(f"{'':8}{check.text}", sys.stdout)
                lines += [right.text + texts[0][len(right.text) :], texts[1], how, ""]
    return "\n".join(lines)
