"""Tracking stores that cannot be reached or used, told before the text is prepared. At most 10 seconds each."""

import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.bad_input import PASSWORD, Case
from tests.commandline import provide_store

SILENT = socket.create_server(("127.0.0.1", 0))  # accepts connections and never answers
SILENT_URI = f"http://user:{PASSWORD}@127.0.0.1:{SILENT.getsockname()[1]}"
RUN = "0" * 32


def folder(name: str) -> Callable[[Path], None]:
    return lambda place: (place / name).mkdir(parents=True)


def text(name: str) -> Callable[[Path], None]:
    def prepare(place: Path) -> None:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("This file is a text and not a database of SQLite.")

    return prepare


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("CREATE TABLE a (b)")
connection.execute("BEGIN EXCLUSIVE")
print(flush=True)
sys.stdin.read()
"""


def locked(place: Path) -> None:
    """Let another process lock a database until this process ends."""
    command = [sys.executable, "-c", LOCK, str(place / "mlflow.db")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    LOCKS.append(process)


def deleted_experiment(place: Path) -> None:
    """Create a store whose experiment is deleted."""
    provide_store(place)
    with closing(sqlite3.connect(place / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE experiments SET lifecycle_stage = 'deleted', name = 'nanosq'")


LOCKS: list[subprocess.Popen[bytes]] = []
URIS = [
    (f"http://user:{PASSWORD}@127.0.0.1:9", "start the server or correct its address"),
    ("https://127.0.0.1:9", "start the server or correct its address"),
    ("http://host.invalid", "start the server or correct its address"),
    ("foo://bar", "a store begins with sqlite:///"),
    ("127.0.0.1:5000", "tracking.uri"),
    ("mlruns", "mlflow migrate-filestore"),
    (f"postgresql+psycopg://user:{PASSWORD}@127.0.0.1:9/mlflow", "start the server or correct its address"),
    ("mysql+none://127.0.0.1/mlflow", "tracking.uri"),
    ("sqlite:///nowhere/mlflow.db", "there is no folder nowhere); create its folder"),
    ("sqlite:///text.txt/mlflow.db", "there is no folder text.txt); create its folder"),
    ("sqlite:////proc/mlflow.db", "/proc"),
]
CASES = [
    *(Case(f"run.py tracking.uri='{uri}'", says) for uri, says in URIS),
    Case("run.py seed=3", "start the server", variables={"MLFLOW_TRACKING_URI": SILENT_URI}),
    Case("run.py", "mlflow.db is a folder", folder("mlflow.db")),
    Case("run.py seed=1", "file is not a database", text("mlflow.db")),
    Case("run.py seed=2", "database is locked", locked),
    Case("run.py tracking.experiment=nanosq", "mlflow experiments restore", deleted_experiment),
    Case("run.py tracking.experiment=''", "tracking.experiment"),
    Case("run.py 'tracking.experiment=\" \"'", "tracking.experiment"),
    Case(f"run.py tracking.experiment={'a' * 501}", "at most 500 characters"),
    Case("run.py train.max_steps=5", "mlruns", text("mlruns")),
    Case("run.py train.max_steps=6", "mlruns/nanosq", text("mlruns/nanosq")),
    Case(f"run.py init_from={RUN}", f"has no run {RUN}"),
    Case(f"run.py resume={RUN} tracking.uri=http://127.0.0.1:9", "start the server"),
    Case(f"run.py -m seed=1,2 tracking.uri=http://user:{PASSWORD}@127.0.0.1:9", "start the server"),
    Case("run.py -m hydra/sweeper=optuna hydra.sweeper.n_trials=1", "mlflow.db is a folder", folder("mlflow.db")),
    Case("run.py -m seed=1,2", "mlruns", text("mlruns")),
    Case(f"analysis.report --tracking-uri http://user:{PASSWORD}@127.0.0.1:9", "start the server"),
    Case("analysis.report", "mlflow.db is a folder", folder("mlflow.db")),
    Case("analysis.report --show a", "file is not a database", text("mlflow.db")),
    Case("analysis.report.compare a b --tracking-uri foo://bar", "a store begins with"),
    Case(f"nanosq.generate {RUN} --tracking-uri http://127.0.0.1:9", "start the server"),
    Case(f"nanosq.generate {RUN}", "mlflow.db is a folder", folder("mlflow.db")),
    Case(f"nanosq.evaluate {RUN} --data text.txt --tracking-uri foo://bar", "a store begins with"),
    Case(f"nanosq.register {RUN} name --tracking-uri http://127.0.0.1:9", "start the server"),
    Case("nanosq.sync nowhere", "there is no folder nowhere"),
    Case("nanosq.sync text.txt", "there is no folder text.txt"),
    Case("nanosq.sync ''", "is empty"),
    Case("nanosq.sync --tracking-uri ''", "--tracking-uri: is empty"),
]
