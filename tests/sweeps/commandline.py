"""Sweeps as a user types them, and what they leave."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import mlflow
import optuna

from tests.commandline import SMALL, command, runs

# The settings of a small run without those that sweeps here vary.
FEW = [setting for setting in SMALL if not setting.startswith(("train.max_steps", "model.n_layer"))]


class Sweep(NamedTuple):
    """A finished sweep: its output, the rows of its table, its folder, and the runs that it has trained."""

    result: subprocess.CompletedProcess[str]
    rows: list[dict[str, str]]
    folder: Path
    runs: list[mlflow.entities.Run]


def sweep(folder: Path, *settings: str, exit_status: int = 0) -> Sweep:
    result = command("-m", *settings, cwd=folder)
    assert result.returncode == exit_status, result.stdout + result.stderr
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("all trials: "))
    trained = folder / line.removeprefix("all trials: ")
    runs_of_sweep = [run for run in runs(folder) if run.data.tags["sweep"].replace(" ", "_") == trained.parent.name]
    return Sweep(result, table(result.stdout), trained.parent, runs_of_sweep)


def table(stdout: str) -> list[dict[str, str]]:
    """Return the rows of a sweep's table by the names of its columns."""
    lines = stdout.splitlines()
    header = next(i for i, line in enumerate(lines) if line.split()[:2] == ["trial", "state"])
    names = lines[header].split()
    rows = []
    for line in lines[header + 1 :]:
        if not line:
            break
        cells = line.split()
        # A trial that has not finished has no value.
        rows.append(dict(zip(names, cells, strict=len(cells) == len(names))))
    return rows


def load_study(folder: Path, name: str = "squentropy-tiny-stories") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/optuna.db")
