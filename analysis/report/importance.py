"""The importance of the settings of a search, by fANOVA or, if some trials lack a setting, by conditional PED-ANOVA.

fANOVA (Hutter, Hoos and Leyton-Brown, ICML 2014) estimates the share of the variance that a setting explains alone. It
takes only settings that all trials have. Where the loss is an axis, that leaves out the weight of a loss, and other
settings get the share of the weight. Conditional PED-ANOVA (arXiv 2601.20800) takes all settings, and estimates how
much each of them decides whether a trial is among the best. It uses only the ranks of the values and needs more trials.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from analysis import figures
from analysis.axes import fit_scale
from analysis.report.optuna_study import Search

if TYPE_CHECKING:
    from optuna.importance import BaseImportanceEvaluator
    from optuna.trial import FrozenTrial

N_FORESTS, N_TREES = 5, 16  # with fixed seeds; trees take long for hundreds of trials
MIN_COMPLETE = 10  # trials that a forest needs
# In 12 random searches in which the weight of a loss matters most, PED-ANOVA found this 4 times with 10 trials, 9 times
# with 20, and 10 times with 30.
MIN_COMPLETE_CONDITIONAL = 20
CHARACTERS = 16  # of a name in one line
N_BEST, BEST = 5, 0.1  # trials that count as the best: as many as PED-ANOVA's documentation asks for, or a tenth


@dataclass(frozen=True)
class Importance:
    """The importance of settings. The shares are by setting, most important first, and for each forest."""

    shares: list[dict[str, list[float]]]  # for each metric
    n_best: int = 0  # trials that PED-ANOVA calls the best; 0 for fANOVA


def estimate(search: Search) -> Importance:
    """Return the importance of the settings for each metric.

    Raises:
        ValueError: The importance cannot be estimated. The message says why.
    """
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
    from optuna.search_space import intersection_search_space

    n = len(search.complete)
    common = intersection_search_space(search.study.get_trials(deepcopy=False))
    is_conditional = any(name not in common for trial in search.complete for name in trial.params)
    least = MIN_COMPLETE_CONDITIONAL if is_conditional else MIN_COMPLETE
    if n < least:
        why = ", because not all trials have the same settings" if is_conditional else ""
        raise ValueError(f"{n} complete trials are too few, it needs {least}{why}")
    if all(axis.single() for axis in search.space.values()):
        raise ValueError("the search did not vary a setting")
    if any(len({trial.values[i] for trial in search.complete}) == 1 for i in range(len(search.metrics))):
        raise ValueError("all trials have the same value")
    n_best = max(N_BEST, math.ceil(BEST * n)) if is_conditional else 0
    evaluators: list[BaseImportanceEvaluator] = (
        [PedAnovaImportanceEvaluator(target_quantile=n_best / n)]
        if is_conditional
        else [FanovaImportanceEvaluator(n_trees=N_TREES, seed=seed) for seed in range(N_FORESTS)]
    )
    return Importance([_shares(search, evaluators, i) for i in range(len(search.metrics))], n_best)


def _shares(search: Search, evaluators: "Sequence[BaseImportanceEvaluator]", i: int) -> dict[str, list[float]]:
    import optuna

    result: dict[str, list[float]] = {}
    for evaluator in evaluators:
        with warnings.catch_warnings():
            # fANOVA is experimental, and PED-ANOVA says that it takes the lowest values for the best ones.
            warnings.simplefilter("ignore")
            try:
                shares = optuna.importance.get_param_importances(
                    search.study, evaluator=evaluator, target=_cost(search, i)
                )
            except (RuntimeError, ValueError) as error:  # all trees are constant, or the space changed
                raise ValueError(f"Optuna: {str(error).splitlines()[0].rstrip('.')}") from error
        for name, share in shares.items():
            if not search.space[name].single():
                result.setdefault(name, []).append(float(share))
    if not result:
        raise ValueError("all complete trials have no setting in common")
    return dict(sorted(result.items(), key=lambda item: -mean(item[1])))


def _cost(search: Search, i: int) -> "Callable[[FrozenTrial], float]":
    """Return a function for the cost of a trial: lower is better, and nan, which Optuna ignores, if it diverged."""
    complete = {trial.number for trial in search.complete}
    return lambda trial: search.metrics[i].cost(trial.values[i]) if trial.number in complete else math.nan


@figures.style()
def figure(search: Search, importance: Importance) -> figures.Figure:
    """Draw the importance of the settings, with a panel for each metric."""
    height = 1.1 + 0.36 * max(map(len, importance.shares))
    drawing, panels = figures.panels(len(importance.shares), size=(figures.PANEL[0], height))
    label = f"Share in being among the best {importance.n_best}" if importance.n_best else "Share of explained variance"
    for axes, metric, by_setting in zip(panels, search.metrics, importance.shares, strict=True):
        means = [mean(shares) for shares in by_setting.values()]
        axes.barh(range(len(means)), means, height=0.6, color=figures.SERIES[0])
        for i, shares in enumerate(by_setting.values()):
            if len(shares) > 1:
                axes.plot([min(shares), max(shares)], [i, i], color=figures.INK, linewidth=1, marker="|", markersize=6)
            axes.annotate(f"{means[i]:.2f}", (max(shares), i), (5, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(means)), [_lines(name) for name in by_setting])
        axes.invert_yaxis()
        highest = max(map(max, by_setting.values()))
        axes.set(xlim=(0, 1.2 * highest), xlabel=label, title=f"Importance for\n{metric.label.split(' (')[0].lower()}")
        fit_scale(axes, "x", [0, highest])
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    return figures.finish(drawing, "search-importance", _caption(search, importance))


def _lines(name: str) -> str:
    """Return the name of a setting in two lines if it is long."""
    return name if len(name) <= CHARACTERS else name.replace(".", ".\n", 1)


def _caption(search: Search, importance: Importance) -> str:
    n = len(search.complete)
    if not importance.n_best:
        return (
            f"fANOVA of {n} complete trials, without pruned ones: mean and range of {N_FORESTS} random forests. The "
            "range does not include the uncertainty from the choice of trials."
        )
    uses = {name: sum(name in trial.params for trial in search.complete) for name in search.space}
    some = ", ".join(f"{name} {count}" for name, count in uses.items() if count < n)
    lacking = f" Trials that have a setting which others lack: {some}." if some else ""
    return (
        f"Conditional PED-ANOVA of {n} complete trials, without pruned ones: how much a setting decides whether a "
        f"trial is among the best {importance.n_best}. The shares add up to 1.{lacking} With other trials, the order "
        "may be another."
    )
