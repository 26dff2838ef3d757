"""Trials that are not trained: those with the setting of an earlier trial, and infeasible ones."""

import re
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.commandline import command, runs
from tests.sweeps.commandline import table
from tests.sweeps.test_seeds import SEARCH, TINY

ONE_POINT = ["optimizer.lr=choice(2e-3)", "hydra.sweeper.sampler.seed=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("once")


def n_trained(stdout: str) -> int:
    return len(re.findall("^#.*: val perplexity [0-9.]+;", stdout, re.MULTILINE))


def test_a_grid_trains_equal_settings_once(folder: Path) -> None:
    """Settings are equal if they differ in spelling or in what does not affect the result, such as the device."""
    axes = ["optimizer.lr=1e-3,0.001,2e-3", "device=cpu,auto", "seeds=2"]
    result = command("-m", *TINY, *axes, cwd=folder, check=True)
    values = {row["trial"]: row["val/perplexity"] for row in table(result.stdout)}
    assert n_trained(result.stdout) == 4
    assert len(values) == 6
    assert len({*values.values()}) == 2
    assert "#1: not trained, because #0 has the same setting" in result.stdout  # another spelling
    assert "#5: not trained, because #2 has the same setting" in result.stdout  # another device


def test_a_search_trains_equal_settings_once(folder: Path) -> None:
    result = command("-m", *SEARCH, *ONE_POINT, *TINY, "hydra.sweeper.n_trials=3", cwd=folder, check=True)
    assert n_trained(result.stdout) == 1
    assert "#2: not trained, because #0 has the same setting" in result.stdout
    assert len({row["val/perplexity"] for row in table(result.stdout)}) == 1


@pytest.mark.slow
def test_trials_with_the_setting_of_another_one_have_its_runs(tmp_path: Path) -> None:
    recorded = [setting for setting in TINY if setting != "tracking=none"]
    command("-m", *SEARCH, *ONE_POINT, *recorded, "hydra.sweeper.n_trials=2", "seeds=2", cwd=tmp_path, check=True)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/optuna.db")
    first, second = ({**trial.user_attrs, "cost": None} for trial in study.trials)
    assert {first["mlflow_run_id"], first["mlflow_run_id_1"]} == {run.info.run_id for run in runs(tmp_path)}
    assert first == second


@pytest.mark.slow
def test_infeasible_trials_do_not_count(folder: Path) -> None:
    """Three heads do not divide the width 16."""
    few = [setting for setting in TINY if "n_head" not in setting]
    search = [*SEARCH, "hydra.sweeper.study_name=feasible", "hydra.sweeper.n_trials=3", "hydra.sweeper.sampler.seed=1"]
    result = command("-m", *search, "model.n_head=choice(1,3,5)", *few, cwd=folder, check=True)
    states = [trial.state for trial in load(folder, "feasible").trials]
    assert states.count(TrialState.COMPLETE) == 3
    assert states.count(TrialState.PRUNED) >= 1
    assert re.findall(r"; (\d of \d)", result.stdout) == ["1 of 3", "2 of 3", "3 of 3"]
    again = command("-m", *search, "model.n_head=choice(1,3,5)", *few, cwd=folder, check=True)
    assert n_trained(again.stdout) == 0


@pytest.mark.slow
def test_a_search_without_a_feasible_trial_ends(folder: Path) -> None:
    """The smallest of 100,000 numbers of heads is possible, and is not drawn."""
    few = [setting for setting in TINY if "n_head" not in setting]
    search = [*SEARCH, "hydra.sweeper.study_name=infeasible", "hydra.sweeper.n_trials=2"]
    result = command("-m", *search, "model.n_head=range(16,100000)", *few, cwd=folder)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: the last 20 trials were infeasible: change the space; n_embd=16 is not")
    assert len(load(folder, "infeasible").trials) == 20


@pytest.mark.slow
def test_tpe_learns_which_trials_are_infeasible(folder: Path) -> None:
    """A category that only failed trials have looks new, and would be drawn again and again."""
    few = [setting for setting in TINY if "n_head" not in setting]
    sampler = ["hydra.sweeper.sampler.n_startup_trials=2", "hydra.sweeper.sampler.seed=1", "hydra/sweeper/pruner=none"]
    settings = [*sampler, "hydra.sweeper.study_name=learns", "hydra.sweeper.n_trials=9", "model.n_head=choice(1,3)"]
    result = command("-m", *SEARCH, *settings, *few, cwd=folder, check=True)
    assert n_trained(result.stdout) == 9
    assert any(row["state"] == "failed" for row in table(result.stdout))


def test_a_grid_of_a_search_replaces_no_infeasible_trial(folder: Path) -> None:
    few = [setting for setting in TINY if "n_head" not in setting]
    grid = ["hydra/sweeper/sampler=grid", "optimizer.lr=1e-3", "hydra.sweeper.study_name=points"]
    result = command("-m", *SEARCH, *grid, "hydra.sweeper.n_trials=9", "model.n_head=1,3", *few, cwd=folder, check=True)
    assert n_trained(result.stdout) == 1
    assert len(load(folder, "points").trials) == 2


def load(folder: Path, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/optuna.db")
