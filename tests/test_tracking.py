"""MLflow as its own client reads it back."""

import csv
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from nanosq.tracking import Store, mlflow_run
from nanosq.tracking.creation import run_filter
from nanosq.tracking.mlflow_run import MLflowRun
from nanosq.tracking.mlflow_store import MLflowStore
from tests.commandline import provide_store


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)  # artifacts go to ./mlruns
    return provide_store(tmp_path)


def only_run(uri: str) -> mlflow.entities.Run:
    (run,) = mlflow.MlflowClient(uri).search_runs(
        [e.experiment_id for e in mlflow.MlflowClient(uri).search_experiments()]
    )
    return run


def test_a_run_is_recorded(uri: str, tmp_path: Path) -> None:
    store = MLflowStore(experiment="nanosq", uri=uri)
    weights = tmp_path / "best.pt"
    weights.write_bytes(b"weights")
    with store.start("a name", params={"model.n_layer": 4, "resume": None}, tags={"sweep": "s"}) as tracked:
        for step in range(1500):
            tracked.log({"train/loss": 1 / (step + 1), "val/perplexity": math.inf}, step)
        tracked.tag(diverged="true")
        tracked.text("Once upon a time", "samples.txt")
        tracked.keep(weights, "checkpoint")
    run, client = only_run(uri), mlflow.MlflowClient(uri)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "a name"
    assert run.data.params == {"model.n_layer": "4"}
    assert run.data.tags["sweep"] == "s"
    assert (run.data.tags["diverged"], run.data.tags["state"]) == ("true", "finished")
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")] == [
        (step, 1 / (step + 1)) for step in range(1500)
    ]
    assert "val/perplexity" not in run.data.metrics
    files = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (files / "samples.txt").read_text() == "Once upon a time"
    assert (files / "checkpoint/best.pt").read_bytes() == b"weights"
    rows = list(csv.DictReader((files / "curves.csv").open()))
    assert rows[2] == {"step": "2", "metric": "train/loss", "value": str(1 / 3)}
    experiment = f"http://127.0.0.1:5000/#/experiments/{run.info.experiment_id}"
    assert tracked.link == f"{experiment}/runs/{run.info.run_id}?workflowType=machine_learning"
    assert tracked.table == f"{experiment}/runs?workflowType=machine_learning&viewStateShareKey=nanosq"
    assert tracked.charts == f"{tracked.table}&compareRunsMode=CHART"


def test_runs_are_found_by_any_text(uri: str) -> None:
    """A filter of MLflow has no escapes, so that a text with both kinds of quotes needs wildcards."""
    names = ["it's", 'say "x"', 'it\'s "x"', 'it\'s "y"', "back\\", "100 % of 'all' \"runs\"", "a = 'b' and c"]
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("names")
    ids = {name: client.create_run(experiment, tags={"sweep": name}).info.run_id for name in names}
    for name, run_id in ids.items():
        found = client.search_runs([experiment], run_filter({"sweep": name}, "RUNNING"))
        assert [run.info.run_id for run in found] == [run_id]


def test_metrics_are_delivered_while_the_run_trains(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_run, "FLUSH_SECONDS", 0.01)
    with MLflowStore(experiment="nanosq", uri=uri).start("r", params={}, tags={}) as run:
        for step in range(100):
            run.log({"train/loss": 1.0}, step)
        while len(points(uri, run.run_id)) < 100:
            time.sleep(0.01)
    assert points(uri, run.run_id) == [(step, 1.0) for step in range(100)]


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_status_at_the_end_of_a_run(uri: str, error: type[BaseException], status: str) -> None:
    store = MLflowStore(experiment="nanosq", uri=uri)

    def run() -> None:
        with store.start("r", params={}, tags={}) as recorded:
            recorded.log({"train/loss": 1.0}, 3)
            raise error

    with pytest.raises(error):
        run()
    assert only_run(uri).info.status == status
    assert only_run(uri).data.tags["state"] == status.lower()
    assert only_run(uri).data.metrics == {"train/loss": 1.0}


def test_a_store_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = MLflowStore(experiment="nanosq", uri=f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(ValueError, match=r"tracking\.uri") as caught:
        store.check()
    assert "\n" not in str(caught.value)


def test_tracking_none_changes_no_files(tmp_path: Path) -> None:
    weights = tmp_path / "best.pt"
    weights.touch()
    with Store().start("r", params={}, tags={}) as run:
        run.log({"train/loss": 1.0}, 1)
        run.keep(weights, "checkpoint")
    assert weights.exists()
    assert run.link == run.table == run.charts == ""


def points(uri: str, run_id: str, key: str = "train/loss") -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in mlflow.MlflowClient(uri).get_metric_history(run_id, key)]


