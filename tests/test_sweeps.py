"""Sweeps as a user types them: small grids through the real command line."""

from pathlib import Path

import pytest
import yaml

from tests.test_run import SMALL, command, runs

FEW = [setting for setting in SMALL if not setting.startswith(("train.max_steps", "model.n_layer"))]


def test_the_grid_is_listing_a3(tmp_path: Path) -> None:
    """27 distinct runs in the order of the listing's loop, and a table of them with the best on top."""
    result = command(
        *["-m", "hydra/sweeper=grid", "train.max_steps=1", "samples.count=0", *FEW], cwd=tmp_path, check=True
    )
    found = sorted(runs(tmp_path), key=lambda run: int(run.data.tags["trial"]))
    assert [run.info.status for run in found] == ["FINISHED"] * 27
    axes = ("optimizer.lr", "model.dropout", "model.n_layer")
    assert [tuple(float(run.data.params[axis]) for axis in axes) for run in found] == [
        (lr, dropout, n_layer) for lr in (6e-6, 6e-4, 6e-2) for dropout in (0.0, 0.1, 0.2) for n_layer in (8, 12, 16)
    ]
    assert len({run.data.tags["sweep"] for run in found}) == 1
    assert len({run.data.tags["config_hash"] for run in found}) == 27

    lines = result.stdout.splitlines()
    header = next(i for i, line in enumerate(lines) if line.split()[:1] == ["trial"])
    assert lines[header].split() == ["trial", *axes, "val", "perplexity"]
    table = [line.split() for line in lines[header + 1 : header + 28]]
    best = min(found, key=lambda run: run.data.metrics["val/perplexity"])
    assert table[0][0] == best.data.tags["trial"]
    assert [float(row[-1]) for row in table] == sorted(float(row[-1]) for row in table)
    (command_line,) = (line for line in lines if line.startswith("best: python run.py"))
    assert f"optimizer.lr={best.data.params['optimizer.lr']}" in command_line


def test_a_failing_trial_does_not_hide_the_others(tmp_path: Path) -> None:
    """Three heads do not divide 16; 1e38 diverges; an axis on the command line replaces the grid's."""
    result = command(
        *["-m", "hydra/sweeper=grid", "tracking=none", "precision=fp32", "train.clip_norm=null", "samples.count=0"],
        *["optimizer.lr=1e-3,1e38", "model.dropout=0.0", "model.n_layer=1", "model.n_head=1,3", "train.max_steps=3"],
        *[setting for setting in FEW if "n_head" not in setting],
        cwd=tmp_path,
    )
    assert result.returncode == 2
    table = [line.split() for line in result.stdout.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert sorted(row[-1] for row in table[1:]) == ["diverged", "failed", "failed"]
    assert table[0][:3] == ["0", "0.001", "1"]
    assert "n_embd=16 is not divisible by n_head=3" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_sweep_run_again_trains_what_is_missing(tmp_path: Path) -> None:
    def sweep(*more: str) -> list[list[str]]:
        result = command(
            *["-m", "hydra/sweeper=grid", "optimizer.lr=1e-3,1e38", "model.dropout=0.0,0.1", "model.n_layer=1"],
            *["precision=fp32", "train.clip_norm=null", "train.max_steps=3", "samples.count=0", *FEW, *more],
            cwd=tmp_path,
            check=True,
        )
        rows = [line.split() for line in result.stdout.splitlines()]
        return [row for row in rows if row and row[0].isdigit()]

    first = sweep()
    recorded = {run.info.run_id for run in runs(tmp_path)}
    assert len(recorded) == 4
    assert [row[-1] for row in first[2:]] == ["diverged"] * 2
    assert sweep() == first
    assert {run.info.run_id for run in runs(tmp_path)} == recorded
    assert len(sweep("seed=1337,1")) == 8
    assert len(runs(tmp_path)) == 8
    sweep("data.source.n_train=149")  # another trial
    assert len(runs(tmp_path)) == 12
    sweep("resume=never")
    assert len(runs(tmp_path)) == 16


def test_optuna(tmp_path: Path) -> None:
    """Three heads do not divide 16; a trial that fails does not end the search."""
    result = command(
        *["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "train.max_steps=2", "samples.count=0"],
        *["hydra.sweeper.sampler.seed=0", "model.n_layer=1", "model.n_head=choice(1,3)"],
        *[setting for setting in FEW if "n_head" not in setting],
        cwd=tmp_path,
        check=True,
    )
    finished = runs(tmp_path)
    failed = result.stderr.count("n_embd=16 is not divisible by n_head=3")
    assert 0 < failed < 4
    assert [run.info.status for run in finished] == ["FINISHED"] * (4 - failed)
    (results,) = (tmp_path / "sweeps").glob("*/optimization_results.yaml")
    best = min(run.data.metrics["val/perplexity"] for run in finished)
    assert yaml.safe_load(results.read_text())["best_value"] == pytest.approx(best)
