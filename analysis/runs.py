"""All runs of an MLflow experiment, read once, and their settings."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from analysis.recorded_run import RecordedRun
from nanosq.privacy import link, mask, mask_values, set_defaults

BASELINE = "cross_entropy"  # every other loss is compared with it
TRAIN = "python run.py -m loss=cross_entropy,squentropy seed=1,2,3"  # trains runs that can be compared
NO_RESULT = f"No run has finished with a validation score. Train two losses with three seeds each: {TRAIN}"
ENOUGH_SEEDS = 3  # seeds from which on the mean of a setting counts
SQLITE = "sqlite:///"


@dataclass(frozen=True)
class RecordedSetting:
    """Finished runs that differ only in their seed: the last run of each seed, in the order of the seeds."""

    loss: str
    params: dict[str, str]
    runs: list[RecordedRun]
    others: dict[str, int]  # number of seeds without a finished run, by the state of their last run

    def mean(self, key: str) -> float:
        """Return the mean of a metric over the runs."""
        return sum(run.metric(key) for run in self.runs) / len(self.runs)


def load(uri: str | None = None, experiment: str = "nanosq") -> list[RecordedRun]:
    """Return all runs of an experiment, the last one first; none if the experiment does not exist.

    Args:
        uri: Tracking server or store, by default that of MLflow.
        experiment: Name of the experiment.

    Raises:
        ValueError: The store cannot be read.
    """
    set_defaults()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # by default MLflow waits minutes for a server
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    uri = uri or mlflow.get_tracking_uri()
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        return []  # MLflow would create the database
    try:
        _check_server(uri)
        mlflow.set_tracking_uri(uri)
        if mlflow.get_experiment_by_name(experiment) is None:
            return []
        frame = mlflow.search_runs(experiment_names=[experiment])
    except Exception as error:  # SQLAlchemy, requests and MLflow raise errors of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        message = f"MLflow store {uri} cannot be read ({reason}); set --tracking-uri"
        raise ValueError(mask(message)) from error
    server = link(uri) if urlparse(uri).scheme in {"http", "https"} else "http://127.0.0.1:5000"
    return [_run(row, server) for row in frame.to_dict("records")]


def _run(row: dict[Any, Any], server: str) -> RecordedRun:
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
        link=f"{server}/#/experiments/{row['experiment_id']}/runs/{row['run_id']}",
        artifact_uri=row["artifact_uri"],
        params=mask_values(values("params.")),
        metrics=values("metrics."),
        tags=tags,
    )


def _check_server(uri: str) -> None:
    """Connect to the server of a database once, because MLflow would try for minutes. Raise an SQLAlchemy error."""
    if not uri.startswith(("postgresql", "mysql", "mssql")):
        return
    import sqlalchemy

    sqlalchemy.create_engine(uri, connect_args={"connect_timeout": 5}).connect().close()


def pick(runs: Sequence[RecordedRun], wanted: str) -> RecordedRun:
    """Return the run whose id starts with `wanted`, or the last run of this name.

    Raises:
        ValueError: There is no such run, or several ids start like this.
    """
    by_id = [run for run in runs if run.id.startswith(wanted)]
    matches = by_id or [run for run in runs if run.name == wanted]
    if not matches:
        known = ", ".join(run.label for run in runs[:3])
        raise ValueError(f"there is no run {wanted!r}; some of the runs: {known or 'none'}")
    if len(by_id) > 1:
        raise ValueError(f"{len(by_id)} runs begin with {wanted!r}: give more of the id")
    return matches[0]


def settings(runs: Iterable[RecordedRun]) -> list[RecordedSetting]:
    """Return the settings that have finished runs, ordered by loss with cross-entropy first.

    Runs of an older version of the program are ignored if the setting has runs of a newer one.
    """
    result = []
    for group in by_setting(sorted(runs, key=lambda run: run.started)):
        current = [run for run in group if run.tags.get("code") == group[-1].tags.get("code")]
        finished = {run.seed: run for run in current if run.state == "finished"}
        others = Counter({run.seed: run.state for run in current if run.seed not in finished}.values())
        if finished:
            by_seed = [finished[seed] for seed in sorted(finished)]
            result.append(RecordedSetting(group[0].loss, group[0].setting, by_seed, dict(others.most_common())))
    return sorted(result, key=lambda setting: (setting.loss != BASELINE, setting.loss))


def by_setting(runs: Iterable[RecordedRun]) -> list[list[RecordedRun]]:
    """Group runs by their setting, in the order of the runs."""
    groups: dict[object, list[RecordedRun]] = {}
    for run in runs:
        groups.setdefault(run.key, []).append(run)
    return list(groups.values())


def best(runs: Iterable[RecordedRun]) -> dict[str, RecordedSetting]:
    """Return the setting of each loss with the lowest mean nll on the validation split.

    Only settings with the most seeds are candidates, where three seeds are as good as more, because the best of many
    single runs is partly lucky. A setting in which a seed diverged is chosen only if there is no other.
    """
    by_loss: dict[str, list[RecordedSetting]] = {}
    for setting in settings(runs):
        if not math.isnan(setting.mean("val/nll")):
            by_loss.setdefault(setting.loss, []).append(setting)
    chosen = {}
    for loss, candidates in by_loss.items():
        n_seeds = min(ENOUGH_SEEDS, max(len(setting.runs) for setting in candidates))
        repeated = [setting for setting in candidates if len(setting.runs) >= n_seeds]
        chosen[loss] = min(repeated, key=lambda setting: ("diverged" in setting.others, setting.mean("val/nll")))
    return chosen


def runs_on_common_text(runs: Sequence[RecordedRun], wanted: str | None) -> tuple[list[RecordedRun], str]:
    """Return the runs on the text that most runs have finished on, and a sentence about the other runs.

    Scores on different text, or with different tokens, cannot be compared. `wanted` is the beginning of a text's hash.

    Raises:
        ValueError: There is no run on the wanted text.
    """
    if not runs:
        return [], ""
    counts = dict.fromkeys((run.text_hash for run in runs), 0)
    for run in runs:
        counts[run.text_hash] += run.state == "finished"
    texts = sorted(counts, key=lambda text: -counts[text])
    text = next((text for text in texts if wanted is None or text.startswith(wanted)), None)
    if text is None:
        raise ValueError(f"there is no run on a text {wanted!r}: --text takes one of {', '.join(texts)}")
    others = ", ".join(f"{counts[other]} with --text {other or 'unknown'}" for other in texts if other != text)
    return [run for run in runs if run.text_hash == text], f" Finished on other text: {others}." if others else ""


def differing(settings: Sequence[dict[str, str]]) -> list[str]:
    """Return the keys in which settings differ."""
    keys = dict.fromkeys(key for setting in settings for key in setting)
    return [key for key in keys if len({setting.get(key) for setting in settings}) > 1]
