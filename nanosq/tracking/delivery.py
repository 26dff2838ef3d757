"""Delivery of a journal to MLflow: whatever has failed before, the run gets every record once.

A reply of the store may be lost, and a process may be killed between a call and the note that it was made. So each
delivery that follows an error or begins in a new process first reads what the run has, and every call can be repeated.
"""

import csv
import io
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nanosq.tracking import RecordedData
from nanosq.tracking.connection import Connection
from nanosq.tracking.creation import STATE, abandoned_runs, create_run, end, find_active, is_same, log_data, run_filter
from nanosq.tracking.journal import Journal, Record
from nanosq.tracking.run_model import NOTE, RunModel
from nanosq.tracking.store_errors import is_of_store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

logger = logging.getLogger(__name__)

MAX_POINTS = 1000  # in one call of MLflow's REST API
JOURNAL = "journal"  # tag: the journal that a run was created for
TRIAL = ("sweep", "trial")  # tags of a run of a sweep


class Delivery:
    """Delivery of the journal of one run. Its methods raise what MLflow and its drivers raise.

    Args:
        journal: The journal. This process holds the lock of the checkpoint folder that it lies in.
        connection: The store.
    """

    def __init__(self, journal: Journal, connection: Connection) -> None:
        self.journal = journal
        self.connection = connection
        self.run_id = self.experiment_id = ""  # empty until the store has the run
        self._attached: _AttachedRun | None = None

    def deliver(self) -> None:
        """Deliver all records that the store does not have."""
        try:
            if self._attached is not None and self.connection.has_lost_database():
                logger.warning("%s was deleted or replaced: the run is recorded again", self.connection.file)
                self._attached = None
            self._attached = self._attached or self._attach()
            run, position = self._attached, self.journal.delivered.position
            for record, after in self.journal.pending():
                if record["kind"] == "metrics" and len(run.buffer) < MAX_POINTS:
                    run.add_metrics(record)
                else:
                    run.write()
                    self._note(position)
                    run.deliver(record)
                position = after
            run.write()
            self._note(position)
        except BaseException:
            self._attached = None  # what the store has received is not known
            raise

    def fail(self) -> None:
        """Mark the run as failed, where the store can do that: its journal cannot be written, and so has no end."""
        try:
            if self.run_id:
                client, _ = self.connection.open()
                end(client, self.run_id, "FAILED")
        except Exception as error:
            if not is_of_store(error):
                raise

    def _note(self, position: int) -> None:
        if position > self.journal.delivered.position:
            self.journal.note_delivery(self.run_id, position)

    def _attach(self) -> "_AttachedRun":
        """Find the run in the store, or create it."""
        client, self.experiment_id = self.connection.open()
        start, delivered = self.journal.start, self.journal.delivered
        run = self._find(client) or create_run(
            client, self.experiment_id, start["name"], {**start["tags"], JOURNAL: self.journal.id}
        )
        self.run_id = run.info.run_id
        if self.run_id != delivered.run_id:  # a store that has lost the run gets all of it
            self.journal.note_delivery(self.run_id, 0)
        return _AttachedRun(self.journal, client, run)

    def _find(self, client: "MlflowClient") -> "Run | None":
        """Return the run that the journal was created for, or another one that this process resumes.

        Other runs that are RUNNING with the same checkpoint folder belong to killed processes. They are marked KILLED.
        """
        start, experiment_id = self.journal.start, self.experiment_id
        run = find_active(client, experiment_id, self.journal.delivered.run_id or start["run_id"])
        if run is None:
            created = run_filter({JOURNAL: self.journal.id})  # the store has created it, but its reply was lost
            run = next(iter(client.search_runs([experiment_id], created, max_results=1)), None)
        abandoned = abandoned_runs(client, experiment_id, start["tags"])
        if run is None and not start["is_new"]:
            run = next((other for other in abandoned if is_same(other.data.tags, start["tags"])), None)
        for other in abandoned:
            if run is None or other.info.run_id != run.info.run_id:
                end(client, other.info.run_id, "KILLED")
        return run


