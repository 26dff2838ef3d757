"""Lines of a metric in a figure, over steps, tokens or seconds, and logarithmic axes with plain numbers."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.recorded_run import RecordedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

Array = NDArray[np.float64]
Line = tuple[Array, Array]  # x, y

TOKENS = ("train.accumulate", "train.batch_size", "model.block_size")  # their product: tokens of a step
MOST = 300  # points that are drawn of a line
SPAN = 5.0  # greatest value over the least from which an axis is logarithmic


def line(run: RecordedRun, key: str, against: str = "steps") -> Line:
    """Return a curve of a run over steps, tokens or seconds. It is empty if the run lacks the values."""
    curve = run.curve(key)
    x, y = _positions(run, curve.steps, against), np.array(curve.values, dtype=float)
    there = np.isfinite(x) & np.isfinite(y)
    return x[there], y[there]


def mean_and_range(lines: Sequence[Line]) -> tuple[Array, Array, Array, Array]:
    """Return x, mean, lowest and highest value of several lines, at the points of the line with the fewest points.

    Between the points of a line its values are interpolated: runs need not be logged at the same steps.
    """
    start, end = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    x = min((x for x, _ in lines), key=len)
    x = x[(x >= start) & (x <= end)]
    values = np.stack([np.interp(x, *each) for each in lines])
    return x, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def thinned(y: Array, most: int = MOST) -> NDArray[np.intp]:
    """Return the indices of at most `most` points: the first, the last, and the extremes of the stretches between them.

    Evenly spaced points would miss a spike.
    """
    if len(y) <= most:
        return np.arange(len(y))
    edges = np.linspace(1, len(y) - 1, (most - 2) // 2 + 1).astype(int)
    between = [at + where(y[at:end]) for at, end in itertools.pairwise(edges) for where in (np.argmin, np.argmax)]
    return np.unique([0, *between, len(y) - 1])


def plain_log(axes: "Axes", which: Literal["x", "y"], values: Array) -> None:
    """Make an axis logarithmic, with plain numbers as ticks, if its values span a wide range."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > SPAN:
        axes.set(**{f"{which}scale": "log"})
        plain_ticks(axes.xaxis if which == "x" else axes.yaxis, high / low)


def plain_ticks(axis: "Axis", ratio: float) -> None:
    """Put plain numbers on a logarithmic axis whose highest value is `ratio` times its lowest."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if ratio < 20 else (1, 2, 5) if ratio < 1000 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _positions(run: RecordedRun, steps: Sequence[int], against: str) -> Array:
    """Return the positions of steps on the x axis; nan if unknown."""
    x = np.array(steps, dtype=float)
    if against == "tokens":
        return x * float(np.prod([float(run.params.get(key, "nan")) for key in TOKENS]))
    if against == "seconds":
        seconds = run.curve("train/seconds")  # summed by the run itself, over interruptions too
        if not seconds.steps:
            return np.full_like(x, np.nan)
        return np.interp(x, [0, *seconds.steps], [0.0, *seconds.values], right=np.nan)
    return x
