"""Single runs of presets that are for sweeps, and the recorded commands of their trials."""

import shlex
from pathlib import Path

import pytest

from tests.commandline import SMALL, command, runs

PRESETS = {
    "grid": """
defaults:
  - override /hydra/sweeper: grid
hydra: {sweeper: {params: {optimizer.lr: "1e-3,2e-3", model.dropout: "0.0"}}}
""",
    "optuna": """
defaults:
  - override /hydra/sweeper: optuna
  - override /hydra/sweeper/sampler: random
  - override /hydra/sweeper/pruner: none
hydra: {sweeper: {n_trials: 2, params: {optimizer.lr: "interval(1e-3,2e-3)"}}}
""",
    "seeds": "seeds: 2\n",
}
TINY = [*SMALL, "train.max_steps=3", "samples.count=0"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in PRESETS.items():
        file = tmp_path / f"own/experiment/{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# @package _global_\n{text}")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "more", "n_trials"),
    [
        ("grid", [], 2),
        ("optuna", [], 2),
        ("seeds", [], 2),
        ("seeds", ["seeds=1"], 1),
        ("grid", ["hydra/sweeper=basic"], 2),
    ],
)
def test_a_recorded_command_trains_the_trial_of_a_preset_again(
    name: str, more: list[str], n_trials: int, folder: Path
) -> None:
    mine = ["--config-dir", "own", f"experiment={name}"]
    refused = command(*mine, *TINY, cwd=folder)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert refused.stderr.startswith(f"error: experiment={name} is for sweeps (")
    assert "needs -m, or hydra.mode=RUN to train it once" in refused.stderr
    command("-m", *mine, *TINY, *more, cwd=folder, check=True)
    trials = runs(folder)
    assert len(trials) == n_trials
    for trial in trials:
        command(*shlex.split(trial.data.tags["command"])[2:], "resume=never", cwd=folder, check=True)
    again = [run for run in runs(folder) if "trial" not in run.data.tags]
    assert sorted(run.data.metrics["val/nll"] for run in again) == sorted(run.data.metrics["val/nll"] for run in trials)


@pytest.mark.parametrize("setting", ["hydra/sweeper=grid", "hydra/launcher=basic", "seeds=3"])
def test_a_setting_of_sweeps_that_is_typed_is_refused_for_a_single_run(setting: str, folder: Path) -> None:
    result = command(setting, *TINY, cwd=folder)
    assert result.stderr.startswith(f"error: {setting} is for sweeps and needs -m: python run.py -m {setting}")


def test_a_preset_that_is_for_sweeps_is_trained_once(folder: Path) -> None:
    command("--config-dir", "own", "experiment=grid", "hydra.mode=RUN", *TINY, cwd=folder, check=True)
    (run,) = runs(folder)
    assert "hydra.mode=RUN" in run.data.tags["command"]
