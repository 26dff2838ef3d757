"""The metrics that are recorded at the end of a run, compared with those from the logits of its model."""

import re
import subprocess
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch.nn.functional as F

from nanosq import checkpoint
from nanosq.data import corpus
from nanosq.data.corpus import Corpus
from nanosq.data.stories import stories
from nanosq.data.tokenizers import gpt2
from nanosq.model import GPT
from nanosq.sweeps.metrics import METRICS
from tests.commandline import SMALL, command, runs
from tests.test_temperature import all_logits, best

# A window takes a whole story.
SETTINGS = [
    "loss=squentropy",
    *SMALL,
    "model.block_size=512",
    "precision=fp32",
    "train.max_steps=40",
    "samples.count=1",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def result(folder: Path) -> subprocess.CompletedProcess[str]:
    return command(*SETTINGS, cwd=folder, check=True)


@pytest.fixture(scope="module")
def run(folder: Path, result: subprocess.CompletedProcess[str]) -> mlflow.entities.Run:
    (run,) = runs(folder)
    return run


@pytest.fixture(scope="module")
def text(folder: Path, run: mlflow.entities.Run) -> Corpus:
    source = partial(stories, n_train=150, n_val=10, n_test=10, seed=0)
    return corpus.prepare(source, gpt2(vocabulary="used", pad_to=None), cache_dir=folder / "cache")


@pytest.fixture(scope="module")
def model(run: mlflow.entities.Run, text: Corpus) -> GPT:
    content = checkpoint.load(Path(run.info.artifact_uri.removeprefix("file://"), "checkpoint/best.pt"))
    model = GPT(text.tokenizer.vocab_size, **content["architecture"])
    model.load_state_dict(content["model"])
    return model.eval()


def test_calibrated_scores_are_those_of_scipy(run: mlflow.entities.Run, model: GPT, text: Corpus) -> None:
    metrics = run.data.metrics
    temperature, nll = best(*all_logits(model, text.val))
    assert metrics["val/temperature"] == pytest.approx(temperature, abs=1e-6)
    assert metrics["val/nll_calibrated"] == pytest.approx(nll, abs=1e-6)
    assert metrics["val/nll_calibrated"] < metrics["val/nll"] - 1e-3
    logits_NV, targets_N = all_logits(model, text.test)
    nll = F.cross_entropy(logits_NV / temperature, targets_N).item()
    assert metrics["test/nll_calibrated"] == pytest.approx(nll, abs=1e-6)


def test_nll_by_frequency_of_the_target(run: mlflow.entities.Run, model: GPT, text: Corpus) -> None:
    logits_NV, targets_N = all_logits(model, text.test)
    nll_N = F.cross_entropy(logits_NV, targets_N, reduction="none").numpy()
    counts_V = np.bincount(text.train.tokens[1:], minlength=text.tokenizer.vocab_size)
    order = np.argsort(-counts_V, kind="stable")
    n_frequent, n_medium = np.searchsorted(counts_V[order].cumsum(), np.array([0.8, 0.95]) * counts_V.sum()) + 1
    parts = np.split(order, [n_frequent, n_medium])
    for name, part in zip(("frequent", "medium", "rare"), parts, strict=True):
        expected = nll_N[np.isin(targets_N.numpy(), part)].mean()
        assert run.data.metrics[f"test/nll_{name}"] == pytest.approx(expected, abs=1e-5)


def test_the_terminal_shows_the_calibrated_scores(
    run: mlflow.entities.Run, result: subprocess.CompletedProcess[str]
) -> None:
    (line,) = (line for line in result.stdout.splitlines() if "calibrated" in line)
    metrics = run.data.metrics
    scores = f"nll {metrics['test/nll_calibrated']:.4f}, ece {metrics['test/ece_calibrated']:.2%}"
    assert line == f"test, calibrated with temperature {metrics['val/temperature']:.4f}: {scores}"
    assert len(line) <= 80


def test_the_test_split_is_scored_only_if_asked(run: mlflow.entities.Run, tmp_path: Path) -> None:
    result = command(*SETTINGS, "score_test=false", cwd=tmp_path, check=True)
    (other,) = runs(tmp_path)
    expected = {key for key in run.data.metrics if not key.startswith("test/") and "calibrated" not in key}
    assert {*other.data.metrics} == expected - {"val/temperature"}
    assert other.data.metrics["val/nll"] == run.data.metrics["val/nll"]
    assert other.data.tags["config_hash"] != run.data.tags["config_hash"]
    files = {path.name for path in Path(other.info.artifact_uri.removeprefix("file://")).iterdir()}
    assert files == {"config.yaml", "curves.csv", "samples.txt", "checkpoint"}
    assert re.findall(r"^(val|test)\b", result.stdout, re.M) == ["val"]
    assert "test" not in result.stdout


def test_a_search_cannot_choose_by_them(run: mlflow.entities.Run, tmp_path: Path) -> None:
    new = {key for key in run.data.metrics if "calibrated" in key or "temperature" in key or key.startswith("test/")}
    assert not new & METRICS.keys()
    search = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", *SMALL]
    refused = command(*search, "hydra.sweeper.objectives=[val/nll_calibrated]", cwd=tmp_path)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: hydra.sweeper.objectives: val/nll_calibrated is not a metric; ")
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".db"]
