"""A tracking server for tests: the application of `mlflow server` in one process, which starts sooner."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from tests.commandline import WARM


@contextmanager
def serve(folder: Path, port: int = 0) -> Iterator[int]:
    """Serve a store in a folder, and yield the port; 0: a free one."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = WARM.Process(target=_serve, args=(folder, port, sender), daemon=True)
    process.start()
    sender.close()  # so that the receiver sees the end of a server that fails
    try:
        assert receiver.poll(timeout=120), "the server did not start"
        yield receiver.recv()
    finally:
        process.kill()
        process.join()


def _serve(folder: Path, port: int, sender: Connection) -> None:
    import logging
    import os

    artifacts = "mlflow-artifacts:/"
    os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = artifacts
    os.environ["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] = str(folder / "artifacts")
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = store = f"sqlite:///{folder}/server.db"
    from mlflow.server import app
    from mlflow.server.handlers import initialize_backend_stores
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    initialize_backend_stores(store, default_artifact_root=artifacts)
    server = make_server("127.0.0.1", port, app, threaded=True)
    sender.send(server.server_port)
    server.serve_forever()
