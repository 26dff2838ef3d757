"""Runs in MLflow: one flat run for each training, because MLflow's page hides nested runs."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nanosq.errors import InputError, first_line
from nanosq.privacy import mask
from nanosq.result import Ended, Result
from nanosq.tracking import RecordedData, Store
from nanosq.tracking.connection import Connection, find_run
from nanosq.tracking.creation import STATE, is_same, run_filter
from nanosq.tracking.delivery import Delivery
from nanosq.tracking.journal import Journal, undelivered
from nanosq.tracking.location import default_experiment, run_link
from nanosq.tracking.mlflow_run import MLflowRun
from nanosq.tracking.reach import quick_to_fail

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DIVERGED, PRUNED = "diverged", "pruned"  # tags
MAX_NAME = 500  # characters of the name of an experiment


class MLflowStore(Store):
    """An experiment of an MLflow tracking store.

    MLflow's active run and experiment are not used, so that MLFLOW_RUN_ID and the like have no effect.

    Args:
        experiment: Name of the experiment, by default MLFLOW_EXPERIMENT_NAME or nanosq. It is created if it does not
            exist.
        uri: Tracking URI, by default MLFLOW_TRACKING_URI or the store that `mlflow ui` opens without arguments.
        log_model: Whether to store each run's model so that MLflow can serve it.
        system_metrics: Whether to record the load of the machine; by default as MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
            says.
    """

    def __init__(
        self,
        *,
        experiment: str | None = None,
        uri: str | None = None,
        log_model: bool = False,
        system_metrics: bool | None = None,
    ) -> None:
        name = default_experiment() if experiment is None else experiment
        if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
            raise InputError(
                f"tracking.experiment={name!r} cannot be the name of an experiment: give one of at most {MAX_NAME} "
                "characters"
            )
        self._log_model, self._system_metrics = log_model, system_metrics
        self.connection = Connection(uri, name)

    def check(self) -> None:
        """Check, without writing anything, that runs can be recorded.

        Raises:
            ValueError: They cannot, or the store does not answer within seconds.
        """
        self.connection.check()

    def find(self, tags: Mapping[str, str], folder: Path | None = None) -> Result | None:
        """Return the result of the last finished run that has these tags, or None.

        Args:
            tags: The tags.
            folder: Checkpoint folder that this process holds. What earlier runs have left there is delivered first, and
                found there if the store cannot be reached.
        """
        found = [] if folder is None else self.undelivered(folder)
        finished = [journal for journal in found if journal.status == "FINISHED"]
        try:
            for journal in finished:
                self._deliver(journal)
            client, experiment_id = self.connection.open()
            with quick_to_fail():
                runs = client.search_runs(
                    [experiment_id],
                    run_filter(tags, "FINISHED"),
                    max_results=1,
                    order_by=["attributes.end_time DESC"],
                )
        except Exception as error:
            self.connection.warn(error, folder or Path())
            return _found(finished, tags)
        if not runs:
            return None
        run = runs[0]
        link = run_link(client.tracking_uri, experiment_id, run.info.run_id)
        return Result(_ended(run.data.tags), run.data.metrics, run.info.run_id, link)

    def undelivered(self, folder: Path) -> list[Journal]:
        """Return the journals in a folder or below it that are for this store, the oldest first."""
        address, experiment = self.connection.address, self.connection.experiment
        return [journal for journal in undelivered(folder) if journal.is_for(address, experiment)]

    def deliver(self, journal: Journal) -> str:
        """Deliver a journal in a checkpoint folder, which this process holds, and delete it.

        Returns:
            The link to the run.
        """
        with self.connection.explained():
            return self._deliver(journal)

    def _deliver(self, journal: Journal) -> str:
        delivery = Delivery(journal, self.connection)
        delivery.deliver()
        journal.delete()
        return run_link(self.connection.uri, delivery.experiment_id, delivery.run_id)

    def parameters(self, run_id: str) -> Mapping[str, str]:
        """Return the parameters of a run, as texts by their name."""
        with self.recorded(run_id) as (_, run):
            return run.data.params

    def facts(self, run_id: str) -> tuple[Mapping[str, str], Mapping[str, float]]:
        """Return the tags and the last values of the metrics of a run, by name."""
        with self.recorded(run_id) as (_, run):
            return run.data.tags, run.data.metrics

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Return the steps and values of a metric, in the order in which a run has recorded them."""
        with self.recorded(run_id) as (client, _):
            points = client.get_metric_history(run_id, metric)
        return [(point.step, point.value) for point in sorted(points, key=lambda point: point.timestamp)]

    def checkpoint(self, run_id: str, file: str) -> Path:
        """Return a local copy of a checkpoint that a run has kept: best.pt or last.pt."""
        with self.recorded(run_id) as (client, _):
            import mlflow

            path, uri = f"checkpoint/{file}", client.tracking_uri
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
        folder: Path | None = None,
    ) -> MLflowRun:
        """Start a run, or resume one.

        This process holds the checkpoint folder, which the tag "checkpoints" names. A run with the same tag that is
        still RUNNING therefore belongs to a killed process, and so does a journal in this folder without an end. It is
        resumed if it had the same identity and origin as this one; otherwise the run is marked KILLED.

        A store that cannot be reached is no error: what it has not received stays in the journal.
        """
        if self._log_model and params.get("model") != "GPT":
            raise InputError(
                f"tracking.log_model=true: only models of nanosq.model.GPT can be served, not {params.get('model')}"
            )
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="nanosq-"))
        found = self.undelivered(folder)
        same = [] if is_new else [old for old in found if old.status != "FINISHED" and is_same(old.tags, tags)]
        used = same[-1] if same else Journal.create(folder)
        try:
            for journal in found:
                if journal is not used:
                    self._deliver(journal)
        except Exception as error:
            self.connection.warn(error, folder)
        used.record(
            "start",
            name=name,
            params={key: str(value) for key, value in params.items() if value is not None},
            tags={**tags, STATE: "running"},
            data=data and asdict(data),
            run_id=run_id,
            is_new=is_new,
            log_model=self._log_model,
            uri=self.connection.address,
            folder=str(used.folder.resolve()),
            experiment=self.connection.experiment,
        )
        return MLflowRun(Delivery(used, self.connection), monitors_system=self._system_metrics)

    @contextmanager
    def recorded(self, run_id: str) -> "Iterator[tuple[MlflowClient, Run]]":
        """Yield a client and a run. Raise a ValueError where the store has an error or no such run."""
        with self.connection.explained():
            client = self.connection.existing()
            with quick_to_fail():
                run = None if client is None else find_run(client, run_id)
            if client is None or run is None:
                raise InputError(f"MLflow store {mask(self.connection.uri)} has no run {run_id}")
            yield client, run

    def runs(self, tags: Mapping[str, str]) -> "list[Run]":
        """Return all runs of the experiment that have these tags."""
        with self.connection.explained(), quick_to_fail():
            client = self.connection.existing()
            experiment = client.get_experiment_by_name(self.connection.experiment) if client is not None else None
            if client is None or experiment is None:
                return []
            page = client.search_runs([experiment.experiment_id], run_filter(tags))
            found = [*page]
            while page.token:
                page = client.search_runs([experiment.experiment_id], run_filter(tags), page_token=page.token)
                found += page
            return found


def _ended(tags: Mapping[str, str]) -> Ended:
    endings = [tag for tag in (PRUNED, DIVERGED) if tags.get(tag) == "true"]
    return cast(Ended, endings[0] if endings else "finished")


def _found(journals: Sequence[Journal], tags: Mapping[str, str]) -> Result | None:
    """Return the result of the last journal of a finished run that has these tags, or None."""
    for journal in reversed(journals):
        if journal.has_result(tags):
            return Result(_ended(journal.tags), journal.metrics, unrecorded=str(journal.folder))
    return None
