"""Parallel coordinates of a search: a line for each complete trial through its settings and its metrics."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis import figures
from analysis.axes import is_wide, log_locator
from analysis.report.optuna_study import Search

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_SET = -0.13  # height of a line at a setting that its trial does not have
N_BEST = 4  # the best 1 / N_BEST of the trials are drawn in color
OTHERS: Any = {"color": figures.INK, "linewidth": 0.9, "linestyle": figures.DASHES[2], "alpha": 0.6}


@dataclass(frozen=True)
class Coordinate:
    """A vertical axis. `height` maps a value to 0..1."""

    name: str
    height: Callable[[Any], float]
    ticks: list[tuple[float, str]]  # height, text


@figures.style()
def figure(search: Search) -> figures.Figure:
    """Draw the complete trials of a search, of which there must be one."""
    complete = search.complete
    if len(search.metrics) > 1:
        best, name = {trial.number for trial in search.front()}, "Pareto front"
    else:
        n = math.ceil(len(complete) / N_BEST)
        best, name = {trial.number for trial in search.ranked()[:n]}, "best trial" if n == 1 else f"best {n} trials"
    coordinates = [_setting(search, setting) for setting in search.space]
    for i, metric in enumerate(search.metrics):
        values = [trial.values[i] for trial in complete]
        coordinates.append(_numeric(metric.label, values, is_log=is_wide(values), is_reversed=not metric.maximize))
    drawing, (axes,) = figures.panels(size=(max(2 * figures.PANEL[0], 1.4 * len(coordinates)), 3.6))
    for trial in sorted(complete, key=lambda trial: trial.number in best):  # the best on top
        cells = [*(trial.params.get(setting) for setting in search.space), *trial.values]
        heights = [coordinate.height(cell) for coordinate, cell in zip(coordinates, cells, strict=True)]
        axes.plot(heights, **(figures.series(0) if trial.number in best else OTHERS))
    for x, coordinate in enumerate(coordinates):
        _draw(axes, x, coordinate)
    axes.plot([], [], **figures.series(0), label=name)
    if len(best) < len(complete):
        axes.plot([], [], **OTHERS, label="other complete trials")
    axes.set_title("Settings of the complete trials", pad=12)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    names = [c.name.replace(" (", "\n(").replace("Validation ", "Validation\n") for c in coordinates]
    axes.set(xlim=(-0.2, len(names) - 0.5), xticks=range(len(names)), xticklabels=names, yticks=[])
    axes.grid(visible=False)
    axes.tick_params(length=0, pad=6)
    axes.spines[:].set_visible(False)
    caption = (
        "A line is a complete trial. Axes of settings show the searched range. On the last axis, the best value is "
        "at the top. Good trials agree on a setting if their lines meet on its axis."
    )
    return figures.finish(drawing, "search-parallel", caption)


def _setting(search: Search, name: str) -> Coordinate:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    axis = search.space[name]
    used = [trial.params[name] for trial in search.trials if name in trial.params]
    if isinstance(axis, CategoricalDistribution):
        choices = list(dict.fromkeys([*axis.choices, *used]))
        heights = {choice: (i + 0.5) / len(choices) for i, choice in enumerate(choices)}
        result = Coordinate(name, lambda value: heights[value], [(h, str(choice)) for choice, h in heights.items()])
    else:
        assert isinstance(axis, IntDistribution | FloatDistribution)
        bounds = [axis.low, axis.high, *used]
        result = _numeric(name, bounds, is_log=axis.log, is_integer=isinstance(axis, IntDistribution))
    if all(name in trial.params for trial in search.complete):
        return result

    def height(value: Any) -> float:
        return NOT_SET if value is None else result.height(value)

    return Coordinate(name, height, [*result.ticks, (NOT_SET, "not set")])


def _numeric(
    name: str, values: Sequence[float], *, is_log: bool, is_integer: bool = False, is_reversed: bool = False
) -> Coordinate:
    """Return an axis from the lowest to the highest value; reversed, the lowest value is at the top."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(values), max(values)
    scale: Callable[[float], float] = math.log if is_log else float
    span = scale(high) - scale(low)

    def height(value: float) -> float:
        up = (scale(value) - scale(low)) / span if span else 0.5
        return 1 - up if is_reversed else up

    locator = log_locator(high / low) if is_log else MaxNLocator(4, steps=[1, 2, 5, 10], integer=is_integer)
    ticks = [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]
    ticks = ticks if len(ticks) > 1 else sorted({low, high})
    return Coordinate(name, height, [(height(tick), f"{tick:.4g}") for tick in ticks])


def _draw(axes: "Axes", x: int, coordinate: Coordinate) -> None:
    from matplotlib.patheffects import withStroke

    axes.plot([x, x], [0, 1], color=figures.FAINT, linewidth=1, zorder=2.5)
    place: Any = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "zorder": 4, "fontsize": 8}
    for height, text in coordinate.ticks:
        axes.plot([x], [height], color=figures.FAINT, marker="_", zorder=2.5)
        axes.annotate(text, (x, height), **place, path_effects=[withStroke(linewidth=2.5, foreground=figures.PAPER)])
