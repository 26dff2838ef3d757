"""Searches through the command line: the direction and unit of metrics, pruning, and settings without effect."""

import re
import subprocess
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState, create_trial

from tests.commandline import command
from tests.sweeps.commandline import FEW, table

# A search of one setting, which tests extend by axes. With this seed, the grid sampler draws them in their order.
SMALLEST = [setting for setting in FEW if not setting.startswith("train.eval_every")]
ONE = [
    *["hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "hydra.sweeper.sampler.seed=5", "tracking=none"],
    *["optimizer.lr=1e-2", "model.dropout=0", "model.n_layer=1", "train.warmup=0", "samples.count=0", *SMALLEST],
]
EARLY = "hydra.sweeper.pruner.n_startup_trials=1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("searches")


def search(folder: Path, name: str, *settings: str) -> tuple[subprocess.CompletedProcess[str], optuna.Study]:
    """Run a search, and return what it printed, and its study."""
    result = command("-m", *ONE, f"hydra.sweeper.study_name={name}", *settings, cwd=folder, check=True)
    return result, optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/optuna.db")


def test_a_search_for_accuracy_ranks_and_prunes_by_the_highest(folder: Path) -> None:
    steps = ["train.max_steps=10", "train.eval_every=5", "model.embedding_std=0.02"]
    axis = "optimizer.lr=choice(1e-3,2e-2,1e-6)"
    result, study = search(folder, "accuracy", "hydra.sweeper.objectives=[val/accuracy]", *steps, axis, EARLY)
    first, second, third = study.trials
    assert second.values[0] > first.values[0] > third.intermediate_values[500]
    assert third.state is TrialState.PRUNED
    assert [row["trial"] for row in table(result.stdout)] == ["1", "0", "2"]
    assert re.search(r"^#2: pruned after 5 steps; 3 of 3, best val/accuracy 0\.\d+ \(#1\)$", result.stdout, re.M)
    preset = folder / "sweeps/accuracy/experiment/best_accuracy.yaml"
    assert yaml.safe_load(preset.read_text())["optimizer"]["lr"] == 0.02


@pytest.mark.slow
def test_metrics_of_a_front_have_their_own_directions(folder: Path) -> None:
    objectives = "hydra.sweeper.objectives=[val/nll,val/accuracy]"
    axis = ["train.max_steps=10", "optimizer.lr=choice(1e-6,2e-2)"]
    result, study = search(folder, "front", objectives, *axis)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert [trial.number for trial in study.best_trials] == [1]  # it is better in both metrics
    assert result.stdout.count("best: ") == 1
    assert "trials are not pruned: Optuna prunes by one metric, and hydra.sweeper.objectives has 2" in result.stderr


def test_a_study_that_minimizes_accuracy_is_not_continued(folder: Path) -> None:
    study = optuna.create_study(study_name="lowest", storage=f"sqlite:///{folder}/optuna.db", direction="minimize")
    result = command(
        *["-m", *ONE, "hydra.sweeper.study_name=lowest", "hydra.sweeper.objectives=[val/accuracy]"], cwd=folder
    )
    assert result.returncode == 2
    assert result.stderr == (
        "error: study lowest was started with the direction minimize, but its metrics have the direction maximize: "
        "name another study, hydra.sweeper.study_name=NAME\n"
    )
    assert not study.trials


@pytest.mark.slow
def test_trials_of_different_lengths_are_compared_at_the_same_fraction(folder: Path) -> None:
    """The long trial is in its warmup at the step at which the short one has finished."""
    steps = ["train.max_steps=choice(8,32)", "train.eval_every=2", "train.warmup=0.5"]
    result, study = search(folder, "lengths", *steps, EARLY)
    short, long = study.trials
    assert list(short.intermediate_values) == [250, 500, 750, 1000]
    assert list(long.intermediate_values) == [1000 * step // 32 for step in range(2, 33, 2)]
    assert long.state is TrialState.COMPLETE
    assert table(result.stdout)[0]["trial"] == "1"
    assert "pruning compares val/perplexity at the same fraction of training\n" in result.stderr


def test_evaluations_at_other_fractions_are_not_compared(folder: Path) -> None:
    """The second trial is evaluated with the first only at a half and at the end."""
    axes = ["train.max_steps=12", "train.eval_every=choice(3,2)", "optimizer.lr=1e-2", EARLY]
    _, study = search(folder, "evaluations", *axes)
    first, second = study.trials
    assert first.state is TrialState.COMPLETE
    assert set(first.intermediate_values) == {250, 500, 750, 1000}
    assert set(second.intermediate_values) <= {166, 333, 500, 666, 833, 1000}
    assert second.state is TrialState.COMPLETE  # it is the same training


def test_phases_of_the_learning_rate_are_named(folder: Path) -> None:
    warmup = ["train.warmup=choice(1)", "train.max_steps=choice(2)"]  # a step is another fraction of a longer training
    axes = ["schedule=choice(cosine)", "train.batch_size=choice(4)", *warmup]
    result, _ = search(folder, "phases", *axes)
    line = "pruning compares val/perplexity at the same fraction of training; "
    assert f"{line}the learning rate there depends on schedule, train.max_steps, train.warmup\n" in result.stderr


def test_a_study_with_training_steps_is_not_continued(folder: Path) -> None:
    study = optuna.create_study(study_name="steps", storage=f"sqlite:///{folder}/optuna.db")
    study.add_trial(create_trial(value=5.0, intermediate_values={2: 9.0, 8: 5.0}))
    result = command("-m", *ONE, "hydra.sweeper.study_name=steps", cwd=folder)
    assert result.returncode == 2
    assert "which compared trials at the same step and not at the same fraction" in result.stderr
    assert "hydra.sweeper.study_name=" in result.stderr
    assert len(study.trials) == 1


@pytest.mark.slow
def test_a_study_from_before_the_setting_score_test_is_continued(folder: Path) -> None:
    axis = "optimizer.lr=choice(1e-3,2e-2)"
    _, study = search(folder, "older", axis, "hydra.sweeper.n_trials=1")
    settings = study.user_attrs["settings"]
    study.set_user_attr("settings", {key: value for key, value in settings.items() if key != "score_test"})
    _, study = search(folder, "older", axis, "hydra.sweeper.n_trials=2")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2


TWO = "hydra.sweeper.objectives=[val/nll,train/seconds]"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["-m", "hydra.sweeper.direction=maximize"], "the direction of val/perplexity is minimize"),
        (["-m", TWO, "hydra.sweeper.direction=[minimize,maximize]"], "is minimize,minimize"),
        (["-m", TWO, "hydra/sweeper/sampler=cmaes", "model.n_layer=range(1,3)"], "CmaEsSampler cannot be used"),
        (["-m", "hydra.sweeper.pruner.n_warmup_steps=1000"], "n_warmup_steps=1000 counts thousandths of training"),
        (
            ["-m", "hydra/sweeper/pruner=hyperband", "train.eval_every=choice(2,3)"],
            "eval_every changes these",
        ),
        (
            ["-m", "hydra/sweeper/pruner=hyperband", "train.max_steps=range(2,9)"],
            "max_steps changes these",
        ),
        (["-m", "hydra.sweeper.objectives=[val/loss]", "loss=squentropy", "loss.weight=choice(1,2)"], "use val/nll"),
        (["-m", "data.tokenizer.vocabulary=choice(300,400)"], "use val/bits_per_byte"),
        (
            ["-m", "hydra/launcher=basic", "hydra.sweeper.n_jobs=3"],
            "needs a launcher that runs trials in parallel: hydra/launcher=joblib",
        ),
        (
            ["-m", "hydra.launcher.n_jobs=1", "hydra.sweeper.n_jobs=3"],
            "hydra.sweeper.n_jobs=3: hydra.launcher.n_jobs=1 runs one trial at a time",
        ),
        (["-m", "+hydra.sweeper.search_space={}"], "hydra.sweeper has no setting 'search_space'"),
        (["-m", "hydra.sweeper.max_failure_rate=50"], "max_failure_rate=50.0: must be at most 1"),
        (["-m", "hydra.sweeper.custom_search_space=nowhere.f"], "cannot import 'nowhere.f'"),
        (["hydra.sweeper.n_trials=3"], "hydra/sweeper=optuna is for sweeps and needs -m"),
        (["hydra/sweeper=basic", "hydra.sweeper.zip=[]"], "hydra.sweeper.zip=[] is for sweeps and needs -m"),
        (["hydra/sweeper=basic", "hydra/launcher=joblib"], "hydra/launcher=joblib is for sweeps and needs -m"),
    ],
)
def test_a_setting_without_effect_is_refused(settings: list[str], message: str, tmp_path: Path) -> None:
    basic = "hydra/sweeper=basic" in settings
    mine = [setting for setting in ONE if not (basic and setting.startswith("hydra"))]
    result = command(*mine, *settings, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert message in line
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_axes_of_a_component_that_does_not_exist_are_refused(tmp_path: Path) -> None:
    preset = tmp_path / "experiment/mine.yaml"
    preset.parent.mkdir()
    preset.write_text('# @package _global_\nhydra: {sweeper: {spaces: {loss/focl: {loss.gamma: "1,2"}}}}\n')
    result = command("-m", *ONE, "--config-dir", str(tmp_path), "experiment=mine", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: hydra.sweeper.spaces: there is no loss/focl; loss has brier, ")


@pytest.mark.parametrize(("schedule", "warmup"), [("constant", 3), ("cosine", 0)])
def test_settings_of_training_without_effect_are_named(schedule: str, warmup: int, tmp_path: Path) -> None:
    settings = [f"schedule={schedule}", "train.min_lr_factor=0.1", f"train.warmup={warmup}", "train.max_steps=2"]
    fixed = [*SMALLEST, "model.n_layer=1", "tracking=none", "samples.count=0", "train.patience=1"]
    result = command(*fixed, *settings, cwd=tmp_path, check=True)
    lines = (
        "train.min_lr_factor=0.1 has no effect with this schedule\n",
        f"train.warmup={warmup} is longer than training: the learning rate does not reach its full value\n",
    )
    assert "train.patience=1 has no effect with 2 evaluations: lower train.eval_every=0.25\n" in result.stderr
    assert [line in result.stderr for line in lines] == [schedule == "constant"] * 2
