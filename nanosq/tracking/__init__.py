"""Where a run is recorded: MLflow, or nowhere."""

import csv
import io
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, cast
from urllib.parse import urlparse

from nanosq.filesystem import SQLITE, database_lock, has_locks
from nanosq.result import Ended, Result

if TYPE_CHECKING:
    from mlflow.entities import Metric, RunInfo

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0  # an open chart follows the run at this pace
CHECKPOINTS, RESUMED_FROM, DIVERGED, PRUNED = "checkpoints", "resumed_from", "diverged", "pruned"  # tags


class Tracker(Protocol):
    """One run: `with tracker.start(...): ...`, whose end tells how the run ended."""

    # Where to look at the run, and at all of them, once it has started; empty where nothing is recorded.
    link: str
    table: str
    run_id: str  # by which it can be taken up again; empty where nothing is recorded

    def start(
        self,
        name: str,
        *,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        run_id: str = "",
        anew: bool = False,
    ) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def log(self, metrics: Mapping[str, float], step: int) -> None: ...
    def tag(self, **tags: str) -> None: ...
    def text(self, text: str, file: str) -> None: ...
    def flush(self) -> None: ...
    def keep(self, path: Path, folder: str) -> bool: ...
    def weights(self, run_id: str) -> Path: ...
    def find(self, tags: Mapping[str, str]) -> Result | None: ...


class NoTracker:
    """Records nothing."""

    link = table = ""
    run_id = ""

    def start(
        self,
        name: str,
        *,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        run_id: str = "",
        anew: bool = False,
    ) -> Self:
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

    def flush(self) -> None:
        pass

    def keep(self, path: Path, folder: str) -> bool:
        return False

    def weights(self, run_id: str) -> Path:
        raise ValueError(f"tracking=none knows no run {run_id}: give the path of a checkpoint")

    def find(self, tags: Mapping[str, str]) -> Result | None:
        return None


