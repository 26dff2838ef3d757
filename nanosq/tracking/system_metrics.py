"""The load of the machine while a run trains, which MLflow records by itself."""

import logging
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from nanosq.errors import first_line

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

logger = logging.getLogger(__name__)


def start_monitor(run_id: str, uri: str, is_wanted: bool | None) -> "SystemMetricsMonitor | None":
    """Start to record the load of the machine if that is wanted; None: if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING says so.

    Without psutil, which MLflow does not install, the run has a warning and no such metrics.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    try:
        if is_wanted is False or (is_wanted is None and not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get()):
            return None
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        # Else it prints lines for each run, and one for each value that a store does not take.
        logging.getLogger(SystemMetricsMonitor.__module__).setLevel("ERROR")
        monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)
    except Exception as error:  # for example psutil is missing, which MLflow does not install
        setting = "tracking.system_metrics=true" if is_wanted else "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
        install = "" if find_spec("psutil") else " (pip install 'nanosq[system-metrics]')"
        warn_once(f"{setting} has no effect: {first_line(error)}{install}")
        return None
    monitor.start()
    return monitor


@cache  # of all trials of a sweep
def warn_once(message: str) -> None:
    """Log a warning, the same one only once in this process."""
    logger.warning(message)
