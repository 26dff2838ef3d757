"""The summary of a sweep: a table of its trials, and the same as a CSV file."""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nanosq.privacy import mask

# Hydra loads the sweepers before every run: pandas is imported where it is used.
if TYPE_CHECKING:
    import pandas as pd

STATES = (
    "finished",
    "violates",  # a constraint of the search
    "pruned",
    "diverged",
    "failed",
    "interrupted",
    "waiting",
    "running",
)  # of a trial, from best to worst


@dataclass(frozen=True)
class TrialSummary:
    """How a trial ended."""

    number: int
    state: str  # one of STATES
    values: Sequence[float]  # of the metrics; not finite if the trial has not finished
    errors: Sequence[float]  # standard errors of the metrics over the seeds; nan for one seed
    settings: Mapping[str, str]
    runs: Sequence[str]  # run ids
    link: str  # to the first run


def rank(trials: Iterable[TrialSummary], *, maximize: bool = False) -> list[TrialSummary]:
    """Sort trials by state, then by the first metric, then by number."""

    def key(trial: TrialSummary) -> tuple[int, float, int]:
        value = trial.values[0] if math.isfinite(trial.values[0]) else -math.inf if maximize else math.inf
        return STATES.index(trial.state), -value if maximize else value, trial.number

    return sorted(trials, key=key)


def table(trials: Sequence[TrialSummary], metrics: Sequence[str]) -> str:
    """Return a table of the trials with their metrics, the settings in which they differ, and links to their runs."""
    frame = _frame(trials, metrics, "{} +-")
    keys = axes([trial.settings for trial in trials])
    errors = [f"{metric} +-" for metric in metrics if frame[f"{metric} +-"].notna().any()]
    values = [column for metric in metrics for column in (metric, f"{metric} +-") if column in {*metrics, *errors}]
    frame = frame[["trial", "state", *values, *keys]].assign(run=[trial.link for trial in trials])
    frame[keys] = frame[keys].map(lambda setting: _short(setting) if isinstance(setting, str) else "")
    names = dict.fromkeys(errors, "+-")
    return frame.rename(columns=names).to_string(index=False, na_rep="", float_format="{:.5g}".format)


def write_csv(path: Path, trials: Sequence[TrialSummary], metrics: Sequence[str]) -> None:
    """Write a CSV file with one line for each trial, and all of its settings."""
    frame = _frame(trials, metrics, "{} standard error")
    frame.assign(runs=[" ".join(trial.runs) for trial in trials]).to_csv(path, index=False)


def _frame(trials: Sequence[TrialSummary], metrics: Sequence[str], error: str) -> "pd.DataFrame":
    import pandas as pd

    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            **dict(zip(metrics, trial.values, strict=True)),
            **{error.format(metric): value for metric, value in zip(metrics, trial.errors, strict=True)},
            **trial.settings,
        }
        for trial in trials
    ]
    return pd.DataFrame(rows).replace([math.inf, -math.inf], math.nan)


def settings(overrides: Iterable[str]) -> dict[str, str]:
    """Return the values of overrides by their key. Passwords in URLs are masked."""
    return dict(mask(override).split("=", 1) for override in overrides if "=" in override)


def axes(trials: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the keys of the settings in which trials differ."""
    keys = dict.fromkeys(key for trial in trials for key in trial)
    return [key for key in keys if len({trial.get(key) for trial in trials}) > 1]


def one_line(settings: Mapping[str, str], keys: Container[str]) -> str:
    """Return the settings with these keys as a line for the console."""
    return " ".join(f"{key}={_short(value)}" for key, value in settings.items() if key in keys)


def _short(setting: str) -> str:
    """Return a setting; a number that a search has drawn is rounded to four digits."""
    try:
        return min(f"{float(setting):.4g}", setting, key=len)
    except ValueError:
        return setting
