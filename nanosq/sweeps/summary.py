"""The summary of a sweep: a table of its trials, and the same as a CSV file."""

import csv
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanosq import terminal
from nanosq.errors import InputError
from nanosq.filesystem import write_text
from nanosq.privacy import mask_setting
from nanosq.sweeps.metrics import METRICS, PER_BYTE, Metric

MAX_ROWS = 10  # of the table; the file has all trials
MAX_CELL = 24  # characters of a setting in the table
DIGITS, ERROR_DIGITS = 5, 2  # of metrics and their standard errors

# States of a trial, best first. A trial violates a constraint of its search.
STATES = ("finished", "violates", "pruned", "diverged", "failed", "interrupted", "waiting", "running")


@dataclass(frozen=True)
class TrialSummary:
    """How a trial ended."""

    number: int
    state: str  # one of STATES
    values: Sequence[float]  # of the metrics; not finite if the trial has not finished
    errors: Sequence[float]  # standard errors of the metrics over the seeds; nan for one seed
    settings: Mapping[str, str]
    runs: Sequence[str]  # run ids, in the order of the seeds
    link: str  # to the first run


@dataclass(frozen=True)
class BestTrial:
    """The best trial of a sweep that has ended."""

    number: str
    metric: str  # by which it is the best
    value: float  # mean over the seeds
    run: str  # id of the run of its first seed


def rank(trials: Iterable[TrialSummary], *, maximize: bool = False) -> list[TrialSummary]:
    """Sort trials by state, then by the first metric, then by number."""

    def key(trial: TrialSummary) -> tuple[int, float, int]:
        value = trial.values[0] if math.isfinite(trial.values[0]) else -math.inf if maximize else math.inf
        return STATES.index(trial.state), -value if maximize else value, trial.number

    return sorted(trials, key=key)


def table(trials: Sequence[TrialSummary], metrics: Sequence[str]) -> str:
    """Return a table of the best of ranked trials: their metrics, and the settings in which they differ."""
    shown, keys = trials[:MAX_ROWS], axes([trial.settings for trial in trials])
    columns: dict[str, list[str]] = {
        "trial": [str(trial.number) for trial in shown],
        "state": [trial.state for trial in shown],
    }
    for position, metric in enumerate(metrics):
        columns[metric] = _numbers([trial.values[position] for trial in shown], DIGITS)
        errors = _numbers([trial.errors[position] for trial in shown], ERROR_DIGITS)
        if any(errors):
            columns[f"{metric} +-"] = errors
    columns |= {key: [_short(trial.settings.get(key, ""), MAX_CELL) for trial in shown] for key in keys}
    names = short_names(keys)
    header = ["+-" if column.endswith(" +-") else names.get(column, column) for column in columns]
    text = terminal.table(header, [*zip(*columns.values(), strict=True)])
    return _coloured(text, shown, columns[metrics[0]][0])


def notes(trials: Sequence[TrialSummary], metrics: Sequence[str]) -> list[str]:
    """Return what a reader of the table of these metrics should know."""
    found = [f"\nThese are the best of {len(trials)} trials."] if len(trials) > MAX_ROWS else []
    data = [key for key in axes([trial.settings for trial in trials]) if key.split(".")[0] == "data"]
    if data and not (PER_BYTE in metrics and all(key.startswith("data.tokenizer.") for key in data)):
        found.append("\nTrials with different data may be scored on different text: do not compare these.")
    return found


def _coloured(text: str, trials: Sequence[TrialSummary], best: str) -> str:
    """Return a table with the value of the best trial and the states of bad ones in colour."""
    if trials[0].state == "finished":
        text = text.replace(best, terminal.style(best, "green", sys.stdout), 1)
    for state in ("diverged", "failed"):
        text = text.replace(state, terminal.style(state, "red", sys.stdout))
    return text


