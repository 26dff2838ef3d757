"""Runs of the report without a store."""

import csv
import io
import itertools
import math
from collections.abc import Iterable, Mapping

from analysis.recorded_run import RecordedRun

Points = Iterable[tuple[int, str, float]]
number = itertools.count(1)


def run(
    loss: str = "squentropy",
    *,
    status: str = "FINISHED",
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
    points: Points = (),
    **params: object,
) -> RecordedRun:
    """A run that started after those made before. params: with a double underscore for a dot."""
    text = io.StringIO()
    csv.writer(text).writerows([("step", "metric", "value"), *points])
    started = next(number)
    return RecordedRun(
        id=f"{started:04x}{'0' * 28}",
        name=f"{loss} {started}",
        status=status,
        started=started,
        link=f"http://127.0.0.1:5000/{started}",
        artifact_uri="",
        params={
            "loss._target_": f"nanosq.losses.{loss}",
            **{key.replace("__", "."): str(value) for key, value in params.items()},
        },
        metrics=dict(metrics or {}),
        tags={"text": "t", "code": "c", **(tags or {})},
        _texts={"curves.csv": text.getvalue()},
    )


def trial(
    number: int, value: float = math.nan, *, sweep: str = "grid-a", tags: dict | None = None, **others
) -> RecordedRun:
    scores = {"val/perplexity": value, "val/nll": math.log(value), "val/bits_per_byte": math.log(value) / 3}
    metrics = {} if math.isnan(value) else scores
    return run(tags={"sweep": sweep, "trial": str(number), **(tags or {})}, metrics=metrics, **others)
