"""Everything that MLflow knows about a set of runs, as one page with its figures and tables beside it.

python -m analysis.report                                    report/report.html, from what `mlflow ui` would show
python -m analysis.report --tracking-uri http://host:5000    from any tracking server
python -m analysis.report --storage postgresql://host/optuna --study NAME

Each loss is represented by its best setting on the validation split; the scores and the verdict are those of the test
split.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis import audit, calibration, compare, curves, grid, page, results, runs, search

COMMAND = "python run.py -m loss=cross_entropy,squentropy seed=1,2,3"
STORAGE = "sqlite:///optuna.db"
MOST = 50  # runs without a result that are listed


def sections(
    found: Sequence[runs.Run],
    *,
    against: str = "steps",
    storage: str | None = STORAGE,
    study: str | None = None,
    sweep: str | None = None,
    stories: Path | None = None,
) -> list[page.Section]:
    """The report on runs of one text; the settings of a search and a grid are only in their own sections."""
    chosen = runs.best(found)
    made = []
    if chosen:
        made += [
            compare.section(chosen),
            results.section(chosen),
            curves.section(chosen, against=against),
            calibration.section(chosen),
            results.samples(chosen),
            compare.of_stories(chosen),
        ]
    else:
        nothing = f"No run has finished with a validation score. {COMMAND} trains two losses with three seeds each."
        made.append(page.Section("Scores", [page.Text(nothing, "note")]))
    made += [grid.section(found, sweep), search.section(storage, study), audit.section(found, stories=stories)]
    return [_states(found), *made] if _unfinished(found) else made


def one_text(found: Iterable[runs.Run], wanted: str | None) -> tuple[list[runs.Run], str]:
    """The runs on the text that most have finished on, or on the one whose hash begins so; and what is left out.

    Scores on different text, or in different tokens, cannot be compared. ValueError where no run is on the wanted text.
    """
    found = list(found)
    counts = Counter(run.text_hash for run in found if run.state == "finished") or Counter(r.text_hash for r in found)
    texts = [text for text, _ in counts.most_common()]
    text = next((each for each in texts if wanted is None or each.startswith(wanted)), None)
    if text is None:
        raise ValueError(f"no run on a text {wanted!r}: --text takes one of {', '.join(texts)}")
    others = ", ".join(f"{counts[other]} with --text {other}" for other in texts if other != text)
    return [run for run in found if run.text_hash == text], f" On other text: {others}." if others else ""


def _unfinished(found: Iterable[runs.Run]) -> Counter[str]:
    return Counter(run.state for run in found if run.state not in ("finished", "pruned"))


def _states(found: Iterable[runs.Run]) -> page.Section:
    rows: list[list[page.Cell | str]] = [
        [page.Cell(run.id[:8], run.id, run.link), run.name, run.state, page.number(_last_step(run), 10)]
        for run in found
        if run.state not in ("finished", "pruned")
    ]
    table = page.Table("unfinished", ["MLflow run", "name", "state", "last step"], rows[:MOST])
    more = f" The first {MOST} of them:" if len(rows) > MOST else ""
    why = "A run that is running or was killed goes on when its command is given again."
    return page.Section(
        "Runs without a result", [page.Text(f"{len(rows)} runs have no scores here. {why}{more}"), table]
    )


def _last_step(run: runs.Run) -> float:
    steps = run.curve("train/loss").steps
    return float(steps[-1]) if steps else float("nan")


def lead(found: Sequence[runs.Run], left_out: str) -> str:
    states = Counter(run.state for run in found)
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    made = time.strftime("%Y-%m-%d %H:%M")
    return f"Made {made} from {len(found)} runs ({counts}) on the text {found[0].text_hash or 'unknown'}.{left_out}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracking-uri", help="MLflow's store or server; default: as `mlflow ui`")
    parser.add_argument("--experiment", default="nanosq")
    parser.add_argument("--storage", default=STORAGE, help="Optuna's; default: %(default)s")
    parser.add_argument("--study", help="default: the newest one")
    parser.add_argument("--sweep", help="which grid; default: the newest one")
    parser.add_argument("--text", help="the beginning of the text's hash; default: that of most runs")
    parser.add_argument("--against", choices=["steps", "tokens", "seconds"], default="steps")
    parser.add_argument("--stories", type=Path, help="a sample of TinyStories, for the audit")
    parser.add_argument("--out", type=Path, default=Path("report"))
    arguments = parser.parse_args()
    try:
        found = runs.load(arguments.tracking_uri, arguments.experiment)
        if not found:
            raise ValueError(f"MLflow has no run of experiment {arguments.experiment!r} here: {COMMAND} makes some")
        found, left_out = one_text(found, arguments.text)
        made = sections(
            found,
            against=arguments.against,
            storage=arguments.storage,
            study=arguments.study,
            sweep=arguments.sweep,
            stories=arguments.stories,
        )
        print(page.write(arguments.out, "Which loss is better?", lead(found, left_out), made))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
