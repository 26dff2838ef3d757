"""The trial that a job belongs to, and its reports to the study, in one process."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from nanosq.sweeps import storage
from nanosq.sweeps.trial import Pruned, PrunerReport, TrialRun, current


def hydra_node(mode: RunMode, override: str = "") -> DictConfig:
    """The `hydra` node of a job that was launched with an override `++hydra.KEY=VALUE`."""
    node = OmegaConf.create(
        {"mode": mode, "sweep": {"dir": "multirun/second sweep"}, "job": {"num": 7, "env_set": {"OTHER": "1"}}}
    )
    if override:
        key, value = override.removeprefix("++hydra.").split("=")
        OmegaConf.update(node, key, value)
    return node


def test_a_job_knows_its_trial() -> None:
    run = TrialRun("grid-1 (é)", trial=3, repeat=1, setting="loss={a: 1}, 'b'=2", seed=8)
    assert current(hydra_node(RunMode.MULTIRUN, run.override())) == run
    assert run.tags == {"sweep": "grid-1 (é)", "trial": "3"}
    assert (str(run), str(TrialRun("a", trial=3)), str(TrialRun("a", trial=3, label="sgd #3"))) == (
        "#3 seed 8",
        "#3",
        "sgd #3",
    )


def test_a_job_of_another_sweeper_is_a_trial_and_a_single_run_is_none() -> None:
    assert current(hydra_node(RunMode.MULTIRUN)) == TrialRun("second sweep", trial=7)
    assert current(hydra_node(RunMode.RUN)) is None


@pytest.fixture
def sweeper(tmp_path: Path) -> DictConfig:
    """The `hydra.sweeper` node of a search that prunes above 5."""
    pruner = {"_target_": "optuna.pruners.ThresholdPruner", "upper": 5.0}
    return OmegaConf.create(
        {"storage": f"sqlite:///{tmp_path}/optuna.db", "objectives": ["val/perplexity"], "pruner": pruner}
    )


@pytest.fixture
def study(sweeper: DictConfig) -> optuna.Study:
    study = optuna.create_study(study_name="a study", storage=storage.connect(sweeper.storage))
    study.ask()
    return study


def report(sweeper: Any, *, repeat: int = 0, max_steps: int = 10) -> PrunerReport:
    return PrunerReport(TrialRun("a study", trial=0, repeat=repeat, in_study=True), sweeper, max_steps=max_steps)


def test_the_study_knows_the_runs_and_evaluations_of_a_trial(study: optuna.Study, sweeper: DictConfig) -> None:
    for repeat, run_id in enumerate(("a", "b")):
        run = report(sweeper, repeat=repeat)
        assert not run.pruned_before
        run.start(run_id, f"http://{run_id}")
        for step, value in ((3, 4.0), (6, 2.0)):
            run.evaluated({"val/perplexity": value + repeat, "val/nll": 9.0}, step, is_last=False)
        run.evaluated({"train/loss": 9.0}, 7, is_last=False)
    resumed = report(sweeper)
    resumed.evaluated({"val/perplexity": 4.5}, 3, is_last=False)  # the evaluation before the interruption stays
    (trial,) = study.trials
    assert trial.user_attrs == {"mlflow_run_id": "a", "mlflow_link": "http://a", "mlflow_run_id_1": "b"}
    assert trial.intermediate_values == {300: 4.0, 600: 2.0}  # of the first seed
    assert trial.state is TrialState.RUNNING


def test_if_the_first_seed_is_pruned_so_are_the_others(study: optuna.Study, sweeper: DictConfig) -> None:
    first, second = report(sweeper), report(sweeper, repeat=1)
    first.start("a", "http://a")
    second.start("b", "http://b")
    second.evaluated({"val/perplexity": 6.0}, 3, is_last=False)  # only the first seed is compared
    with pytest.raises(Pruned):
        first.evaluated({"val/perplexity": 6.0}, 3, is_last=False)
    with pytest.raises(Pruned):
        second.evaluated({"val/perplexity": 1.0}, 6, is_last=False)
    assert report(sweeper, repeat=2).pruned_before  # it has not started
    assert not report(sweeper, repeat=1).pruned_before  # it is recorded as pruned


@pytest.mark.parametrize("step", [10, 4])  # 4: early stopping
def test_the_last_evaluation_does_not_prune(step: int, study: optuna.Study, sweeper: DictConfig) -> None:
    report(sweeper).evaluated({"val/perplexity": 6.0}, step, is_last=True)
    assert study.trials[0].intermediate_values == {100 * step: 6.0}


def test_a_step_of_the_study_is_a_thousandth_of_training(study: optuna.Study, sweeper: DictConfig) -> None:
    run = report(sweeper, max_steps=20_000)
    for step in (1240, 1250, 1259, 1260, 19_999, 20_000):  # the third is in the same thousandth as the second
        run.evaluated({"val/perplexity": 1 / step}, step, is_last=step == 20_000)
    expected = {62: 1240, 63: 1260, 999: 19_999, 1000: 20_000}
    assert study.trials[0].intermediate_values == {part: 1 / step for part, step in expected.items()}


def test_several_metrics_are_not_pruned(study: optuna.Study, sweeper: DictConfig) -> None:
    sweeper.objectives = ["val/perplexity", "val/accuracy"]
    report(sweeper).evaluated({"val/perplexity": 6.0, "val/accuracy": 0.0}, 3, is_last=False)
    assert study.trials[0].intermediate_values == {}


def test_without_a_study_reports_do_nothing(sweeper: DictConfig) -> None:
    for trial in (TrialRun("a grid", trial=0), None):
        run = PrunerReport(trial, sweeper, max_steps=9)
        assert not run.pruned_before
        run.start("a", "http://a")
        run.evaluated({"val/perplexity": 6.0}, 3, is_last=False)
