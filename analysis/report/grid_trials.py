"""The trials of a grid: their settings, seeds, states and scores, as recorded by their runs."""

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from analysis.recorded_run import STATES, RecordedRun
from analysis.runs import by_setting, differing, of_last_program

PREFERRED = ("optimizer.lr", "model.dropout", "model.n_layer")  # axes of a figure: x, y and panels
LABELS = {"optimizer.lr": "Learning rate", "model.dropout": "Dropout", "model.n_layer": "Layers"}


@dataclass(frozen=True)
class GridTrial:
    """A setting of a grid, with the last run of each of its seeds."""

    settings: dict[str, str]
    runs: list[RecordedRun]
    number: str = ""  # several numbers if trials have the same setting; empty if another sweep trained the trial

    @property
    def state(self) -> str:
        """The worst state of its runs."""
        return max((run.state for run in self.runs), key=STATES.index)

    def mean(self, key: str = "val/perplexity") -> float:
        """Return the mean over the seeds; nan unless all of them finished with a finite value."""
        values = self._values(key)
        return statistics.fmean(values) if values else math.nan

    def standard_error(self, key: str = "val/perplexity") -> float:
        """Return the standard error of the mean over the seeds; nan for a single seed."""
        values = self._values(key)
        return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan

    def _values(self, key: str) -> list[float]:
        values = [run.metric(key) for run in self.runs]
        return values if self.state == "finished" and all(map(math.isfinite, values)) else []


def trials(runs: Iterable[RecordedRun]) -> list[GridTrial]:
    """Group the runs of a sweep by setting, in the order of the trial numbers."""
    ordered = sorted(runs, key=lambda run: (int(run.tags.get("trial", 0)), run.started))
    result = []
    for group in by_setting(ordered):
        numbers = dict.fromkeys(run.tags["trial"] for run in group if "trial" in run.tags)
        result.append(GridTrial(group[0].setting, _last_of_each_seed(group), ", ".join(numbers)))
    return result


def missing_trials(grid: Sequence[GridTrial], all_runs: Iterable[RecordedRun]) -> list[GridTrial]:
    """Return the combinations that are not in a grid because another sweep had already trained them.

    The grid sweeper does not repeat runs of the same program on the same text.
    """
    keys, grid_runs = axes(grid), [run for trial in grid for run in trial.runs]
    seeds = {run.seed for run in grid_runs}
    programs = {(run.text_hash, run.program) for run in grid_runs}
    ended = [run for run in all_runs if run.state in ("finished", "diverged") and run.seed in seeds]
    groups = by_setting(run for run in ended if (run.text_hash, run.program) in programs)
    candidates = {tuple(sorted(group[0].setting.items())): group for group in groups}
    result = []
    for combination in itertools.product(*(values(grid, key) for key in keys)):
        wanted = dict(zip(keys, combination, strict=True))
        settings = {key: value for key, value in {**grid[0].settings, **wanted}.items() if value is not None}
        group = candidates.get(tuple(sorted(settings.items())))
        if group and find(grid, wanted) is None:
            result.append(GridTrial(settings, _last_of_each_seed(group)))
    return result


def axes(grid: Sequence[GridTrial]) -> list[str]:
    """Return the settings that trials vary independently, with learning rate, dropout and depth first.

    A setting that follows from another is no axis: the weight of a loss follows from the loss, and `zip` pairs two.
    """
    settings = [trial.settings for trial in grid]
    # A component, as "loss", comes before its own parameters, as "loss.weight".
    keys = sorted(differing(settings), key=lambda key: (key.count("."), key not in PREFERRED))

    def n_values(*names: str) -> int:
        return len({tuple(setting.get(name) for name in names) for setting in settings})

    def is_axis(key: str) -> bool:
        """Return whether no other key determines this one. Of two that determine each other, the first is an axis."""
        for other in keys:
            follows = other != key and n_values(other, key) == n_values(other)
            if follows and (n_values(other, key) > n_values(key) or keys.index(other) < keys.index(key)):
                return False
        return True

    independent = [key for key in keys if is_axis(key)]
    return sorted(independent, key=lambda key: PREFERRED.index(key) if key in PREFERRED else len(PREFERRED))


def values(grid: Sequence[GridTrial], key: str) -> list[str | None]:
    """Return the values of a setting, in numeric or alphabetic order; None for trials without it."""

    def order(value: str | None) -> tuple[int, float, str]:
        try:
            return 1, float(value or "none"), ""
        except ValueError:
            return (0 if value is None else 2), 0.0, value or ""

    return sorted({trial.settings.get(key) for trial in grid}, key=order)


def find(grid: Iterable[GridTrial], wanted: Mapping[str, str | None]) -> GridTrial | None:
    """Return the trial with these settings, or None."""
    return next((t for t in grid if all(t.settings.get(key) == value for key, value in wanted.items())), None)


def best_trial(grid: Iterable[GridTrial]) -> GridTrial | None:
    """Return the trial with the lowest mean validation perplexity, or None if no trial has one."""
    return min((trial for trial in grid if not math.isnan(trial.mean())), key=GridTrial.mean, default=None)


def label(key: str) -> str:
    """Return the label of a setting."""
    return LABELS.get(key, key)


def short(value: str | None) -> str:
    """Return a value for figures and tables: a name without its module, a number with few digits if it has decimals."""
    if value is None or value.isdecimal():
        return value or "none"
    try:
        return min(f"{float(value):.4g}", value, key=len)
    except ValueError:
        return value.rsplit(".", 1)[-1] if value.startswith("torch.") else value


def describe(settings: Mapping[str, str], keys: Iterable[str]) -> str:
    """Return the values of some settings with their labels, as text."""
    return ", ".join(f"{label(key).lower()} {short(settings.get(key))}" for key in keys)


def _last_of_each_seed(runs: Iterable[RecordedRun]) -> list[RecordedRun]:
    """Return the last run of each seed by the last program. A finished run replaces a later one without a result."""
    current = of_last_program(sorted(runs, key=lambda run: run.started))
    ordered = sorted(current, key=lambda run: (run.state in ("finished", "diverged"), run.started))
    last = {run.seed: run for run in ordered}
    return [last[seed] for seed in sorted(last)]