class _AttachedRun:
    """A run of the store, and what it has."""

    def __init__(self, journal: Journal, client: "MlflowClient", run: "Run") -> None:
        self._journal, self._client, self._run, self._id = journal, client, run, run.info.run_id
        histories = [client.get_metric_history(self._id, key) for key in run.data.metrics]
        found = sorted((point for history in histories for point in history), key=lambda point: -point.timestamp)
        # The first value of every metric at every step: the curves. The result may have added another.
        self._points = {(point.step, point.key): point.value for point in found}
        self._times = {(point.step, point.key, point.timestamp) for point in found}
        self.buffer: list[Metric] = []
        start = journal.start
        data = start["data"] and RecordedData(**start["data"])
        outputs = run.outputs.model_outputs if run.outputs else []
        self._model = RunModel(
            start["params"],
            run.data.tags | journal.tags,
            data,
            start["log_model"],
            outputs[0].model_id if outputs else "",
            journal.folder / "best.pt",
        )

    def add_metrics(self, record: Record) -> None:
        """Add points of curves to the buffer, unless the run has a value of this step.

        It has one if the run was killed, and resumed at an earlier step.
        """
        for key, value in record["metrics"].items():
            if (record["step"], key) not in self._points:
                self._add(key, value, record)

    def deliver(self, record: Record) -> None:
        """Deliver one record."""
        match record["kind"]:
            case "start":
                self._start(record)
            case "metrics":
                self.add_metrics(record)
            case "summary":
                self._summarize(record)
            case "tags":
                self._tag(record["tags"])
            case "text":
                self._client.log_text(self._id, record["text"], record["file"])
            case "model":
                experiment_id = self._run.info.experiment_id
                self._model.create(self._client, self._id, experiment_id, name=record["name"], step=record["step"])
            case "file":
                self._client.log_artifact(self._id, str(self._journal.folder / record["name"]), record["folder"])
            case "end":
                self._end(record)

    def write(self) -> None:
        """Send the buffer."""
        for first in range(0, len(self.buffer), MAX_POINTS):
            metrics = self.buffer[first : first + MAX_POINTS]
            self._client.log_batch(self._id, metrics=metrics, synchronous=True)
        self.buffer.clear()

    def _add(self, key: str, value: float, record: Record, **of_model: Any) -> None:
        from mlflow.entities import Metric

        if (record["step"], key, record["time"]) not in self._times:
            self.buffer.append(Metric(key, value, record["time"], record["step"], **of_model))
        self._points.setdefault((record["step"], key), value)

    def _start(self, record: Record) -> None:
        from mlflow.entities import Param, RunTag

        run, tags = self._run, record["tags"]
        # A run that another sweep resumes becomes a run of that sweep.
        is_moved = any(key in tags and run.data.tags.get(key) != tags[key] for key in TRIAL)
        if run.info.status != "RUNNING" or is_moved:
            self._client.update_run(self._id, "RUNNING", record["name"] if is_moved else None)
        if record["data"] is not None and not (run.inputs and run.inputs.dataset_inputs):
            log_data(self._client, self._id, RecordedData(**record["data"]))
        new = {} if run.data.params else record["params"]  # MLflow lets no parameter change
        changed = {key: value for key, value in tags.items() if run.data.tags.get(key) != value}
        if NOTE in run.data.tags and not is_moved:
            changed.pop(NOTE, None)  # a person may have edited it
        self._client.log_batch(
            self._id,
            params=[Param(*param) for param in new.items()],
            tags=[RunTag(*tag) for tag in changed.items()],
            synchronous=True,
        )

    def _tag(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self._id, tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)

    def _summarize(self, record: Record) -> None:
        for key, value in record["points"].items():
            of_model = self._model.of(key)  # the last evaluation may have recorded this value, but not for the model
            if of_model or self._points.get((record["step"], key)) != value:
                self._add(key, value, record, **of_model)
        self.write()

    def _end(self, record: Record) -> None:
        is_finished = record["status"] == "FINISHED"
        curves = sorted((step, key, value) for (step, key), value in self._points.items())
        self._client.log_text(self._id, _csv([("step", "metric", "value"), *curves]), "curves.csv")
        if is_finished:
            self._model.finish(self._client, self._id)
        state = self._journal.tags.get(STATE, "") if is_finished else ""
        end(self._client, self._id, record["status"], state if state != "running" else "", time=record["time"])


def _csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