class MLflowTracker:
    """One flat MLflow run: flat because the UI hides nested children.

    Metrics are buffered and written in batches: a call to the store costs milliseconds, a step of a small model hardly
    more. Without `uri` the store is MLflow's own choice, so that `mlflow ui` without arguments shows it.
    """

    def __init__(self, *, experiment: str, uri: str | None = None) -> None:
        self.experiment = experiment
        self.uri = uri
        self.link = self.table = ""
        self.run_id = ""  # until it has started
        self._buffer: list[Metric] = []
        self._curves: dict[tuple[int, str], float] = {}  # every point of the run, by step and metric
        self._flushed = 0.0

    def start(
        self,
        name: str,
        *,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        run_id: str = "",
        anew: bool = False,
    ) -> Self:
        """Create a run, or go on with that of `run_id` if the store still has it.

        The tag "checkpoints" names a place that this process has for itself. A run that is RUNNING there is one whose
        process was killed: it is gone on with as well if it has begun as this one does, and marked KILLED if not, or
        where the run begins `anew`.

        ValueError in one line where the store cannot be reached.
        """
        with self._store() as experiment_id:
            import mlflow

            abandoned = self._abandoned(experiment_id, tags)
            if anew:
                run_id = ""
            elif not self._has(run_id, experiment_id):
                same = [each for each, its in abandoned.items() if its.get(RESUMED_FROM) == tags.get(RESUMED_FROM)]
                run_id = same[0] if same else ""
            for each in abandoned:
                if each != run_id:
                    self._client.set_terminated(each, "KILLED")
            try:
                run = mlflow.start_run(run_id=run_id or None, run_name=name, tags=dict(tags))
                if run_id:
                    self._curves = self._points(run)
                if not run.data.params:  # they are written once: MLflow lets none change
                    mlflow.log_params({key: value for key, value in params.items() if value is not None})
            except BaseException as error:
                if mlflow.active_run():
                    mlflow.end_run("FAILED" if isinstance(error, Exception) else "KILLED")
                raise
        self.run_id = run.info.run_id
        self._flushed = time.monotonic()
        self.link = self._link(run.info)
        self.table = f"{self.link.partition('/runs/')[0]}?workflowType=machine_learning"
        return self

    def find(self, tags: Mapping[str, str]) -> Result | None:
        """What the last run that has these tags and was not left half-way has come to; ValueError as for `start`."""
        quotes = {key: '"' if "'" in value else "'" for key, value in tags.items()}
        wanted = [f"tags.{key} = {quotes[key]}{value}{quotes[key]}" for key, value in tags.items()]
        with self._store() as experiment_id:
            found = self._client.search_runs(
                [experiment_id],
                " and ".join([*wanted, "attributes.status = 'FINISHED'"]),
                max_results=1,
                order_by=["attributes.end_time DESC"],
            )
        if not found:
            return None
        (run,) = found
        ended = [state for state in (PRUNED, DIVERGED) if run.data.tags.get(state) == "true"]
        state = cast(Ended, ended[0] if ended else "finished")
        return Result(state, run.data.metrics, run.info.run_id, self._link(run.info))

    def weights(self, run_id: str) -> Path:
        """The checkpoint of the best step of a run, as a local file."""
        uri = self._connect()
        import mlflow

        try:
            if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
                raise ValueError("no such file")  # which asking would create
            return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="checkpoint/best.pt"))
        except Exception as error:  # SQLAlchemy, requests, MLflow
            raise ValueError(f"MLflow store {uri} has no run {run_id} with a checkpoint") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import mlflow

        try:
            self._write()
            rows = io.StringIO()
            points = ((step, key, value) for (step, key), value in self._curves.items())
            csv.writer(rows).writerows([("step", "metric", "value"), *points])
            self.text(rows.getvalue(), "curves.csv")
        except BaseException:
            kind = kind or RuntimeError
            raise
        finally:
            status = "FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED"
            mlflow.end_run(status)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Buffer metrics of a step.

        What is not finite stays out, because MLflow would store inf as 1.8e308; so does what the run had logged before
        it was killed and taken up again at an earlier step.
        """
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = {(step, key): float(value) for key, value in metrics.items()}
        new = {at: value for at, value in points.items() if math.isfinite(value) and at not in self._curves}
        self._buffer += [Metric(key, value, now, step) for (step, key), value in new.items()]
        self._curves |= new
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered: before a checkpoint, so that the run's points up to there are in the store.

        Training outlives a store that is away: the points wait for the next time.
        """
        try:
            self._write()
        except Exception as error:
            logger.warning("%d points wait for the MLflow store: %s", len(self._buffer), str(error).splitlines()[0])
        self._flushed = time.monotonic()

    def _write(self) -> None:
        # 1,000 is the most that one call of MLflow's REST API takes.
        for start in range(0, len(self._buffer), 1000):
            self._client.log_batch(self.run_id, metrics=self._buffer[start : start + 1000])
        self._buffer.clear()

    def tag(self, **tags: str) -> None:
        import mlflow

        mlflow.set_tags(tags)

    def text(self, text: str, file: str) -> None:
        import mlflow

        mlflow.log_text(text, file)

    def keep(self, path: Path, folder: str) -> bool:
        """Copy a file into a folder of the run's artifacts; True, as it is kept there."""
        import mlflow

        mlflow.log_artifact(str(path), folder)
        return True

    @contextmanager
    def _store(self) -> Iterator[str]:
        """The id of the experiment, which is made where it is not there; ValueError where the store has an error."""
        uri = self._connect()
        import mlflow

        try:
            # Processes that start together on a fresh database would all try to create its tables.
            with database_lock(uri) if has_locks(uri) else nullcontext():
                if uri.startswith(SQLITE):
                    _create(Path(uri.removeprefix(SQLITE)))
                self._client = mlflow.MlflowClient()
                experiment_id = mlflow.set_experiment(self.experiment).experiment_id
            yield experiment_id
        except Exception as error:  # whatever the store is made of has raised it: SQLAlchemy, requests, MLflow
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"MLflow store {uri} cannot be used ({reason}); set tracking.uri or use tracking=none"
            ) from error

    def _link(self, info: "RunInfo") -> str:
        import mlflow

        uri = mlflow.get_tracking_uri()
        server = uri if urlparse(uri).scheme in {"http", "https"} else "http://127.0.0.1:5000"
        return f"{server}/#/experiments/{info.experiment_id}/runs/{info.run_id}"

    def _connect(self) -> str:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # no lines about tables it creates
        import mlflow

        if self.uri is not None:
            mlflow.set_tracking_uri(self.uri)
        return mlflow.get_tracking_uri()

    def _has(self, run_id: str, experiment_id: str) -> bool:
        from mlflow.entities import LifecycleStage
        from mlflow.exceptions import MlflowException

        if not run_id:
            return False
        try:
            info = self._client.get_run(run_id).info
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return (info.experiment_id, info.lifecycle_stage) == (experiment_id, LifecycleStage.ACTIVE)

    def _abandoned(self, experiment_id: str, tags: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """The tags of the runs that are RUNNING where this one is."""
        running = self._client.search_runs([experiment_id], "attributes.status = 'RUNNING'")
        here = tags.get(CHECKPOINTS)
        return {run.info.run_id: run.data.tags for run in running if here and run.data.tags.get(CHECKPOINTS) == here}

    def _points(self, run: Any) -> dict[tuple[int, str], float]:
        history = (self._client.get_metric_history(run.info.run_id, key) for key in run.data.metrics)
        points = sorted((point for points in history for point in points), key=lambda point: point.timestamp)
        return {(point.step, point.key): point.value for point in points}


def _create(database: Path) -> None:
    """Make a SQLite store whole or not at all: MLflow cannot go on with tables whose creation was cut short."""
    import mlflow

    if database.exists():
        return
    begun = database.with_name(f"{database.name}.new")
    for left in database.parent.glob(f"{begun.name}*"):  # by a process that was killed; its journal too
        left.unlink()
    mlflow.MlflowClient(f"{SQLITE}{begun}").search_experiments(max_results=1)
    begun.rename(database)
