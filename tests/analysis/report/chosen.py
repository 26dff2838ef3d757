"""All settings of runs, as the sections of the page get them."""

from collections.abc import Sequence

from analysis.recorded_run import RecordedRun
from analysis.report import common_seeds, components
from analysis.report.matched import Matched
from analysis.runs import RecordedSetting, settings


def chosen(recorded: Sequence[RecordedRun]) -> dict[str, RecordedSetting]:
    """Return all settings of these runs with their common seeds, by label."""
    rows = settings(recorded)
    return common_seeds.on_common_seeds(dict(zip(components.labels(rows), rows, strict=True)))


def compared(rows: dict[str, RecordedSetting], what: str = "loss") -> Matched:
    """Return the comparison of settings by label."""
    return Matched("a", what, rows, dict.fromkeys(rows, 1), [what])
