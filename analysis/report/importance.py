"""Importance of the settings of a search, by fANOVA: Hutter, Hoos and Leyton-Brown, ICML 2014."""

import math
import warnings
from collections.abc import Callable
from statistics import mean
from typing import TYPE_CHECKING

from analysis import figures
from analysis.figures import FAINT, INK, SERIES, Figure
from analysis.report.optuna_study import Search

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

N_FORESTS, N_TREES = 5, 16  # random ones, of fixed seeds; a tree takes its time where there are hundreds of trials
MIN_COMPLETE = 10  # trials to fit a forest to


def estimate(search: Search) -> list[dict[str, list[float]]]:
    """Return, for each metric and setting, the fraction of variance that the setting explains: one for each forest.

    Optuna's evaluator, and not its default, PED-ANOVA, which looks at the best tenth: one or two trials of a search
    as small as these. It sees the settings that all complete trials have. ValueError says why where it cannot tell.
    """
    import optuna

    if len(search.complete) < MIN_COMPLETE:
        raise ValueError(f"{len(search.complete)} complete trials are too few, {MIN_COMPLETE} would do")
    if all(axis.single() for axis in search.space.values()):
        raise ValueError("no setting was varied")
    for i in range(len(search.objectives)):
        if len({trial.values[i] for trial in search.complete}) == 1:
            raise ValueError("all trials came to the same value")
    numbers = {trial.number for trial in search.complete}
    found = []
    for i in range(len(search.objectives)):
        parts: dict[str, list[float]] = {}
        for seed in range(N_FORESTS):
            evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=N_TREES, seed=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                try:
                    each = optuna.importance.get_param_importances(
                        search.study, evaluator=evaluator, target=_value(i, numbers)
                    )
                except (RuntimeError, ValueError) as error:  # all trees are constant; a space that changed
                    raise ValueError(f"Optuna says: {str(error).splitlines()[0].rstrip('.')}") from error
            for name, part in each.items():
                if not search.space[name].single():
                    parts.setdefault(name, []).append(float(part))
        if not parts:
            raise ValueError("no setting is one of all complete trials")
        found.append(dict(sorted(parts.items(), key=lambda item: -mean(item[1]))))
    return found


def _value(i: int, numbers: set[int]) -> "Callable[[FrozenTrial], float]":
    """Return a function from a trial to its value, nan for a trial that diverged: Optuna leaves it out."""
    return lambda trial: trial.values[i] if trial.number in numbers else math.nan


def figure(search: Search, parts: list[dict[str, list[float]]]) -> Figure:
    """Return a figure of bars of `estimate`, with a panel for each metric."""
    n = max(map(len, parts))
    with figures.style():
        drawing, axes = figures.panels(len(parts), size=(figures.PANEL[0], 1.1 + 0.32 * n))
        for ax, objective, each in zip(axes, search.objectives, parts, strict=True):
            means = [mean(values) for values in each.values()]
            ax.barh(range(len(each)), means, height=0.6, color=SERIES[0])
            for at, values in enumerate(each.values()):
                ax.plot([min(values), max(values)], [at, at], color=INK, linewidth=1, marker="|", markersize=6)
                ax.annotate(f"{means[at]:.2f}", (max(values), at), (5, 0), textcoords="offset points", va="center")
            ax.set_yticks(range(len(each)), list(each))
            ax.invert_yaxis()
            ax.set(xlim=(0, 1.15 * max(max(values) for values in each.values())), xlabel="Part of explained variance")
            ax.set_title(f"Importance for {objective.label.split(' (')[0].lower()}", fontsize=9)
            ax.grid(False, axis="y")
            ax.spines["left"].set_color(FAINT)
            ax.tick_params(axis="y", length=0)
        unseen = sorted(name for name in search.space if not any(name in each for each in parts))
        caption = (
            f"fANOVA of {len(search.complete)} complete trials: mean and range of {N_FORESTS} random forests, the "
            "range does not include the uncertainty from which trials were drawn. A pruned trial does not count."
        )
        if unseen:
            caption += f" Left out, for not being set or varied in every trial: {', '.join(unseen)}."
        return figures.finish(drawing, "search-importance", caption)
