"""The grid of settings: the best trial, and the learning rates with which the trials were really trained.

python -m analysis.report.grid                  the newest grid, into report/
python -m analysis.report.grid grid-e700304b    the grid of this name
"""

import math
import sys
from collections import Counter
from collections.abc import Sequence

from analysis import cli, runs
from analysis.page import DASH, Block, Cell, Row, Section, Table, Text, number
from analysis.recorded_run import STATES, RecordedRun
from analysis.report import grid_figures
from analysis.report.grid_trials import GridTrial, axes, best_trial, describe, label, missing_trials, short, trials
from nanosq import command, option
from nanosq.installation import program
from nanosq.suggestion import closest

COMMAND = f"{program()} -m hydra/sweeper=grid"
GRID = "grid-"  # of the names that the grid sweeper gives to sweeps
SCORES = {
    "Val perplexity": "val/perplexity",
    "Val nll (nats/token)": "val/nll",
    "Val bits/byte": "val/bits_per_byte",
}
SCHEDULE = ("optimizer.lr", "optimizer", "schedule", "train.warmup", "train.max_steps", "train.min_lr_factor")
REPORT_SHARE = 49 / 2000  # of the nominal learning rate: the last of 50 steps in a warmup of 2000 steps from 0
MAX_LISTED = 10  # other sweeps


def section(all_runs: Sequence[RecordedRun], sweep: str | None = None) -> Section:
    """Return the section on a grid, by default the newest with two axes. Raise ValueError if there is no such grid."""
    by_sweep: dict[str, list[RecordedRun]] = {}
    for run in sorted(all_runs, key=lambda run: -run.started):
        if name := run.tags.get("sweep"):
            by_sweep.setdefault(name, []).append(run)
    grids = {name: trials(sweep_runs) for name, sweep_runs in by_sweep.items() if name.startswith(GRID)}
    if sweep is not None and sweep not in grids:
        known = (
            f"there are {', '.join(grids)}{closest(sweep, grids)}" if grids else f"there are none; train one: {COMMAND}"
        )
        raise ValueError(f"no grid {sweep!r}; {known}")
    with_axes = [name for name in grids if axes(grids[name])]
    # sorted() keeps the order, so the newest of the grids with two axes comes first.
    chosen = sweep or next(iter(sorted(with_axes, key=lambda name: len(axes(grids[name])) < 2)), None)
    if chosen is None:
        blocks: list[Block] = [Text(f"There is no grid that varies a setting. Train one: {COMMAND}", "note")]
    else:
        blocks = _blocks(chosen, [*grids[chosen], *missing_trials(grids[chosen], all_runs)], all_runs)
    if others := [f"{name} ({len(by_sweep[name])} runs)" for name in by_sweep if name != chosen]:
        more = f" and {len(others) - MAX_LISTED} more" if len(others) > MAX_LISTED else ""
        how = f"{program('analysis.report.grid')} NAME shows a sweep whose name begins with {GRID}"
        blocks.append(Text(f"Other sweeps: {', '.join(others[:MAX_LISTED])}{more}. {how}.", "note"))
    return Section("Grid", blocks)


def _blocks(name: str, grid: Sequence[GridTrial], all_runs: Sequence[RecordedRun]) -> list[Block]:
    keys, best = axes(grid), best_trial(grid)
    counts = Counter(trial.state for trial in grid)
    text = f"{name}: {len(grid)} trials ({', '.join(f'{counts[state]} {state}' for state in STATES if counts[state])})."
    if best:
        text += f" Best validation perplexity: {number(best.mean()).text}, with {describe(best.settings, keys)}."
        text += _length(best, all_runs)
    blocks: list[Block] = [Text(text)]
    if keys:
        y, panel, *others = [*keys[1:], None, None][: max(2, len(keys) - 1)]
        fixed = {key: (best or grid[0]).settings.get(key) for key in others if key}
        blocks.append(grid_figures.heat_maps(grid, keys[0], y, panel, fixed))
        if fixed:
            shown = describe((best or grid[0]).settings, fixed)
            blocks.append(Text(f"The figure shows only trials with {shown}, the values of the best trial.", "note"))
    else:
        blocks.append(Text("The trials differ only in their seed.", "note"))
    schedules = grid_figures.schedules(grid, [key for key in keys if key in SCHEDULE or key.startswith("schedule.")])
    if schedules:
        blocks += [schedules, Text(learning_rate_text(grid), "note")]
    else:
        blocks.append(Text("No run has a curve of train/lr.", "note"))
    blocks.append(_table(name, grid, best))
    if len({run.text_hash for trial in grid for run in trial.runs}) > 1:
        blocks.append(Text("The trials differ in their text or tokens: their scores cannot be compared.", "note"))
    return blocks


