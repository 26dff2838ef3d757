"""Parallel coordinates of a search: a line for each complete trial through its settings and its metrics.

The axes lie below each other, so that any number of them fits on a narrow screen. An axis is a strip that holds its
name and the texts of its ticks: lines pass straight behind it, and never cross a text.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis import figures, labels
from analysis.axes import NARROW, is_wide, log_ticks, tick_texts, ticks
from analysis.report.optuna_study import Search, StudyTrial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_SET = -0.2  # place of a line at a setting that its trial does not have
N_BEST, MAX_BEST = 4, 10  # the best 1 / N_BEST of the trials, but at most MAX_BEST, are drawn in color
BEST: Any = {"color": figures.SERIES[0], "linewidth": 1.8}
OTHERS: Any = {"color": figures.INK, "linewidth": 0.8}
TICK: Any = {"color": figures.FAINT, "linewidth": 1, "zorder": 4}
DENSE = 12  # lines in `OTHERS` that are drawn without transparency
ROW, STRIP = 0.85, 0.4  # inches: the distance of two axes, and the height of an axis
EDGE = 0.09  # of a strip beyond the lowest and the highest value
CHARACTERS = 42  # of all choices of an axis; longer ones are cut


@dataclass(frozen=True)
class Coordinate:
    """An axis. `place` maps a value to 0..1."""

    name: str
    place: Callable[[Any], float]
    ticks: list[tuple[float, str]]  # place, text
    band: float = 0.0  # lines with the same value are spread over this width, the best trial on the left


@figures.style()
def figure(search: Search) -> figures.Figure:
    """Draw the complete trials of a search, of which there must be one."""
    complete = [trial for trial in search.ranked() if trial.state == "complete"]
    if len(search.metrics) > 1:
        best, name = {trial.number for trial in search.front()}, "Pareto front"
    else:
        n = min(MAX_BEST, math.ceil(len(complete) / N_BEST))
        best, name = {trial.number for trial in complete[:n]}, "best trial" if n == 1 else f"best {n} trials"
    coordinates = [_setting(search, setting) for setting in search.space]
    for i, metric in enumerate(search.metrics):
        values = [trial.values[i] for trial in complete]
        coordinates.append(_numeric(f"{metric.label} {metric.better}", values, is_log=is_wide(values)))
    drawing, (axes,) = figures.panels(size=(figures.PANEL[0], 0.8 + ROW * len(coordinates)))
    others = OTHERS | {"alpha": min(0.6, max(0.1, DENSE / len(complete)))}
    for rank, trial in reversed([*enumerate(complete)]):  # the best on top
        look = BEST if trial.number in best else others
        places = _places(search, trial, coordinates, (rank + 0.5) / len(complete) - 0.5)
        heights = [-i + edge * 0.98 * STRIP / ROW / 2 for i in range(len(places)) for edge in (1, -1)]
        axes.plot([place for place in places for _ in range(2)], heights, **look)
    for row, coordinate in enumerate(coordinates):
        _draw(axes, row, coordinate)
    axes.plot([], [], **BEST, label=name)
    if len(best) < len(complete):
        axes.plot([], [], **OTHERS, alpha=0.6, label="other complete trials")
    labels.legend(axes)
    axes.set(title="Settings of the complete trials", ylim=(0.6 - len(coordinates), 0.4))
    axes.margins(x=0)
    axes.set_axis_off()
    caption = (
        f"A line is one of the {len(complete)} complete trials. Axes of settings show the searched range. Good trials "
        "agree on a setting if their lines meet on its axis."
    )
    if any(coordinate.band for coordinate in coordinates):
        caption += " Lines with the same choice lie side by side, the best trial on the left."
    return figures.finish(drawing, "search-parallel", caption)


def _places(search: Search, trial: StudyTrial, coordinates: Sequence[Coordinate], share: float) -> list[float]:
    """Return the places of a trial on all axes. `share` is its rank among the trials, from -0.5 to 0.5."""
    values = [*(trial.params.get(setting) for setting in search.space), *trial.values]
    return [axis.place(value) + axis.band * share for axis, value in zip(coordinates, values, strict=True)]


def _setting(search: Search, name: str) -> Coordinate:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    axis = search.space[name]
    used = [trial.params[name] for trial in search.trials if name in trial.params]
    if isinstance(axis, CategoricalDistribution):
        choices = list(dict.fromkeys([*axis.choices, *used]))
        places = {choice: (i + 0.5) / len(choices) for i, choice in enumerate(choices)}
        room = max(3, CHARACTERS // len(choices))
        texts = [(place, _cut(str(choice), room)) for choice, place in places.items()]
        result = Coordinate(name, lambda value: places[value], texts, 0.6 / len(choices))
    else:
        assert isinstance(axis, IntDistribution | FloatDistribution)
        bounds = [axis.low, axis.high, *used]
        result = _numeric(name, bounds, is_log=axis.log, is_integer=isinstance(axis, IntDistribution))
    if all(name in trial.params for trial in search.complete):
        return result

    def place(value: Any) -> float:
        return NOT_SET if value is None else result.place(value)

    return Coordinate(name, place, [*result.ticks, (NOT_SET, "not set")], result.band)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def _numeric(name: str, values: Sequence[float], *, is_log: bool, is_integer: bool = False) -> Coordinate:
    """Return an axis from the lowest to the highest value."""
    low, high = min(values), max(values)
    scale: Callable[[float], float] = math.log if is_log else float
    span = scale(high) - scale(low)

    def place(value: float) -> float:
        return (scale(value) - scale(low)) / span if span else 0.5

    is_curved = is_log and high > NARROW * low
    places = log_ticks([low, high]) if is_curved else ticks(low, high, is_integer=is_integer)
    return Coordinate(name, place, [*zip(map(place, places), tick_texts(places), strict=True)])


def _draw(axes: "Axes", row: int, coordinate: Coordinate) -> None:
    from matplotlib.patches import Rectangle

    half = STRIP / ROW / 2
    left = min(0.0, *(place for place, _ in coordinate.ticks)) - EDGE
    strip: Any = {"facecolor": figures.PAPER, "edgecolor": figures.FAINT, "linewidth": 0.8, "zorder": 3}
    axes.add_patch(Rectangle((left, -row - half), 1 + EDGE - left, 2 * half, **strip))
    axes.text(left + 0.02, -row + half / 2, coordinate.name, va="center", fontweight="bold", zorder=4)
    for place, text in coordinate.ticks:
        axes.text(place, -row - half / 2, text, ha="center", va="center", zorder=4)
        for side in (-1, 1):
            axes.plot([place, place], [-row + side * half, -row + side * 0.8 * half], **TICK)
