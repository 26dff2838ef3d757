"""The commands of the study on a small text, and what is collected of their runs."""

import csv
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from analysis.study import collect, logits, results, samples, tables
from tests.commandline import ROOT, environment, runs

SCRIPT = ROOT / "analysis/study/commands.sh"
SMALL = (
    *("train.max_steps=4", "train.batch_size=2", "data.source.val_fraction=0.2", "device=cpu"),
    *("model.n_layer=1", "model.n_head=1", "model.n_embd=16", "model.block_size=32", "hydra.launcher.n_jobs=1"),
)
ARMS = ("cross_entropy", "squentropy_1")
CONTENDERS = ("loss=cross_entropy,squentropy_1", "hydra.sweeper.seeds=2")


def train(folder: Path, part: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    for name, first in (("train", 0), ("test", 100)):
        stories = [
            f"Once there were {n} cats. They sat in a tree of {n * n} leaves.\n" for n in range(first, first + 60)
        ]
        (folder / f"{name}.txt").write_text("<|endoftext|>".join(stories))
    files = {"TRAIN": str(folder / "train.txt"), "TEST": str(folder / "test.txt")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = environment() | files | {"PATH": path, "OVERRIDES": " ".join(overrides)}
    return subprocess.run(["sh", str(SCRIPT), part], cwd=folder, env=variables, capture_output=True, text=True)


def contents(folder: Path) -> dict[str, object]:
    """Return what the files of results have: the rows of the tables, and the arrays as lists."""
    with np.load(folder / "stories.npz") as arrays:
        found: dict[str, object] = {key: arrays[key].tolist() for key in arrays}
    return found | {path.name: path.read_text() for path in folder.glob("*.csv")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    result = train(folder, "text", *SMALL, *CONTENDERS)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.slow
def test_a_part_is_collected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(results, "FOLDER", folder / "results")
    assert collect.main(["text"]) == 0
    recorded = {run.info.run_id: run for run in runs(folder / "text")}
    with (folder / "results/runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["run_id"] for row in rows} == {*recorded}
    counts = Counter((row["role"], row["arm"]) for row in rows)
    assert counts == {
        **{("tuning", arm): n for arm, n in zip(ARMS, (8, 10), strict=True)},  # the second arm has more learning rates
        **{("final", arm): 2 for arm in ARMS},
    }
    for row in rows:
        run = recorded[row["run_id"]]
        assert (row["seed"], row["lr"]) == (run.data.params["seed"], str(float(run.data.params["optimizer.lr"])))
        assert float(row["val/nll"]) == run.data.metrics["val/nll"]
        assert (row["test/nll"] == "") == (row["role"] == "tuning")  # tuning does not see the test split
    nll, tokens, _ = results.stories("text")
    assert {arm: nats.shape for arm, nats in nll.items()} == {"cross_entropy": (2, 60), "squentropy_1": (2, 60)}
    for arm, frame in results.finals("text").items():
        assert np.allclose(nll[arm].sum(axis=1) / tokens.sum(), frame["test/nll"])
        assert frame["lr"].eq(results.tuning("text", arm).iloc[0]["lr"]).all()
    assert [contrast.arm for contrast in tables.of_part.__wrapped__("text")] == ["squentropy_1"]

    logits.write(folder / "test.txt")
    samples.write()
    with (folder / "results/logits.csv").open(newline="") as file:
        assert [(row["arm"], row["seed"]) for row in csv.DictReader(file)] == [
            (arm, seed) for arm in ARMS for seed in "12"
        ]
    with (folder / "results/samples.csv").open(newline="") as file:
        texts = list(csv.DictReader(file))
    assert len(texts) == 2 * len(samples.PROMPTS)
    assert all(row["text"].startswith(row["prompt"]) for row in texts)

    before = contents(folder / "results")
    assert collect.main(["text"]) == 0  # again: nothing twice
    assert contents(folder / "results") == before


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    result = train(tmp_path, "typo")
    assert (result.returncode, result.stderr) == (2, "unknown part: typo\n")


def test_a_part_without_runs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert collect.main(["text"]) == 2
    assert capsys.readouterr().err == "error: text/mlflow.db has no runs: train them with commands.sh text\n"