def _length(trial: GridTrial, all_runs: Sequence[RecordedRun]) -> str:
    """Return a sentence on the training steps of a trial, if other runs were trained for more."""
    steps, most = (max(int(run.params.get("train.max_steps", "0")) for run in runs) for runs in (trial.runs, all_runs))
    if not 0 < steps < most:
        return ""
    return f" It was trained for {steps:,} steps only: do not compare it with other runs, of up to {most:,} steps."


def learning_rate_text(grid: Sequence[GridTrial]) -> str:
    """Return sentences on the share of the nominal learning rate that the trials reached; empty if unknown."""
    known = [(trial, share) for trial in grid if not math.isnan(share := _share_of_nominal(trial))]
    if not known:
        return ""
    low, high = (f"{100 * extreme(share for _, share in known):.3g} %" for extreme in (min, max))
    text = f"The highest logged learning rate of a trial was {high if low == high else f'{low} to {high}'} of nominal."
    in_warmup = [trial for trial, _ in known if _steps(trial) < _warmup_steps(trial)]
    every = max(int(run.params.get("train.log_every", "1")) for trial in grid for run in trial.runs)
    if in_warmup:
        longest = max(in_warmup, key=_steps)
        text += (
            f" {len(in_warmup)} of {len(grid)} trials ended within their warmup, for example after {_steps(longest)} "
            f"of {_warmup_steps(longest)} steps, so they were not trained with the learning rates that the grid lists."
        )
    elif every > 1:
        text += f" Every {every} steps are logged, so the peak may lie between two logged steps."
    return f"{text} In the student report it was {100 * REPORT_SHARE:.2f} %: 50 steps of a warmup of 2000."


def _table(name: str, grid: Sequence[GridTrial], best: GridTrial | None) -> Table:
    varied = runs.differing([trial.settings for trial in grid])
    keys = [*axes(grid), *(key for key in varied if key not in axes(grid))]
    has_seeds = any(len(trial.runs) > 1 for trial in grid)
    rows: list[Row] = []
    for trial in sorted(grid, key=_rank):
        first = trial.runs[0]
        perplexity, *others = (number(trial.mean(key), 5, strong=trial is best) for key in SCORES.values())
        errors: Row = [number(trial.standard_error(), 3), len(trial.runs)]
        rows.append(
            [
                Cell(trial.number or DASH, strong=trial is best),
                *(_setting(trial.settings.get(key)) for key in keys),
                trial.state if trial.number else f"{trial.state} (another sweep)",
                perplexity,
                *(errors if has_seeds else []),
                *others,
                Cell(first.id[:8], first.id, first.link),
            ]
        )
    perplexity_name, *other_names = SCORES
    names = [perplexity_name, *(["Standard error", "Seeds"] if has_seeds else []), *other_names]
    header = ["Trial", *map(label, keys), "State", *names, "MLflow run"]
    return Table("grid", header, rows, f"Trials of {name}, best first" + ("; mean over seeds" if has_seeds else ""))


def _setting(value: str | None) -> Cell:
    try:
        return Cell(short(value), float(value or "none"))
    except ValueError:
        return Cell(short(value), value)


def _rank(trial: GridTrial) -> tuple[bool, float, int]:
    has_none = math.isnan(trial.mean())
    return has_none, 0.0 if has_none else trial.mean(), STATES.index(trial.state)


def _share_of_nominal(trial: GridTrial) -> float:
    """Return the highest logged learning rate divided by the nominal one; nan if unknown."""
    shares = [
        max(run.curve("train/lr").values) / nominal
        for run in trial.runs
        if (nominal := grid_figures.nominal_rate(run)) > 0 and run.curve("train/lr").values
    ]
    return max(shares, default=math.nan)


def _steps(trial: GridTrial) -> int:
    """Return the last step that a run of the trial has logged."""
    return max((step for run in trial.runs for step in run.curve("train/lr").steps[-1:]), default=0)


def _warmup_steps(trial: GridTrial) -> int:
    """Return the warmup in steps. `train.warmup` is a number of steps or a fraction of `train.max_steps`."""
    warmup = trial.settings.get("train.warmup", "0")
    return int(warmup) if warmup.isdigit() else round(float(warmup) * int(trial.settings.get("train.max_steps", "0")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = cli.parser(__doc__, "[SWEEP]", module="analysis.report.grid")
    parser.add_argument(
        "sweep", nargs="?", type=option.name, metavar="SWEEP", help="default: the newest grid that varies two settings"
    )

    def work() -> None:
        options = parser.parse_args(arguments)
        cli.show(section(runs.load(options.tracking_uri, options.experiment), options.sweep), options.out)

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
