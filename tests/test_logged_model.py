"""The entry of a model in MLflow: of a run that is resumed or has no result, and after a move of the store."""

from pathlib import Path

import mlflow
import pytest
from mlflow.entities import LoggedModel, LoggedModelStatus

from nanosq.tracking import RecordedData
from nanosq.tracking.mlflow_store import MLflowStore
from tests.commandline import provide_store, runs

DATA = RecordedData("stories", "0123456789ab", {}, {})
PARAMS = {"model": "GPT", "model.n_layer": 1, "loss": "squentropy", "loss.weight": 1.0, "optimizer.lr": 0.1, "seed": 1}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MLflowStore:
    """A store in the working folder, beside the weights of a model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best.pt").write_bytes(b"weights")
    return MLflowStore(experiment="nanosq", uri=provide_store(tmp_path))


def models(folder: Path) -> list[LoggedModel]:
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return list(client.search_logged_models([one.experiment_id for one in client.search_experiments()]))


def test_a_model_of_another_class_is_refused_before_training(tmp_path: Path) -> None:
    store = MLflowStore(experiment="nanosq", uri=f"sqlite:///{tmp_path}/mlflow.db", log_model=True)
    with pytest.raises(ValueError, match=r"only models of nanosq\.model\.GPT .* mine\.Model"):
        store.start("r", params={"model": "mine.Model"}, tags={})
    assert not (tmp_path / "mlflow.db").exists()


def test_a_run_without_a_result_has_no_model(store: MLflowStore, tmp_path: Path) -> None:
    with store.start("r", params=PARAMS, tags={}, data=DATA) as diverged:
        diverged.log({"val/nll": 1.0}, 1)
        diverged.tag(diverged="true", state="diverged")
    assert models(tmp_path) == []


def test_a_resumed_run_has_one_model(store: MLflowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def count(name: str) -> None:
        call = getattr(mlflow.MlflowClient, name)

        def counted(*arguments: object, **options: object) -> object:
            calls.append(name)
            return call(*arguments, **options)

        monkeypatch.setattr(mlflow.MlflowClient, name, counted)

    for name in ("create_logged_model", "log_outputs", "finalize_logged_model", "log_batch", "search_logged_models"):
        count(name)

    def score(run_id: str, *, is_killed: bool) -> str:
        with store.start("r", params=PARAMS, tags={"parameters": "5"}, data=DATA, run_id=run_id) as run:
            calls.clear()
            run.log({"val/nll": 2.0, "train/nll": 1.0}, 4)
            run.model("a/b: it's 1.5", tmp_path / "best.pt", step=3)
            run.summarize({"val/nll": 2.0, "test/nll": 3.0, "train/seconds": 1.0}, 4)
            if is_killed:
                raise KeyboardInterrupt
        return run.run_id

    with pytest.raises(KeyboardInterrupt):
        score("", is_killed=True)
    assert calls == ["log_batch", "search_logged_models", "create_logged_model", "log_outputs", "log_batch"]
    (first,) = models(tmp_path)
    assert first.status == LoggedModelStatus.PENDING
    assert score(first.source_run_id, is_killed=False) == first.source_run_id
    assert {*calls} == {"log_batch", "finalize_logged_model"}
    (model,) = models(tmp_path)
    assert (model.model_id, model.name, model.status) == (first.model_id, "a_b_ it_s 1_5", LoggedModelStatus.READY)
    assert {metric.key: metric.value for metric in model.metrics} == {"val/nll": 2.0, "test/nll": 3.0}
    assert model.params == {key: str(value) for key, value in PARAMS.items() if key.startswith(("model", "loss"))}
    (run,) = runs(tmp_path)
    assert [(output.model_id, output.step) for output in run.outputs.model_outputs] == [(model.model_id, 3)]
    assert run.data.metrics == {"val/nll": 2.0, "test/nll": 3.0, "train/nll": 1.0, "train/seconds": 1.0}


def test_a_model_moves_with_its_store(store: MLflowStore, tmp_path: Path) -> None:
    with store.start("r", params=PARAMS, tags={}) as run:
        run.text("a", "config.yaml")
        run.model("name", tmp_path / "best.pt", step=1)
    new = tmp_path / "new"
    new.mkdir()
    for name in ("mlflow.db", "mlruns"):
        (tmp_path / name).rename(new / name)
    MLflowStore(experiment="nanosq", uri=f"sqlite:///{new}/mlflow.db").find({})
    (model,) = models(new)
    assert model.artifact_location == f"{new}/mlruns/nanosq/models/{model.model_id}/artifacts"
