"""Sweeps as a user types them: small ones through the real command line."""

import csv
import math
import random
import statistics
from collections import Counter
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from tests.commandline import SMALL, command, runs
from tests.stress import kill_sweeps, launch_sweeps

FEW = [setting for setting in SMALL if not setting.startswith(("train.max_steps", "model.n_layer"))]
SEARCH = ["-m", "hydra/sweeper=optuna", "loss=squentropy", "train.max_steps=6", *FEW]


def table(stdout: str) -> list[dict[str, str]]:
    """The rows of the table that a sweep ends with, by the names of its columns."""
    lines = stdout.splitlines()
    header = next(i for i, line in enumerate(lines) if line.split()[:2] == ["trial", "state"])
    names = lines[header].split()
    rows = []
    for line in lines[header + 1 :]:
        if not line:
            break
        cells = line.split()
        # A trial that has not finished has no value, and one that is not recorded no run.
        rows.append(dict(zip(names, cells, strict=len(cells) == len(names))))
    return rows


def test_the_grid_is_listing_a3(tmp_path: Path) -> None:
    """27 distinct runs in the order of the listing's loop, and a table of them with the best on top."""
    result = command(*["-m", "hydra/sweeper=grid", "train.max_steps=1", *FEW], cwd=tmp_path, check=True)
    found = sorted(runs(tmp_path), key=lambda run: int(run.data.tags["trial"]))
    assert [run.info.status for run in found] == ["FINISHED"] * 27
    axes = ("optimizer.lr", "model.dropout", "model.n_layer")
    assert [tuple(float(run.data.params[axis]) for axis in axes) for run in found] == [
        (lr, dropout, n_layer) for lr in (6e-6, 6e-4, 6e-2) for dropout in (0.0, 0.1, 0.2) for n_layer in (8, 12, 16)
    ]
    (sweep,) = {run.data.tags["sweep"] for run in found}
    assert len({run.data.tags["config_hash"] for run in found}) == 27

    best = min(found, key=lambda run: run.data.metrics["val/perplexity"])
    rows = table(result.stdout)
    assert list(rows[0]) == ["trial", "state", "val/perplexity", *axes, "run"]
    assert rows[0]["trial"] == best.data.tags["trial"]
    assert rows[0]["run"].endswith(f"/#/experiments/{best.info.experiment_id}/runs/{best.info.run_id}")
    assert len(rows) == 27
    assert {row["state"] for row in rows} == {"finished"}
    assert [float(row["val/perplexity"]) for row in rows] == sorted(float(row["val/perplexity"]) for row in rows)
    written = list(csv.DictReader((tmp_path / "sweeps" / sweep / "trials.csv").open()))
    assert {row["runs"] for row in written} == {run.info.run_id for run in found}
    assert float(written[0]["val/perplexity"]) == best.data.metrics["val/perplexity"]

    # The best setting as an experiment, at the length that a run has when it is no trial.
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("best: python run.py "))
    composed = command(*line.split()[3:], "--cfg", "job", cwd=tmp_path, check=True)
    cfg = yaml.safe_load(composed.stdout)
    assert (cfg["optimizer"]["lr"], cfg["model"]["n_layer"]) == (
        float(best.data.params["optimizer.lr"]),
        int(best.data.params["model.n_layer"]),
    )
    assert cfg["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert cfg["train"]["max_steps"] == 1600
    assert cfg["data"]["source"]["n_train"] == 150
    assert cfg["samples"]["count"] == 3


def test_a_failing_trial_does_not_hide_the_others(tmp_path: Path) -> None:
    """Three heads do not divide 16; 1e38 diverges; an axis on the command line replaces the grid's."""
    result = command(
        *["-m", "hydra/sweeper=grid", "tracking=none", "precision=fp32", "train.clip_norm=null"],
        *["optimizer.lr=1e-3,1e38", "model.dropout=0.0", "model.n_layer=1", "model.n_head=1,3", "train.max_steps=3"],
        *[setting for setting in FEW if "n_head" not in setting],
        cwd=tmp_path,
    )
    assert result.returncode == 2
    assert [(row["trial"], row["state"]) for row in table(result.stdout)] == [
        *[("0", "finished"), ("2", "diverged"), ("1", "failed"), ("3", "failed")]
    ]
    for trial in (1, 3):
        assert f"trial {trial} failed: model: n_embd=16 is not divisible by n_head=3" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_sweep_run_again_trains_what_is_missing(tmp_path: Path) -> None:
    def sweep(*more: str) -> list[dict[str, str]]:
        result = command(
            *["-m", "hydra/sweeper=grid", "optimizer.lr=1e-3,1e38", "model.dropout=0.0,0.1", "model.n_layer=1"],
            *["precision=fp32", "train.clip_norm=null", "train.max_steps=3", *FEW, *more],
            cwd=tmp_path,
            check=True,
        )
        return table(result.stdout)

    first = sweep()
    recorded = {run.info.run_id for run in runs(tmp_path)}
    assert len(recorded) == 4
    assert [row["state"] for row in first] == ["finished"] * 2 + ["diverged"] * 2
    assert sweep() == first
    assert {run.info.run_id for run in runs(tmp_path)} == recorded
    assert len(sweep("seed=1337,1")) == 8
    assert len(runs(tmp_path)) == 8
    sweep("data.source.n_train=149")  # another trial
    assert len(runs(tmp_path)) == 12
    sweep("resume=never")
    assert len(runs(tmp_path)) == 16


def test_seeds_and_pairs(tmp_path: Path) -> None:
    """Two paired settings, each with two seeds; without a sweeper named, as Hydra's own -m."""
    axes = ["optimizer.lr=1e-3,1e-2", "train.warmup=0,1", "hydra.sweeper.zip=[optimizer.lr,train.warmup]", "seeds=2"]
    result = command("-m", *axes, "train.max_steps=3", "model.n_layer=1", *FEW, cwd=tmp_path, check=True)
    found = {}
    for run in runs(tmp_path):
        setting = tuple(run.data.params[key] for key in ("optimizer.lr", "train.warmup"))
        found.setdefault(setting, {})[run.data.params["seed"]] = run.data.metrics["val/perplexity"]
    assert set(found) == {("0.001", "0"), ("0.01", "1")}
    assert all(set(values) == {"1337", "1338"} for values in found.values())
    rows = table(result.stdout)
    assert [row["optimizer.lr"] for row in rows] == ["0.01", "0.001"]
    for row, values in zip(rows, (found["0.01", "1"], found["0.001", "0"]), strict=True):
        assert float(row["val/perplexity"]) == pytest.approx(statistics.fmean(values.values()), rel=1e-4)
        assert float(row["+-"]) == pytest.approx(statistics.stdev(values.values()) / math.sqrt(2), rel=1e-3)
    assert len({run.data.tags["trial"] for run in runs(tmp_path)}) == 2


def test_bad_sweeps_are_one_line(tmp_path: Path) -> None:
    for settings, message in (
        (["seed=1,2", "seeds=0"], "seeds must be at least 1"),
        (["seed=interval(0,3)"], "hydra/sweeper=optuna searches"),
        (["seed=1,2", "hydra.sweeper.zip=[sed]"], "sed is no axis"),
        (
            ["seed=1,2", "train.max_steps=1,2,3", "hydra.sweeper.zip=[seed,train.max_steps]"],
            "seed 2, train.max_steps 3",
        ),
        (["seeds=1,2"], "seeds is no axis"),
        (["train.max_stps=1,2"], "Did you mean: 'max_steps'?"),
        (["hydra/sweeper=optuna", "hydra.sweeper.storage=null"], "hydra.sweeper.storage=None"),
        (["hydra/sweeper=optuna", "hydra.sweeper.objectives=[test/nll]"], "test/nll is none of val/perplexity"),
        (["hydra/sweeper=optuna", "model.n_layr=choice(1,2)"], "Did you mean: 'n_layer'?"),
        (["hydra/sweeper=optuna", "hydra/sweeper/sampler=grid"], "GridSampler only supports discrete"),
        (["hydra/sweeper=optuna", "optimizer.lr=interval(2,1)"], "low"),
        (["hydra/sweeper=optuna", "hydra.sweeper.direction=max"], "max is neither minimize nor maximize"),
        (["hydra/sweeper=optuna", "hydra.sweeper.n_trial=3"], "Did you mean: 'n_trials'?"),
        (["hydra/sweeper=optuna", "hydra.sweeper.direction=[minimize,minimize]"], "2 for 1 objectives"),
    ):
        result = command("-m", *settings, cwd=tmp_path)
        assert result.returncode == 2, (settings, result.stderr)
        assert message in result.stderr
        assert "Traceback" not in result.stderr
        assert result.stderr.count("\n") == 1, result.stderr
        assert not [path for path in tmp_path.iterdir() if path.name != "optuna.db.lock"]


def study(folder: Path, name: str = "squentropy-tiny-stories") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/optuna.db")


def test_a_search_goes_on_and_refuses_to_be_another(tmp_path: Path) -> None:
    """n_trials is a total; what makes the study another one is told, and changes nothing."""
    settings = [*SEARCH, "hydra.sweeper.sampler.seed=0", "hydra.sweeper.pruner.n_startup_trials=2"]
    command(*settings, "hydra.sweeper.n_trials=3", cwd=tmp_path, check=True)
    assert len(study(tmp_path).trials) == 3
    result = command(*settings, "hydra.sweeper.n_trials=5", cwd=tmp_path, check=True)
    assert kill_sweeps.consistent(tmp_path, trials=5)["COMPLETE"] >= 2
    assert len({str(trial.params) for trial in study(tmp_path).trials}) == 5
    assert {"optimizer.lr", "model.dropout", "model.n_layer", "train.warmup", "loss.weight"} == {
        *study(tmp_path).trials[0].params
    }
    rows = table(result.stdout)
    best = study(tmp_path).best_trial
    assert rows[0]["trial"] == str(best.number)
    assert rows[0]["run"] == best.user_attrs["mlflow_link"]
    assert len(rows) == 5

    result = command(*settings, "hydra.sweeper.n_trials=9", "train.batch_size=3", cwd=tmp_path)
    assert result.returncode == 2
    assert "was begun with train.batch_size=4, not 3" in result.stderr
    assert result.stderr.count("\n") == 1
    assert len(study(tmp_path).trials) == 5
    command(*settings, "hydra.sweeper.n_trials=1", "resume=never", cwd=tmp_path, check=True)
    assert len(study(tmp_path, "squentropy-tiny-stories-2").trials) == 1


def test_a_search_over_losses_for_two_objectives(tmp_path: Path) -> None:
    """The weight is searched where the loss has one; the best trials are a Pareto front; seeds are averaged."""
    result = command(
        *["-m", "hydra/sweeper=optuna", "loss=cross_entropy,squentropy", "seeds=2", "train.max_steps=3", *FEW],
        *["hydra.sweeper.objectives=[val/perplexity,val/accuracy]", "hydra.sweeper.direction=[minimize,maximize]"],
        *["hydra.sweeper.n_trials=6", "hydra.sweeper.sampler.seed=1", "hydra.sweeper.study_name='two losses'"],
        cwd=tmp_path,
        check=True,
    )
    found = study(tmp_path, "two losses")
    assert len(found.trials) == 6
    assert {trial.params["loss"] for trial in found.trials} == {"cross_entropy", "squentropy"}
    by_id = {run.info.run_id: run for run in runs(tmp_path)}
    assert len(by_id) == 12
    for trial in found.trials:
        assert ("loss.weight" in trial.params) == (trial.params["loss"] == "squentropy")
        ids = [trial.user_attrs[key] for key in ("mlflow_run_id", "mlflow_run_id_1")]
        for at, metric in enumerate(("val/perplexity", "val/accuracy")):
            values = [by_id[each].data.metrics[metric] for each in ids]
            assert trial.values[at] == pytest.approx(statistics.fmean(values))
    presets = {path.stem for path in (tmp_path / "sweeps/two_losses/experiment").iterdir()}
    front = [trial.number for trial in found.best_trials]
    assert presets == ({f"best_two_losses_{n}" for n in front} if len(front) > 1 else {"best_two_losses"})
    assert len(table(result.stdout)) == 6


def test_a_search_is_pruned_over_seeds(tmp_path: Path) -> None:
    """Where one seed of a trial is given up, the others are not trained to their end."""
    command(
        *[*SEARCH, "hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=1", "train.eval_every=2"],
        *["seeds=2", "hydra.sweeper.n_trials=4", "hydra.sweeper.sampler.seed=3"],
        cwd=tmp_path,
        check=True,
    )
    by_id = {run.info.run_id: run for run in runs(tmp_path)}
    states = Counter(trial.state for trial in study(tmp_path).trials)
    assert states[TrialState.PRUNED] >= 1
    assert states[TrialState.PRUNED] + states[TrialState.COMPLETE] == 4
    for trial in study(tmp_path).trials:
        ids = [value for key, value in trial.user_attrs.items() if key.startswith("mlflow_run_id")]
        pruned = [by_id[each].data.tags["pruned"] == "true" for each in ids]
        assert any(pruned) == (trial.state is TrialState.PRUNED)
        assert len(ids) == (2 if trial.state is TrialState.COMPLETE else pruned.index(True) + 1)


def test_a_sweep_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    moments = random.Random(0)
    axes = ["model.n_layer=1", "model.dropout=0.1"]
    kill_sweeps.check_grid(axes, tmp_path, kills=1, trials=3, moments=moments)
    kill_sweeps.check_study([], tmp_path, kills=1, trials=4, moments=moments)


@pytest.mark.parametrize("launcher", launch_sweeps.LAUNCHERS)
def test_trials_side_by_side(launcher: str, tmp_path: Path) -> None:
    launch_sweeps.check(launcher, tmp_path, trials=3, axes=["model.n_layer=1", "model.dropout=0.1"])
