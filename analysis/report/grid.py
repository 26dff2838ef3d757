"""A grid of settings: the best one, and the learning rates with which the trials were really trained.

python -m analysis.report.grid                  the newest grid, into report/
python -m analysis.report.grid grid-e700304b    this one
"""

import math
import sys
from collections import Counter
from collections.abc import Sequence

from analysis import cli, page, runs
from analysis.report import grid_figures
from analysis.report.grid_trials import GRID, STATES, GridTrial, axes, best, label, recorded, shown, sweeps, trials

COMMAND = "python run.py -m hydra/sweeper=grid"
SCORES = {
    "Val perplexity": "val/perplexity",
    "Val nll (nats per token)": "val/nll",
    "Val bits per byte": "val/bits_per_byte",
}
SCHEDULE = ("optimizer.", "schedule.", "train.warmup", "train.max_steps", "train.min_lr_factor")
REPORT_SHARE = 49 / 2000  # of the nominal learning rate: the last of 50 steps from 0 in a warm-up of 2000


def section(all_runs: Sequence[runs.RecordedRun], sweep: str | None = None) -> page.Section:
    """Return the section on a grid, by default the newest with two axes. Raise ValueError if there is none."""
    by_sweep = sweeps(all_runs)
    grids = {name: trials(each) for name, each in by_sweep.items() if name.startswith(GRID)}
    if sweep is not None and sweep not in grids:
        known = ", ".join(grids) or f"none: {COMMAND} trains one"
        raise ValueError(f"no grid {sweep!r}; there are {known}")
    varied = [name for name, each in grids.items() if axes(each)]
    two = [name for name in varied if len(axes(grids[name])) > 1]
    name = sweep or next(iter([*two, *varied]), None)
    others = [other for other in by_sweep if other != name]
    blocks: list[page.Block]
    if name is None:
        blocks = [page.Text(f"There is no grid that varies a setting: {COMMAND} trains one.", "note")]
    else:
        blocks = _blocks(name, [*grids[name], *recorded(grids[name], all_runs)])
    if others:
        counted = ", ".join(
            f"{other} ({len(by_sweep[other])} run{'s' * (len(by_sweep[other]) > 1)})" for other in others[:10]
        )
        more = f" and {len(others) - 10} more" if len(others) > 10 else ""
        how = f"python -m analysis.report.grid NAME draws one that begins with {GRID}"
        blocks.append(page.Text(f"Other sweeps: {counted}{more}. {how}.", "note"))
    return page.Section("Grid", blocks)


def share_of_nominal(trial: GridTrial) -> float:
    """Return the highest logged learning rate divided by the nominal one; nan if unknown."""
    shares = [
        max(run.curve("train/lr").values) / nominal
        for run in trial.runs
        if (nominal := grid_figures.nominal_rate(run)) > 0 and run.curve("train/lr").values
    ]
    return max(shares, default=math.nan)


def learning_rate_text(given: Sequence[GridTrial]) -> str:
    """Return a sentence on how much of the nominal learning rate the trials reached, and why; empty if unknown."""
    shares = {id(trial): share for trial in given if not math.isnan(share := share_of_nominal(trial))}
    if not shares:
        return ""
    least, most = (f"{100 * share:.3g} %" for share in (min(shares.values()), max(shares.values())))
    reached = most if least == most else f"{least} to {most}"
    text = f"The greatest learning rate that a trial saw at a logged step was {reached} of its nominal one."
    every = max(int(run.params.get("train.log_every", "1")) for trial in given for run in trial.runs)
    inside = [trial for trial in given if id(trial) in shares and _steps(trial) < _warmup_steps(trial)]
    if inside:
        longest = max(inside, key=_steps)
        text += (
            f" {len(inside)} of {len(given)} trials lie inside of their warm-up, as {_steps(longest)} steps do inside "
            f"of {_warmup_steps(longest)}: they were trained with other learning rates than the grid lists."
        )
    elif every > 1:
        text += f" One step in {every} is logged, and the peak may lie between two of them."
    return f"{text} In the report, with 50 iterations inside of a warm-up of 2000, it was {100 * REPORT_SHARE:.2f} %."


