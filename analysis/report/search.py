"""The search with Optuna: its best trials, its history, and the importance of its settings.

python -m analysis.report.search                                      the study that was started last, into report/
python -m analysis.report.search --storage sqlite:///optuna.db --study NAME
"""

import math
import sys
from collections.abc import Mapping
from typing import Any

from analysis import cli
from analysis.page import DASH, Block, Cell, Section, Table, Text, number, print_section
from analysis.report import importance, parallel_coordinates, search_figures
from analysis.report.optuna_study import NoStudy, Search, StudyMetric, StudyTrial, load

TITLE = "The search"
STORAGE = "sqlite:///optuna.db"
COMMAND = "python run.py -m hydra/sweeper=optuna loss=squentropy"
SHOWN = 10  # trials in the table


def section(storage: str | None, study_name: str | None = None, *, required: bool = False) -> Section:
    """Return the section on a study, by default the one that was started last, or a sentence if there is none.

    storage: the URL of an Optuna storage; None: there is none. ValueError where it has studies, but none of that name,
    and where a study that is `required` is missing.
    """
    try:
        search = load(storage, study_name)
    except NoStudy as missing:
        if required:
            raise ValueError(f"--storage, --study: {missing}") from missing
        return Section(TITLE, [Text(f"{missing} To make one: {COMMAND}")])
    return Section(TITLE, [*_words(search), _table(search), *_figures(search)])


def _words(search: Search) -> list[Block]:
    text = f"Study {search.name}: {', '.join(f'{n} {state}' for state, n in search.counts.items())}."
    saved, total = search.steps()
    if saved > 0:
        seeds = " of their first seed" if search.seeds > 1 else ""
        text += f" Pruning saved {saved:,.0f} of the {total:,.0f} steps{seeds} that these trials would have taken"
        text += f", {100 * saved / total:.0f} %."
    words: list[Block] = [Text(text)]
    if search.complete:
        words.insert(0, Text(_verdict(search), "verdict"))
        words.append(
            Text(
                "The best of many trials is in part the luckiest on the validation split: what it is worth, the test "
                "split and other seeds say.",
                "note",
            )
        )
    if search.others:
        words.append(Text(f"In the same storage: {', '.join(search.others)}.", "note"))
    return words


def _verdict(search: Search) -> str:
    best, n = search.front(), len(search.complete)
    if len(search.objectives) > 1:
        return f"On the Pareto front: {len(best)} of {n} complete trials."
    label = search.objectives[0].label
    value = f"{label[0].lower()}{label[1:]} {best[0].values[0]:.4g}"
    return f"The best of all complete trials ({n}) is number {best[0].number}: {value}."


def _table(search: Search) -> Table:
    best = {trial.number for trial in search.front()}
    labels = [objective.label for objective in search.objectives]
    rows: list[list[Cell | str]] = [
        [
            number(trial.number, strong=trial.number in best),
            trial.state,
            *_values(trial, search.objectives, strong=trial.number in best),
            *(_setting(trial.params, name) for name in search.space),
            Cell(trial.run_id[:8] or DASH, link=trial.link),
        ]
        for trial in search.ranked()[:SHOWN]
    ]
    header = ["trial", "state", *labels, *search.space, "MLflow run"]
    caption = "The best trials" if len(search.trials) > SHOWN else "Its trials, the best first"
    return Table("search-trials", header, rows, caption)


def _values(trial: StudyTrial, objectives: list[StudyMetric], *, strong: bool) -> list[Cell]:
    """Return the values of a trial. A trial that is not complete has dashes: its last value is of fewer steps."""
    if not trial.values:
        return [Cell(DASH)] * len(objectives)
    cells = []
    for i, value in enumerate(trial.values):
        error = trial.errors[i] if i < len(trial.errors) else math.nan
        text = number(value).text + (f" ± {error:.2g}" if math.isfinite(error) else "")
        cells.append(Cell(text, value, strong=strong))
    return cells


def _setting(params: Mapping[str, Any], name: str) -> Cell:
    value = params.get(name)
    if value is None:
        return Cell(DASH)
    if isinstance(value, bool | str):
        return Cell(str(value), str(value))
    return Cell(f"{value:.4g}", value)


def _figures(search: Search) -> list[Block]:
    blocks: list[Block] = []
    single = len(search.objectives) == 1
    if single and any(trial.values or (trial.state == "pruned" and trial.course) for trial in search.trials):
        blocks.append(search_figures.history(search))
    if single and any(trial.course for trial in search.trials):
        blocks.append(search_figures.intermediate(search))
    if not search.complete:
        return [*blocks, Text(f"No trial is complete yet, so none can be compared. The search goes on with: {COMMAND}")]
    if not single:
        blocks.append(search_figures.pareto(search))
    blocks.append(parallel_coordinates.figure(search))
    try:
        blocks.append(importance.figure(search, importance.estimate(search)))
    except ValueError as error:
        blocks.append(Text(f"Which settings matter cannot be told: {error}.", "note"))
    return blocks


def main() -> int:
    """Run the command."""
    parser = cli.parser(__doc__)
    parser.add_argument("--storage", metavar="URL", default=STORAGE, help="storage of Optuna; default: %(default)s")
    parser.add_argument("--study", help="name of the study; default: the study that was started last")
    arguments = parser.parse_args()

    def work() -> None:
        print_section(section(arguments.storage, arguments.study, required=True), arguments.out)

    return cli.run(work)


if __name__ == "__main__":
    sys.exit(main())
