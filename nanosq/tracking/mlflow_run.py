"""One run in MLflow. Training writes to its journal, and a thread delivers the journal to the store.

So a call costs the time of a line in a file, and a store that cannot be reached costs training nothing.
"""

import logging
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nanosq.errors import FileError
from nanosq.tracking import Run
from nanosq.tracking.delivery import Delivery
from nanosq.tracking.location import run_link
from nanosq.tracking.system_metrics import start_monitor
from nanosq.tracking.views import charts_link, table_link

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0  # how often the thread delivers, so that an open chart is up to date


class MLflowRun(Run):
    """A run that this process has started or resumed.

    Args:
        delivery: Delivery of its journal.
        monitors_system: Whether to record the load of the machine; None: as MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING says.
    """

    def __init__(self, delivery: Delivery, *, monitors_system: bool | None = None) -> None:
        self._delivery, self._journal = delivery, delivery.journal
        self._monitors_system = monitors_system
        self._monitor: SystemMetricsMonitor | None = None
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._deliver_now_and_then, name="nanosq-delivery", daemon=True)
        self._bug: Exception | None = None  # of the thread
        self._deliver()

    def __enter__(self) -> Self:
        if self.run_id:
            self._monitor = start_monitor(self.run_id, self._delivery.connection.uri, self._monitors_system)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:  # type: ignore[override]
        if self._monitor is not None:
            self._monitor.finish()
        status = "FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED"
        self._is_ending.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._journal.record("end", status=status)
        except FileError:
            self._delivery.fail()
            if kind is None:
                raise
            return
        if self._bug is not None:
            raise self._bug
        self.unrecorded = "" if self._deliver() else str(self._journal.folder)
        if not self.unrecorded:
            self._journal.delete()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of a step. Values that are not finite are left out: MLflow would store inf as 1.8e308."""
        finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
        self._journal.record("metrics", metrics=finite, step=step)

    def summarize(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the metrics of the result: they become the last values of the run. Its curves stay as they are."""
        finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
        self._journal.record("summary", metrics=dict(metrics), points=finite, step=step)

    def model(self, name: str, weights: Path, *, step: int) -> None:
        """Record the run's model. The scores that `summarize` records afterwards are those of this model.

        Args:
            name: Name for people. Characters that MLflow does not accept are replaced.
            weights: The file of its weights, best.pt.
            step: Number of training steps after which it had these weights.
        """
        self._journal.keep(weights)
        self._journal.record("model", name=name, step=step)

    def flush(self) -> None:
        """Make sure that nothing that was recorded can be lost."""
        self._journal.flush()

    def tag(self, **tags: str) -> None:
        """Set tags."""
        self._journal.record("tags", tags=tags)

    def text(self, text: str, file: str) -> None:
        """Store a text as the artifact `file`."""
        self._journal.record("text", text=text, file=file)

    def keep(self, path: Path, folder: str) -> bool:
        """Copy a file into a folder of the artifacts and return True."""
        self._journal.keep(path)
        self._journal.record("file", name=path.name, folder=folder)
        return True

    def _deliver_now_and_then(self) -> None:
        try:
            while not self._is_ending.wait(FLUSH_SECONDS):
                self._deliver()
        except Exception as bug:  # shown at the end of the run, with its traceback
            self._bug = bug

    def _deliver(self) -> bool:
        """Deliver what is pending. Return False, and warn once, where the store has an error."""
        try:
            self._delivery.deliver()
        except Exception as error:
            self._delivery.connection.warn(error)
            return False
        uri, experiment_id = self._delivery.connection.uri, self._delivery.experiment_id
        self.run_id, self.link = self._delivery.run_id, run_link(uri, experiment_id, self._delivery.run_id)
        self.table, self.charts = table_link(uri, experiment_id), charts_link(uri, experiment_id)
        return True
