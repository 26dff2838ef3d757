"""Lines of a metric over steps, tokens or seconds."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.recorded_run import RecordedRun

Array = NDArray[np.float64]
Line = tuple[Array, Array]  # x, y

TOKENS = ("train.accumulate", "train.batch_size", "model.block_size")  # their product: tokens of a step
MAX_POINTS = 300  # of a drawn line


def line(run: RecordedRun, key: str, against: str = "steps") -> Line:
    """Return a metric of a run over steps, tokens or seconds. The line is empty if the run lacks the values."""
    curve = run.curve(key)
    x, y = _positions(run, curve.steps, against), np.array(curve.values, dtype=float)
    finite = np.isfinite(x) & np.isfinite(y)
    return x[finite], y[finite]


def mean_and_range(lines: Sequence[Line]) -> tuple[Array, Array, Array, Array]:
    """Return x and the mean, lowest and highest value of several lines where all of them have values.

    The x positions are those of the line with the fewest points. Other lines are interpolated, because runs need not
    be logged at the same steps.
    """
    start, end = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    x = min((x for x, _ in lines), key=len)
    x = x[(x >= start) & (x <= end)]
    values = np.stack([np.interp(x, *points) for points in lines])
    return x, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def thinned(y: Array) -> NDArray[np.intp]:
    """Return the indices of at most MAX_POINTS points: the ends, and the extremes of the stretches between them.

    Evenly spaced points would miss a spike.
    """
    if len(y) <= MAX_POINTS:
        return np.arange(len(y))
    edges = np.linspace(1, len(y) - 1, (MAX_POINTS - 2) // 2 + 1).astype(int)
    inner = [i + extreme(y[i:j]) for i, j in itertools.pairwise(edges) for extreme in (np.argmin, np.argmax)]
    return np.unique([0, *inner, len(y) - 1])


def _positions(run: RecordedRun, steps: Sequence[int], against: str) -> Array:
    """Return the positions of steps on the x axis; nan if unknown."""
    x = np.array(steps, dtype=float)
    if against == "tokens":
        return x * float(np.prod([float(run.params.get(key, "nan")) for key in TOKENS]))
    if against == "seconds":
        seconds = run.curve("train/seconds")  # the sum over interruptions, from the run itself
        if not seconds.steps:
            return np.full_like(x, np.nan)
        return np.interp(x, [0, *seconds.steps], [0.0, *seconds.values], right=np.nan)
    return x
