"""Settings that a search tries first, through the command line."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tests.commandline import command, runs
from tests.sweeps.commandline import FEW, load_study

PRESET = """# @package _global_
defaults:
  - override /loss: squentropy
optimizer: {lr: 4e-3}
loss: {weight: 0.5}
model: {n_layer: 4, dropout: 0.1}
train: {weights: last}
"""
# Muon's learning rate is 1.2e-2. The components and the depth are choices; the weight is an axis of one of the losses.
SEARCH = [
    *["-m", "hydra/sweeper=optuna", "hydra.sweeper.study_name=first", "hydra.sweeper.sampler.seed=1"],
    *["--config-dir", "presets", "loss=cross_entropy,squentropy", "model.n_layer=choice(1,2,4)"],
    *["optimizer=muon,adamw", "train.max_steps=2"],
    *[setting for setting in FEW if not setting.startswith("train.eval_every")],
]
Found = tuple[str, list[optuna.trial.FrozenTrial]]  # messages and trials
MAPPING = "{loss:squentropy,optimizer.lr:'2e-3',model.n_layer:'4'}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a preset and a run."""
    folder = tmp_path_factory.mktemp("starting_points")
    preset = folder / "presets/experiment/mine.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text(PRESET)
    run = ["loss=squentropy", "loss.weight=0.25", "optimizer=adamw", "optimizer.lr=5e-3", "model.n_layer=1"]
    command(*run, "train.warmup=0", "train.max_steps=1", *FEW, cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def run_id(folder: Path) -> str:
    (run,) = (run for run in runs(folder) if "sweep" not in run.data.tags)
    return run.info.run_id


@pytest.fixture(scope="module")
def search(folder: Path, run_id: str) -> Found:
    """The messages and the trials of a search that tries all kinds of settings."""
    items = f"hydra.sweeper.enqueue=[current,mine,{run_id},{MAPPING}]"
    result = command(*SEARCH, items, "hydra.sweeper.n_trials=5", cwd=folder, check=True)
    return result.stderr, load_study(folder, "first").trials


def test_the_configuration_as_it_stands_is_tried_first(search: Found) -> None:
    messages, trials = search
    assert "trial 0 of first tries the configuration as it stands" in messages
    assert trials[0].params == {
        **{"loss": "cross_entropy", "optimizer": "muon", "model.n_layer": 2},
        **{"optimizer.lr": 0.012, "model.dropout": 0.0, "train.warmup": 0.05},
    }


def test_a_preset_is_tried_without_what_the_search_fixes(search: Found) -> None:
    messages, trials = search
    assert trials[1].params == {
        **{"loss": "squentropy", "optimizer": "muon", "model.n_layer": 4, "loss.weight": 0.5},
        **{"optimizer.lr": 0.004, "model.dropout": 0.1, "train.warmup": 0.05},
    }
    assert "mine: the search has other values of train.weights\n" in messages


def test_the_setting_of_a_run_is_tried(search: Found, run_id: str) -> None:
    _, trials = search
    assert trials[2].params == {
        **{"loss": "squentropy", "optimizer": "adamw", "model.n_layer": 1, "loss.weight": 0.25},
        **{"optimizer.lr": 0.005, "model.dropout": 0.0, "train.warmup": 0.0},
    }
    assert trials[2].user_attrs["enqueued"] == run_id


def test_a_mapping_replaces_values(search: Found) -> None:
    """The weight of the loss that it names is the one of conf/."""
    _, trials = search
    replaced = {"loss": "squentropy", "optimizer.lr": 0.002, "model.n_layer": 4, "loss.weight": 1.0}
    assert trials[3].params == trials[0].params | replaced
    assert trials[3].user_attrs["enqueued"] == "{loss: squentropy, optimizer.lr: 2e-3, model.n_layer: 4}"


def test_the_rest_is_drawn_and_the_trials_are_recorded(search: Found, folder: Path) -> None:
    _, trials = search
    assert len(trials) == 5
    assert "enqueued" not in trials[4].user_attrs
    recorded = {
        run.data.tags["trial"]: run.data.params for run in runs(folder) if run.data.tags.get("sweep") == "first"
    }
    for trial in trials:
        assert float(recorded[str(trial.number)]["optimizer.lr"]) == trial.params["optimizer.lr"]


def test_a_search_that_is_continued_tries_new_settings_next(search: Found, folder: Path) -> None:
    _, before = search
    items = f"hydra.sweeper.enqueue=[current,mine,{{optimizer.lr:1e-2}},{MAPPING},{{optimizer.lr:2e-2}}]"
    result = command(*SEARCH, items, "hydra.sweeper.n_trials=6", cwd=folder, check=True)
    trials = load_study(folder, "first").trials
    assert [trial.params for trial in trials[:5]] == [trial.params for trial in before]
    assert trials[5].params == {**trials[0].params, "optimizer.lr": 0.01}
    assert "trial 5 of first tries {optimizer.lr: 0.01}\n" in result.stderr
    assert "no trial is left for {optimizer.lr: 0.02}: raise hydra.sweeper.n_trials\n" in result.stderr
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len(trials) == 6


SMALLEST = [*SEARCH, "tracking=none", "hydra.sweeper.n_trials=1", "optimizer=muon", "loss=cross_entropy"]


@pytest.mark.parametrize("settings", [["hydra.sweeper.enqueue=[]"], ["model.n_layer=choice(1,4)"]])
def test_what_is_not_tried(settings: list[str], folder: Path) -> None:
    name = f"without {settings[0][:20]}"
    arguments = [*SMALLEST, *settings, f"hydra.sweeper.study_name='{name}'"]
    result = command(*arguments, cwd=folder, check=True)
    (trial,) = load_study(folder, name).trials
    assert "enqueued" not in trial.user_attrs
    line = "the configuration as it stands is not tried: model.n_layer=2 is outside of its axis, one of 1, 4\n"
    assert (line in result.stderr) == ("enqueue" not in settings[0])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("{optimizer.lr:1}", "{optimizer.lr: 1}: optimizer.lr=1 is outside of its axis, 0.001 to 0.03"),
        (
            "{optimzer.lr:1e-2}",
            "optimzer.lr is no axis of this search; did you mean 'optimizer.lr'?",
        ),
        (
            "{loss.weight:1}",
            "loss.weight is no axis of trials with loss=cross_entropy optimizer=muon",
        ),
        ("{loss:focal}", "{loss: focal}: loss=focal is outside of its axis, one of cross_entropy, squentropy"),
        (
            "tenminutes",
            "the id of a run or a mapping of axes; did you mean 'ten_minutes'?",
        ),
        ("3", "3 is not current, a preset, "),
        ("a" * 32, f"MLflow store sqlite:///{{folder}}/mlflow.db has no run {'a' * 32}"),
    ],
)
def test_a_setting_that_cannot_be_tried_is_refused(items: str, message: str, tmp_path: Path) -> None:
    presets = tmp_path / "presets"
    presets.mkdir()
    result = command(*SEARCH, f"hydra.sweeper.enqueue=[current,{items}]", cwd=tmp_path)
    assert result.returncode == 2
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: hydra.sweeper.enqueue: ")
    assert message.replace("{folder}", str(tmp_path)) in line
    assert [*tmp_path.iterdir()] == [presets]