def _blocks(name: str, given: Sequence[GridTrial]) -> list[page.Block]:
    keys = axes(given)
    champion = best(given)
    states = Counter(trial.state for trial in given)
    counts = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    about = f"{name}, {len(given)} trials ({counts})."
    if champion:
        where = ", ".join(f"{label(key).lower()} {shown(champion.settings.get(key))}" for key in keys)
        about += f" The best on the validation split: {where}, perplexity {page.number(champion.mean()).text}."
    blocks: list[page.Block] = [page.Text(about)]
    if len(keys) == 1:
        blocks.append(grid_figures.points(given, keys[0]))
    elif keys:
        x, y, panel, *further = [*keys, None, None][: max(3, len(keys))]
        fixed = {key: (champion or given[0]).settings.get(key) for key in further if key}
        blocks.append(grid_figures.heat_maps(given, str(x), str(y), panel, fixed))
        if fixed:
            cut = ", ".join(f"{label(key).lower()} {shown(value)}" for key, value in fixed.items())
            blocks.append(page.Text(f"The figure shows the trials with {cut}, as in the best one.", "note"))
    else:
        blocks.append(page.Text("Its trials do not differ in any setting but the seed.", "note"))
    differing = runs.differing([trial.settings for trial in given])
    drawn = grid_figures.schedules(given, [key for key in axes_of_schedule(given) if key in differing])
    if drawn:
        blocks += [drawn, page.Text(learning_rate_text(given), "note")]
    else:
        blocks.append(page.Text("No run of it has a curve of train/lr.", "note"))
    return [*blocks, _table(name, given, differing, champion)]


def axes_of_schedule(given: Sequence[GridTrial]) -> list[str]:
    """Return the varied settings that affect the learning rate over the steps."""
    return [key for key in axes(given) if key.startswith(SCHEDULE)]


def _table(name: str, given: Sequence[GridTrial], keys: Sequence[str], champion: GridTrial | None) -> page.Table:
    repeated = any(len(trial.runs) > 1 for trial in given)
    perplexity, *others = SCORES
    errors = ["Standard error", "Seeds"] if repeated else []
    header = ["Trial", *map(label, keys), "State", perplexity, *errors, *others]
    rows = [_row(trial, keys, repeated=repeated, strong=trial is champion) for trial in sorted(given, key=_rank)]
    caption = f"Trials of {name}, the best first" + ("; means over the seeds" if repeated else "")
    return page.Table("grid", [*header, "MLflow run"], rows, caption)


def _row(trial: GridTrial, keys: Sequence[str], *, repeated: bool, strong: bool) -> list[page.Cell | str]:
    first = trial.runs[0]
    state = trial.state if trial.number else f"{trial.state} (another sweep)"
    cells: list[page.Cell | str] = [page.Cell(trial.number or page.DASH, strong=strong)]
    cells += [_setting(trial.settings.get(key)) for key in keys]
    perplexity, *others = (page.number(trial.mean(key), 5, strong=strong) for key in SCORES.values())
    errors = [page.number(trial.standard_error(), 3), page.Cell(str(len(trial.runs)), len(trial.runs))]
    cells += [state, perplexity, *(errors if repeated else []), *others]
    return [*cells, page.Cell(first.id[:8], first.id, first.link)]


def _setting(value: str | None) -> page.Cell:
    try:
        return page.Cell(shown(value), float(value or "none"))
    except ValueError:
        return page.Cell(shown(value), value)


def _rank(trial: GridTrial) -> tuple[bool, float, int]:
    mean = trial.mean()
    return math.isnan(mean), 0.0 if math.isnan(mean) else mean, STATES.index(trial.state)


def _steps(trial: GridTrial) -> int:
    """Return the last step that a run of the trial has logged."""
    return max((run.curve("train/lr").steps[-1] for run in trial.runs if run.curve("train/lr").steps), default=0)


def _warmup_steps(trial: GridTrial) -> int:
    """Return the warmup in steps. `train.warmup` is a number of steps or a fraction of `train.max_steps`."""
    warmup = trial.settings.get("train.warmup", "0")
    return int(warmup) if warmup.isdigit() else round(float(warmup) * int(trial.settings.get("train.max_steps", "0")))


def main() -> int:
    """Run the command."""
    parser = cli.parser(__doc__)
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="default: the newest grid that varies two settings")
    arguments = parser.parse_args()

    def work() -> None:
        recorded_runs = runs.load(arguments.tracking_uri, arguments.experiment)
        page.print_section(section(recorded_runs, arguments.sweep), arguments.out)

    return cli.run(work)


if __name__ == "__main__":
    sys.exit(main())
