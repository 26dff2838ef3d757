"""A store that is moved or copied with its folder, and one that is used from another folder."""

import shutil
import socket
from pathlib import Path

import mlflow
import pytest

from analysis import runs as recorded
from nanosq.tracking.location import located
from nanosq.tracking.mlflow_store import MLflowStore
from tests.commandline import SMALL, command, runs


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def check_artifacts(folder: Path, n_runs: int) -> None:
    """Assert that every run of a store has its artifacts in this folder, for MLflow and for the report."""
    uri = f"sqlite:///{folder}/mlflow.db"
    assert len(runs(folder)) == n_runs
    for run in runs(folder):
        assert Path(run.info.artifact_uri).is_relative_to(folder)
        assert (Path(run.info.artifact_uri) / "checkpoint/best.pt").exists()
    assert all(run.artifact("stories.csv") and run.curve("train/loss").steps for run in recorded.load(uri))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run. Tests copy it to the place of the original, so that its paths are right."""
    folder = tmp_path_factory.mktemp("store") / "original"
    folder.mkdir()
    command(*SMALL, "seed=1", "train.log_every=1", cwd=folder, check=True)
    return folder


def test_a_moved_store(trained: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(trained, kept)
    moved = tmp_path / "the new place"  # MLflow quotes the space in its default URI
    trained.rename(moved)
    try:
        (before,) = recorded.load(f"sqlite:///{moved}/mlflow.db")  # by the report, before a run has corrected the paths
        assert before.artifact("stories.csv")
        command(*SMALL, "seed=2", "train.log_every=1", f"init_from={before.id}", cwd=moved, check=True)
        assert not trained.exists()
        assert not (tmp_path / "the%20new%20place").exists()
        check_artifacts(moved, n_runs=2)
    finally:
        kept.rename(trained)


def test_a_copied_store(trained: Path, tmp_path: Path) -> None:
    before, copy = files(trained), tmp_path / "copy"
    shutil.copytree(trained, copy)
    uri = f"sqlite:///{copy}/mlflow.db"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command(*SMALL, "seed=2", "train.log_every=1", cwd=copy, check=True)
    command(*SMALL, "seed=3", "train.log_every=1", f"tracking.uri={uri}", cwd=elsewhere, check=True)
    assert files(trained) == before
    assert len(runs(trained)) == 1
    assert not (elsewhere / "mlruns").exists()
    check_artifacts(copy, n_runs=3)


def test_a_new_store_in_another_folder(tmp_path: Path) -> None:
    here, store = tmp_path / "here", tmp_path / "store"
    here.mkdir()
    store.mkdir()
    command(*SMALL, "train.log_every=1", "tracking.uri=sqlite:///../store/mlflow.db", cwd=here, check=True)
    assert not (here / "mlruns").exists()
    check_artifacts(store, n_runs=1)


def test_an_interrupted_run_is_resumed_in_the_moved_folder(tmp_path: Path) -> None:
    """It was killed before its first checkpoint, which would hold its id. A run of other checkpoints stays as it is."""

    def start(folder: Path, host: str, *, name: str = "abc") -> str:
        store = MLflowStore(experiment="nanosq", uri=f"sqlite:///{folder}/mlflow.db")
        run = store.start("r", params={"a": 1}, tags={"checkpoints": f"{host}:{folder}/checkpoints/{name}"})
        return run.run_id

    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    killed, other = start(old, "host"), start(old, "host", name="def")
    (old / "mlruns/nanosq").mkdir(parents=True)
    old.rename(new)
    assert start(new, socket.gethostname()) == killed
    states = {run.info.run_id: run.info.status for run in runs(new)}
    assert states == {killed: "RUNNING", other: "RUNNING"}
    assert start(new, socket.gethostname(), name="def") == other


def test_a_copy_inside_the_original(tmp_path: Path) -> None:
    """Both the default experiment and that of the runs have moved: no path is corrected twice."""
    store = MLflowStore(experiment="nanosq", uri=f"sqlite:///{tmp_path}/mlflow.db")
    with store.start("r", params={}, tags={}) as run:
        run.text("a", "config.yaml")
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "mlflow.db", copy)
    shutil.copytree(tmp_path / "mlruns", copy / "mlruns")
    client = mlflow.MlflowClient(f"sqlite:///{copy}/mlflow.db")
    MLflowStore(experiment="nanosq", uri=f"sqlite:///{copy}/mlflow.db").find({})
    locations = {experiment.artifact_location for experiment in client.search_experiments()}
    assert locations == {f"{copy}/mlruns/0", f"{copy}/mlruns/nanosq"}
    for folder in (copy, tmp_path):
        (uri,) = (run.info.artifact_uri for run in runs(folder))
        assert uri == f"{folder}/mlruns/nanosq/{run.run_id}/artifacts"


@pytest.mark.parametrize("location", ["chosen", "mlruns/nanosq", "s3"])
def test_a_location_that_the_user_has_chosen_stays(location: str, tmp_path: Path) -> None:
    """`mlruns/nanosq` is that of a store which was used from another folder before artifacts were put beside it."""
    folder, uri = tmp_path / "store", f"sqlite:///{tmp_path}/store/mlflow.db"
    folder.mkdir()
    recorded = "s3://bucket/mlruns/nanosq" if location == "s3" else f"{tmp_path}/work/{location}"
    (tmp_path / "work").mkdir()
    mlflow.MlflowClient(uri).create_experiment("nanosq", artifact_location=recorded)
    run = MLflowStore(experiment="nanosq", uri=uri).start("r", params={}, tags={})
    uri_of_run = mlflow.MlflowClient(uri).get_run(run.run_id).info.artifact_uri
    assert uri_of_run == located(uri, uri_of_run) == f"{recorded}/{run.run_id}/artifacts"


def test_artifacts_of_a_server_are_where_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mlruns/nanosq").mkdir(parents=True)
    for uri in ("http://127.0.0.1:5000", "postgresql://host/mlflow"):
        assert located(uri, "/old/mlruns/nanosq") == "/old/mlruns/nanosq"
    assert located("sqlite:///mlflow.db", "/old/mlruns/nanosq") == str(tmp_path / "mlruns/nanosq")
    assert located("sqlite:///mlflow.db", "mlflow-artifacts:/mlruns/nanosq") == "mlflow-artifacts:/mlruns/nanosq"


def test_artifacts_on_storage_that_is_away_stay_where_they_were(tmp_path: Path) -> None:
    """A store has moved only if it has a folder of artifacts beside it. Otherwise their storage is not mounted."""
    uri, recorded = f"sqlite:///{tmp_path}/mlflow.db", "/mnt/away/mlruns/1/abc/artifacts"
    assert located(uri, recorded) == recorded
    (tmp_path / "mlruns").mkdir()
    assert located(uri, recorded) == f"{tmp_path}/mlruns/1/abc/artifacts"