def test_a_grid_has_no_starting_point(tmp_path: Path) -> None:
    grid = ["-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "optimizer.lr=1e-3,2e-3", "model.dropout=0"]
    settings: list[Any] = [*grid, "train.warmup=0", "model.n_layer=1", "hydra.sweeper.enqueue=[{optimizer.lr:1e-3}]"]
    result = command(*settings, cwd=tmp_path)
    assert result.returncode == 2
    assert "hydra.sweeper.enqueue has no effect with hydra/sweeper/sampler=grid" in result.stderr
    assert not [*tmp_path.iterdir()]


def test_contenders_try_what_they_have_and_none_is_chosen_that_violates_a_constraint(folder: Path) -> None:
    """No contender is trained, because all models are too big."""
    compare = ["-m", "hydra/sweeper=compare", "hydra.sweeper.study_name=contest", "hydra.sweeper.n_trials=1"]
    items = ["loss=cross_entropy,squentropy", "hydra.sweeper.enqueue=[{loss.weight:0.1}]"]
    limit = ["hydra.sweeper.constraints={parameters:1}", "train.max_steps=4", *FEW]
    result = command(*compare, *items, *limit, cwd=folder, check=True)
    line = "cross_entropy: {loss.weight: 0.1} is not tried: none of these is an axis of this search\n"
    assert line in result.stderr
    (first,), (second,) = (load_study(folder, f"contest/{loss}").trials for loss in ("cross_entropy", "squentropy"))
    assert "enqueued" not in first.user_attrs
    assert second.params["loss.weight"] == 0.1
    assert all(trial.constraints["parameters"] > 0 for trial in (first, second))
    assert result.stderr.count("no trial meets hydra.sweeper.constraints: relax them, or change the space") == 2
    assert not load_study(folder, "contest/confirmation").trials


def test_a_key_that_is_no_axis_of_any_contender_is_refused(tmp_path: Path) -> None:
    items = ["loss=cross_entropy,squentropy", "hydra.sweeper.enqueue=[{los.weight:0.1}]"]
    result = command("-m", "hydra/sweeper=compare", *items, cwd=tmp_path)
    assert result.returncode == 2
    assert "los.weight is no axis of this search; did you mean 'loss.weight'?" in result.stderr
    assert not [*tmp_path.iterdir()]
