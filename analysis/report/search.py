"""The search with Optuna: its best trials, its history, and the importance of its settings.

python -m analysis.report.search                                           the study that was started last
python -m analysis.report.search --storage sqlite:///optuna.db --study NAME    the study of this name
"""

import math
import sys
from collections.abc import Sequence

from analysis import cli
from analysis.page import DASH, Block, Cell, Row, Section, Table, Text, number, value_cell
from analysis.report import importance, parallel_coordinates, search_figures
from analysis.report.optuna_study import NoStudy, Search, StudyTrial, load
from nanosq import command
from nanosq.installation import program

TITLE = "Search"
COMMAND = f"{program()} -m hydra/sweeper=optuna loss=squentropy"
STORAGE = "sqlite:///optuna.db"
N_BEST = 10  # trials in the table
LUCK = "The best trial may be lucky. Train it again with other seeds and look at the test split."


def find(storage: str | None = None, study: str | None = None) -> Search | str:
    """Return a study, by default the one that was started last, or a sentence that says why there is none.

    Args:
        storage: Storage of Optuna; by default STORAGE.
        study: Name of the study.

    Raises:
        ValueError: The storage or the study was given, but does not exist.
    """
    try:
        return load(storage or STORAGE, study)
    except NoStudy as error:
        if storage or study:
            raise ValueError(f"{'--storage' if storage else '--study'}: {error}") from error
        return f"{error} Start a search: {COMMAND}"


def section(found: Search | str) -> Section:
    """Return the section on the result of `find`."""
    if isinstance(found, str):
        return Section(TITLE, [Text(found)])
    return Section(TITLE, [*_texts(found), _table(found), *_figures(found)])


def _texts(search: Search) -> list[Block]:
    counts = ", ".join(f"{count} {state}" for state, count in search.counts.items())
    text = f"Study {search.name}: {len(search.trials)} trials ({counts})."
    if search.constraints:
        text += f" Constraints: {', '.join(f'{key} {bound:,.10g}' for key, bound in search.constraints.items())}."
    saved, total = search.steps()
    if saved > 0:
        seeds = ", counting the first seed only" if search.seeds > 1 else ""
        text += f" Pruning saved {saved:,.0f} of {total:,.0f} steps ({100 * saved / total:.0f} %{seeds})."
    blocks: list[Block] = [Text(text)]
    if search.complete:
        blocks = [Text(_verdict(search), "verdict"), *blocks, Text(LUCK, "note")]
    for metric in search.misdirected:
        did, better = ("minimized", "higher") if metric.maximize else ("maximized", "lower")
        text = f"This search {did} {metric.in_sentence}, although {better} is better: start another."
        blocks.append(Text(text, "note"))
    if search.is_mixed:
        text = "The code has changed since the study was started: its trials are of different programs."
        blocks.append(Text(text, "note"))
    if search.others:
        blocks.append(Text(f"Other studies in the same storage: {', '.join(search.others)}.", "note"))
    return blocks


def _verdict(search: Search) -> str:
    front, n = search.front(), len(search.complete)
    if len(search.metrics) > 1:
        return f"The Pareto front has {len(front)} of {n} complete trials."
    value = f"{search.metrics[0].in_sentence} {front[0].values[0]:.4g}"
    return f"The best of {n} complete trials is trial {front[0].number}, with {value}."


def _table(search: Search) -> Table:
    front = {trial.number for trial in search.front()}
    rows: list[Row] = []
    for trial in search.ranked()[:N_BEST]:
        is_best = trial.number in front
        first, values = Cell(str(trial.number), trial.number, strong=is_best), _values(trial, search, is_best)
        settings = [value_cell(trial.params.get(name)) for name in search.space]
        rows.append(
            [
                first,
                trial.state,
                *values,
                *settings,
                Cell(trial.run_ids[0][:8] if trial.run_ids else DASH, link=trial.link),
            ]
        )
    header = ["trial", "state", *(metric.label for metric in search.metrics), *search.space, "MLflow run"]
    caption = f"The best {N_BEST} trials" if len(search.trials) > N_BEST else "All trials, best first"
    return Table("search-trials", header, rows, caption)


def _values(trial: StudyTrial, search: Search, is_best: bool) -> list[Cell]:
    """Return the values of a trial. They are dashes unless it is complete: a last value belongs to less training."""
    n = len(search.metrics)
    if not trial.values:
        return [Cell(DASH)] * n
    cells = []
    for value, error in zip(trial.values, trial.errors or [math.nan] * n, strict=True):
        text = number(value).text + (f" ± {number(error, 2).text}" if math.isfinite(error) else "")
        cells.append(Cell(text, value, strong=is_best))
    return cells


def _figures(search: Search) -> list[Block]:
    blocks: list[Block] = []
    has_intermediate = any(trial.intermediate for trial in search.trials)
    if len(search.metrics) == 1:
        if search.complete or any(trial.state == "pruned" and trial.intermediate for trial in search.trials):
            blocks.append(search_figures.history(search))
        if has_intermediate:
            blocks.append(search_figures.intermediate(search))
    if not search.complete:
        return [*blocks, Text(f"No trial is complete. Run the command of the search again to resume it: {COMMAND}")]
    if len(search.metrics) > 1:
        blocks.append(search_figures.pareto(search))
    blocks.append(parallel_coordinates.figure(search))
    try:
        blocks.append(importance.figure(search, importance.estimate(search)))
    except ValueError as error:
        blocks.append(Text(f"The importance of the settings cannot be estimated: {error}.", "note"))
    return blocks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = cli.parser(__doc__, module="analysis.report.search")
    cli.add_storage(parser, STORAGE)

    def work() -> None:
        options = parser.parse_args(arguments)
        cli.show(section(find(options.storage, options.study)), options.out)

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
