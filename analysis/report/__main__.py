"""Write the report on recorded runs: one page, with its figures and tables as files beside it.

python -m analysis.report                                    report/report.html, from what `mlflow ui` would show
python -m analysis.report --tracking-uri http://host:5000    from any tracking server
python -m analysis.report --storage postgresql://host/optuna --study NAME

Each loss is represented by its best setting on the validation split; the scores and the verdict are those of the test
split.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis import cli, page, runs
from analysis.audit import summary as audit
from analysis.report import calibration, compare, curves, grid, scores, search

MOST = 50  # runs without a result that are listed


def sections(
    found: Sequence[runs.RecordedRun],
    *,
    against: str = "steps",
    storage: str | None = None,
    study: str | None = None,
    sweep: str | None = None,
    stories: Path | None = None,
    everything: Sequence[runs.RecordedRun] = (),
) -> list[page.Section]:
    """Return the sections of the report on runs of one text. The audit also uses the runs in `everything`."""
    chosen = runs.best(found)
    made = []
    if chosen:
        made += [
            compare.section(chosen),
            scores.section(chosen),
            curves.section(chosen, against=against),
            calibration.section(chosen),
            scores.samples(chosen),
            compare.of_stories(chosen),
        ]
    else:
        nothing = f"No run has finished with a validation score. {runs.TRAIN} trains two losses with three seeds each."
        made.append(page.Section("Scores", [page.Text(nothing, "note")]))
    made += [
        grid.section(found, sweep),
        search.section(storage or search.STORAGE, study, required=bool(storage or study)),
        audit.section(everything or found, stories=stories),
    ]
    return [_states(found), *made] if _unfinished(found) else made


def _unfinished(found: Iterable[runs.RecordedRun]) -> Counter[str]:
    return Counter(run.state for run in found if run.state not in ("finished", "pruned"))


def _states(found: Iterable[runs.RecordedRun]) -> page.Section:
    unfinished = [run for run in found if run.state not in ("finished", "pruned")]
    rows: list[list[page.Cell | str]] = [
        [page.Cell(run.id[:8], run.id, run.link), run.name, run.state, page.number(_last_step(run), 10)]
        for run in unfinished[:MOST]
    ]
    table = page.Table("unfinished", ["MLflow run", "name", "state", "last step"], rows)
    more = f" The last {MOST} of them:" if len(unfinished) > MOST else ""
    why = "One that is running or was killed goes on when its command is given again."
    text = f"Runs that have no scores here: {len(unfinished)}. {why}{more}"
    return page.Section("Runs without a result", [page.Text(text), table])


def _last_step(run: runs.RecordedRun) -> float:
    steps = run.curve("train/loss").steps
    return float(steps[-1]) if steps else float("nan")


def lead(found: Sequence[runs.RecordedRun], left_out: str) -> str:
    """Return the first paragraph of the page."""
    states = Counter(run.state for run in found)
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    made = time.strftime("%Y-%m-%d %H:%M")
    return f"Made {made} from {len(found)} runs ({counts}) on the text {found[0].text_hash or 'unknown'}.{left_out}"


def main() -> int:
    """Run the command."""
    parser = cli.parser(__doc__)
    parser.add_argument("--storage", metavar="URL", help=f"storage of Optuna; default: {search.STORAGE}, if it exists")
    parser.add_argument("--study", help="name of the study; default: the newest one")
    parser.add_argument("--sweep", help="name of the grid; default: the newest one")
    parser.add_argument("--text", help="beginning of the hash of a text; default: the text of most runs")
    parser.add_argument("--against", choices=["steps", "tokens", "seconds"], default="steps")
    parser.add_argument("--stories", type=Path, help="a sample of TinyStories, for the audit")
    arguments = parser.parse_args()

    def work() -> None:
        everything = runs.load(arguments.tracking_uri, arguments.experiment)
        if not everything:
            place = arguments.tracking_uri or "here"
            raise ValueError(
                f"MLflow has no run of experiment {arguments.experiment!r} {place}: {runs.TRAIN} makes some"
            )
        found, left_out = runs.runs_on_common_text(everything, arguments.text)
        made = sections(
            found,
            against=arguments.against,
            storage=arguments.storage,
            study=arguments.study,
            sweep=arguments.sweep,
            stories=arguments.stories,
            everything=everything,
        )
        print(page.write(arguments.out, "Which loss is better?", lead(found, left_out), made))

    return cli.run(work)


if __name__ == "__main__":
    sys.exit(main())
