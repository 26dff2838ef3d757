"""Locations of MLflow stores and artifacts. MLflow records absolute paths, but a folder may be moved or copied."""

import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlencode, urlsplit

from nanosq.filesystem import SQLITE
from nanosq.privacy import link, mask

ARTIFACTS = "mlruns"  # the folder of artifacts beside a SQLite store
# Tables and columns of a store that hold locations of artifacts.
LOCATIONS = (
    *(("experiments", "artifact_location"), ("runs", "artifact_uri")),
    *(("logged_models", "artifact_location"), ("model_versions", "storage_location")),
)
LOCK_SECONDS = 20.0  # as long as MLflow waits for a database that another process writes to


def default_uri() -> str:
    """Return MLFLOW_TRACKING_URI, or the URI of the store that `mlflow ui` opens without arguments."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    # MLflow quotes the working directory in its default, and SQLAlchemy would take "%20" for a part of the name.
    return uri if os.environ.get("MLFLOW_TRACKING_URI") else unquote(uri)


def default_experiment() -> str:
    """Return the name of the experiment if the user gives none."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "nanosq"


def _server(uri: str) -> str:
    return link(uri) if urlsplit(uri).scheme in {"http", "https"} else "http://127.0.0.1:5000"


def experiment_link(uri: str, experiment_id: str, page: str = "", **options: str) -> str:
    """Return a link to a page of an experiment: on the server, or on the one that `mlflow ui` starts."""
    query = urlencode({"workflowType": "machine_learning", **options})  # else MLflow shows its pages for agents
    return f"{_server(uri)}/#/experiments/{experiment_id}{page}?{query}"


def run_link(uri: str, experiment_id: str, run_id: str) -> str:
    """Return a link to the page of a run."""
    return experiment_link(uri, experiment_id, f"/runs/{run_id}")


def registry_link(uri: str, name: str, version: str) -> str:
    """Return a link to the page of a version of a registered model."""
    return f"{_server(uri)}/#/models/{quote(name, safe='')}/versions/{version}"


def database(uri: str) -> Path | None:
    """Return the file of a SQLite store, or None for a server."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def address(uri: str) -> str:
    """Return a tracking URI without passwords, which names the same store in every working folder."""
    file = database(uri)
    return mask(uri) if file is None else f"{SQLITE}{file.resolve()}"


def moved_along(uri: str, recorded: Path, present: Path) -> str:
    """Return the address of a SQLite store that was moved together with a folder, or else its recorded address.

    If the store and the folder are still at their old places, the folder was copied, perhaps without the store.

    Args:
        uri: The recorded address of the store.
        recorded: The recorded path of the folder.
        present: Its path now.
    """
    file, before, now = database(uri), [*recorded.parts], [*present.parts]
    if file is None or (file.exists() and recorded.exists()):
        return uri
    while before and now and before[-1] == now[-1]:
        before.pop()
        now.pop()
    if not now or not file.is_relative_to(old := Path(*before)):
        return uri
    moved = Path(*now) / file.relative_to(old)
    return f"{SQLITE}{moved}" if moved.exists() else uri


def artifact_root(database: Path) -> Path:
    """Return the absolute path of the folder for the artifacts of a SQLite store."""
    return database.resolve().parent / ARTIFACTS


def located(uri: str, recorded: str) -> str:
    """Return where artifacts are, of which the store `uri` has recorded the location.

    A SQLite store may have been moved or copied together with its artifacts. Those of a server, on other storage or in
    a folder that the user has chosen are where they were.
    """
    file = database(uri)
    folder, found, rest = recorded.rpartition(f"/{ARTIFACTS}/")
    if file is None or not found or not folder.startswith("/"):
        return recorded
    beside = artifact_root(file) / rest
    is_moved = not Path(folder).exists() and artifact_root(file).exists()
    return str(beside) if beside.exists() or is_moved else recorded


def relocate(uri: str) -> None:
    """Correct the absolute paths in a SQLite store that was moved or copied.

    Otherwise new runs of a moved store would write to its old folder, and those of a copy to the original. MLflow has
    no function for this. Afterwards `mlflow ui` finds the artifacts too.

    Raises:
        sqlite3.Error: The store cannot be used.
    """
    file = database(uri)
    if file is None or not file.exists():
        return
    with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as connection, connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'logged_models'").fetchone():
            return  # MLflow has not created its tables yet, or an older version has, which `connect` reports
        new = str(file.resolve().parent)
        recorded = [location for (location,) in connection.execute("SELECT artifact_location FROM experiments")]
        moved = [location for location in recorded if located(uri, location) != location]
        for old in {location.rpartition(f"/{ARTIFACTS}/")[0] for location in moved}:
            if os.path.realpath(old) != new:
                _replace_folder(connection, old, new)


def _replace_folder(connection: sqlite3.Connection, old: str, new: str) -> None:
    """Replace a folder at the beginning of recorded paths: of artifacts and, after the host, of checkpoints."""
    artifacts = {"old": f"{old}/{ARTIFACTS}/", "new": f"{new}/{ARTIFACTS}/"}
    for table, column in LOCATIONS:
        connection.execute(
            f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1)"
            f" WHERE substr({column}, 1, length(:old)) = :old",
            artifacts,
        )
    connection.execute(
        "UPDATE tags SET value = :host || :new || substr(value, instr(value, ':') + length(:old) + 1)"
        " WHERE key = 'checkpoints' AND substr(value, instr(value, ':') + 1, length(:old)) = :old",
        {"old": f"{old}/", "new": f"{new}/", "host": f"{socket.gethostname()}:"},
    )
