"""Write the report on recorded runs: one page, with its figures and tables as files beside it.

python -m analysis.report                                    report/report.html, from the store of `mlflow ui`
python -m analysis.report --tracking-uri http://host:5000    from another tracking server
python -m analysis.report --storage postgresql://host/optuna --study NAME
python -m analysis.report --sweep NAME                       with this grid or comparison

The best settings of each loss on the validation split represent this loss. Scores and verdicts are those of the test
split, and of the same seeds of all losses.
"""

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from analysis import cli, page, runs
from analysis.audit import summary as audit
from analysis.recorded_run import RecordedRun
from analysis.report import calibration, compare, comparison, curves, grid, samples, scores, search, selection, stories
from analysis.report.contenders import load
from analysis.report.optuna_storage import NoStudy

MAX_LISTED = 50  # runs without a result


def sections(
    all_runs: Sequence[RecordedRun], selected: Sequence[RecordedRun], options: argparse.Namespace
) -> list[page.Section]:
    """Return the sections of the report. All of them but the audit show only the selected runs, which share a text."""
    is_grid = options.sweep is None or options.sweep.startswith(grid.GRID)
    best = selection.choose(selected)
    if best:
        compared = [
            compare.section(best),
            scores.section(best),
            curves.section(best, against=options.against),
            calibration.section(best),
            samples.section(best),
            stories.section(best),
        ]
    else:
        compared = [page.Section("Scores", [page.Text(runs.NO_RESULT, "note")])]
    return [
        *_without_result(selected),
        *_comparison(all_runs, options.storage, None if is_grid else options.sweep),
        *compared,
        grid.section(selected, options.sweep if is_grid else None),
        search.section(options.storage, options.study),
        audit.section(all_runs, stories=options.stories),
    ]


def _comparison(all_runs: Sequence[RecordedRun], storage: str | None, name: str | None) -> list[page.Section]:
    """Return the section on a comparison, by default the newest one; none if there is no comparison."""
    try:
        return [comparison.section(load(storage or search.STORAGE, all_runs, name))]
    except NoStudy as error:
        if name:
            raise ValueError(f"--sweep {name}: {error} The name of a grid begins with {grid.GRID}") from error
        return []


def _without_result(selected: Sequence[RecordedRun]) -> list[page.Section]:
    """Return a section with the runs that are in no other section; none if there are no such runs."""
    listed = [run for run in selected if run.state not in ("finished", "pruned")]
    rows: list[page.Row] = []
    for run in listed[:MAX_LISTED]:
        step = page.number(max(run.curve("train/loss").steps, default=math.nan), 10)
        rows.append([page.Cell(run.id[:8], run.id, run.link), run.name, run.state, step])
    text = f"{len(listed)} runs have no scores. To resume one that is running or was killed, run its command again." + (
        f" The table shows the last {MAX_LISTED}." if len(listed) > MAX_LISTED else ""
    )
    table = page.Table("unfinished", ["MLflow run", "name", "state", "last step"], rows)
    return [page.Section("Runs without a result", [page.Text(text), table])] if listed else []


def _lead(selected: Sequence[RecordedRun], other_text: str) -> str:
    counts = Counter(run.state for run in selected).most_common()
    states = ", ".join(f"{count} {state}" for state, count in counts)
    text = selected[0].text_hash or "unknown"
    return f"{len(selected)} runs ({states}) on the text {text}, read on {time.strftime('%Y-%m-%d %H:%M')}.{other_text}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = cli.parser(__doc__)
    parser.add_argument("--storage", metavar="URL", help=f"storage of Optuna; default: {search.STORAGE}, if it exists")
    parser.add_argument("--study", metavar="NAME", help="default: the study that was started last")
    parser.add_argument("--sweep", metavar="NAME", help="grid or comparison to show; default: the newest ones")
    parser.add_argument(
        "--text", metavar="HASH", help="beginning of the hash of a text; default: the text of most runs"
    )
    parser.add_argument("--against", choices=list(curves.AGAINST), default="steps", help="x axis of the curves")
    parser.add_argument("--stories", type=Path, metavar="FILE", help="sample of TinyStories, for the audit")
    options = parser.parse_args(arguments)

    def work() -> None:
        all_runs = runs.load(options.tracking_uri, options.experiment)
        if not all_runs:
            place = options.tracking_uri or "here"
            raise ValueError(
                f"MLflow has no run of experiment {options.experiment!r} {place}; train some: {runs.TRAIN}"
            )
        selected, other_text = runs.runs_on_common_text(all_runs, options.text)
        lead = _lead(selected, other_text)
        print(page.write(options.out, "Which loss is better?", lead, sections(all_runs, selected, options)))

    return cli.run(work)


if __name__ == "__main__":
    sys.exit(main())
