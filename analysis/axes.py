"""Lines of a metric over steps, tokens or seconds, and logarithmic axes with plain numbers."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.recorded_run import RecordedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.ticker import Locator

Array = NDArray[np.float64]
Line = tuple[Array, Array]  # x, y

TOKENS = ("train.accumulate", "train.batch_size", "model.block_size")  # their product: tokens of a step
MAX_POINTS = 300  # of a drawn line
WIDE = 5.0  # an axis is logarithmic if the highest value is more than this many times the lowest


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


def is_wide(values: Sequence[float] | Array) -> bool:
    """Return whether a logarithmic scale is needed to tell the lower ones of some values apart."""
    return len(values) > 0 and min(values) > 0 and max(values) > WIDE * min(values)


def fit_scale(axes: "Axes", which: Literal["x", "y"], values: Sequence[float] | Array) -> None:
    """Make an axis logarithmic, with plain numbers as ticks, if its values span a wide range."""
    if is_wide(values):
        axes.set(**{f"{which}scale": "log"})
        plain_ticks(axes.xaxis if which == "x" else axes.yaxis, max(values) / min(values))


def plain_ticks(axis: "Axis", ratio: float) -> None:
    """Put plain numbers on a logarithmic axis whose highest value is `ratio` times its lowest."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axis.set_major_locator(log_locator(ratio))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())


def log_locator(ratio: float) -> "Locator":
    """Return a locator that places a few ticks at round numbers, by the ratio of the highest and the lowest value."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if ratio < WIDE:
        return MaxNLocator(5, steps=(1, 2, 5, 10))
    return LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if ratio < 20 else (1, 2, 5) if ratio < 1000 else (1,))


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
