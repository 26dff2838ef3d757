"""All runs of an MLflow experiment, read once, and their settings."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.recorded_run import RecordedRun, normal
from nanosq.installation import program
from nanosq.privacy import mask, mask_values
from nanosq.tracking.location import database, default_experiment, default_uri, located, run_link
from nanosq.tracking.reach import check_reachable, quick_to_fail, set_mlflow_environment
from nanosq.tracking.store_errors import explain, is_of_store

BASELINE = "cross_entropy"  # every other loss is compared with it
TRAIN = f"{program()} -m loss=cross_entropy,squentropy seed=1,2,3"  # trains runs that can be compared
NO_RESULT = f"No run has finished with a validation score. Train two losses with three seeds each: {TRAIN}"
RESULTS = ("finished", "diverged", "pruned")  # states of runs that have shown how good a setting is
OLDER = "older version of the program"


@dataclass(frozen=True)
class RecordedSetting:
    """Finished runs that differ only in their seed: the last run of each seed, in the order of the seeds."""

    loss: str
    params: dict[str, str]
    runs: list[RecordedRun]
    left_out: dict[int, str]  # the other seeds, and why each has no run here

    def mean(self, key: str) -> float:
        """Return the mean of a metric over the runs."""
        return sum(run.metric(key) for run in self.runs) / len(self.runs)


def load(uri: str | None = None, experiment: str | None = None) -> list[RecordedRun]:
    """Return all runs of an experiment, the last one first; none if the experiment does not exist.

    Args:
        uri: Tracking server or store, by default that of MLflow.
        experiment: Name of the experiment, by default MLFLOW_EXPERIMENT_NAME or nanosq.

    Raises:
        ValueError: The store cannot be read.
    """
    set_mlflow_environment()
    import mlflow

    uri, experiment = uri or default_uri(), experiment or default_experiment()
    if (file := database(uri)) is not None and not file.exists():
        return []  # MLflow would create the database
    try:
        check_reachable(uri)
        mlflow.set_tracking_uri(uri)
        with quick_to_fail():
            if mlflow.get_experiment_by_name(experiment) is None:
                return []
        frame = mlflow.search_runs(experiment_names=[experiment])
    except Exception as error:  # SQLAlchemy, requests and MLflow raise errors of their own
        if not is_of_store(error):
            raise
        message = f"MLflow store {uri} cannot be read {explain(error, uri, elsewhere='set --tracking-uri')}"
        raise ValueError(mask(message)) from error
    return [_run(row, uri) for row in frame.to_dict("records")]


def _run(row: dict[Any, Any], uri: str) -> RecordedRun:
    """Return a run from a row of `mlflow.search_runs`, which pads missing values with None and nan."""
    import pandas as pd

    def values(kind: str) -> dict[str, Any]:
        cells = {str(key).removeprefix(kind): value for key, value in row.items() if str(key).startswith(kind)}
        return {key: value for key, value in cells.items() if not pd.isna(value)}

    tags = values("tags.")
    return RecordedRun(
        id=row["run_id"],
        name=tags.get("mlflow.runName", ""),
        status=row["status"],
        started=int(row["start_time"].timestamp() * 1000),
        link=run_link(uri, row["experiment_id"], row["run_id"]),
        artifact_uri=located(uri, row["artifact_uri"]),
        params=mask_values(values("params.")),
        metrics=values("metrics."),
        tags=tags,
    )


def pick(runs: Sequence[RecordedRun], wanted: str) -> RecordedRun:
    """Return the run whose id starts with `wanted`, or the run of this name.

    Raises:
        ValueError: There is no such run, or there are several.
    """
    by_id = [run for run in runs if run.id.startswith(wanted)]
    matches = by_id or [run for run in runs if run.name == wanted]
    if not matches:
        known = ", ".join(run.label for run in runs[:3])
        raise ValueError(f"there is no run {wanted!r}; some of the runs: {known or 'none'}")
    if len(by_id) > 1:
        raise ValueError(f"{len(by_id)} runs begin with {wanted!r}: give more of the id")
    if len(matches) > 1:
        ids = ", ".join(run.id[:8] for run in matches)
        raise ValueError(f"{len(matches)} runs have the name {wanted!r}: name one of them by its id, {ids}")
    return matches[0]


def settings(runs: Iterable[RecordedRun]) -> list[RecordedSetting]:
    """Return the settings that have finished runs, ordered by loss with cross-entropy first.

    Results of an older version of the program are left out if the setting has results of a newer one.
    """
    result = []
    for group in by_setting(sorted(runs, key=lambda run: run.started)):
        current = of_last_program(group)
        finished = {run.seed: run for run in current if run.state == "finished"}
        left_out = {run.seed: run.state if run in current else OLDER for run in group if run.seed not in finished}
        if finished:
            by_seed = [finished[seed] for seed in sorted(finished)]
            result.append(RecordedSetting(group[0].loss, group[0].setting, by_seed, dict(sorted(left_out.items()))))
    return sorted(result, key=lambda setting: (setting.loss != BASELINE, setting.loss))


def of_last_program(group: Sequence[RecordedRun]) -> list[RecordedRun]:
    """Return the runs of a setting without the results of older versions of the program. The last run comes last.

    Within a setting, a version includes the user's own modules: the whole tag "code" counts.
    """
    codes = [run.tags.get("code") for run in group if run.state in RESULTS]
    return [run for run in group if run.state not in RESULTS or run.tags.get("code") == codes[-1]]


def by_setting(runs: Iterable[RecordedRun]) -> list[list[RecordedRun]]:
    """Group runs by their setting, in the order of the runs."""
    groups: dict[object, list[RecordedRun]] = {}
    for run in runs:
        groups.setdefault(run.key, []).append(run)
    return list(groups.values())


def differing(settings: Sequence[dict[str, str]]) -> list[str]:
    """Return the keys in which settings differ."""
    keys = dict.fromkeys(key for setting in settings for key in setting)
    return [key for key in keys if len({normal(setting.get(key, "None")) for setting in settings}) > 1]
