"""The trials of a grid as its runs tell of them: their settings, seeds, states and values."""

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
class Trial:
    """A setting of a sweep: the last run of each of its seeds."""

    settings: dict[str, str]
    runs: list[RecordedRun]
    number: str = ""  # or numbers, where a grid has an axis of seeds; empty where another sweep trained it

    @property
    def state(self) -> str:
        """That of the worst of its runs."""
        return max(
            (run.state for run in self.runs), key=lambda state: STATES.index(state) if state in STATES else len(STATES)
        )

    def mean(self, key: str = "val/perplexity") -> float:
        """Over the seeds; nan unless all have finished with a value."""
        values = self._values(key)
        return statistics.fmean(values) if values else math.nan

    def standard_error(self, key: str = "val/perplexity") -> float:
        """The standard deviation of the seeds over the root of their number; nan for a single one."""
        values = self._values(key)
        return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan

    def _values(self, key: str) -> list[float]:
        values = [run.metric(key) for run in self.runs]
        return values if self.state == "finished" and all(map(math.isfinite, values)) else []


def sweeps(all_runs: Iterable[RecordedRun]) -> dict[str, list[RecordedRun]]:
    """The runs of each sweep by its name, the newest sweep first."""
    found: dict[str, list[RecordedRun]] = defaultdict(list)
    for run in sorted(all_runs, key=lambda run: -run.started):
        if sweep := run.tags.get("sweep"):
            found[sweep].append(run)
    return dict(found)


def trials(sweep: Iterable[RecordedRun]) -> list[Trial]:
    """Runs by their setting, in the order of the trials' numbers."""
    groups: dict[tuple[tuple[str, str], ...], list[RecordedRun]] = defaultdict(list)
    for run in sorted(sweep, key=lambda run: (_number(run), run.started)):
        groups[tuple(sorted(run.setting.items()))].append(run)
    found = []
    for group in groups.values():
        numbers = dict.fromkeys(str(_number(run)) for run in group if "trial" in run.tags)
        found.append(Trial(group[0].setting, _last_of_each_seed(group), ", ".join(numbers)))
    return found


def axes(given: Sequence[Trial]) -> list[str]:
    """The settings that trials vary independently: learning rate, dropout and depth first.

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


def recorded(given: Sequence[Trial], all_runs: Iterable[RecordedRun]) -> list[Trial]:
    """The combinations that a grid lacks because a run outside of it had trained them before, with the same program."""
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
                found.append(Trial(setting, _last_of_each_seed(group)))
    return found


def values(given: Sequence[Trial], key: str) -> list[str | None]:
    """Those of a setting, in the order of the numbers or the alphabet; None for trials that do not have it."""

    def order(value: str | None) -> tuple[int, float, str]:
        try:
            return 1, float(value or "none"), ""
        except ValueError:
            return (0 if value is None else 2), 0.0, value or ""

    return sorted({trial.settings.get(key) for trial in given}, key=order)


def at(given: Iterable[Trial], wanted: Mapping[str, str | None]) -> Trial | None:
    """The trial with these settings."""
    return next((t for t in given if all(t.settings.get(key) == value for key, value in wanted.items())), None)


def best(given: Iterable[Trial]) -> Trial | None:
    """That with the least mean validation perplexity."""
    return min((trial for trial in given if not math.isnan(trial.mean())), key=Trial.mean, default=None)


def shown(value: str | None) -> str:
    """A setting as figures and tables show it: a name without its module, a number without excess of digits."""
    if value is None:
        return "none"
    try:
        return min(f"{float(value):.4g}", value, key=len)
    except ValueError:
        return value.rsplit(".", 1)[-1] if value.startswith(("nanosq.", "torch.")) else value


def label(key: str) -> str:
    """Of an axis."""
    return LABELS.get(key, key.removesuffix("._target_"))


def _last_of_each_seed(group: Iterable[RecordedRun]) -> list[RecordedRun]:
    """One that has finished rather than a later one that has not. group: the earlier ones first."""
    last = {
        run.seed: run for run in sorted(group, key=lambda run: (run.state in ("finished", "diverged"), run.started))
    }
    return [last[seed] for seed in sorted(last)]


def _number(run: RecordedRun) -> int:
    return int(run.tags.get("trial", 0))
