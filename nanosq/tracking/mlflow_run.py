"""One run in MLflow. Metrics are buffered, because a call to the store takes as long as a step of a small model."""

import csv
import io
import logging
import math
import time
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nanosq.errors import first_line
from nanosq.tracking import Run
from nanosq.tracking.location import run_link
from nanosq.tracking.run_model import RunModel
from nanosq.tracking.views import charts_link, table_link

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0  # how often `log` writes, so that an open chart is up to date
MAX_POINTS = 1000  # in one call of MLflow's REST API
STATE = "state"  # tag: MLflow knows a run that was pruned or diverged as finished


class MLflowRun(Run):
    """A run that this process has started or resumed.

    Args:
        client: Client of the store.
        run_id: Id of the run.
        experiment_id: Id of the experiment of the run.
        points: Values that the run has logged before it was resumed, by step and metric.
        model: Its model, which need not exist yet.
        monitors_system: Whether to record the load of the machine; None: as MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING says.
    """

    def __init__(
        self,
        client: "MlflowClient",
        run_id: str,
        *,
        experiment_id: str,
        points: Mapping[tuple[int, str], float],
        model: RunModel,
        monitors_system: bool | None = None,
    ) -> None:
        self.run_id = run_id
        self.link = run_link(client.tracking_uri, experiment_id, run_id)
        self.table = table_link(client.tracking_uri, experiment_id)
        self.charts = charts_link(client.tracking_uri, experiment_id)
        self._client, self._experiment_id = client, experiment_id
        self._model, self._monitors_system = model, monitors_system
        self._state = ""  # as a tag has set it
        self._points = dict(points)
        self._buffer: list[Metric] = []
        self._flushed = time.monotonic()
        self._monitor: SystemMetricsMonitor | None = None

    def __enter__(self) -> Self:
        self._monitor = start_monitor(self.run_id, self._client.tracking_uri, self._monitors_system)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:  # type: ignore[override]
        try:
            if self._monitor is not None:
                self._monitor.finish()
            self._write()
            curves = io.StringIO()
            rows = ((step, metric, value) for (step, metric), value in self._points.items())
            csv.writer(curves).writerows([("step", "metric", "value"), *rows])
            self.text(curves.getvalue(), "curves.csv")
            if kind is None:
                self._model.finish(self._client, self.run_id)
        except BaseException:
            kind = kind or RuntimeError
            raise
        finally:
            status = "FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED"
            end(self._client, self.run_id, status, self._state if kind is None else "")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of a step.

        Values that are not finite are left out, because MLflow stores inf as 1.8e308. Values that the run has logged
        before it was killed and resumed at an earlier step are not logged again.
        """
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = {(step, key): float(value) for key, value in metrics.items()}
        new = {key: value for key, value in values.items() if math.isfinite(value) and key not in self._points}
        self._buffer += [Metric(key, value, now, step) for (step, key), value in new.items()]
        self._points |= new
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def summarize(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the metrics of the result: they become the last values of the run. Its curves stay as they are."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for key, value in metrics.items():
            of_model = self._model.of(key)  # the last evaluation may have recorded this value, but not for the model
            if math.isfinite(value) and (of_model or self._points.get((step, key)) != value):
                self._buffer.append(Metric(key, value, now, step, **of_model))
                self._points.setdefault((step, key), value)

    def model(self, name: str, weights: Path, *, step: int) -> None:
        """Record the run's model. The scores that `summarize` records afterwards are those of this model.

        Args:
            name: Name for people. Characters that MLflow does not accept are replaced.
            weights: The file of its weights, best.pt. It is read at the end of the run.
            step: Number of training steps after which it had these weights.
        """
        self._model.create(self._client, self.run_id, self._experiment_id, name=name, weights=weights, step=step)

    def flush(self) -> None:
        """Write what is buffered. If the store cannot be reached, training continues and the next flush tries again."""
        try:
            self._write()
        except Exception as error:
            reason = first_line(error)
            logger.warning("the MLflow store cannot be reached, %d values wait: %s", len(self._buffer), reason)
        self._flushed = time.monotonic()

    def tag(self, **tags: str) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        self._state = tags.get(STATE, self._state)
        self._client.log_batch(self.run_id, tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)

    def text(self, text: str, file: str) -> None:
        """Store a text as the artifact `file`."""
        self._client.log_text(self.run_id, text, file)

    def keep(self, path: Path, folder: str) -> bool:
        """Copy a file into a folder of the artifacts and return True."""
        self._client.log_artifact(self.run_id, str(path), folder)
        return True

    def _write(self) -> None:
        for start in range(0, len(self._buffer), MAX_POINTS):
            metrics = self._buffer[start : start + MAX_POINTS]
            self._client.log_batch(self.run_id, metrics=metrics, synchronous=True)
        self._buffer.clear()


def end(client: "MlflowClient", run_id: str, status: str, state: str = "") -> None:
    """Record how a run ended: its status and, for people, its state, by default the same word."""
    client.set_tag(run_id, STATE, state or status.lower())
    client.set_terminated(run_id, status)


def start_monitor(run_id: str, uri: str, is_wanted: bool | None) -> "SystemMetricsMonitor | None":
    """Start to record the load of the machine if that is wanted; None: if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING says so.

    Without psutil, which MLflow does not install, the run has a warning and no such metrics.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    try:
        if is_wanted is False or (is_wanted is None and not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get()):
            return None
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        logging.getLogger(SystemMetricsMonitor.__module__).setLevel("WARNING")  # else it prints lines for each run
        monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)
    except Exception as error:  # for example psutil is missing, which MLflow does not install
        setting = "tracking.system_metrics=true" if is_wanted else "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
        install = "" if find_spec("psutil") else " (pip install 'nanosq[system-metrics]')"
        _warn_once(f"{setting} has no effect: {first_line(error)}{install}")
        return None
    monitor.start()
    return monitor


@cache  # of all trials of a sweep
def _warn_once(message: str) -> None:
    logger.warning(message)
