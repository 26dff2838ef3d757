"""Connections to MLflow stores, which create what is missing and explain errors."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from nanosq.errors import InputError
from nanosq.filesystem import SQLITE
from nanosq.privacy import mask
from nanosq.tracking import views
from nanosq.tracking.location import artifact_root, database, relocate
from nanosq.tracking.store_errors import explain

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn an error of the store `uri` in the block into a ValueError that says what to do about it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # SQLAlchemy, requests and MLflow raise errors of their own
        advice = explain(error, uri, elsewhere="set tracking.uri or tracking=none")
        raise ValueError(mask(f"MLflow store {uri} cannot be used {advice}")) from error


def connect(uri: str) -> "MlflowClient":
    """Return a client of a store."""
    import mlflow

    relocate(uri)
    return mlflow.MlflowClient(uri, registry_uri=uri)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables in the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def quick_to_fail() -> AbstractContextManager[None]:
    """Give up soon on a server that does not answer: MLflow tries for minutes, which suits a run that has started."""
    return environment(**{name: value for name, value in QUICK.items() if name not in os.environ})


def find_run(client: "MlflowClient", run_id: str) -> "Run | None":
    """Return a run, or None if the store does not have it."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def create_database(uri: str) -> None:
    """Create a SQLite store completely or not at all: MLflow cannot continue an interrupted creation of its tables."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file = database(uri)
    if file is None or file.exists():
        return
    partial = file.with_name(f"{file.name}.new")
    for suffix in ("", "-journal", "-wal", "-shm"):  # of a process that was killed
        partial.with_name(f"{partial.name}{suffix}").unlink(missing_ok=True)
    SqlAlchemyStore(f"{SQLITE}{partial}", str(artifact_root(file)))
    partial.rename(file)


def find_or_create_experiment(client: "MlflowClient", name: str) -> str:
    """Return the id of an experiment.

    Raises:
        ValueError: The experiment is deleted.
    """
    from mlflow.entities import LifecycleStage
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            file = database(client.tracking_uri)  # the artifacts of a SQLite store lie beside it
            folder = None if file is None else str(artifact_root(file) / name)
            return client.create_experiment(name, artifact_location=folder, tags=views.TAGS)
        except MlflowException:  # another process may have created it
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        raise InputError(
            f"MLflow experiment {name!r} is deleted: restore it with"
            f" `MLFLOW_TRACKING_URI={mask(client.tracking_uri)} {restore}`, or set another tracking.experiment"
        )
    experiment_id = str(experiment.experiment_id)
    for key, value in views.TAGS.items():
        if experiment.tags.get(key) != value:  # of an older version of this program
            with suppress(MlflowException):  # the server may not allow it
                client.set_experiment_tag(experiment_id, key, value)
    return experiment_id
