"""A comparison through the command line: cross-entropy against squentropy."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import mlflow
import optuna
import pytest
from optuna.trial import TrialState

from tests.commandline import SMALL, command, runs

COMPARE = [
    *["hydra/sweeper=compare", "loss=cross_entropy,squentropy", "hydra.sweeper.tune_steps=16", "train.max_steps=40"],
    *(setting for setting in SMALL if not setting.startswith("train.max_steps")),
]
FEW = ["hydra.sweeper.n_trials=3", "hydra.sweeper.seeds=2"]


class Comparison(NamedTuple):
    """A finished comparison."""

    result: subprocess.CompletedProcess[str]
    folder: Path
    name: str

    def study(self, name: str) -> optuna.Study:
        return optuna.load_study(study_name=f"{self.name}/{name}", storage=f"sqlite:///{self.folder}/optuna.db")

    def runs(self, name: str) -> list[mlflow.entities.Run]:
        return [run for run in runs(self.folder) if run.data.tags["sweep"] == f"{self.name}/{name}"]


def compare(folder: Path, *settings: str) -> Comparison:
    result = command("-m", *COMPARE, *settings, cwd=folder, check=True)
    (name,) = {re.sub("/.*", "", name) for name in optuna.get_all_study_names(f"sqlite:///{folder}/optuna.db")}
    return Comparison(result, folder, name)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compare(tmp_path_factory.mktemp("comparison"), *FEW)


def verdict(result: subprocess.CompletedProcess[str]) -> str:
    paragraphs = (" ".join(text.split()) for text in result.stdout.split("\n\n"))
    (paragraph,) = (text for text in paragraphs if re.match(r"\w+ is better: |No difference was found", text))
    return paragraph


def test_contenders_get_the_same_budget_and_the_same_draws(comparison: Comparison) -> None:
    studies = {label: comparison.study(label) for label in ("cross_entropy", "squentropy")}
    for label, study in studies.items():
        assert len(study.trials) == 3
        for trial in study.trials:
            run = mlflow.MlflowClient(f"sqlite:///{comparison.folder}/mlflow.db").get_run(
                trial.user_attrs["mlflow_run_id"]
            )
            assert run.data.params["loss"] == label
            assert (run.data.params["train.max_steps"], run.data.params["seed"]) == ("16", "1337")
    common = [[{**t.params, "loss.weight": None} for t in study.trials] for study in studies.values()]
    assert [[{**params, "loss.weight": None} for params in trials] for trials in common[:1]] == common[1:]
    assert all("loss.weight" in trial.params for trial in studies["squentropy"].trials)
    started = sorted((trial.datetime_start, label) for label, study in studies.items() for trial in study.trials)
    assert [label for _, label in started] == ["cross_entropy", "squentropy"] * 3  # they alternate


def test_test_scores_are_those_of_the_confirmation_only(comparison: Comparison) -> None:
    tuning = [run for label in ("cross_entropy", "squentropy") for run in comparison.runs(label)]
    assert len(tuning) == 6
    assert not any(metric.startswith("test/") for run in tuning for metric in run.data.metrics)
    confirmation = comparison.runs("confirmation")
    assert all("test/nll" in run.data.metrics for run in confirmation)
    found = sorted((run.data.params["loss"], run.data.params["seed"]) for run in confirmation)
    assert found == [(label, seed) for label in ("cross_entropy", "squentropy") for seed in ("1338", "1339")]
    assert {run.data.params["train.max_steps"] for run in confirmation} == {"40"}


def test_the_setting_with_the_best_validation_score_is_confirmed(comparison: Comparison) -> None:
    for label in ("cross_entropy", "squentropy"):
        study = comparison.study(label)
        complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
        best = min(complete, key=lambda trial: trial.value or 0.0)
        assert study.user_attrs["comparison"]["chosen"] == best.number
        of_label = [t for t in comparison.study("confirmation").trials if t.params["contender"] == label]
        assert [trial.params["trial"] for trial in of_label] == [best.number] * 2
        client = mlflow.MlflowClient(f"sqlite:///{comparison.folder}/mlflow.db")
        for trial in of_label:
            run = client.get_run(trial.user_attrs["mlflow_run_id"])
            assert trial.value == run.data.metrics["val/perplexity"]
            assert {key: float(run.data.params[key]) for key in best.params} == pytest.approx(best.params)


def test_the_output_has_a_plan_progress_a_verdict_and_a_page(comparison: Comparison) -> None:
    output = comparison.result.stderr
    assert re.search(r"^plan: 3 trials and 2 seeds for each of 2 contenders, about \d+ \w+", output, re.MULTILINE)
    said, best = comparison.result.stdout, r"best [\d.]+ \((cross_|squ)entropy"
    assert re.search(rf"^cross_entropy #2: .*; tuning 5 of 6, {best} #\d\), about \d+ s left$", said, re.MULTILINE)
    assert re.search(rf"^squentropy seed 1339: .*; confirmation 4 of 4, {best}\)$", said, re.MULTILINE)
    assert "2 seeds, 10 stories" in verdict(comparison.result)
    assert max(map(len, said.split("\n\n", 1)[1].split("best of")[0].splitlines())) <= 80
    assert (comparison.folder / "sweeps" / comparison.name / "report.html").exists()


def test_the_best_settings_are_experiments_at_full_length(comparison: Comparison) -> None:
    lines = [line for line in comparison.result.stdout.splitlines() if line.startswith("best of ")]
    assert [line.split(":")[0] for line in lines] == ["best of cross_entropy", "best of squentropy"]
    for line in lines:
        arguments = line.split("python run.py ")[1].split()
        composed = command(*arguments, "--cfg", "job", cwd=comparison.folder, check=True).stdout
        assert "max_steps: 40\n" in composed
        assert "score_test: true\n" in composed


@pytest.mark.slow
def test_the_same_command_trains_nothing_and_a_larger_budget_what_is_missing(comparison: Comparison) -> None:
    before = {run.info.run_id for run in runs(comparison.folder)}
    again = compare(comparison.folder, *FEW)
    assert {run.info.run_id for run in runs(comparison.folder)} == before
    assert verdict(again.result) == verdict(comparison.result)

    more = compare(comparison.folder, "hydra.sweeper.n_trials=4", "hydra.sweeper.seeds=3")
    labels = ("cross_entropy", "squentropy")
    chosen = {label: more.study(label).user_attrs["comparison"]["chosen"] for label in labels}
    new_choices = sum(number == 3 for number in chosen.values())  # trains its first two seeds, too
    assert len(runs(comparison.folder)) == len(before) + 2 + 2 + 2 * new_choices
    assert "3 seeds, 10 stories" in verdict(more.result)


@pytest.mark.slow
def test_another_full_length_is_another_comparison_with_the_same_tuning(comparison: Comparison, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(comparison.folder, folder)
    longer = [*COMPARE, *FEW, "train.max_steps=41"]  # its tuning trials are the same
    refused = command("-m", *longer, f"hydra.sweeper.study_name={comparison.name}", cwd=folder)
    assert refused.returncode == 2
    message = f"study {comparison.name}/confirmation was started with train.max_steps=40, not 41: use the old value"
    assert f"error: {message}" in refused.stderr
    command("-m", *longer, cwd=folder, check=True)
    new = [run for run in runs(folder) if run.data.params["train.max_steps"] == "41"]
    assert len(new) == 2 * 2
    url = f"sqlite:///{folder}/optuna.db"
    for label in (
        "cross_entropy",
        "squentropy",
    ):  # the pruner sees the evaluations of trials that are not trained again
        of_label = [name for name in optuna.get_all_study_names(url) if name.endswith(f"/{label}")]
        first, second = (optuna.load_study(study_name=name, storage=url).trials[:3] for name in of_label)
        assert [trial.intermediate_values for trial in first] == [trial.intermediate_values for trial in second]
        assert first[0].intermediate_values


@pytest.mark.slow
def test_a_grid_has_no_more_trials_than_points(tmp_path: Path) -> None:
    axes = ["optimizer.lr=1e-3", "model.dropout=range(0,0.2,0.1)", "train.warmup=0", "hydra/sweeper/sampler=grid"]
    contenders = ["loss=cross_entropy", "optimizer=adamw,muon"]
    compared = compare(tmp_path, *contenders, *axes, "hydra.sweeper.n_trials=5", "hydra.sweeper.seeds=1")
    points = {label: len(compared.study(label).trials) for label in ("adamw", "muon")}
    assert points == {"adamw": 2, "muon": 2}


@pytest.mark.slow
def test_the_command_and_the_best_settings_of_values_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    values = ["--config-dir", "own", "loss=cross_entropy", "model.n_layer=1,2", "hydra.sweeper.enqueue=[]"]
    compared = compare(tmp_path, *values, "hydra.sweeper.n_trials=1", "hydra.sweeper.seeds=1")
    stored = compared.study("model.n_layer=2").user_attrs["comparison"]["command"]
    assert stored.startswith("python run.py --config-dir own -m hydra/sweeper=compare ")
    best = [line for line in compared.result.stdout.splitlines() if line.startswith("best of model.n_layer=2")]
    arguments = shlex.split(best[0].split("python run.py ")[1])
    assert "n_layer: 2\n" in command(*arguments, "--cfg", "job", cwd=tmp_path, check=True).stdout


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["loss=squentropy"], "hydra/sweeper=compare needs two contenders: list them, as in loss=cross_entropy,squ"),
        (["loss=squentropy,squentropy"], "the contender squentropy is listed twice: name each contender once"),
        (["loss=squentropy,squentrop"], "squentrop: "),
        (["seeds=3"], "seeds=3: in a comparison, hydra.sweeper.seeds is the number of seeds"),
        (["score_test=false"], "score_test=false: the verdict of a comparison is on the test split; leave it out"),
        (
            ["data.source.seed=0,1"],
            "data.source.seed has several values: a verdict needs contenders with the same text",
        ),
        (["data.source.seed=range(0,3)"], "data.source.seed has several values: a verdict needs contenders with the s"),
        (["tracking=none"], "tracking=none: a comparison reads its verdict from the recorded runs; leave it out"),
        (["hydra.sweeper.seeds=0"], "hydra.sweeper.seeds=0: must be at least 1"),
        (["hydra.sweeper.tune_steps=41"], "hydra.sweeper.tune_steps=41 is not between 1 and train.max_steps=40"),
        (["hydra.sweeper.objectives=[val/nll,train/seconds]"], "hydra.sweeper.objectives: a comparison chooses by one"),
        (["hydra.sweeper.report=analysis.report.missing"], "hydra.sweeper.report: cannot import"),
        (["loss.weigth=0.1"], "cross_entropy: Could not override 'loss.weigth'"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_written(settings: list[str], message: str, tmp_path: Path) -> None:
    result = command("-m", *COMPARE, *settings, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {message}")
    assert len(result.stderr.splitlines()) == 1
    assert not [*tmp_path.iterdir()]
