"""Runs as MLflow has them: the one place of the report that reads a tracking server."""

import csv
import io
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

# Where a run computes and what it keeps does not set it apart from another; the seed makes it a repetition.
NO_SETTING = (
    *("device", "tracking", "cache_dir", "checkpoint_dir", "resume", "samples", "seed", "seeds"),
    *("train.log_every", "train.checkpoint_every"),
)
BASELINE = "cross_entropy"  # what every loss is compared with
TRAIN = "python run.py -m loss=cross_entropy,squentropy seed=1,2,3"  # what makes runs that can be compared
ENOUGH_SEEDS = 3  # to prefer a setting for its mean
SQLITE = "sqlite:///"
csv.field_size_limit(1 << 30)  # a document may be a book


@dataclass(frozen=True)
class Curve:
    """A metric over the steps of a run, in their order."""

    steps: list[int]
    values: list[float]


@dataclass(eq=False)
class Run:
    """A run of an MLflow experiment. Parameters and tags are strings, metrics their last values."""

    id: str
    name: str
    status: str  # MLflow's: RUNNING, FINISHED, FAILED, KILLED
    started: int  # milliseconds since 1970
    link: str
    artifact_uri: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    _client: Any = field(repr=False)
    _texts: dict[str, str | None] = field(default_factory=dict, repr=False)

    @property
    def state(self) -> str:
        """finished, pruned, diverged, running, failed or killed."""
        ended = [tag for tag in ("pruned", "diverged") if self.tags.get(tag) == "true"]
        return ended[0] if ended and self.status == "FINISHED" else self.status.lower()

    @property
    def loss(self) -> str:
        """The name of the loss's function."""
        return self.params.get("loss._target_", "unknown").rsplit(".", 1)[-1]

    @property
    def seed(self) -> int:
        """0 where it has none, as a run of another program."""
        seed = self.params.get("seed", "")
        return int(seed) if seed.isdecimal() else 0

    @property
    def text_hash(self) -> str:
        """The same for runs that learn from and are scored on the same text, cut into the same tokens."""
        return self.tags.get("text", "")

    @cached_property
    def setting(self) -> dict[str, str]:
        """What it was set to, but for the seed."""
        return {
            key: value
            for key, value in self.params.items()
            if not any(key == other or key.startswith(f"{other}.") for other in NO_SETTING)
        }

    def metric(self, key: str) -> float:
        """Nan where the run has none."""
        return self.metrics.get(key, math.nan)

    def curve(self, key: str) -> Curve:
        """From the artifact that a run ends with, or from the server where it has none; empty where it has no such."""
        if key not in self._curves and key in self.metrics:
            history = self._client.get_metric_history(self.id, key)
            self._curves[key] = _curve({point.step: point.value for point in history})
        return self._curves.get(key, Curve([], []))

    @cached_property
    def _curves(self) -> dict[str, Curve]:
        points: dict[str, dict[int, float]] = defaultdict(dict)
        try:
            for row in self.rows("curves.csv"):
                points[row["metric"]][int(row["step"])] = float(row["value"])
        except (KeyError, TypeError, ValueError, csv.Error):  # a damaged file; the server knows the points too
            return {}
        return {key: _curve(each) for key, each in points.items()}

    def rows(self, path: str) -> list[dict[str, str]]:
        """The lines of a CSV artifact; none where the run has no such file, or it was deleted."""
        return list(csv.DictReader(io.StringIO(self.artifact(path) or "")))

    def artifact(self, path: str) -> str | None:
        """The text of a file; None where the run has none, or it was deleted."""
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException

        if path not in self._texts:
            try:
                self._texts[path] = mlflow.artifacts.load_text(f"{self.artifact_uri}/{path}")
            except (MlflowException, OSError, UnicodeDecodeError):
                self._texts[path] = None
        return self._texts[path]


@dataclass(frozen=True)
class Setting:
    """Finished runs that differ in nothing but their seed: the last one of each seed, in the order of the seeds."""

    loss: str
    params: dict[str, str]
    runs: list[Run]
    others: Counter[str]  # of the same setting, by state: what has no result

    def mean(self, key: str) -> float:
        return sum(run.metric(key) for run in self.runs) / len(self.runs)


