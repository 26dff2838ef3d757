"""The environment of MLflow, and whether a tracking store can be reached.

That is found out within seconds: MLflow and its drivers try for minutes.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from nanosq.filesystem import check_creatable, check_writable, limit_connecting
from nanosq.privacy import set_defaults
from nanosq.tracking.location import artifact_root, database

POOL = "MLFLOW_SQLALCHEMYSTORE_POOL"  # with other endings: settings of a pool of connections
SECONDS = 5  # until a store that does not answer counts as one that cannot be reached
# A user who sets one of these variables keeps that value.
DEFAULTS = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # else MLflow prints a line for each table it creates
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # By default seven and 120 seconds. A journal keeps what cannot be delivered (nanosq/tracking/journal.py).
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(SECONDS)}
SERVERS = ("postgresql", "mysql", "mssql")


def set_mlflow_environment() -> None:
    """Set the environment of MLflow, which must be done before it is imported."""
    set_defaults()
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    limit_connecting()
    if not any(name.startswith(POOL) for name in os.environ):
        os.environ[f"{POOL}CLASS"] = "NullPool"  # an open connection would write to a database that was deleted
    os.environ.pop("MLFLOW_ACTIVE_MODEL_ID", None)  # else metrics would belong to this model
    logging.getLogger("mlflow.store.db.utils").setLevel("CRITICAL")  # it logs the errors that it raises


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


@contextmanager
def quick_to_fail() -> Iterator[None]:
    """Wait for an answer of a server for seconds only."""
    with environment(**{name: value for name, value in QUICK.items() if os.environ.get(name) == DEFAULTS[name]}):
        yield


def check_reachable(uri: str, *, folder: str | None = None) -> None:
    """Check that a database can be used. A server that answers HTTP is left to its client, which is quick to fail.

    Args:
        uri: Tracking URI.
        folder: Name of the folder of artifacts that runs are to be written to; None: the store is only read.

    Raises:
        OSError: A file or folder cannot be used.
        sqlite3.Error: The file of a SQLite store is no database, or is locked.
        sqlalchemy.exc.SQLAlchemyError: The server of a database cannot be reached.
    """
    file = database(uri)
    if file is not None:
        if file.exists():
            _check_file(file)
        if folder is not None:
            _check_folders(file, folder)
    elif urlsplit(uri).scheme.split("+")[0] in SERVERS:
        import sqlalchemy

        sqlalchemy.create_engine(uri, connect_args={"connect_timeout": SECONDS}).connect().close()


def has_tables(file: Path) -> bool:
    """Return whether a database of SQLite exists and is not empty."""
    return file.exists() and file.stat().st_size > 0


def _check_file(file: Path) -> None:
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder and not a database")
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=SECONDS)) as connection:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()


def _check_folders(file: Path, folder: str) -> None:
    """Raise an OSError if no file can be created where the database and the artifacts are."""
    if file.exists() and not os.access(file, os.W_OK):
        raise PermissionError(f"Permission denied: {file}")
    try:
        check_writable(file)
        check_creatable(artifact_root(file) / folder)
    except ValueError as error:
        raise OSError(str(error)) from error
