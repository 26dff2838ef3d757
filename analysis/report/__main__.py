"""Write the report on recorded runs: one page, with its figures and tables as files beside it.

python -m analysis.report                                    report/report.html, from the store of `mlflow ui`
python -m analysis.report --show NAME                        with the details of another comparison that the page lists
python -m analysis.report --tracking-uri http://host:5000    from another tracking server
python -m analysis.report --storage postgresql://host/optuna --study NAME
python -m analysis.report --sweep NAME                       with this grid

The page compares like with like: settings that differ in the loss only, or in another component. Its section
"Comparisons" lists them and says which one comes first. Verdicts are those of the test split, and of the same seeds.
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
from analysis.report import comparison, curves, grid, listing, opening, search
from nanosq import command, option

MAX_LISTED = 50  # runs without a result


def write(all_runs: Sequence[RecordedRun], found: search.Search | str, options: argparse.Namespace) -> Path:
    """Write the page, print its opening, and return its path.

    Args:
        all_runs: All runs of the experiment.
        found: The search that the page shows, or why there is none.
        options: The options of the command.

    Raises:
        ValueError: An option names something that does not exist. This is noticed before the first figure is drawn.
    """
    wanted = [run for run in all_runs if run.text_hash.startswith(options.text)]
    if not wanted:
        known = ", ".join(dict.fromkeys(run.text_hash for run in all_runs))
        raise ValueError(f"there is no run on a text {options.text!r}: --text takes one of {known}")
    sweeps = listing.sweeps(options.storage, wanted)
    listed = listing.comparisons(wanted, sweeps)
    shown = listing.pick(listed, options.show, sweeps)
    names = [each.name for each in (*listed, *([shown] if shown else []))]
    waiting = [f"{each.name}: {' '.join(comparison.status(each))}" for each in sweeps if each.name not in names]
    on_grid = grid.section(wanted, options.sweep)
    sweep = next((each for each in sweeps if shown and each.name == shown.name), None)
    first = opening.section(shown, comparison.status(sweep) if sweep else [])
    sections = [first]
    if shown:
        sections += [listing.section(listed, shown, waiting)] if listed else []
        sections += [comparison.section(sweep, shown)] if sweep else []
        sections += comparison.details(shown, against=options.against)
    sections += [
        on_grid,
        search.section(found),
        audit.section(all_runs, stories=options.stories),
        *_without_result(all_runs),
    ]
    path = page.write(options.out, shown.title if shown else "Which loss is better?", _lead(all_runs), sections)
    cli.tell(first)
    return path


def _without_result(all_runs: Sequence[RecordedRun]) -> list[page.Section]:
    """Return a section with the runs that are in no other section; none if there are no such runs."""
    listed = [run for run in all_runs if run.state not in ("finished", "pruned")]
    rows: list[page.Row] = []
    for run in listed[:MAX_LISTED]:
        step = page.number(max(run.curve("train/loss").steps, default=math.nan), 10)
        rows.append([page.Cell(run.id[:8], run.id, run.link), run.name, run.state, step])
    text = f"{_runs(listed)} without scores. To resume one that is running or was killed, run its command again." + (
        f" The table shows the last {MAX_LISTED}." if len(listed) > MAX_LISTED else ""
    )
    table = page.Table("unfinished", ["MLflow run", "name", "state", "last step"], rows)
    return [page.Section("Runs without a result", [page.Text(text), table])] if listed else []


def _lead(all_runs: Sequence[RecordedRun]) -> str:
    counts = Counter(run.state for run in all_runs).most_common()
    states = ", ".join(f"{count} {state}" for state, count in counts)
    return f"{_runs(all_runs)} ({states}), read on {time.strftime('%Y-%m-%d %H:%M')}."


def _runs(runs: Sequence[RecordedRun]) -> str:
    return f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = cli.parser(__doc__)
    cli.add_storage(parser, search.STORAGE)
    parser.add_argument(
        "--show", type=option.name, metavar="NAME", help="comparison to show; default: the first that the page lists"
    )
    parser.add_argument("--sweep", type=option.name, metavar="NAME", help="grid to show; default: the newest one")
    parser.add_argument("--text", default="", metavar="HASH", help="only runs on the text whose hash begins like this")
    parser.add_argument("--against", choices=list(curves.AGAINST), default="steps", help="x axis of the curves")
    parser.add_argument("--stories", type=option.existing, metavar="FILE", help="sample of TinyStories, for the audit")

    def work() -> None:
        options = parser.parse_args(arguments)
        found = search.find(options.storage, options.study)
        all_runs = runs.load(options.tracking_uri, options.experiment)
        if not all_runs:
            place = options.tracking_uri or "here"
            raise ValueError(
                f"MLflow has no run of experiment {options.experiment!r} {place}; train some: {runs.TRAIN}"
            )
        print(write(all_runs, found, options))

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
