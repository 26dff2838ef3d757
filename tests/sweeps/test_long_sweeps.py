"""Long sweeps: the whole grid, kills and launchers."""

import random
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.commandline import runs
from tests.stress import kill_sweeps, launch_sweeps
from tests.sweeps.commandline import FEW, load_study, sweep


@pytest.mark.slow
def test_the_grid_is_listing_a3(tmp_path: Path) -> None:
    """The grid has 27 distinct runs in the order of the listing's loops."""
    found = sweep(tmp_path, "hydra/sweeper=grid", "train.max_steps=1", *FEW)
    by_trial = sorted(found.runs, key=lambda run: int(run.data.tags["trial"]))
    assert [run.info.status for run in by_trial] == ["FINISHED"] * 27
    axes = ("optimizer.lr", "model.dropout", "model.n_layer")
    assert [tuple(float(run.data.params[axis]) for axis in axes) for run in by_trial] == [
        (lr, dropout, n_layer) for lr in (6e-6, 6e-4, 6e-2) for dropout in (0.0, 0.1, 0.2) for n_layer in (8, 12, 16)
    ]
    assert len({run.data.tags["config_hash"] for run in by_trial}) == 27
    assert "These are the best of 27 trials." in found.result.stdout


@pytest.mark.slow
def test_a_sweep_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    moments = random.Random(0)
    axes = ["model.n_layer=1", "model.dropout=0.1"]
    kill_sweeps.check_grid(axes, tmp_path, kills=1, trials=3, moments=moments)
    kill_sweeps.check_study([], tmp_path, kills=1, trials=4, moments=moments)


@pytest.mark.slow
def test_trials_side_by_side(tmp_path: Path) -> None:
    """Other tests use the other launchers; tests.stress.launch_sweeps checks all of them."""
    launch_sweeps.check("ray", tmp_path, trials=3, axes=["model.n_layer=1", "model.dropout=0.1"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "target", "signals", "status"),
    [  # tests.stress.launch_sweeps has more
        ("joblib", "parent", ["SIGTERM"], 143),
        ("submitit_local", "worker", ["SIGTERM", "SIGUSR2"], 0),
    ],
)
def test_signals_end_trials_side_by_side(
    launcher: str, target: str, signals: list[str], status: int, tmp_path: Path
) -> None:
    launch_sweeps.check_signals(launcher, target, signals, status, tmp_path)


@pytest.mark.slow
def test_sigterm_ends_a_search_whose_trials_are_then_resumed(tmp_path: Path) -> None:
    search = ["hydra/sweeper=optuna", "loss=squentropy", "hydra.sweeper.n_trials=2", "hydra/sweeper/pruner=none"]
    status, _ = launch_sweeps.interrupt("joblib", "parent", ["SIGTERM"], tmp_path, *search)
    output = (tmp_path / "output").read_text()
    assert status == 143, output
    assert output.count(": interrupted after step") == 2
    study = load_study(tmp_path)
    assert [trial.state for trial in study.trials] == [TrialState.WAITING] * 2
    status, _ = launch_sweeps.interrupt("joblib", "parent", [], tmp_path, *search)
    assert status == 0, (tmp_path / "output").read_text()
    assert [trial.state for trial in load_study(tmp_path).trials] == [TrialState.COMPLETE] * 2
    assert Counter(run.info.status for run in runs(tmp_path)) == {"FINISHED": 2}
