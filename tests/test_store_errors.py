"""Errors of MLflow stores name their cause and the advice that fits it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from analysis import runs as recorded
from nanosq.tracking.mlflow_store import MLflowStore
from nanosq.tracking.store_errors import explain
from tests.commandline import SMALL, command, runs


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store that has an experiment without runs."""
    folder = tmp_path_factory.mktemp("store")
    MLflowStore(experiment="nanosq", uri=f"sqlite:///{folder}/mlflow.db").find({})
    return folder


def damaged(store: Path, folder: Path, statement: str) -> str:
    """Copy the store, change its database, and return its URI."""
    (folder / "mlflow.db").write_bytes((store / "mlflow.db").read_bytes())
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
        connection.execute(statement)
    return f"sqlite:///{folder}/mlflow.db"


def error_of(*arguments: str, cwd: Path, **variables: str) -> str:
    """Return the message of a run with the exit status of bad input. It is one line."""
    result = command(*SMALL, *arguments, cwd=cwd, **variables)
    assert result.returncode == 2, result.stdout + result.stderr
    (line,) = (line for line in result.stderr.splitlines() if not line.startswith("stories: "))
    return line


def test_a_schema_of_another_version(store: Path, tmp_path: Path) -> None:
    uri = damaged(store, tmp_path, "UPDATE alembic_version SET version_num = 'bf29a5ff90ea'")
    advice = f"back it up and run `mlflow db upgrade {uri}`"
    line = error_of(cwd=tmp_path)
    assert "(Detected out-of-date database schema (found version bf29a5ff90ea, but expected " in line
    assert advice in line
    assert "tracking=none" not in line
    assert not list(tmp_path.rglob("*.pt"))
    with pytest.raises(ValueError, match="out-of-date") as caught:
        recorded.load(uri)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_deleted_experiment(store: Path, tmp_path: Path) -> None:
    damaged(store, tmp_path, "UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'nanosq'")
    line = error_of(cwd=tmp_path)
    assert "'nanosq' is deleted: restore it with" in line
    assert " mlflow experiments restore --experiment-id 1`, or set another tracking.experiment" in line
    command(*SMALL, "tracking.experiment=other", cwd=tmp_path, check=True)
    assert [run.info.status for run in runs(tmp_path)] == ["FINISHED"]


def test_a_file_that_is_no_database_and_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("This file is a text and not a database of SQLite.")
    line = error_of(cwd=tmp_path)
    assert "(file is not a database); restore it from a backup, or set tracking.uri or tracking=none" in line
    line = error_of(f"tracking.uri=sqlite:///{tmp_path}/mlflow.db/mlflow.db", cwd=tmp_path)
    assert "create its folder and make it writable, or set tracking.uri" in line


def test_a_run_to_start_from_that_does_not_exist_or_has_no_weights(store: Path, tmp_path: Path) -> None:
    uri = damaged(store, tmp_path, "DELETE FROM tags")
    assert f"has no run {'0' * 32}" in error_of(f"init_from={'0' * 32}", cwd=tmp_path)
    with MLflowStore(experiment="nanosq", uri=uri).start("r", params={}, tags={}) as run:
        pass
    assert f"run {run.run_id} has no best.pt in MLflow" in error_of(f"init_from={run.run_id}", cwd=tmp_path)
    damaged(store, tmp_path, "UPDATE alembic_version SET version_num = 'bf29a5ff90ea'")
    assert "mlflow db upgrade" in error_of(f"init_from={run.run_id}", cwd=tmp_path)


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("API request to endpoint /api failed with error code 401 != 200. Response body: ''", "MLFLOW_TRACKING_TOKEN"),
        ("failed with error code 403 != 200. Response body: 'Permission denied'", "ask the owner of the server"),
        ("PERMISSION_DENIED: user has no access", "ask the owner of the server"),
        ("API request to endpoint /api failed with error code 404 != 200", "not the address of an MLflow server"),
        ("failed with exception HTTPConnectionPool(host='h', port=1): Max retries exceeded", "start the server"),
        ("failed with exception SSLError: Max retries exceeded", "MLFLOW_TRACKING_SERVER_CERT_PATH"),
        ('FATAL:  password authentication failed for user "a"', "correct the user and password"),
        ('FATAL:  database "x" does not exist', "create the database"),
        ("[Errno 13] Permission denied: '/srv/mlflow.db.lock'", "make the file and its folder writable"),
        ("database is locked", "wait for it"),
        ("No module named 'MySQLdb'", "install this driver"),
        ("something new", "set --tracking-uri"),
    ],
)
def test_each_cause_has_its_own_advice(message: str, advice: str) -> None:
    explained = explain(RuntimeError(f"{message}\nmore"), "http://h", elsewhere="set --tracking-uri")
    assert explained.startswith(f"({message.split('. ')[0]}); ")
    assert advice in explained.partition("); ")[2]
    assert "\n" not in explained


def test_the_cause_is_that_of_the_driver() -> None:
    driver = sqlite3.OperationalError("attempt to write a readonly database")
    try:
        raise MlflowException("(raised as a result of autoflush)") from OperationalError("INSERT", {}, driver)
    except MlflowException as error:
        explained = explain(error, "sqlite:///x", elsewhere="set tracking.uri")
    assert explained == (
        "(attempt to write a readonly database); make the file and its folder writable, or set tracking.uri"
    )


def test_a_locked_database(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = damaged(store, tmp_path, "DELETE FROM tags")
    monkeypatch.setattr("nanosq.tracking.reach.SECONDS", 0.1)
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ValueError, match=r"database is locked.*wait for it, or set tracking\.uri"):
            MLflowStore(experiment="nanosq", uri=uri).check()
        run = MLflowStore(experiment="nanosq", uri=uri).start("r", params={}, tags={})
        assert not run.run_id
    with run:
        pass
    assert mlflow.MlflowClient(uri).get_run(run.run_id).info.status == "FINISHED"
