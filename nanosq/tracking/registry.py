"""The model registry of MLflow: registers the model of a run. The store also knows the best run of a sweep."""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nanosq import pretrained
from nanosq.errors import InputError
from nanosq.tracking import Store, run_model
from nanosq.tracking.creation import SWEEP
from nanosq.tracking.location import registry_link
from nanosq.tracking.mlflow_store import DIVERGED, PRUNED, MLflowStore
from nanosq.tracking.parameters import belongs
from nanosq.tracking.reach import environment
from nanosq.tracking.run_model import NOTE, RunModel

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PERPLEXITY = "val/perplexity"
VERSIONS = "mlflow.modelVersions"  # tag of a model: a JSON list of the names and versions that its page shows
FINISHED = "finished"


@dataclass(frozen=True)
class RegisteredModel:
    """A version of a registered model."""

    name: str
    version: str
    run: str  # name of the run
    link: str
    tracking_uri: str

    @property
    def model_uri(self) -> str:
        """The URI of this version, for `mlflow models serve` and `mlflow.pyfunc.load_model`."""
        return f"models:/{self.name}/{self.version}"


def register(store: MLflowStore, run_id: str, name: str) -> RegisteredModel:
    """Register the model of a run as the next version of a name. Store a model that MLflow can serve if there is none.

    Args:
        store: The store.
        run_id: Id of the run.
        name: Name in the registry. It is created if it does not exist.

    Raises:
        ValueError: There is no such run, it has no model, the name is not allowed, or the store cannot be used.
    """
    if not name.strip() or {*name} & {*"/:"} or name in {".", ".."}:
        raise InputError(f"{name!r} cannot be the name of a registered model: it must not contain / or :, or be empty")
    with store.recorded(run_id) as (client, run):
        if state(run) != FINISHED:
            raise InputError(f"run {run_id} is {state(run)}: only the model of a finished run can be registered")
        model_id = _served_model(store, client, run)
        version = _create_version(client, name, model_id, description=run.data.tags.get(NOTE))
        link = registry_link(client.tracking_uri, name, version)
        return RegisteredModel(name, version, str(run.info.run_name), link, client.tracking_uri)


def best_run(store: MLflowStore, sweep: str, metric: str, *, maximize: bool = False) -> tuple[str, float]:
    """Return the id of the best run among those that a sweep has trained, and the mean of the metric over its seeds.

    The mean decides the setting; the run is that of its smallest seed. A setting counts if all of its runs have
    finished, as in the table that a sweep prints, and if it has as many seeds as any other. Runs that the sweep has
    found in the store, and not trained, belong to the sweep that trained them.

    Raises:
        ValueError: There is no such sweep, or no setting that counts.
    """
    settings: dict[tuple[object, ...], dict[int, Run]] = {}
    runs = store.runs({SWEEP: sweep})
    if not runs:
        raise InputError(
            f"there is no run and no sweep {sweep}: give the id of a run, the name of a folder in that of the sweeps "
            "(--sweeps DIR), or a name in the column sweep of the runs"
        )
    for run in sorted(runs, key=lambda run: run.info.start_time):  # the last run of a seed counts
        settings.setdefault(_setting(run), {})[int(run.data.params.get("seed", 0))] = run
    n_seeds = max(map(len, settings.values()))
    whole = [group for group in settings.values() if len(group) == n_seeds and _values(group.values(), metric)]
    if not whole:
        raise InputError(f"sweep {sweep} has no setting that has finished with {metric} for all of its seeds")
    means = [statistics.fmean(_values(group.values(), metric)) for group in whole]
    value = (max if maximize else min)(means)
    best = whole[means.index(value)]
    return str(best[min(best)].info.run_id), value


def state(run: "Run") -> str:
    """Return how a run ended: finished, diverged, pruned, failed or killed; or that it is running."""
    endings = [tag for tag in (DIVERGED, PRUNED) if run.data.tags.get(tag) == "true"]
    return endings[0] if endings else str(run.info.status).lower()


def _setting(run: "Run") -> tuple[object, ...]:
    """Return the parameters of a run that affect its result, without its seed."""
    without_effect = run.data.tags.get("without_effect", "seed").split(",")
    return tuple(sorted(item for item in run.data.params.items() if not belongs(item[0], without_effect)))


def _values(runs: "Iterable[Run]", metric: str) -> list[float]:
    """Return a metric of runs, or nothing if one of them has not finished with a finite value."""
    values = [run.data.metrics.get(metric, math.nan) if state(run) == FINISHED else math.nan for run in runs]
    return values if all(map(math.isfinite, values)) else []


def _served_model(store: MLflowStore, client: "MlflowClient", run: "Run") -> str:
    """Return the id of the model of a run, stored so that MLflow can serve it."""
    run_id, outputs = run.info.run_id, run.outputs.model_outputs if run.outputs else []
    model = RunModel(run.data.params, run.data.tags, is_stored=True, model_id=outputs[0].model_id if outputs else "")
    if model.model_id and run_model.is_servable(client, model.model_id):
        return model.model_id
    weights = store.checkpoint(run_id, "best.pt")
    settings = pretrained.load(str(weights), Store()).facts["settings"]  # weights that cannot be read are an error
    # A run of a version of this program that recorded no model gets one now.
    history = client.get_metric_history(run_id, PERPLEXITY)
    evaluations = [(point.value, point.step) for point in history] or [(math.nan, 0)]
    is_best = settings.get("train.weights") == "best"
    _, step = min(evaluations) if is_best else max(evaluations, key=lambda evaluation: evaluation[1])
    model.weights = weights
    model.create(client, run_id, run.info.experiment_id, name=str(run.info.run_name), step=step)
    model.finish(client, run_id)
    return model.model_id


def _create_version(client: "MlflowClient", name: str, model_id: str, *, description: str | None) -> str:
    """Create the next version of a registered model and return its number."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    with environment(MLFLOW_TRACKING_URI=client.tracking_uri):  # where a SQLite registry looks for the model
        created = client.create_model_version(name, f"models:/{model_id}", description=description, model_id=model_id)
    tags = client.get_logged_model(model_id).tags
    versions = [*json.loads(tags.get(VERSIONS, "[]")), {"name": name, "version": created.version}]
    client.set_logged_model_tags(model_id, {VERSIONS: json.dumps(versions)})
    return str(created.version)
