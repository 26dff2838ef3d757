"""The importance of the settings of a search, by fANOVA: Hutter, Hoos and Leyton-Brown, ICML 2014."""

import math
import warnings
from collections.abc import Callable
from statistics import mean
from typing import TYPE_CHECKING

from analysis import figures
from analysis.report.optuna_study import Search

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

N_FORESTS, N_TREES = 5, 16  # with fixed seeds; trees take long for hundreds of trials
MIN_COMPLETE = 10  # trials that a forest needs
Importance = dict[str, list[float]]  # by setting: share of the variance that it explains alone, for each forest


def estimate(search: Search) -> list[Importance]:
    """Return the importance of the settings for each metric, most important first.

    This is not Optuna's default evaluator, PED-ANOVA, because that looks at the best tenth of the trials: one or two
    trials of a search this small. Only settings that all complete trials have are evaluated.

    Raises:
        ValueError: The importance cannot be estimated. The message says why.
    """
    import optuna

    if len(search.complete) < MIN_COMPLETE:
        raise ValueError(f"{len(search.complete)} complete trials are too few, it needs {MIN_COMPLETE}")
    if all(axis.single() for axis in search.space.values()):
        raise ValueError("the search did not vary a setting")
    if any(len({trial.values[i] for trial in search.complete}) == 1 for i in range(len(search.metrics))):
        raise ValueError("all trials have the same value")
    result = []
    for i in range(len(search.metrics)):
        importance: Importance = {}
        for seed in range(N_FORESTS):
            evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=N_TREES, seed=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                try:
                    shares = optuna.importance.get_param_importances(
                        search.study, evaluator=evaluator, target=_value(search, i)
                    )
                except (RuntimeError, ValueError) as error:  # all trees are constant, or the space changed
                    raise ValueError(f"Optuna: {str(error).splitlines()[0].rstrip('.')}") from error
            for name, share in shares.items():
                if not search.space[name].single():
                    importance.setdefault(name, []).append(float(share))
        if not importance:
            raise ValueError("all complete trials have no setting in common")
        result.append(dict(sorted(importance.items(), key=lambda item: -mean(item[1]))))
    return result


def _value(search: Search, i: int) -> "Callable[[FrozenTrial], float]":
    """Return a function for a metric of a trial; it is nan for trials that diverged, so that Optuna ignores them."""
    complete = {trial.number for trial in search.complete}
    return lambda trial: trial.values[i] if trial.number in complete else math.nan


@figures.style()
def figure(search: Search, importances: list[Importance]) -> figures.Figure:
    """Draw the importance of the settings, with a panel for each metric."""
    height = 1.1 + 0.32 * max(map(len, importances))
    drawing, panels = figures.panels(len(importances), size=(figures.PANEL[0], height))
    for axes, metric, importance in zip(panels, search.metrics, importances, strict=True):
        means = [mean(shares) for shares in importance.values()]
        axes.barh(range(len(means)), means, height=0.6, color=figures.SERIES[0])
        for i, shares in enumerate(importance.values()):
            axes.plot([min(shares), max(shares)], [i, i], color=figures.INK, linewidth=1, marker="|", markersize=6)
            axes.annotate(f"{means[i]:.2f}", (max(shares), i), (5, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(means)), list(importance))
        axes.invert_yaxis()
        axes.set(xlim=(0, 1.15 * max(map(max, importance.values()))), xlabel="Share of explained variance")
        axes.set_title(f"Importance for {metric.label.split(' (')[0].lower()}", fontsize=9)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    caption = (
        f"fANOVA of {len(search.complete)} complete trials, without pruned ones: mean and range of {N_FORESTS} "
        "random forests. The range does not include the uncertainty from the choice of trials."
    )
    unseen = sorted(name for name in search.space if not any(name in importance for importance in importances))
    if unseen:
        caption += f" Without settings that are missing or the same in some trials: {', '.join(unseen)}."
    return figures.finish(drawing, "search-importance", caption)
