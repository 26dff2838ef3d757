"""Constraints of a search, through the command line."""

import csv
import math
import re
import subprocess
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from nanosq.errors import InputError
from nanosq.sweeps import constraints
from nanosq.sweeps.constraints import Constraint
from tests.commandline import command, runs
from tests.sweeps.commandline import FEW, load_study, table

SEARCH = [
    *["-m", "hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=1", "model.dropout=0", "train.warmup=0"],
    *["train.max_steps=2", "train.eval_every=2", *(line for line in FEW if not line.startswith("train.eval_every"))],
]
# Models of one or two layers are small enough.
SMALL_MODELS = [*SEARCH, "hydra.sweeper.study_name=small", "hydra.sweeper.constraints={parameters:35e3}"]
LAYERS = ["model.n_layer=range(1,9)", "hydra.sweeper.sampler.n_startup_trials=4"]


def search(folder: Path, name: str, *settings: str) -> tuple[subprocess.CompletedProcess[str], optuna.Study]:
    """Run a search without a tracking store, and return what it printed, and its study."""
    arguments = [*SEARCH, "tracking=none", f"hydra.sweeper.study_name={name}", "optimizer.lr=choice(1e-3,1e-2)"]
    result = command(*arguments, *settings, cwd=folder, check=True)
    return result, load_study(folder, name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("constraints")


@pytest.fixture(scope="module")
def small(folder: Path) -> subprocess.CompletedProcess[str]:
    """A search for models with few parameters."""
    return command(*SMALL_MODELS, *LAYERS, "hydra.sweeper.n_trials=16", cwd=folder, check=True)


def test_a_sampler_learns_to_avoid_big_models(small: subprocess.CompletedProcess[str], folder: Path) -> None:
    trials = load_study(folder, "small").trials
    assert len(trials) == 16
    is_big = [trial.params["model.n_layer"] > 2 for trial in trials]
    assert is_big == [trial.constraints["parameters"] > 0 for trial in trials]
    assert sum(is_big[8:]) <= 3  # six of the eight depths are too big


def test_a_model_that_is_too_big_is_not_trained(small: subprocess.CompletedProcess[str], folder: Path) -> None:
    trials = load_study(folder, "small").trials
    big = [trial for trial in trials if trial.params["model.n_layer"] > 2]
    assert {trial.state for trial in big} == {TrialState.PRUNED}
    recorded = {int(run.data.tags["trial"]): run for run in runs(folder) if run.data.tags["sweep"] == "small"}
    assert recorded.keys() == {trial.number for trial in trials} - {trial.number for trial in big}
    for trial in big:
        assert f"#{trial.number}: not trained, because it has " in small.stdout
    for number, run in recorded.items():
        n_parameters = int(run.data.tags["parameters"])
        assert trials[number].constraints == {"parameters": pytest.approx(n_parameters / 35e3 - 1)}
    written = csv.DictReader((folder / "sweeps/small/trials.csv").open())
    states = {int(row["trial"]): row["state"] for row in written}
    assert {number for number, state in states.items() if state == "violates"} == {trial.number for trial in big}


def test_the_best_model_is_a_small_one(small: subprocess.CompletedProcess[str], folder: Path) -> None:
    preset = yaml.safe_load((folder / "sweeps/small/experiment/best_small.yaml").read_text())
    assert preset.get("model", {}).get("n_layer", 2) <= 2  # conf/model/tiny.yaml has 2
    (best,) = re.findall(r"; 16 of 16, best [\d.]+ \((.*)\)", small.stdout)
    assert best == f"#{load_study(folder, 'small').best_trial.number}"


def test_a_study_is_not_continued_with_other_constraints(small: subprocess.CompletedProcess[str], folder: Path) -> None:
    result = command(*SMALL_MODELS[:-1], *LAYERS, "hydra.sweeper.n_trials=20", cwd=folder)
    assert result.returncode == 2
    assert "was started with hydra.sweeper.constraints={'parameters': 35000.0}, not none: " in result.stderr
    assert len(load_study(folder, "small").trials) == 16


def test_the_best_trial_meets_the_constraints(folder: Path) -> None:
    """Training for one step is fast, and its model bad."""
    steps = ["train.max_steps=choice(1,9)", "hydra.sweeper.enqueue=[{train.max_steps:9},{train.max_steps:1}]"]
    fast = ["hydra.sweeper.objectives=[train/seconds]", "hydra.sweeper.constraints={val/perplexity:1400}"]
    result, study = search(
        folder, "fast", "model.n_layer=1", "optimizer.lr=1e-2", *steps, *fast, "hydra.sweeper.n_trials=2"
    )
    good, bad = study.trials
    assert good.values[0] > bad.values[0]
    assert good.constraints["val/perplexity"] < 0 < bad.constraints["val/perplexity"]
    assert re.search(r"; 2 of 2, best train/seconds [\d.]+ \(#0\)$", result.stdout, re.MULTILINE)
    rows = table(result.stdout)
    assert [(row["trial"], row["state"]) for row in rows] == [("0", "finished"), ("1", "violates")]
    assert float(rows[1]["train/seconds"]) == pytest.approx(bad.values[0], rel=1e-3)


def test_no_trial_is_the_best_if_none_meets_the_constraints(folder: Path) -> None:
    settings = ["model.n_layer=1", "hydra.sweeper.n_trials=2", "hydra.sweeper.constraints={val/ece:1e-9}"]
    result, study = search(folder, "none", *settings)
    assert all(trial.constraints["val/ece"] > 0 for trial in study.trials)
    assert "no trial meets hydra.sweeper.constraints: relax them, or change the space" in result.stderr
    assert "best: python run.py" not in result.stdout
    assert [row["state"] for row in table(result.stdout)] == ["violates"] * 2
    assert not [*folder.glob("sweeps/none/experiment/*")]


def test_training_that_takes_too_long_ends_early(folder: Path) -> None:
    settings = ["model.n_layer=1", "optimizer.lr=1e-2", "train.log_every=1", "train.max_steps=20", "seeds=2"]
    limit = ["hydra.sweeper.constraints={train/seconds:1e-4}", "hydra.sweeper.n_trials=1", "tracking=mlflow"]
    result, study = search(folder, "slow", *settings, *limit)
    (trial,) = study.trials
    assert trial.state is TrialState.PRUNED
    assert trial.constraints["train/seconds"] > 0
    assert "#0: pruned after 1 steps" in result.stdout
    (run,) = (run for run in runs(folder) if run.data.tags["sweep"] == "slow")
    assert (run.data.tags["pruned"], run.data.tags["state"]) == ("true", "pruned")


def test_a_sampler_that_ignores_pruned_trials_is_told_of_a_complete_one(folder: Path) -> None:
    settings = ["model.n_layer=2", "hydra.sweeper.constraints={parameters:1,val/accuracy:0.5}"]
    result, study = search(folder, "genetic", *settings, "hydra/sweeper/sampler=nsgaii", "hydra.sweeper.n_trials=2")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert [trial.value for trial in study.trials] == [math.inf] * 2
    assert [trial.constraints["val/accuracy"] for trial in study.trials] == [0.0] * 2
    assert [row["state"] for row in table(result.stdout)] == ["violates"] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["{val/perplexty:9}"], "val/perplexty is not a metric; did you mean 'val/perplexity'?"),
        (["{seconds:9}"], "seconds is not a metric; did you mean 'train/seconds'?"),
        (["9"], "constraints=9: give a mapping, as in {parameters: 1e6, train/seconds: 60}"),
        (["{val/loss:9}", "loss=cross_entropy,squentropy"], "val/loss has another unit for every loss"),
        (["{parameters:9}", "hydra/sweeper/sampler=cmaes"], "sampler does not learn from constraints; choose "),
    ],
)
def test_constraints_without_effect_are_refused(settings: list[str], message: str, tmp_path: Path) -> None:
    first, *others = settings
    result = command(*SEARCH, f"hydra.sweeper.constraints={first}", *others, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: hydra.sweeper.constraints")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("bound", [0, -1, math.inf, math.nan, True, "many", None])
def test_a_bound_is_a_positive_number(bound: object) -> None:
    with pytest.raises(InputError, match="the bound of parameters must be a positive number"):
        constraints.parse({"parameters": bound})


def test_an_excess_is_a_fraction_of_the_bound() -> None:
    assert Constraint("parameters", 100).excess(150) == pytest.approx(0.5)
    assert Constraint("val/accuracy", 0.5).excess(0.4) == pytest.approx(0.2)  # accuracy has a lower bound
    assert Constraint("val/accuracy", 0.5).excess(0.5) == 0
    assert Constraint("val/ece", 0.1).excess(math.inf) == 1  # of a trial that has diverged
