"""The tuning curves of a comparison: how good the best trial of each contender was after each number of trials."""

import math
from itertools import accumulate
from typing import Any

from analysis import figures, labels
from analysis.axes import fit_scale
from analysis.report.contenders import ENDED, Comparison
from analysis.report.optuna_study import StudyTrial

RING: Any = {"linestyle": "none", "marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.4}


@figures.style()
def tuning_curves(comparison: Comparison) -> figures.Figure:
    """Draw the best value so far against the number of trials, with a line for each contender."""
    (metric,) = comparison.contenders[0].tuning.metrics
    best, worst = (max, -math.inf) if metric.maximize else (min, math.inf)
    drawing, (axes,) = figures.panels()
    shown: list[float] = []
    starts: list[StudyTrial] = []
    for i, contender in enumerate(comparison.contenders):
        ended = [trial for trial in contender.tuning.trials if trial.state in ENDED]
        values = accumulate((trial.values[0] if trial.values else worst for trial in ended), best)
        curve = [value if math.isfinite(value) else math.nan for value in values]
        look = figures.series(i) | {"markersize": 3, "drawstyle": "steps-post"}
        axes.plot(range(1, len(curve) + 1), curve, **look, label=contender.label)
        shown += [value for value in curve if not math.isnan(value)]
        if (start := contender.as_it_stands) and start.values:
            starts.append(start)
            axes.plot([ended.index(start) + 1], start.values, color=look["color"], **RING, zorder=3)
    fit_scale(axes, "y", [*shown, *(value for start in starts for value in start.values)])
    fit_scale(
        axes, "x", [1, max(contender.n_ended for contender in comparison.contenders)], is_log=False, is_integer=True
    )
    axes.set(title="Tuning", xlabel="Number of trials", ylabel=f"Best {metric.in_sentence}\n{metric.better}")
    labels.name_ends(axes)
    caption = (
        f"The best value of each contender after a number of trials of {comparison.tune_steps} steps. "
        "Trials that were pruned, diverged or failed count as trials."
    )
    caption += " A ring is the configuration as it stands." if starts else ""
    return figures.finish(drawing, "comparison-tuning", caption)
