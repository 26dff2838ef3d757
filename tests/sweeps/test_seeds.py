"""Seeds in sweeps: a trial is a setting, and has one run for each seed."""

import csv
import re
import statistics
from pathlib import Path

import optuna
import pytest
import yaml

from tests.commandline import command
from tests.sweeps.commandline import FEW, table

TINY = ["tracking=none", "samples.count=0", "model.n_layer=1", "train.max_steps=2", *FEW]
SEARCH = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "model.dropout=0.0", "train.warmup=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all sweeps, so that the text is prepared once."""
    return tmp_path_factory.mktemp("seeds")


def printed_values(stdout: str, label: str) -> dict[str, float]:
    """Return the validation perplexities of a trial's runs by the label of the run."""
    return {name: float(value) for name, value in re.findall(rf"^({label}.*?): val perplexity ([\d.]+);", stdout, re.M)}


def test_listed_seeds_make_no_axis(folder: Path) -> None:
    """Settings are ranked by their mean, and the preset of the best one has no seed."""
    result = command("-m", "optimizer.lr=1e-3,4e-2", "seed=5,2", *TINY, cwd=folder, check=True)
    rows = table(result.stdout)
    assert [list(row) for row in rows] == [["trial", "state", "val/perplexity", "+-", "lr"]] * 2
    for row in rows:
        values = printed_values(result.stdout, f"#{row['trial']}")
        assert list(values) == [f"#{row['trial']}{label}" for label in ("", " seed 2")]
        assert float(row["val/perplexity"]) == pytest.approx(statistics.fmean(values.values()), rel=1e-4)
    (written,) = (folder / "sweeps").glob("*/trials.csv")
    assert [row["trial"] for row in csv.DictReader(written.open())] == [row["trial"] for row in rows]
    (preset,) = (folder / "sweeps").rglob("best_*.yaml")
    assert "seed" not in yaml.safe_load(preset.read_text())


def test_seeds_alone_are_one_trial(folder: Path) -> None:
    result = command("-m", "seed=range(1,3)", *TINY, cwd=folder, check=True)
    (row,) = table(result.stdout)
    assert row["trial"] == "0"
    assert len(printed_values(result.stdout, "#0")) == 2


@pytest.mark.slow
def test_a_search_trains_every_trial_with_the_listed_seeds(folder: Path) -> None:
    result = command("-m", *SEARCH, "seed=choice(4,1)", *TINY, cwd=folder, check=True)
    (row,) = table(result.stdout)
    values = printed_values(result.stdout, "#0")
    assert list(values) == ["#0", "#0 seed 1"]
    assert float(row["val/perplexity"]) == pytest.approx(statistics.fmean(values.values()), rel=1e-4)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/optuna.db")
    assert set(study.trials[0].params) == {"optimizer.lr"}
    assert study.user_attrs["settings"]["seed"] == [4, 1]
    again = command("-m", *SEARCH, "seed=4,2", *TINY, cwd=folder)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "was started with seed=[4, 1], not [4, 2]" in again.stderr


def test_trials_on_different_text_have_a_note(folder: Path) -> None:
    result = command("-m", "data.source.seed=0,1", *TINY, cwd=folder, check=True)
    assert "Trials with different data may be scored on different text: do not compare these" in result.stdout


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["seeds=3", "seed=1,2"], "seeds=3 and a list of 2 seeds: use one of them"),
        ([*SEARCH, "seeds=3", "seed=range(2)"], "seeds=3 and a list of 2 seeds: use one of them"),
        (["seed=interval(1,9)"], "list the seeds, as in seed=1,2,3"),
        ([*SEARCH, "seed=int(interval(1,9))"], "list the seeds, as in seed=1,2,3"),
        (["seed=1.5,2"], "list the seeds, as in seed=1,2,3"),
        (["optimizer.lr=1,2", "seed=1,2", "hydra.sweeper.zip=[optimizer.lr,seed]"], "seed is not an axis"),
        ([*SEARCH, "seeds=choice(1,2)"], "seeds cannot be an axis"),
    ],
)
def test_a_seed_that_is_no_list_is_refused(settings: list[str], message: str, tmp_path: Path) -> None:
    result = command("-m", *TINY, *settings, cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sweep", [["experiment=e1,e2"], [*SEARCH, "experiment=choice(e1,e2)"]])
def test_presets_that_differ_in_their_seed_only_are_refused(sweep: list[str], tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    for seed in (1, 2):
        (tmp_path / f"experiment/e{seed}.yaml").write_text(f"# @package _global_\nseed: {seed}\n")
    result = command("--config-dir", str(tmp_path), "-m", *sweep, *TINY, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.endswith("trials differ in their seed only, 1 and 2: list seeds, seed=1,2,3\n")


def test_a_function_that_draws_seeds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lucky.py").write_text("def extend(cfg, trial):\n    trial.suggest_int('seed', 1, 5)\n")
    result = command("-m", *SEARCH, "hydra.sweeper.custom_search_space=lucky.extend", *TINY, cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert "=lucky.extend: seed is no setting of a trial: list seeds, seed=1,2,3" in result.stderr
    assert not (tmp_path / "optuna.db").exists()