def _numbers(values: Sequence[float], digits: int) -> list[str]:
    """Return numbers with as many decimals as the smallest one needs for its digits; nothing for inf and nan."""
    finite = [abs(value) for value in values if math.isfinite(value) and value]
    decimals = max(0, digits - 1 - math.floor(math.log10(min(finite)))) if finite else 0
    return [
        "" if not math.isfinite(value) else f"{value:.{decimals}f}" if abs(value) < 1e5 else f"{value:.2e}"
        for value in values
    ]


def write_csv(path: Path, trials: Sequence[TrialSummary], metrics: Sequence[str]) -> None:
    """Write a CSV file with one line for each trial, and all of its settings."""
    import pandas as pd  # here: Hydra loads the sweepers before every run

    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            **dict(zip(metrics, trial.values, strict=True)),
            **{f"{metric} standard error": value for metric, value in zip(metrics, trial.errors, strict=True)},
            **trial.settings,
            "runs": " ".join(trial.runs),
        }
        for trial in trials
    ]
    table = pd.DataFrame(rows).replace([math.inf, -math.inf], math.nan)
    write_text(path, table.to_csv(index=False), "hydra.sweep.dir")


def read_best(path: Path, metric: str | None = None) -> BestTrial:
    """Read the best trial from the file that `write_csv` has written.

    Args:
        path: The file.
        metric: The metric that decides, one of those of the sweep. None: the only one.

    Raises:
        InputError: The file is damaged, no trial has finished, the best one has no recorded run, or the metric does not
            decide.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            finished = [row for row in reader if row["state"] == "finished"]
            metrics = [column for column in reader.fieldnames or () if column in METRICS]
        values = {key: [float(row[key] or "nan") for row in finished] for key in metrics}
        if not values or any(None in row.values() for row in finished):
            raise ValueError("it has no metric, or its end is missing")
    except (ValueError, KeyError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}): give the id of a run, or delete the file") from error
    if metric is None and len(metrics) > 1:
        raise InputError(f"{path}: the sweep has best trials by {' and '.join(metrics)}: choose one with --metric")
    if metric is not None and metric not in metrics:
        raise InputError(f"--metric {metric}: {path} has {', '.join(metrics)}")
    key = metric or metrics[0]
    known = [row for row in finished if row[key]]
    if not known:
        raise InputError(f"{path}: the sweep has no best trial, because none has finished")
    best = (max if Metric(key).maximize else min)(known, key=lambda row: float(row[key]))  # the first one of equal ones
    if not best["runs"]:
        raise InputError(f"{path}: the runs of the best trial, {best['trial']}, were not recorded")
    return BestTrial(best["trial"], key, float(best[key]), best["runs"].split()[0])


def settings(overrides: Iterable[str]) -> dict[str, str]:
    """Return the values of overrides by their key. Passwords in URLs are masked."""
    return dict(mask_setting(override).split("=", 1) for override in overrides if "=" in override)


def axes(trials: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the keys of the settings in which trials differ."""
    keys = dict.fromkeys(key for trial in trials for key in trial)
    return [key for key in keys if len({trial.get(key) for trial in trials}) > 1]


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return the last part of each key, or the key if another one ends with the same part."""
    last = {key: key.rpartition(".")[2] for key in keys}
    counts = Counter(last.values())
    return {key: name if counts[name] == 1 else key for key, name in last.items()}


def one_line(settings: Mapping[str, str], names: Mapping[str, str]) -> str:
    """Return settings as a line for the console; `names` has the name of each key to show."""
    return " ".join(f"{names[key]}={_short(value)}" for key, value in settings.items() if key in names)


def _short(setting: str, length: int | None = None) -> str:
    """Return a setting; a number that a search has drawn is rounded to four digits, and a long text is cut off."""
    if setting.isdecimal():
        return setting
    try:
        return min(f"{float(setting):.4g}", setting, key=len)
    except ValueError:
        return setting if length is None or len(setting) <= length else f"{setting[: length - 3]}..."