def load(uri: str | None = None, experiment: str = "nanosq") -> list[Run]:
    """All runs of an experiment, the last one first; none where there is no such experiment.

    uri: of the tracking server or store; by default MLflow's own choice. ValueError where it cannot be used.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # else a server that is away takes minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    uri = uri or mlflow.get_tracking_uri()
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        return []  # which asking would create
    try:
        _check_server(uri)
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient()
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return []
        runs: list[Any] = []
        token = None
        while True:
            page = client.search_runs([found.experiment_id], max_results=1000, page_token=token)
            runs += page
            token = page.token
            if not token:
                break
    except Exception as error:  # SQLAlchemy, requests, MLflow
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        place = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", uri)  # without a password
        raise ValueError(f"MLflow store {place} cannot be read ({reason}); set --tracking-uri") from error
    server = f"{urlparse(uri).scheme}://{urlparse(uri).netloc.rpartition('@')[2]}"  # without a password
    server = server if server.startswith("http") else "http://127.0.0.1:5000"
    return [
        Run(
            id=run.info.run_id,
            name=run.info.run_name,
            status=run.info.status,
            started=run.info.start_time,
            link=f"{server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}",
            artifact_uri=run.info.artifact_uri,
            params=run.data.params,
            metrics=run.data.metrics,
            tags=run.data.tags,
            _client=client,
        )
        for run in runs
    ]


def _check_server(uri: str) -> None:
    """Connect to a database's server once: MLflow would try for minutes. Raises what SQLAlchemy does."""
    if not uri.startswith(("postgresql", "mysql", "mssql")):
        return
    import sqlalchemy

    sqlalchemy.create_engine(uri, connect_args={"connect_timeout": 5}).connect().close()


def pick(runs: Iterable[Run], wanted: str) -> Run:
    """The run with this id or the beginning of it, or with this name, the last one of these. ValueError where none."""
    runs = list(runs)
    by_id = [run for run in runs if run.id.startswith(wanted)]
    found = by_id or [run for run in runs if run.name == wanted]
    if not found:
        known = ", ".join(f"{run.id[:8]} ({run.name})" for run in runs[:3])
        raise ValueError(f"no run {wanted!r}; there are {known or 'none'}")
    if by_id and len(by_id) > 1:
        raise ValueError(f"{len(by_id)} runs begin with {wanted!r}: give more of the id")
    return found[0]


def settings(runs: Iterable[Run]) -> list[Setting]:
    """The settings of which a run has finished, in the order of the losses, cross-entropy first.

    Where the program has changed since some of a setting's runs, only those of the last one count.
    """
    groups: dict[object, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.started):
        groups[run.text_hash, *sorted(run.setting.items())].append(run)
    found = []
    for every in groups.values():
        group = [run for run in every if run.tags.get("code") == every[-1].tags.get("code")]  # not of an older program
        finished = {run.seed: run for run in group if run.state == "finished"}
        if finished:
            by_seed = [finished[seed] for seed in sorted(finished)]
            others = Counter({run.seed: run.state for run in group if run.seed not in finished}.values())
            found.append(Setting(group[0].loss, group[0].setting, by_seed, others))
    return sorted(found, key=lambda setting: (setting.loss != BASELINE, setting.loss))


def best(runs: Iterable[Run]) -> dict[str, Setting]:
    """The setting of each loss with the least mean negative log-likelihood of the validation split.

    Only among those with the most seeds, where three count as any more: the least of many single runs is luck in part;
    and where there are such, among those of which no seed has diverged.
    """
    by_loss: dict[str, list[Setting]] = defaultdict(list)
    for setting in settings(runs):
        if not math.isnan(setting.mean("val/nll")):
            by_loss[setting.loss].append(setting)
    chosen = {}
    for loss, each in by_loss.items():
        n_seeds = min(ENOUGH_SEEDS, max(len(setting.runs) for setting in each))
        repeated = [setting for setting in each if len(setting.runs) >= n_seeds]
        chosen[loss] = min(repeated, key=lambda setting: (setting.others["diverged"] > 0, setting.mean("val/nll")))
    return chosen


def one_text(found: Iterable[Run], wanted: str | None) -> tuple[list[Run], str]:
    """The runs on the text that most have finished on, or on the one whose hash begins so; and what is left out.

    Scores on different text, or in different tokens, cannot be compared. ValueError where no run is on the wanted text.
    """
    found = list(found)
    if not found:
        return [], ""
    counts = Counter(dict.fromkeys(dict.fromkeys(run.text_hash for run in found), 0))
    counts.update(run.text_hash for run in found if run.state == "finished")
    texts = [text for text, _ in counts.most_common()]
    text = next((each for each in texts if wanted is None or each.startswith(wanted)), None)
    if text is None:
        raise ValueError(f"no run on a text {wanted!r}: --text takes one of {', '.join(texts)}")
    others = ", ".join(f"{counts[other]} with --text {other or 'unknown'}" for other in texts if other != text)
    return [run for run in found if run.text_hash == text], f" Finished on other text: {others}." if others else ""


def differing(settings: Sequence[dict[str, str]]) -> list[str]:
    """The keys in which settings differ."""
    keys = dict.fromkeys(key for setting in settings for key in setting)
    return [key for key in keys if len({setting.get(key) for setting in settings}) > 1]


def _curve(points: dict[int, float]) -> Curve:
    steps = sorted(points)
    return Curve(steps, [points[step] for step in steps])
