"""How a sweep ends: a table of its trials, the same as a CSV file, and its best setting as a preset."""

import csv
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

STATES = ("finished", "pruned", "diverged", "failed", "running")  # the better ones first


@dataclass(frozen=True)
class Row:
    """A trial of a sweep."""

    number: int
    state: str
    values: Sequence[float]  # of the objectives; not finite where there is none
    errors: Sequence[float]  # their standard errors over the seeds; nan for one seed
    settings: Mapping[str, str]
    runs: Sequence[str]  # the ids of its runs
    link: str  # to the first of them


def table(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """What came of each trial, what sets it apart from the others, and where it is recorded."""
    keys = axes([row.settings for row in rows])
    repeated = any(math.isfinite(error) for row in rows for error in row.errors)
    values = [cell for metric in metrics for cell in ([metric, "+-"] if repeated else [metric])]
    lines = [["trial", "state", *values, *keys, "run"]]
    for row in rows:
        figures = zip(row.values, row.errors, strict=True)
        cells = [_figure(figure) for pair in figures for figure in (pair if repeated else pair[:1])]
        cells += [_short(row.settings.get(key, "")) for key in keys]
        lines.append([str(row.number), row.state, *cells, row.link])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ([cell.rjust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join([*cells[:-1], line[-1]]) for cells, line in zip(aligned, lines, strict=True))


def settings(overrides: Iterable[str]) -> dict[str, str]:
    """Overrides by their key."""
    return dict(override.split("=", 1) for override in overrides if "=" in override)


def axes(trials: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys of the settings in which trials differ."""
    keys = dict.fromkeys(key for trial in trials for key in trial)
    return [key for key in keys if len({trial.get(key) for trial in trials}) > 1]


def short(settings: Mapping[str, str], keys: Container[str]) -> str:
    """Some settings on a line."""
    return " ".join(f"{key}={_short(value)}" for key, value in settings.items() if key in keys)


def write_csv(path: Path, rows: Sequence[Row], metrics: Sequence[str]) -> None:
    """A line for each trial, with all its settings."""
    keys = list(dict.fromkeys(key for row in rows for key in row.settings))
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        errors = [f"{metric} standard error" for metric in metrics]
        lines.writerow(["trial", "state", *metrics, *errors, *keys, "runs"])
        for row in rows:
            figures = [value if math.isfinite(value) else "" for value in (*row.values, *row.errors)]
            settings = [row.settings.get(key, "") for key in keys]
            lines.writerow([row.number, row.state, *figures, *settings, " ".join(row.runs)])


def preset(title: str, choices: Mapping[str, str], settings: Mapping[str, object]) -> str:
    """The text of an experiment: choices of components, and settings by their dotted key."""
    nested: dict[str, object] = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        node = nested
        for part in path:
            node = node.setdefault(part, {})  # type: ignore[assignment]
        node[last] = value
    groups = "\n".join(f"  - override /{group}: {choice}" for group, choice in choices.items())
    text = yaml.safe_dump(nested, sort_keys=False) if nested else ""
    return f"# @package _global_\n# {title}\ndefaults:\n{groups}\n\n{text}"


def _short(setting: str) -> str:
    """A setting as it is, unless it is a number that was drawn to the last digit."""
    try:
        return min(f"{float(setting):.4g}", setting, key=len)
    except ValueError:
        return setting


def _figure(value: float) -> str:
    return f"{value:.5g}" if math.isfinite(value) else ""
