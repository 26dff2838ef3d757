"""The trials of a grid: their settings, seeds, states and values, as recorded by their runs."""

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from analysis.recorded_run import RecordedRun
from analysis.runs import differing

GRID = "grid-"  # how the grid sweeper's names begin
PREFERRED = ("optimizer.lr", "model.dropout", "model.n_layer")  # as x, y and panel
LABELS = {"optimizer.lr": "Learning rate", "model.dropout": "Dropout", "model.n_layer": "Layers"}
STATES = ("finished", "pruned", "diverged", "failed", "killed", "running")  # the better ones first


@dataclass(frozen=True)
class GridTrial:
    """A setting of a sweep, with the last run of each of its seeds."""

    settings: dict[str, str]
    runs: list[RecordedRun]
    number: str = ""  # or numbers, where a grid has an axis of seeds; empty where another sweep trained it

    @property
    def state(self) -> str:
        """The worst state of its runs."""
        return max(
            (run.state for run in self.runs), key=lambda state: STATES.index(state) if state in STATES else len(STATES)
        )

    def mean(self, key: str = "val/perplexity") -> float:
        """Return the mean over the seeds; nan unless all have finished with a value."""
        values = self._values(key)
        return statistics.fmean(values) if values else math.nan

    def standard_error(self, key: str = "val/perplexity") -> float:
        """Return the standard error of the mean over the seeds; nan for a single seed."""
        values = self._values(key)
        return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan

    def _values(self, key: str) -> list[float]:
        values = [run.metric(key) for run in self.runs]
        return values if self.state == "finished" and all(map(math.isfinite, values)) else []


def sweeps(all_runs: Iterable[RecordedRun]) -> dict[str, list[RecordedRun]]:
    """Return the runs of each sweep by its name, the newest sweep first."""
    found: dict[str, list[RecordedRun]] = defaultdict(list)
    for run in sorted(all_runs, key=lambda run: -run.started):
        if sweep := run.tags.get("sweep"):
            found[sweep].append(run)
    return dict(found)


def trials(sweep: Iterable[RecordedRun]) -> list[GridTrial]:
    """Group runs by setting, in the order of the trial numbers."""
    groups: dict[tuple[tuple[str, str], ...], list[RecordedRun]] = defaultdict(list)
    for run in sorted(sweep, key=lambda run: (_number(run), run.started)):
        groups[tuple(sorted(run.setting.items()))].append(run)
    found = []
    for group in groups.values():
        numbers = dict.fromkeys(str(_number(run)) for run in group if "trial" in run.tags)
        found.append(GridTrial(group[0].setting, _last_of_each_seed(group), ", ".join(numbers)))
    return found


def axes(given: Sequence[GridTrial]) -> list[str]:
    """Return the settings that trials vary independently: learning rate, dropout and depth first.

    Left out is a setting that follows from another, as the weight of a loss from the loss, or two that `zip` pairs.
    """
    settings = [trial.settings for trial in given]
    keys = sorted(differing(settings), key=lambda key: (not key.endswith("_target_"), key not in PREFERRED))

    def follows(key: str, other: str) -> bool:
        return len({(each.get(other), each.get(key)) for each in settings}) == len({e.get(other) for e in settings})

    def left_out(key: str) -> bool:
        return any(
            follows(key, other) and (not follows(other, key) or keys.index(other) < keys.index(key))
            for other in keys
            if other != key
        )

    kept = [key for key in keys if not left_out(key)]
    return [key for key in PREFERRED if key in kept] + [key for key in kept if key not in PREFERRED]


def recorded(given: Sequence[GridTrial], all_runs: Iterable[RecordedRun]) -> list[GridTrial]:
    """Return combinations that the grid lacks because an earlier run of the same program had trained them."""
    keys = axes(given)
    first = given[0]
    seeds = {run.seed for trial in given for run in trial.runs}
    programs = {run.tags.get("code") for trial in given for run in trial.runs}
    groups: dict[tuple[tuple[str, str], ...], list[RecordedRun]] = defaultdict(list)
    for run in sorted(all_runs, key=lambda run: run.started):
        same = run.text_hash == first.runs[0].text_hash and run.seed in seeds and run.tags.get("code") in programs
        if same and run.state in ("finished", "diverged"):
            groups[tuple(sorted(run.setting.items()))].append(run)
    found = []
    for combination in itertools.product(*(values(given, key) for key in keys)):
        wanted = dict(zip(keys, combination, strict=True))
        if at(given, wanted) is None:
            setting = {key: value for key, value in {**first.settings, **wanted}.items() if value is not None}
            if group := groups.get(tuple(sorted(setting.items()))):
                found.append(GridTrial(setting, _last_of_each_seed(group)))
    return found


def values(given: Sequence[GridTrial], key: str) -> list[str | None]:
    """Return the values of a setting, in numeric or alphabetic order; None for trials without it."""

    def order(value: str | None) -> tuple[int, float, str]:
        try:
            return 1, float(value or "none"), ""
        except ValueError:
            return (0 if value is None else 2), 0.0, value or ""

    return sorted({trial.settings.get(key) for trial in given}, key=order)


def at(given: Iterable[GridTrial], wanted: Mapping[str, str | None]) -> GridTrial | None:
    """Return the trial with these settings."""
    return next((t for t in given if all(t.settings.get(key) == value for key, value in wanted.items())), None)


def best(given: Iterable[GridTrial]) -> GridTrial | None:
    """Return the trial with the lowest mean validation perplexity."""
    return min((trial for trial in given if not math.isnan(trial.mean())), key=GridTrial.mean, default=None)


def shown(value: str | None) -> str:
    """Return a value for figures and tables: a name without its module, a number with few digits."""
    if value is None:
        return "none"
    try:
        return min(f"{float(value):.4g}", value, key=len)
    except ValueError:
        return value.rsplit(".", 1)[-1] if value.startswith(("nanosq.", "torch.")) else value


def label(key: str) -> str:
    """Return the label of an axis."""
    return LABELS.get(key, key.removesuffix("._target_"))


def _last_of_each_seed(group: Iterable[RecordedRun]) -> list[RecordedRun]:
    """Return the last run of each seed, preferring runs that have finished. The earlier runs come first in `group`."""
    last = {
        run.seed: run for run in sorted(group, key=lambda run: (run.state in ("finished", "diverged"), run.started))
    }
    return [last[seed] for seed in sorted(last)]


def _number(run: RecordedRun) -> int:
    return int(run.tags.get("trial", 0))
