"""Runs in MLflow: one flat run for each training, because MLflow's page hides nested runs."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlparse

from nanosq.errors import first_line
from nanosq.filesystem import SQLITE, database_lock, has_locks
from nanosq.privacy import link, mask, set_defaults
from nanosq.result import Ended, Result
from nanosq.tracking import Store
from nanosq.tracking.mlflow_run import MLflowRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run, RunInfo

QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
CHECKPOINTS, RESUMED_FROM, DIVERGED, PRUNED = "checkpoints", "resumed_from", "diverged", "pruned"  # tags


class MLflowStore(Store):
    """An experiment of an MLflow tracking store.

    Args:
        experiment: Name of the experiment. It is created if it does not exist.
        uri: Tracking URI. By default MLFLOW_TRACKING_URI, or the store that `mlflow ui` opens without arguments.
    """

    def __init__(self, *, experiment: str, uri: str | None = None) -> None:
        self._experiment = experiment
        self._uri = uri

    def find(self, tags: Mapping[str, str]) -> Result | None:
        """Return the result of the last finished run that has these tags, or None."""
        with self._connected() as (client, experiment_id):
            runs = client.search_runs(
                [experiment_id],
                _filter("FINISHED", tags),
                max_results=1,
                order_by=["attributes.end_time DESC"],
            )
        if not runs:
            return None
        run = runs[0]
        endings = [tag for tag in (PRUNED, DIVERGED) if run.data.tags.get(tag) == "true"]
        state = cast(Ended, endings[0] if endings else "finished")
        return Result(state, run.data.metrics, run.info.run_id, _link(run.info))

    def weights(self, run_id: str) -> Path:
        """Return a local file with the weights of the best step of a run."""
        uri = self._set_uri()
        import mlflow

        try:
            if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
                raise ValueError("no such file")  # MLflow would create the file
            with _quick_to_fail():
                mlflow.get_run(run_id)
            return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="checkpoint/best.pt"))
        except Exception as error:  # SQLAlchemy, requests and MLflow raise errors of their own
            raise ValueError(f"MLflow store {mask(uri)} has no run {run_id} with a checkpoint") from error

    def start(
        self,
        name: str,
        *,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        run_id: str = "",
        is_new: bool = False,
    ) -> MLflowRun:
        """Start a run, or resume one.

        This process holds the checkpoint folder that the tag "checkpoints" names. A run with the same tag that is still
        RUNNING therefore belongs to a killed process. Resume it if it was resumed from the same run as this one;
        otherwise mark it KILLED.

        Raises:
            ValueError: The store cannot be used.
        """
        with self._connected() as (client, experiment_id):
            import mlflow

            abandoned = _abandoned(client, experiment_id, tags)
            if is_new:
                run_id = ""
            elif not _is_active(client, run_id, experiment_id):
                origin = tags.get(RESUMED_FROM)
                run_id = next((run for run, its_tags in abandoned.items() if its_tags.get(RESUMED_FROM) == origin), "")
            for abandoned_id in abandoned.keys() - {run_id}:
                client.set_terminated(abandoned_id, "KILLED")
            try:
                run = mlflow.start_run(run_id=run_id or None, run_name=name, tags=dict(tags))
                points = _points(client, run) if run_id else {}
                if not run.data.params:  # MLflow lets no parameter change
                    mlflow.log_params({key: value for key, value in params.items() if value is not None})
            except BaseException as error:
                if mlflow.active_run():
                    mlflow.end_run("FAILED" if isinstance(error, Exception) else "KILLED")
                raise
        return MLflowRun(client, run.info.run_id, link=_link(run.info), points=points)

    @contextmanager
    def _connected(self) -> "Iterator[tuple[MlflowClient, str]]":
        """Yield a client and the id of the experiment. Raise a ValueError where the store has an error."""
        uri = self._set_uri()
        import mlflow

        try:
            # Processes that start together on a new database would all try to create its tables.
            with database_lock(uri) if has_locks(uri) else nullcontext():
                if uri.startswith(SQLITE):
                    _create(Path(uri.removeprefix(SQLITE)))
                client = mlflow.MlflowClient()
                with _quick_to_fail():
                    experiment_id = mlflow.set_experiment(self._experiment).experiment_id
            yield client, experiment_id
        except Exception as error:  # SQLAlchemy, requests and MLflow raise errors of their own
            reason = first_line(error)
            message = f"MLflow store {mask(uri)} cannot be used ({reason}); set tracking.uri or use tracking=none"
            raise ValueError(message) from error

    def _set_uri(self) -> str:
        set_defaults()
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # else MLflow prints a line for each table it creates
        import mlflow

        if self._uri is not None:
            mlflow.set_tracking_uri(self._uri)
        return mlflow.get_tracking_uri()


@contextmanager
def _quick_to_fail() -> Iterator[None]:
    """Give up soon on a server that does not answer: MLflow tries for minutes, which suits a run that has started."""
    added = {name: value for name, value in QUICK.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _link(info: "RunInfo") -> str:
    import mlflow

    uri = mlflow.get_tracking_uri()
    server = link(uri) if urlparse(uri).scheme in {"http", "https"} else "http://127.0.0.1:5000"
    return f"{server}/#/experiments/{info.experiment_id}/runs/{info.run_id}"


def _is_active(client: "MlflowClient", run_id: str, experiment_id: str) -> bool:
    """Return whether the experiment has this run and the run is not deleted."""
    from mlflow.entities import LifecycleStage
    from mlflow.exceptions import MlflowException

    if not run_id:
        return False
    try:
        info = client.get_run(run_id).info
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return (info.experiment_id, info.lifecycle_stage) == (experiment_id, LifecycleStage.ACTIVE)


def _abandoned(client: "MlflowClient", experiment_id: str, tags: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the tags, by run id, of the RUNNING runs that have the same checkpoint folder."""
    folder = tags.get(CHECKPOINTS)
    running = client.search_runs([experiment_id], _filter("RUNNING", {CHECKPOINTS: folder})) if folder else []
    return {run.info.run_id: run.data.tags for run in running}


def _filter(status: str, tags: Mapping[str, str]) -> str:
    """Return the filter for runs that have this status and these tags."""
    quotes = {key: '"' if "'" in value else "'" for key, value in tags.items()}
    conditions = [f"tags.{key} = {quotes[key]}{value}{quotes[key]}" for key, value in tags.items()]
    return " and ".join([*conditions, f"attributes.status = '{status}'"])


def _points(client: "MlflowClient", run: "Run") -> dict[tuple[int, str], float]:
    """Return the last value of every metric of a run at every step."""
    history = (client.get_metric_history(run.info.run_id, key) for key in run.data.metrics)
    points = sorted((point for points in history for point in points), key=lambda point: point.timestamp)
    return {(point.step, point.key): point.value for point in points}


def _create(database: Path) -> None:
    """Create a SQLite store completely or not at all: MLflow cannot continue an interrupted creation of its tables."""
    import mlflow

    if database.exists():
        return
    partial = database.with_name(f"{database.name}.new")
    for suffix in ("", "-journal", "-wal", "-shm"):  # of a process that was killed
        partial.with_name(f"{partial.name}{suffix}").unlink(missing_ok=True)
    mlflow.MlflowClient(f"{SQLITE}{partial}").search_experiments(max_results=1)
    partial.rename(database)
