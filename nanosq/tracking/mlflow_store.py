"""Runs in MLflow: one flat run for each training, because MLflow's page hides nested runs."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nanosq.errors import InputError, first_line
from nanosq.filesystem import database_lock, has_locks
from nanosq.imports import quick_imports
from nanosq.privacy import mask, set_defaults
from nanosq.result import Ended, Result
from nanosq.tracking import RecordedData, Store
from nanosq.tracking.connection import connect, create_database, explained, find_or_create_experiment
from nanosq.tracking.creation import create_run, log_data, quoted
from nanosq.tracking.location import database, default_experiment, default_uri, run_link
from nanosq.tracking.mlflow_run import STATE, MLflowRun, end

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
CHECKPOINTS, DIVERGED, PRUNED = "checkpoints", "diverged", "pruned"  # tags
NOTE = "mlflow.note.content"  # tag: the description that MLflow shows
TRIAL = ("sweep", "trial")  # tags of a run of a sweep
IDENTITY = ("config_hash", "code", "text", "resumed_from")  # tags that runs of one training share


class MLflowStore(Store):
    """An experiment of an MLflow tracking store.

    MLflow's active run and experiment are not used, so that MLFLOW_RUN_ID and the like have no effect.

    Args:
        experiment: Name of the experiment, by default MLFLOW_EXPERIMENT_NAME or nanosq. It is created if it does not
            exist.
        uri: Tracking URI, by default MLFLOW_TRACKING_URI or the store that `mlflow ui` opens without arguments.
    """

    def __init__(self, *, experiment: str | None = None, uri: str | None = None) -> None:
        self._experiment = experiment or default_experiment()
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
        return Result(
            state, run.data.metrics, run.info.run_id, run_link(client.tracking_uri, experiment_id, run.info.run_id)
        )

    def parameters(self, run_id: str) -> Mapping[str, str]:
        """Return the parameters of a run, as texts by their name."""
        with self._recorded(run_id) as (_, run):
            return run.data.params

    def facts(self, run_id: str) -> tuple[Mapping[str, str], Mapping[str, float]]:
        """Return the tags and the last values of the metrics of a run, by name."""
        with self._recorded(run_id) as (_, run):
            return run.data.tags, run.data.metrics

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Return the steps and values of a metric, in the order in which a run has recorded them."""
        with self._connected() as (client, _):
            points = client.get_metric_history(run_id, metric)
        return [(point.step, point.value) for point in sorted(points, key=lambda point: point.timestamp)]

    def checkpoint(self, run_id: str, file: str) -> Path:
        """Return a local copy of a checkpoint that a run has kept: best.pt or last.pt."""
        with self._recorded(run_id) as (uri, _):
            import mlflow

            path = f"checkpoint/{file}"
            try:
                return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, tracking_uri=uri))
            except Exception as error:  # each kind of storage raises errors of its own
                raise InputError(f"run {run_id} has no {file} in MLflow ({first_line(error)})") from error

    def start(
        self,
        name: str,
        *,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        data: RecordedData | None = None,
        run_id: str = "",
        is_new: bool = False,
    ) -> MLflowRun:
        """Start a run, or resume one.

        This process holds the checkpoint folder that the tag "checkpoints" names. A run with the same tag that is still
        RUNNING therefore belongs to a killed process. Resume it if it had the same identity and origin as this one;
        otherwise mark it KILLED.

        Raises:
            ValueError: The store cannot be used.
        """
        from mlflow.entities import Param, RunTag

        with self._connected() as (client, experiment_id):
            abandoned = _abandoned(client, experiment_id, tags)
            tags = {**tags, STATE: "running"}
            if is_new:
                run_id = ""
            elif not _is_active(client, run_id, experiment_id):
                same = [run for run, old in abandoned.items() if all(old.get(key) == tags.get(key) for key in IDENTITY)]
                run_id = same[0] if same else ""
            for abandoned_id in abandoned.keys() - {run_id}:
                end(client, abandoned_id, "KILLED")
            run = client.get_run(run_id) if run_id else create_run(client, experiment_id, name, tags)
            try:
                # A run that another sweep resumes becomes a run of that sweep.
                is_moved = any(key in tags and run.data.tags.get(key) != tags[key] for key in TRIAL)
                if run_id:
                    client.update_run(run_id, "RUNNING", name if is_moved else None)
                elif data is not None:
                    log_data(client, run.info.run_id, data)
                new = {} if run.data.params else params  # MLflow lets no parameter change
                changed = {key: value for key, value in tags.items() if run.data.tags.get(key) != value}
                if run_id and not is_moved:
                    changed.pop(NOTE, None)  # a person may have edited it
                client.log_batch(
                    run.info.run_id,
                    params=[Param(key, str(value)) for key, value in new.items() if value is not None],
                    tags=[RunTag(key, value) for key, value in changed.items()],
                    synchronous=True,
                )
                points = _points(client, run)
            except BaseException as error:
                end(client, run.info.run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
                raise
        return MLflowRun(client, run.info.run_id, experiment_id=experiment_id, points=points)

    @contextmanager
    def _connected(self) -> "Iterator[tuple[MlflowClient, str]]":
        """Yield a client and the id of the experiment. Raise a ValueError where the store has an error."""
        uri = self._prepare()
        with explained(uri):
            # Processes that start together on a new database would all try to create its tables.
            with quick_imports(), database_lock(uri) if has_locks(uri) else nullcontext():
                create_database(uri)
                client = connect(uri)
                with _quick_to_fail():
                    experiment_id = find_or_create_experiment(client, self._experiment)
            yield client, experiment_id

    @contextmanager
    def _recorded(self, run_id: str) -> "Iterator[tuple[str, Run]]":
        """Yield the tracking URI and a run. Raise a ValueError where the store has an error or no such run."""
        uri = self._prepare()
        with explained(uri):
            store = database(uri)
            client = None if store is not None and not store.exists() else connect(uri)  # MLflow would create the file
            with _quick_to_fail():
                run = None if client is None else _find_run(client, run_id)
            if run is None:
                raise InputError(f"MLflow store {mask(uri)} has no run {run_id}")
            yield uri, run

    def _prepare(self) -> str:
        """Set MLflow's environment, which must be done before it is imported, and return the tracking URI."""
        set_defaults()
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # else MLflow prints a line for each table it creates
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        logging.getLogger("mlflow.store.db.utils").setLevel("CRITICAL")  # it logs the errors that it raises
        os.environ.pop("MLFLOW_ACTIVE_MODEL_ID", None)  # else metrics would belong to this model
        with quick_imports():
            return self._uri or default_uri()


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


def _is_active(client: "MlflowClient", run_id: str, experiment_id: str) -> bool:
    """Return whether the experiment has this run and the run is not deleted."""
    from mlflow.entities import LifecycleStage

    info = run.info if run_id and (run := _find_run(client, run_id)) else None
    return info is not None and info.experiment_id == experiment_id and info.lifecycle_stage == LifecycleStage.ACTIVE


def _find_run(client: "MlflowClient", run_id: str) -> "Run | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _abandoned(client: "MlflowClient", experiment_id: str, tags: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the tags, by run id, of the RUNNING runs that have the same checkpoint folder."""
    folder = tags.get(CHECKPOINTS)
    running = client.search_runs([experiment_id], _filter("RUNNING", {CHECKPOINTS: folder})) if folder else []
    return {run.info.run_id: run.data.tags for run in running}


def _filter(status: str, tags: Mapping[str, str]) -> str:
    """Return the filter for runs that have this status and these tags."""
    conditions = [f"tags.{key} = {quoted(value)}" for key, value in tags.items()]
    return " and ".join([*conditions, f"attributes.status = '{status}'"])


def _points(client: "MlflowClient", run: "Run") -> dict[tuple[int, str], float]:
    """Return the first value of every metric of a run at every step: the curves. The result may have added another."""
    history = (client.get_metric_history(run.info.run_id, key) for key in run.data.metrics)
    points = sorted((point for points in history for point in points), key=lambda point: -point.timestamp)
    return {(point.step, point.key): point.value for point in points}
