"""Figures of a search: its history, the intermediate values of its trials, and the front of several metrics."""

import math
from itertools import accumulate, combinations
from typing import Any

from analysis import figures, labels
from analysis.axes import fit_scale, span
from analysis.report.optuna_study import Search, StudyMetric

DENSE = 12  # lines of trials that are drawn without more transparency
CROSS: Any = {"color": figures.SERIES[1], "linestyle": "none", "marker": "x", "markersize": 5, "markeredgewidth": 1.4}


@figures.style()
def history(search: Search) -> figures.Figure:
    """Draw the value of each complete trial, the best value so far, and the last value of pruned trials."""
    (metric,) = search.metrics
    values = {trial.number: trial.values[0] for trial in search.complete}
    ended = [trial for trial in search.trials if trial.state == "pruned" and trial.intermediate]
    pruned = {trial.number: trial.intermediate[max(trial.intermediate)] for trial in ended}
    drawing, (axes,) = figures.panels()
    if values:
        best = list(accumulate(values.values(), max if metric.maximize else min))
        axes.plot(
            list(values), list(values.values()), **figures.series(0) | {"linestyle": "none"}, label="complete trial"
        )
        look = figures.series(2) | {"marker": "none", "where": "post", "label": "best so far"}
        axes.step([*values, search.trials[-1].number], [*best, best[-1]], **look)  # to the end of the search
    if pruned:
        axes.plot(list(pruned), list(pruned.values()), **CROSS, label="pruned, last value")
    fit_scale(axes, "y", [*values.values(), *pruned.values()])
    fit_scale(axes, "x", [trial.number for trial in search.trials], is_log=False, is_integer=True)
    axes.set(title="History of the search", xlabel="Number of the trial", ylabel=label(metric))
    labels.legend(axes)
    n_diverged = search.counts.get("diverged", 0)
    caption = f"The trials of {search.name}, each trained for {_steps(search)}." + (
        " A cross is the last value of a pruned trial, after a part of these steps: it is no result." if pruned else ""
    )
    caption += f" Not shown: trials that diverged ({n_diverged})." if n_diverged else ""
    return figures.finish(drawing, "search-history", caption)


@figures.style()
def intermediate(search: Search) -> figures.Figure:
    """Draw the metric over the training of each trial."""
    (metric,) = search.metrics
    best = search.ranked()[0]
    looks: dict[str, Any] = {
        "complete": {"color": figures.INK, "linewidth": 1, "alpha": min(0.45, max(0.1, DENSE / len(search.trials)))},
        "pruned": {"color": figures.SERIES[1], "linestyle": figures.DASHES[1], "linewidth": 1, "alpha": 0.8},
        "without a result": {"color": figures.INK, "linestyle": figures.DASHES[2], "linewidth": 1},
        f"best, trial {best.number}": figures.series(0) | {"linewidth": 2.2, "zorder": 3},
    }
    drawing, (axes,) = figures.panels()
    labeled: set[str] = set()
    for trial in search.trials:
        if not trial.intermediate:
            continue
        kind = trial.state if trial.state in looks else "without a result"
        if trial is best and trial.state == "complete":
            kind = f"best, trial {best.number}"
        name = kind if kind not in labeled else None
        labeled.add(kind)
        percents, values = [100 * fraction for fraction in trial.intermediate], list(trial.intermediate.values())
        axes.plot(percents, values, **looks[kind], label=None if kind == "pruned" else name)
        if kind == "pruned":
            axes.plot(percents[-1:], values[-1:], **CROSS, label=name, zorder=3)
    fit_scale(axes, "y", [value for trial in search.trials for value in trial.intermediate.values()])
    fit_scale(axes, "x", [0, 100])
    axes.set(title="Trials during training", xlabel="Part of the training steps (%)", ylabel=label(metric))
    labels.legend(axes)
    seeds = " Of several seeds, only the first is reported." if search.seeds > 1 else ""
    caption = (
        f"The values that the trials reported to the pruner; 100 % is {_steps(search)}. A cross is the end of a pruned "
        f"trial.{seeds}"
    )
    return figures.finish(drawing, "search-intermediate", caption)


@figures.style()
def pareto(search: Search) -> figures.Figure:
    """Draw the complete trials of a search with several metrics, with a panel for each pair of metrics."""
    front = search.front()
    others = [trial for trial in search.complete if trial not in front]
    pairs = list(combinations(range(len(search.metrics)), 2))
    rest: Any = {"color": figures.FAINT, "linestyle": "none", "marker": "o", "label": "other complete trial"}
    line = "-" if len(pairs) == 1 else "none"
    look = figures.series(0) | {"marker": "s", "linestyle": line, "linewidth": 0.8, "label": "Pareto front"}
    drawing, panels = figures.panels(len(pairs))
    for axes, (i, j) in zip(panels, pairs, strict=True):
        if others:
            axes.plot([trial.values[i] for trial in others], [trial.values[j] for trial in others], **rest)
        points = sorted((trial.values[i], trial.values[j]) for trial in front)
        axes.plot([x for x, _ in points], [y for _, y in points], **look)
        fit_scale(axes, "x", [trial.values[i] for trial in search.complete])
        fit_scale(axes, "y", [trial.values[j] for trial in search.complete])
        axes.set(xlabel=label(search.metrics[i]), ylabel=label(search.metrics[j]))
        axes.margins(0.1)
    panels[0].set_title("Pareto front")
    labels.legend(panels[0])
    caption = "Complete trials. No trial is better than one on the front in one metric and as good in the others."
    return figures.finish(drawing, "search-pareto", caption)


def label(metric: StudyMetric) -> str:
    """Return the label of an axis that shows a metric."""
    return f"{metric.label}\n{metric.better}"


def _steps(search: Search) -> str:
    """Return the number of training steps of the trials, as text."""
    steps = [trial.max_steps for trial in search.trials if math.isfinite(trial.max_steps)]
    return f"{span(steps)} training steps" if steps else "all training steps"
