"""Environment variables of MLflow: which have an effect, and which belong to other programs."""

import re
import sys
import time
from pathlib import Path

import mlflow
import pytest

from analysis import cli
from nanosq.tracking.mlflow_store import MLflowStore
from tests.commandline import SMALL, command, provide_store, runs

OTHERS = {
    "MLFLOW_EXPERIMENT_ID": "0",
    "MLFLOW_ACTIVE_MODEL_ID": "m-0",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "true",
    "MLFLOW_RUN_CONTEXT": '{"sweep": "another", "mlflow.user": "another"}',
}


def seeds(folder: Path) -> list[str]:
    return sorted(run.data.params["seed"] for run in runs(folder))


@pytest.mark.slow
def test_no_run_or_experiment_of_another_program_is_used(tmp_path: Path) -> None:
    command(*SMALL, "seed=1", cwd=tmp_path, check=True)
    (first,) = runs(tmp_path)
    variables = {"MLFLOW_RUN_ID": first.info.run_id, **OTHERS}
    command(*SMALL, "seed=9", cwd=tmp_path, check=True, **variables)
    command("-m", *SMALL, "seed=2,3", cwd=tmp_path, check=True, **variables)
    assert seeds(tmp_path) == ["1", "2", "3", "9"]
    (unchanged,) = (run for run in runs(tmp_path) if run.info.run_id == first.info.run_id)
    assert unchanged.to_dictionary() == first.to_dictionary()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for run in runs(tmp_path):
        assert run.info.status == "FINISHED"
        assert run.info.experiment_id == first.info.experiment_id
        assert run.data.tags["mlflow.user"] == first.data.tags["mlflow.user"]
        assert run.data.tags["mlflow.source.name"].endswith("run.py")
        assert run.data.tags.keys() >= {key for key in first.data.tags if key.startswith("mlflow.")}
        assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"config.yaml", "curves.csv"}


@pytest.mark.slow
def test_workers_of_a_launcher_use_no_run_of_another_program(tmp_path: Path) -> None:
    joblib = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    command(*joblib, *SMALL, "seed=2,3", cwd=tmp_path, check=True, warm=False, MLFLOW_RUN_ID="0" * 32, **OTHERS)
    assert seeds(tmp_path) == ["2", "3"]


def test_the_name_of_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"MLFLOW_EXPERIMENT_NAME": "mine", "MLFLOW_EXPERIMENT_ID": "0"}
    command(*SMALL, "seed=1", cwd=tmp_path, check=True, **variables)
    command(*SMALL, "seed=2", "tracking.experiment=theirs", cwd=tmp_path, check=True, **variables)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiments = {experiment.experiment_id: experiment.name for experiment in client.search_experiments()}
    assert {experiments[run.info.experiment_id]: run.data.params["seed"] for run in runs(tmp_path)} == {
        "mine": "1",
        "theirs": "2",
    }
    for name, expected in (("mine", "mine"), ("", "nanosq")):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
        assert cli.parser("").parse_args([]).experiment == expected


@pytest.mark.parametrize(
    ("argument", "variable", "line"),
    [
        (
            True,
            "",
            "tracking.system_metrics=true has no effect: .*psutil.* \\(pip install 'nanosq\\[system-metrics\\]'\\)",
        ),
        (None, "true", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING has no effect: .*psutil.* \\(pip install .*\\)"),
        (None, "maybe", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING has no effect: .*maybe.*"),
        (None, "false", ""),
        (False, "true", ""),
    ],
)
def test_system_metrics_that_cannot_be_recorded_are_one_warning(
    argument: bool | None,
    variable: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two runs, as the trials of a sweep, have one warning."""
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", variable)
    for name in [name for name in sys.modules if name.startswith("mlflow.system_metrics")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psutil", None)  # as if it were not installed
    store = MLflowStore(experiment="nanosq", uri=provide_store(tmp_path), system_metrics=argument)
    caplog.clear()  # MLflow logs that it creates the tables of the first store of a process
    for _ in range(2):
        with store.start("r", params={}, tags={}):
            pass
    assert re.fullmatch(line, "\n".join(caplog.messages))
    assert [run.info.status for run in runs(tmp_path)] == ["FINISHED", "FINISHED"]


def test_system_metrics_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psutil")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    store = MLflowStore(experiment="nanosq", uri=provide_store(tmp_path), system_metrics=True)
    with store.start("r", params={}, tags={}) as run:
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
        while not any(key.startswith("system/") for key in client.get_run(run.run_id).data.metrics):
            time.sleep(0.05)
    (recorded,) = runs(tmp_path)
    assert "system/cpu_utilization_percentage" in recorded.data.metrics


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_run_that_is_interrupted_while_it_starts_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_resumed: bool
) -> None:
    store, run_id = MLflowStore(experiment="nanosq", uri=provide_store(tmp_path)), ""
    if is_resumed:
        with store.start("r", params={}, tags={}) as before:
            run_id = before.run_id

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", fail)
        with pytest.raises(KeyboardInterrupt):
            store.start("r", params={"a": 1}, tags={"b": "c"}, run_id=run_id, folder=tmp_path)
    with store.start("r", params={"a": 1}, tags={"b": "c"}, run_id=run_id, folder=tmp_path):
        pass
    (run,) = runs(tmp_path)
    assert (run.info.status, run.data.params, run.data.tags["b"]) == ("FINISHED", {"a": "1"}, "c")
