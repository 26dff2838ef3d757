"""Figures of a search: its history, the curves of its trials, and the Pareto front of several metrics."""

import math
from collections.abc import Sequence
from itertools import accumulate, combinations
from typing import TYPE_CHECKING, Any, Literal

from analysis import figures
from analysis.figures import FAINT, INK, SERIES, Figure
from analysis.report.optuna_study import Search, StudyMetric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DECADES = 2.2  # on a logarithmic scale, above which ticks stand at powers of ten alone
WIDE = 5.0  # positive numbers whose ratio is larger are drawn on a logarithmic scale
PRUNED: Any = {"color": SERIES[1], "linestyle": "none", "marker": "x", "markersize": 5, "markeredgewidth": 1.4}


def history(search: Search) -> Figure:
    """Return a figure of each complete trial, the best value so far, and where other trials were pruned."""
    from matplotlib.ticker import MaxNLocator

    (objective,) = search.objectives
    complete = search.complete
    pruned = [trial for trial in search.trials if trial.state == "pruned" and trial.course]
    with figures.style():
        drawing, (ax,) = figures.panels()
        values = [trial.values[0] for trial in complete]
        numbers = [trial.number for trial in complete]
        best = list(accumulate(values, max if objective.maximize else min))
        if best:  # to the end of the search
            ax.plot(numbers, values, **figures.series(0) | {"linestyle": "none"}, label="complete trial")
            at = [*numbers, search.trials[-1].number]
            style = figures.series(2) | {"marker": "none"}
            ax.step(at, [*best, best[-1]], where="post", **style, label="best so far")
        ends = [trial.course[max(trial.course)] for trial in pruned]
        if pruned:
            ax.plot([trial.number for trial in pruned], ends, **PRUNED, label="pruned, last value")
        scale(ax, "y", [*values, *ends])
        ax.set(title="Course of the search", xlabel="Trial", ylabel=label(objective))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend()
        caption = (
            f"Each trial of {search.name} by its number. A pruned trial stands at its last value, which belongs to "
            "fewer steps than the others."
        )
        return figures.finish(drawing, "search-history", caption)


def intermediate(search: Search) -> Figure:
    """Return a figure of the metric over the steps of each trial."""
    from matplotlib.ticker import MaxNLocator

    (objective,) = search.objectives
    best = search.ranked()[0]
    with figures.style():
        drawing, (ax,) = figures.panels()
        unlabelled = {"complete", "pruned", "neither"}

        def name(kind: str) -> str | None:
            """For the first line of a kind."""
            first = kind in unlabelled
            unlabelled.discard(kind)
            return {"neither": "running or failed"}.get(kind, kind) if first else None

        for trial in [trial for trial in search.trials if trial.course and trial is not best] + [best]:
            steps, values = list(trial.course), list(trial.course.values())
            if trial.state == "pruned":
                ax.plot(steps, values, color=SERIES[1], linestyle=figures.DASHES[1], linewidth=1, alpha=0.8)
                ax.plot(steps[-1:], values[-1:], **PRUNED, label=name("pruned"), zorder=3)
            elif trial.state != "complete":
                ax.plot(steps, values, color=INK, linestyle=figures.DASHES[2], linewidth=1, label=name("neither"))
            elif trial is best:
                ax.plot(steps, values, **figures.series(0), linewidth=2.2, label=f"best, trial {best.number}", zorder=3)
            else:
                ax.plot(steps, values, color=INK, linewidth=1, alpha=0.45, label=name("complete"))
        scale(ax, "y", [value for trial in search.trials for value in trial.course.values()])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(title="Trials while they train", xlabel="Step", ylabel=label(objective))
        ax.legend()
        seed = " Of several seeds, the first." if search.seeds > 1 else ""
        caption = f"What each trial reported to the pruner; a cross marks where one was pruned.{seed}"
        return figures.finish(drawing, "search-intermediate", caption)


def pareto(search: Search) -> Figure:
    """Return a figure with a panel for each pair of metrics."""
    front = search.front()
    others = [trial for trial in search.complete if trial not in front]
    pairs = list(combinations(range(len(search.objectives)), 2))
    with figures.style():
        drawing, axes = figures.panels(len(pairs))
        for ax, (i, j) in zip(axes, pairs, strict=True):
            on = sorted((trial.values[i], trial.values[j]) for trial in front)
            rest: Any = {"color": FAINT, "linestyle": "none", "marker": "o", "label": "other complete trial"}
            if others:
                ax.plot([trial.values[i] for trial in others], [trial.values[j] for trial in others], **rest)
            best = figures.series(0) | {"marker": "s", "linestyle": "-" if len(pairs) == 1 else "none"}
            ax.plot([x for x, _ in on], [y for _, y in on], **best, linewidth=0.8, label="Pareto front")
            scale(ax, "x", [trial.values[i] for trial in search.complete])
            scale(ax, "y", [trial.values[j] for trial in search.complete])
            ax.set(xlabel=label(search.objectives[i]), ylabel=label(search.objectives[j]))
            ax.margins(0.1)
        axes[0].set_title("Pareto front")
        axes[0].legend()
        caption = "Complete trials; for one on the front, none is as good in every objective and better in one."
        return figures.finish(drawing, "search-pareto", caption)


def label(objective: StudyMetric) -> str:
    """Return the label of the axis of a metric."""
    return f"{objective.label}\n({'higher' if objective.maximize else 'lower'} is better)"


def is_wide(values: Sequence[float]) -> bool:
    """Return whether these numbers need a logarithmic scale."""
    return min(values, default=0) > 0 and max(values) / min(values) > WIDE


def scale(ax: "Axes", which: Literal["x", "y"], values: Sequence[float]) -> None:
    """Make an axis logarithmic if its values need it, with plain numbers as ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if not is_wide(values):
        return
    ax.set(**{f"{which}scale": "log"})
    axis = ax.xaxis if which == "x" else ax.yaxis
    decades = math.log10(max(values) / min(values))
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < DECADES else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
