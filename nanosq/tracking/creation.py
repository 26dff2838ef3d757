"""Creation of runs in MLflow, with unique names and the text that they are trained on."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nanosq.tracking import RecordedData

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

SWEEP = "sweep"  # tag
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
