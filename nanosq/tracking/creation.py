"""Runs in MLflow: their creation, with unique names and the text that they are trained on, and how they end."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nanosq.tracking import RecordedData
from nanosq.tracking.connection import find_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

SWEEP, CHECKPOINTS = "sweep", "checkpoints"  # tags
STATE = "state"  # tag: MLflow knows a run that was pruned or diverged as finished
IDENTITY = ("config_hash", "code", "text", "resumed_from")  # tags that runs of one training share
WILDCARDS = str.maketrans(dict.fromkeys("\"'\\%", "_"))  # LIKE takes "_" for any character
SCHEMA = json.dumps({"mlflow_colspec": [{"name": "document", "type": "string", "required": True}]})  # of a data set


def create_run(client: "MlflowClient", experiment_id: str, name: str, tags: Mapping[str, str]) -> "Run":
    """Create a run with its tags and those of MLflow: user, program and git commit.

    A run of a sweep has the sweep and the trial in its name, which is taken only if the trial is trained again. Any
    other name, and one that is taken, gets the beginning of the id.
    """
    from mlflow.tracking.context.registry import resolve_tags
    from mlflow.tracking.context.system_environment_context import SystemEnvironmentContext

    # Not the tags of MLFLOW_RUN_CONTEXT, which are those of another program. The hint of `ignore` lacks a "type".
    resolved = resolve_tags(tags, ignore=[SystemEnvironmentContext])  # type: ignore[list-item]
    same_name = equals("attributes.run_name", name)
    is_unique = SWEEP in tags and not client.search_runs([experiment_id], same_name, max_results=1)
    run = client.create_run(experiment_id, tags=resolved, run_name=name)
    if not is_unique:
        client.update_run(run.info.run_id, name=f"{name} · {run.info.run_id[:6]}")
    return run


def equals(field: str, value: str) -> str:
    """Return the condition of an MLflow filter that a field has this value.

    A filter has no way to write a text with both kinds of quotes, or with a backslash before a quote. LIKE then stands
    in for "=", with a wildcard for each of these characters.
    """
    if "'" not in value and "\\" not in value:
        return f"{field} = '{value}'"
    if '"' not in value and "\\" not in value:
        return f'{field} = "{value}"'
    return f"{field} LIKE '{value.translate(WILDCARDS)}'"


def run_filter(tags: Mapping[str, str], status: str = "") -> str:
    """Return the filter for runs that have these tags and, if it is given, this status."""
    conditions = [equals(f"tags.{key}", value) for key, value in tags.items()]
    return " and ".join([*conditions, *([f"attributes.status = '{status}'"] if status else [])])


def log_data(client: "MlflowClient", run_id: str, data: RecordedData) -> None:
    """Record the text of a run as its data set."""
    from mlflow.exceptions import MlflowException

    try:
        client.log_inputs(run_id, [_dataset(data)])
    except MlflowException:  # another process may have recorded the same text at this moment: now it is found
        client.log_inputs(run_id, [_dataset(data)])


def _dataset(data: RecordedData) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source, profile = (json.dumps(facts) for facts in (data.source, data.profile))
    recorded = Dataset(data.name, data.digest, "nanosq", source, schema=SCHEMA, profile=profile)
    return DatasetInput(recorded, [InputTag("mlflow.data.context", "training")])


def find_active(client: "MlflowClient", experiment_id: str, run_id: str) -> "Run | None":
    """Return a run, or None if the experiment does not have it or it is deleted."""
    from mlflow.entities import LifecycleStage

    run = find_run(client, run_id) if run_id else None
    if run is None or run.info.experiment_id != experiment_id or run.info.lifecycle_stage != LifecycleStage.ACTIVE:
        return None
    return run


def abandoned_runs(client: "MlflowClient", experiment_id: str, tags: Mapping[str, str]) -> "list[Run]":
    """Return the RUNNING runs that have the same checkpoint folder, on which this process holds the lock."""
    folder = tags.get(CHECKPOINTS)
    return [*client.search_runs([experiment_id], run_filter({CHECKPOINTS: folder}, "RUNNING"))] if folder else []


def is_same(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Return whether the tags of two runs of one checkpoint folder are those of one training."""
    return all(one.get(key) == other.get(key) for key in IDENTITY)


def end(client: "MlflowClient", run_id: str, status: str, state: str = "", *, time: int | None = None) -> None:
    """Record how a run ended: its status and, for people, its state, by default the same word.

    Args:
        client: Client of the store.
        run_id: Id of the run.
        status: Status of MLflow.
        state: The state.
        time: When it ended, in milliseconds since 1970; by default now.
    """
    client.set_tag(run_id, STATE, state or status.lower())
    client.set_terminated(run_id, status, time)
