"""Parallel coordinates of a search: a line for each complete trial through its settings and its values."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis import figures
from analysis.figures import FAINT, INK, PAPER, Figure
from analysis.report.optuna_study import Search
from analysis.report.search_figures import is_wide

NOT_SET = -0.13  # the height at which a line passes a setting that its trial does not have
SHARE = 4  # the best quarter is drawn thick
OTHERS: Any = {"color": INK, "linewidth": 0.9, "linestyle": figures.DASHES[2], "alpha": 0.6}


@dataclass(frozen=True)
class Column:
    """A vertical axis. `height` maps a value to 0..1."""

    name: str
    height: Callable[[Any], float]
    ticks: list[tuple[float, str]]


def figure(search: Search) -> Figure:
    """Return the figure of a search with complete trials."""
    best, rule = _best(search)
    complete = search.complete
    columns = [_setting(search, name) for name in search.space]
    for i, objective in enumerate(search.objectives):
        values = [trial.values[i] for trial in complete]
        columns.append(_numbers(objective.label, values, log=is_wide(values), down=not objective.maximize))
    with figures.style():
        drawing, (ax,) = figures.panels(size=(max(2 * figures.PANEL[0], 1.4 * len(columns)), 3.6))
        for trial in sorted(complete, key=lambda trial: trial.number in best):  # the best on top
            cells = [*(trial.params.get(name) for name in search.space), *trial.values]
            heights = [column.height(cell) for column, cell in zip(columns, cells, strict=True)]
            ax.plot(heights, **(figures.series(0) if trial.number in best else OTHERS))
        for at, column in enumerate(columns):
            _draw(ax, at, column)
        ax.plot([], [], **figures.series(0), label=rule)
        if len(best) < len(complete):
            ax.plot([], [], **OTHERS, label="other complete trials")
        ax.set_title("Settings of the complete trials", pad=12)
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
        names = [column.name.replace(" (", "\n(").replace("Validation ", "Validation\n") for column in columns]
        ax.set(xlim=(-0.2, len(columns) - 0.5), xticks=range(len(columns)), xticklabels=names, yticks=[])
        ax.grid(False)
        ax.tick_params(length=0, pad=6)
        ax.spines[:].set_visible(False)
        caption = (
            "Each line is a complete trial. An axis spans what was searched, the last what came of it, the best at the "
            "top. Where thick lines meet on an axis, good trials agree on that setting."
        )
        return figures.finish(drawing, "search-parallel", caption)


def _best(search: Search) -> tuple[set[int], str]:
    """Return the numbers of the trials to emphasize, and a label for them."""
    if len(search.objectives) > 1:
        return {trial.number for trial in search.front()}, "Pareto front"
    n = math.ceil(len(search.complete) / SHARE)
    return {trial.number for trial in search.ranked()[:n]}, "best trial" if n == 1 else f"best {n} trials"


def _setting(search: Search, name: str) -> Column:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    axis = search.space[name]
    given = [trial.params[name] for trial in search.trials if name in trial.params]
    if isinstance(axis, CategoricalDistribution):
        choices = list(dict.fromkeys([*axis.choices, *given]))
        heights = {choice: (i + 0.5) / len(choices) for i, choice in enumerate(choices)}
        column = Column(name, lambda value: heights[value], [(h, str(choice)) for choice, h in heights.items()])
    else:
        bounds = [axis.low, axis.high, *given]  # type: ignore[attr-defined]
        log = axis.log  # type: ignore[attr-defined]
        column = _numbers(name, bounds, log=log, integers=isinstance(axis, IntDistribution))
    if all(name in trial.params for trial in search.complete):
        return column
    height = column.height
    ticks = [*column.ticks, (NOT_SET, "not set")]
    return Column(name, lambda value: NOT_SET if value is None else height(value), ticks)


def _numbers(
    name: str, values: Sequence[float], *, log: bool = False, integers: bool = False, down: bool = False
) -> Column:
    """Return an axis from the lowest to the highest value. With `down`, the lowest value is at the top."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    def place(value: float) -> float:
        return math.log(value) if log else value

    low, high = min(values), max(values)
    span = place(high) - place(low)

    def height(value: float) -> float:
        up = (place(value) - place(low)) / span if span else 0.5
        return 1 - up if down else up

    narrow = log and high / low < 1000
    locator = (
        LogLocator(subs=(1, 2, 5) if narrow else (1,)) if log else MaxNLocator(4, steps=[1, 2, 5, 10], integer=integers)
    )
    inside = [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]
    ticks = inside if len(inside) > 1 else sorted({low, high})
    return Column(name, height, [(height(tick), f"{tick:.4g}") for tick in ticks])


def _draw(ax: Any, at: int, column: Column) -> None:
    from matplotlib.patheffects import withStroke

    ax.plot([at, at], [0, 1], color=FAINT, linewidth=1, zorder=2.5)
    for height, text in column.ticks:
        ax.plot([at], [height], color=FAINT, marker="_", zorder=2.5)
        halo = [withStroke(linewidth=2.5, foreground=PAPER)]
        place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "zorder": 4}
        ax.annotate(text, (at, height), **place, fontsize=8, path_effects=halo)
