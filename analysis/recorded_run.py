"""One run that MLflow has recorded, with its curves and artifacts."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nanosq.tracking.parameters import belongs, readable

# States of runs and trials, best first. Optuna calls a finished trial complete, and a scheduled one waiting. A trial
# violates a constraint of its search.
STATES = (
    *("finished", "complete", "violates", "pruned", "diverged", "failed", "killed", "running", "scheduled", "waiting"),
)


@dataclass(frozen=True)
class Curve:
    """A metric of a run over its steps, in their order."""

    steps: list[int]
    values: list[float]


@dataclass(eq=False)
class RecordedRun:
    """A run of an MLflow experiment. Parameters and tags are strings; metrics are last values.

    The parameters of runs of an older program become those that a new run records.
    """

    id: str
    name: str
    status: str  # of MLflow: RUNNING, FINISHED, FAILED, KILLED
    started: int  # milliseconds since 1970
    link: str
    artifact_uri: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    texts: dict[str, str | None] = field(default_factory=dict, repr=False)  # artifacts that have been read, by path

    def __post_init__(self) -> None:
        self.params = readable(self.params)

    @property
    def state(self) -> str:
        """The state of the run, one of STATES. MLflow knows a run that was pruned or diverged as finished."""
        endings = [tag for tag in ("pruned", "diverged") if self.tags.get(tag) == "true"]
        return endings[0] if endings and self.status == "FINISHED" else self.status.lower()

    @property
    def label(self) -> str:
        """The name of the run with the beginning of its id."""
        return f"{self.name} ({self.id[:8]})"

    @property
    def loss(self) -> str:
        """The name of the loss function: that of nanosq/losses.py, or the full name of a function elsewhere."""
        return self.params.get("loss", "unknown")

    @property
    def seed(self) -> int:
        """The seed, or 0 for a run of another program without a seed."""
        seed = self.params.get("seed", "")
        return int(seed) if seed.isdecimal() else 0

    @property
    def program(self) -> str:
        """A hash of the package that trained the run, without that of a user's own modules, which follows a "+"."""
        return self.tags.get("code", "").partition("+")[0]

    @property
    def text_hash(self) -> str:
        """A hash that is the same for runs on the same text with the same tokens."""
        return self.tags.get("text", "")

    @cached_property
    def setting(self) -> dict[str, str]:
        """The parameters that affect the result, without the seed. The run lists the others in a tag.

        A digest of what training started from, if it was not new weights, is a part of the setting.
        """
        without_effect = self.tags.get("without_effect", "seed").split(",")
        parameters = {key: value for key, value in self.params.items() if not belongs(key, without_effect)}
        if parent := self.tags.get("parent"):
            name = parameters.get("init_from")
            parameters |= {"init_from": f"{name} ({parent})"} if name else {"parent": parent}
        return parameters

    @cached_property
    def compared(self) -> dict[str, str]:
        """The normal values of `setting`. Weights are the same under every name: only their digest counts."""
        digest = {"init_from": self.tags["parent"]} if "parent" in self.tags else {}
        return {key: digest.get(key, normal(value)) for key, value in self.setting.items()}

    @cached_property
    def key(self) -> tuple[object, ...]:
        """The same for runs that differ only in their seed, which makes them runs of one setting."""
        return self.text_hash, *sorted(self.compared.items())

    def metric(self, key: str) -> float:
        """Return the last value of a metric, or nan."""
        return self.metrics.get(key, math.nan)

    def curve(self, key: str) -> Curve:
        """Return a metric over the steps, from the artifact curves.csv or, without it, from the server."""
        if key not in self._curves and key in self.metrics:
            import mlflow

            history = mlflow.MlflowClient().get_metric_history(self.id, key)
            # The result may have added a value to the last step, after that of the curve.
            points = sorted(history, key=lambda point: -point.timestamp)
            self._curves[key] = _curve({point.step: point.value for point in points})
        return self._curves.get(key, Curve([], []))

    @cached_property
    def _curves(self) -> dict[str, Curve]:
        points: dict[str, dict[int, float]] = {}
        try:
            for row in self.rows("curves.csv"):
                points.setdefault(row["metric"], {})[int(row["step"])] = float(row["value"])
        except (KeyError, ValueError):  # the file is damaged; the server has the values too
            return {}
        return {key: _curve(values) for key, values in points.items()}

    def rows(self, path: str) -> list[dict[str, str]]:
        """Return the rows of a CSV artifact as text; none if the run has no such file.

        Raises:
            ValueError: The file is damaged.
        """
        import pandas as pd

        text = self.artifact(path)
        if not text:
            return []
        frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]

    def numbers(self, path: str, columns: Sequence[str]) -> NDArray[np.float64]:
        """Return columns of a CSV artifact: (n_rows, n_columns).

        Raises:
            ValueError: The run has no such file, or the file is damaged.
        """
        rows = self.rows(path)
        if not rows:
            raise ValueError(f"{self.label} has no {path}: train it again")
        try:
            return np.array([[float(row[column]) for column in columns] for row in rows])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} of {self.label} is damaged: train it again") from error

    def artifact(self, path: str) -> str | None:
        """Return the text of an artifact, or None if the run has none or it was deleted."""
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException

        if path not in self.texts:
            try:
                self.texts[path] = mlflow.artifacts.load_text(f"{self.artifact_uri}/{path}")
            except (MlflowException, OSError, UnicodeDecodeError):
                self.texts[path] = None
        return self.texts[path]


def normal(value: str) -> str:
    """Return a parameter in one form for equal numbers: 1 and 1.0, or 1e-3 and 0.001, are the same setting."""
    try:
        number = float(value)
    except ValueError:
        return value
    return repr(number).removesuffix(".0") if math.isfinite(number) else value


def _curve(points: dict[int, float]) -> Curve:
    return Curve(sorted(points), [points[step] for step in sorted(points)])