def test_a_resumed_run_repeats_no_value(uri: str) -> None:
    def start(run_id: str, params: dict[str, object]) -> MLflowRun:
        return MLflowStore(experiment="nanosq", uri=uri).start("r", params=params, tags={}, run_id=run_id)

    def interrupted(run: MLflowRun) -> None:
        with run:
            for step in range(5):
                run.log({"train/loss": float(step), "train/nll": 0.0}, step)
            raise KeyboardInterrupt

    first = start("", {"log_every": 1})
    with pytest.raises(KeyboardInterrupt):
        interrupted(first)
    with start(first.run_id, {"log_every": 2}) as second:  # from a checkpoint at step 3, with another parameter
        for step in range(3, 8):
            second.log({"train/loss": float(step)}, step)
    assert only_run(uri).info.status == "FINISHED"
    assert points(uri, first.run_id) == [(step, float(step)) for step in range(8)]
    artifacts = Path(only_run(uri).info.artifact_uri.removeprefix("file://"))
    rows = list(csv.DictReader((artifacts / "curves.csv").open()))
    assert sorted(int(row["step"]) for row in rows if row["metric"] == "train/loss") == list(range(8))
    assert len(rows) == 13


def test_a_run_of_a_killed_process_is_resumed_without_a_checkpoint(uri: str, tmp_path: Path) -> None:
    script = f"""
import os, sys
from nanosq.tracking.mlflow_store import MLflowStore
store = MLflowStore(experiment="nanosq", uri={uri!r})
print(store.start("r", params={{"a": 1}}, tags={{"checkpoints": sys.argv[1]}}).run_id, flush=True)
os._exit(9)
"""

    def killed(folder: str) -> str:
        command = [sys.executable, "-c", script, folder]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout.strip()

    def start(folder: str, *, is_new: bool = False) -> MLflowRun:
        store = MLflowStore(experiment="nanosq", uri=uri)
        return store.start("r", params={"a": 1}, tags={"checkpoints": folder}, is_new=is_new)

    here, there = killed("here"), killed("there")
    with start("here") as resumed:
        assert resumed.run_id == here
    with start("there", is_new=True) as new:
        assert new.run_id != there
    found = {run_id: mlflow.MlflowClient(uri).get_run(run_id) for run_id in (here, there)}
    assert {run_id: run.info.status for run_id, run in found.items()} == {here: "FINISHED", there: "KILLED"}
    assert {run_id: run.data.tags["state"] for run_id, run in found.items()} == {here: "finished", there: "killed"}


@pytest.mark.parametrize("run_id", ["0" * 32, "deleted"])
def test_a_run_that_the_store_has_lost_is_started_again(run_id: str, uri: str) -> None:
    if run_id == "deleted":
        with MLflowStore(experiment="nanosq", uri=uri).start("r", params={}, tags={}) as gone:
            run_id = gone.run_id
        mlflow.MlflowClient(uri).delete_run(run_id)
    with MLflowStore(experiment="nanosq", uri=uri).start("r", params={}, tags={}, run_id=run_id) as run:
        assert run.run_id != run_id
    assert only_run(uri).info.run_id == run.run_id


def test_weights_of_a_run(uri: str, tmp_path: Path) -> None:
    best = tmp_path / "best.pt"
    best.write_bytes(b"weights")
    store = MLflowStore(experiment="nanosq", uri=uri)
    with store.start("r", params={}, tags={}) as run:
        run.keep(best, "checkpoint")
    assert store.checkpoint(run.run_id, "best.pt").read_bytes() == b"weights"
    with pytest.raises(ValueError, match="has no run"):
        store.checkpoint("0" * 32, "best.pt")
    with pytest.raises(ValueError, match="path"):
        Store().checkpoint("0" * 32, "last.pt")


def test_a_store_whose_creation_was_killed_is_created_again(tmp_path: Path) -> None:
    """The kill comes when the first tables are on the disk. MLflow could not use a database with some of its tables."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    script = f"""
from nanosq.tracking.mlflow_store import MLflowStore
MLflowStore(experiment="nanosq", uri={uri!r}).find({{"trial": "1"}})
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(path.stat().st_size for path in tmp_path.glob("mlflow.db*[!k]")):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "mlflow.db").exists()
    with MLflowStore(experiment="nanosq", uri=uri).start("a name", params={}, tags={}):
        pass
    assert only_run(uri).info.status == "FINISHED"
    assert not list(tmp_path.glob("mlflow.db.new*"))
