"""Where a run is recorded: MLflow, or nowhere."""

import csv
import io
import math
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import urlparse

from filelock import FileLock

if TYPE_CHECKING:
    from mlflow.entities import Metric

FLUSH_SECONDS = 5.0  # an open chart follows the run at this pace


class Tracker(Protocol):
    """One run: `with tracker.start(...): ...`, whose end tells how the run ended."""

    link: str | None  # where to look at the run, once it has started

    def start(self, name: str, *, params: Mapping[str, object], tags: Mapping[str, str]) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def log(self, metrics: Mapping[str, float], step: int) -> None: ...
    def tag(self, **tags: str) -> None: ...
    def text(self, text: str, file: str) -> None: ...
    def keep(self, path: Path, folder: str) -> None: ...


class NoTracker:
    """Records nothing."""

    link = None

    def start(self, name: str, *, params: Mapping[str, object], tags: Mapping[str, str]) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        pass

    def tag(self, **tags: str) -> None:
        pass

    def text(self, text: str, file: str) -> None:
        pass

    def keep(self, path: Path, folder: str) -> None:
        pass


class MLflowTracker:
    """One flat MLflow run: flat because the UI hides nested children.

    Metrics are buffered and written in batches: a call to the store costs milliseconds, a step of a small model hardly
    more. Without `uri` the store is MLflow's own choice, so that `mlflow ui` without arguments shows it.
    """

    def __init__(self, *, experiment: str, uri: str | None = None) -> None:
        self.experiment = experiment
        self.uri = uri
        self.link: str | None = None
        self._buffer: list[Metric] = []
        self._curves: list[tuple[int, str, float]] = []
        self._flushed = 0.0

    def start(self, name: str, *, params: Mapping[str, object], tags: Mapping[str, str]) -> Self:
        """Create the run; ValueError in one line where the store cannot be reached."""
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # no lines about tables it creates
        import mlflow

        if self.uri is not None:
            mlflow.set_tracking_uri(self.uri)
        uri = mlflow.get_tracking_uri()
        try:
            with _creation_lock(uri):
                experiment_id = mlflow.set_experiment(self.experiment).experiment_id
            run = mlflow.start_run(run_name=name, tags=dict(tags))
            mlflow.log_params({key: value for key, value in params.items() if value is not None})
        except Exception as error:  # whatever the store is made of: SQLAlchemy, requests, MLflow
            if mlflow.active_run():
                mlflow.end_run("FAILED")
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"MLflow store {uri} cannot be used ({reason}); set tracking.uri or use tracking=none"
            ) from error
        self._client = mlflow.MlflowClient()
        self._run_id = run.info.run_id
        self._flushed = time.monotonic()
        server = uri if urlparse(uri).scheme in {"http", "https"} else "http://127.0.0.1:5000"
        self.link = f"{server}/#/experiments/{experiment_id}?workflowType=machine_learning"
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import mlflow

        self._flush()
        rows = io.StringIO()
        csv.writer(rows).writerows([("step", "metric", "value"), *self._curves])
        self.text(rows.getvalue(), "curves.csv")
        if kind is None:
            mlflow.end_run("FINISHED")
        else:
            mlflow.end_run("FAILED" if issubclass(kind, Exception) else "KILLED")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Buffer metrics of a step; what is not finite stays out, because MLflow would store inf as 1.8e308."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
        self._buffer += [Metric(key, value, now, step) for key, value in finite.items()]
        self._curves += [(step, key, value) for key, value in finite.items()]
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def tag(self, **tags: str) -> None:
        import mlflow

        mlflow.set_tags(tags)

    def text(self, text: str, file: str) -> None:
        import mlflow

        mlflow.log_text(text, file)

    def keep(self, path: Path, folder: str) -> None:
        """Move a file into a folder of the run's artifacts."""
        import mlflow

        mlflow.log_artifact(str(path), folder)
        path.unlink()

    def _flush(self) -> None:
        # 1,000 is the most that one call of MLflow's REST API takes.
        for start in range(0, len(self._buffer), 1000):
            self._client.log_batch(self._run_id, metrics=self._buffer[start : start + 1000])
        self._buffer.clear()
        self._flushed = time.monotonic()


def _creation_lock(uri: str) -> AbstractContextManager[object]:
    """Processes that start together on a fresh SQLite file would all try to create its tables."""
    prefix = "sqlite:///"
    return FileLock(f"{uri.removeprefix(prefix)}.lock") if uri.startswith(prefix) else nullcontext()
