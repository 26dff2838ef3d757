"""A run's model: the weights of its best evaluation. All that a run returns, prints, stores and reports is about it."""

import csv
import shutil
from pathlib import Path

import mlflow
import pytest

from analysis import runs as recorded
from tests.commandline import ROOT, SMALL, command, printed_perplexity, runs
from tests.patched import patched

# So little text that the model soon learns it by heart: its best step is not its last one.
OVERFIT = [*SMALL, "data.source.n_train=10", "model.n_embd=32", "optimizer.lr=2e-2", "samples.count=1"]
OVERFIT += ["train.max_steps=60", "train.eval_every=10", "train.warmup=0"]


def test_the_best_weights_are_scored_stored_and_reported(tmp_path: Path) -> None:
    result = command(*OVERFIT, cwd=tmp_path, check=True)
    (run,) = runs(tmp_path)
    metrics = run.data.metrics
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    evaluations = client.get_metric_history(run.info.run_id, "val/nll")
    best = min(evaluations, key=lambda point: point.value)
    assert best.step < 60
    assert "the model of this run: the weights with the lowest validation nll" in result.stderr
    assert metrics["val/nll"] == best.value
    assert metrics["val/perplexity"] == metrics["best/val_perplexity"] < metrics["last/val_perplexity"]
    assert printed_perplexity(result) == pytest.approx(metrics["best/val_perplexity"], abs=1e-4)

    # The test split and the samples are those of the file that is kept.
    weights = Path(run.info.artifact_uri.removeprefix("file://")) / "checkpoint/best.pt"
    again = command(*OVERFIT, f"init_from={weights}", "optimizer.lr=0", "train.max_steps=1", cwd=tmp_path, check=True)
    (other,) = (other for other in runs(tmp_path) if other.info.run_id != run.info.run_id)
    for key in ("test/nll", "test/loss", "test/accuracy", "test/ece", "val/nll", "val/ece"):
        assert metrics[key] == pytest.approx(other.data.metrics[key], rel=1e-4), key
    assert [line for line in result.stdout.splitlines() if line.startswith("test")] == [
        line for line in again.stdout.splitlines() if line.startswith("test")
    ]
    (shown,) = (one for one in recorded.load(f"sqlite:///{tmp_path}/mlflow.db") if one.id == run.info.run_id)
    assert shown.metric("val/nll") == best.value
    assert shown.curve("val/nll").values[-1] == pytest.approx(evaluations_at(60, evaluations), rel=1e-12)
    stories = list(csv.DictReader((weights.parents[1] / "stories.csv").read_text().splitlines()))
    nll = sum(float(row["nll"]) for row in stories) / sum(int(row["tokens"]) for row in stories)
    assert nll == pytest.approx(metrics["test/nll"], rel=1e-6)


def evaluations_at(step: int, points: list[mlflow.entities.Metric]) -> float:
    """Return the value that was logged first at a step: the evaluation, and not the result."""
    return float(min((point for point in points if point.step == step), key=lambda point: point.timestamp).value)


@pytest.mark.slow
def test_early_stopping_and_a_sweep_rank_the_best_weights(tmp_path: Path) -> None:
    result = command("-m", *OVERFIT, "train.patience=2", "optimizer.lr=1e-2,3e-2", cwd=tmp_path, check=True)
    trials = list(csv.DictReader(next((tmp_path / "sweeps").glob("*/trials.csv")).read_text().splitlines()))
    assert len(trials) == 2
    by_id = {run.info.run_id: run.data.metrics for run in runs(tmp_path)}
    for trial in trials:
        metrics = by_id[trial["runs"]]
        assert float(trial["val/perplexity"]) == pytest.approx(metrics["best/val_perplexity"])
        assert metrics["val/perplexity"] == metrics["best/val_perplexity"] < metrics["last/val_perplexity"]
    found = command("-m", *OVERFIT, "train.patience=2", "optimizer.lr=1e-2,3e-2", cwd=tmp_path, check=True)
    assert "as recorded" in found.stdout
    assert result.stdout.split("best: ")[1] == found.stdout.split("best: ")[1]


@pytest.mark.slow
def test_weights_of_the_last_step_on_request(tmp_path: Path) -> None:
    """The presets of the student report keep the last weights, as its code did."""
    result = command(*OVERFIT, "train.weights=last", cwd=tmp_path, check=True)
    (run,) = runs(tmp_path)
    metrics = run.data.metrics
    assert metrics["val/perplexity"] == metrics["last/val_perplexity"] > metrics["best/val_perplexity"]
    assert printed_perplexity(result) == pytest.approx(metrics["last/val_perplexity"], abs=1e-4)
    weights = Path(run.info.artifact_uri.removeprefix("file://")) / "checkpoint/best.pt"
    command(*OVERFIT, f"init_from={weights}", "optimizer.lr=0", "train.max_steps=1", cwd=tmp_path, check=True)
    (other,) = (other for other in runs(tmp_path) if other.info.run_id != run.info.run_id)
    assert metrics["test/nll"] == pytest.approx(other.data.metrics["test/nll"], rel=1e-4)
    assert "weights: last" in (ROOT / "conf/experiment/paper_cross_entropy.yaml").read_text()
    wrong = command(*OVERFIT, "train.weights=final", cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "error: Error merging override train.weights=final; Invalid value 'final', expected one of ['best', 'last']\n",
    )


@pytest.mark.slow
def test_an_interruption_while_the_best_weights_are_scored_changes_nothing(tmp_path: Path) -> None:
    """The checkpoint of such a run holds the state after the last step, not the best weights."""
    whole = command(*OVERFIT, "tracking=none", "checkpoint_dir=whole", cwd=tmp_path, check=True)
    patch = """
from nanosq.evaluation import Evaluator
score = Evaluator.score
def stopped(self, split, batches=None):
    if batches is not None:  # of the test split
        os.kill(os.getpid(), signal.SIGTERM)
    return score(self, split, batches)
Evaluator.score = stopped
"""
    stopped = patched(patch, *OVERFIT, "tracking=none", cwd=tmp_path)
    assert stopped.returncode == 143, stopped.stderr
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "damaged")
    resumed = command(*OVERFIT, "tracking=none", cwd=tmp_path, check=True)
    assert "resumed after step 60" in resumed.stderr
    assert resumed.stdout == whole.stdout
    # Without the file of the best weights, the model is another one, and the user is told.
    next((tmp_path / "damaged").glob("*/best.pt")).unlink()
    last = command(*OVERFIT, "tracking=none", "checkpoint_dir=damaged", cwd=tmp_path, check=True)
    assert "evaluations before step 60 do not count: damaged/" in last.stderr
    assert printed_perplexity(last) > printed_perplexity(whole)
