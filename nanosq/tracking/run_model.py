"""The model of a run in MLflow: a LoggedModel, to which the scores of the run's best weights belong."""

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanosq.tracking import RecordedData
from nanosq.tracking.parameters import belongs

if TYPE_CHECKING:
    from mlflow import MlflowClient

REPLACED = str.maketrans("/:.%\"'", "______")  # characters that MLflow does not accept in the name of a model
GROUPS = ("model", "loss")  # of parameters of the run that are parameters of the model
NOTE = "mlflow.note.content"  # tag: the description that MLflow shows
# Tags of the run that are tags of the model. MLflow shows those of its own as description, user and program.
TAGS = (
    *("parameters", "vocabulary", "data", "config_hash", NOTE, "mlflow.user"),
    *("mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit"),
)
SCORES = ("val/", "test/")  # metrics of a model on a split of the data set
FILE = "MLmodel"  # a model that is stored has it


@dataclass
class RunModel:
    """The model of a run. It is created when the run has its final scores, so that a run without a result has none.

    It is pending until the run has finished, so that an error while it is stored loses nothing else.

    Args:
        params: Parameters of the run.
        tags: Tags of the run.
        data: The text of the run.
        is_stored: Whether to store a model that MLflow can serve.
        model_id: Id of the model, if this run has created it before it was interrupted.
        weights: The file of its weights, which is read when the run has finished.
    """

    params: Mapping[str, object]
    tags: Mapping[str, str]
    data: RecordedData | None = None
    is_stored: bool = False
    model_id: str = ""
    weights: Path | None = None

    def create(self, client: "MlflowClient", run_id: str, experiment_id: str, *, name: str, step: int) -> None:
        """Create the model as an output of the run, unless it exists. `step` is that of its weights."""
        from mlflow.entities import LoggedModelOutput

        if self.model_id:
            return
        # The store may have created it, but its reply was lost.
        created = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'", max_results=1)
        params = {key: str(value) for key, value in self.params.items() if belongs(key, GROUPS) and value is not None}
        tags = {key: self.tags[key] for key in TAGS if key in self.tags}
        model = (
            created[0]
            if created
            else client.create_logged_model(experiment_id, name.translate(REPLACED), run_id, tags, params)
        )
        self.model_id = model.model_id
        client.log_outputs(run_id, [LoggedModelOutput(self.model_id, step)])

    def finish(self, client: "MlflowClient", run_id: str) -> None:
        """Store the model so that MLflow can serve it, if that is asked for, and mark it as ready, if there is one."""
        if not self.model_id:
            return
        if self.is_stored and self.weights is not None:
            store(client, self.model_id, run_id, self.weights)
        client.finalize_logged_model(self.model_id, "READY")

    def of(self, metric: str) -> dict[str, Any]:
        """Return the arguments of MLflow's `Metric` that link a score to the model and the data set."""
        if not self.model_id or not metric.startswith(SCORES):
            return {}
        data = {} if self.data is None else {"dataset_name": self.data.name, "dataset_digest": self.data.digest}
        return {"model_id": self.model_id, **data}


def is_servable(client: "MlflowClient", model_id: str) -> bool:
    """Return whether MLflow can serve a model."""
    return any(file.path == FILE for file in client.list_logged_model_artifacts(model_id))


def store(client: "MlflowClient", model_id: str, run_id: str, weights: Path) -> None:
    """Store a model that MLflow can load and serve (nanosq/tracking/served_model.py) from a file of weights, best.pt.

    The model has a copy of this package, so that it works where nanosq is not installed.
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    from nanosq.tracking import served_model

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*input example")  # MLflow would load the model and run it
        mlflow.pyfunc.save_model(
            folder,
            python_model=served_model.__file__,
            artifacts={served_model.WEIGHTS: str(weights)},
            code_paths=[str(Path(__file__).parents[1])],
            pip_requirements=served_model.requirements(),
            signature=served_model.signature(),
            mlflow_model=Model(run_id=run_id, model_id=model_id),
        )
        client.log_model_artifacts(model_id, folder)
