"""Connections to MLflow stores: checked within seconds, created where they are missing, with errors explained."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nanosq.errors import InputError
from nanosq.filesystem import SQLITE, database_lock, file_name, has_locks
from nanosq.imports import quick_imports
from nanosq.privacy import mask
from nanosq.tracking import views
from nanosq.tracking.location import address, artifact_root, database, default_uri, relocate
from nanosq.tracking.reach import check_reachable, has_tables, quick_to_fail, set_mlflow_environment
from nanosq.tracking.store_errors import explain, is_of_store, reason

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

logger = logging.getLogger(__name__)


class Connection:
    """A connection to an experiment of a store.

    Args:
        uri: Tracking URI; None: MLFLOW_TRACKING_URI, or the store that `mlflow ui` opens without arguments.
        experiment: Name of the experiment.
    """

    def __init__(self, uri: str | None, experiment: str) -> None:
        self._uri, self.experiment = uri, experiment
        self._opened: tuple[int, int] | None = None  # identity of a SQLite database
        self._is_away = False

    @property
    def uri(self) -> str:
        """The tracking URI."""
        set_mlflow_environment()
        with quick_imports():
            return self._uri or default_uri()

    @property
    def address(self) -> str:
        """The tracking URI as journals have it."""
        return address(self.uri)

    def check(self) -> None:
        """Check that runs can be recorded, without writing anything but the tables of a database on a server.

        Raises:
            ValueError: They cannot, or the store does not answer within seconds.
        """
        uri = self.uri
        with self.explained(), quick_to_fail():
            check_reachable(uri, folder=self._folder)
            file = database(uri)
            if file is None or has_tables(file):
                self._find(_client(uri))

    def open(self) -> "tuple[MlflowClient, str]":
        """Return a client and the id of the experiment. Create what is missing."""
        uri = self.uri
        with quick_imports(), quick_to_fail():
            check_reachable(uri, folder=self._folder)
            create_database(uri)
            client = connect(uri)
            experiment_id = self._find_or_create(client)
        self._opened, self._is_away = _identity(database(uri)), False
        return client, experiment_id

    def existing(self) -> "MlflowClient | None":
        """Return a client, or None if the store is a database that does not exist: MLflow would create it."""
        uri = self.uri
        file = database(uri)
        if file is not None and not file.exists():
            return None
        with quick_to_fail():
            check_reachable(uri)
            return connect(uri)

    @property
    def file(self) -> Path | None:
        """The file of a SQLite store, or None for a server."""
        return database(self.uri)

    def has_lost_database(self) -> bool:
        """Return whether the file of a SQLite store is another one than that which was opened."""
        return _identity(self.file) != self._opened

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn an error of the store in the block into a ValueError that says what to do about it."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            if not is_of_store(error):
                raise
            raise ValueError(self.explanation(error)) from error

    def explanation(self, error: BaseException) -> str:
        """Return the sentence that says what to do about an error of the store before a run."""
        if isinstance(error, InputError):
            return str(error)
        advice = explain(error, self.uri, elsewhere="set tracking.uri or tracking=none")
        return mask(f"MLflow store {self.uri} cannot be used {advice}")

    def warn(self, error: Exception, folder: Path) -> None:
        """Log an error of the store during a run in one line, once in an outage. A mistake in this package is raised.

        Args:
            error: The error.
            folder: Folder of the journal, or the checkpoint folder, which keeps what the store does not receive.
        """
        if not is_of_store(error):
            raise error
        if not self._is_away:
            cannot = mask(f"MLflow store {self.uri} cannot be used ({reason(error)})")
            logger.warning("%s: training goes on, and %s keeps the run until the store answers", cannot, folder)
        self._is_away = True

    @property
    def _folder(self) -> str:
        return file_name(self.experiment)

    def _find(self, client: "MlflowClient") -> "Experiment | None":
        """Return the experiment, or None if there is none.

        Raises:
            ValueError: The experiment is deleted.
        """
        from mlflow.entities import LifecycleStage

        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is not None and experiment.lifecycle_stage != LifecycleStage.ACTIVE:
            restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
            raise InputError(
                f"MLflow experiment {self.experiment!r} is deleted: restore it with"
                f" `MLFLOW_TRACKING_URI={mask(client.tracking_uri)} {restore}`, or set another tracking.experiment"
            )
        return experiment

    def _find_or_create(self, client: "MlflowClient") -> str:
        """Return the id of the experiment."""
        from mlflow.exceptions import MlflowException

        experiment = self._find(client)
        if experiment is None:
            try:
                file = database(client.tracking_uri)  # the artifacts of a SQLite store lie beside it
                folder = None if file is None else str(artifact_root(file) / self._folder)
                return client.create_experiment(self.experiment, artifact_location=folder, tags=views.TAGS)
            except MlflowException:  # another process may have created it
                experiment = self._find(client)
                if experiment is None:
                    raise
        experiment_id = str(experiment.experiment_id)
        for key, value in views.TAGS.items():
            if experiment.tags.get(key) != value:  # of an older version of this program
                with suppress(MlflowException):  # the server may not allow it
                    client.set_experiment_tag(experiment_id, key, value)
        return experiment_id


def connect(uri: str) -> "MlflowClient":
    """Return a client of a store."""
    relocate(uri)
    return _client(uri)


def _client(uri: str) -> "MlflowClient":
    import mlflow

    needs_lock = database(uri) is None and has_locks(uri)
    # Processes that start together on a new database of a server would all try to create its tables.
    with database_lock(uri) if needs_lock else nullcontext():
        return mlflow.MlflowClient(uri, registry_uri=uri)


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
    if file is None or has_tables(file):
        return
    partial = file.with_name(f"{file.name}.new")
    with database_lock(uri):
        if has_tables(file):  # another process has created it meanwhile
            return
        for suffix in ("", "-journal", "-wal", "-shm"):  # of a process that was killed
            partial.with_name(f"{partial.name}{suffix}").unlink(missing_ok=True)
        SqlAlchemyStore(f"{SQLITE}{partial}", str(artifact_root(file)))
        partial.rename(file)


def _identity(file: Path | None) -> tuple[int, int] | None:
    """Return device and inode of a file, or None if it does not exist."""
    if file is None or not file.exists():
        return None
    status = file.stat()
    return status.st_dev, status.st_ino
