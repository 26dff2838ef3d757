"""The exploratory tables of the study: what the penalties do to the logits."""

import math
from typing import TYPE_CHECKING

from analysis.page import Cell, Row, Table, number
from analysis.report.bootstrap import Difference, paired
from analysis.report.scores import difference_cell, mean_cell
from analysis.study import bias, logits, results
from analysis.study.contrasts import BASELINE

if TYPE_CHECKING:
    from pandas import DataFrame

MAPS = {"no map": "nll", "temperature": "nll_temperature", "power map": "nll_power"}


def models() -> "DataFrame":
    """Return a row for each final model of the primary text: the numbers of logits.py."""
    return derived("logits.csv")


def derived(name: str) -> "DataFrame":
    """Return a file of results/ that was computed from final models of the primary text.

    Raises:
        ValueError: These are not the final models of runs.csv, because the part was trained again.
    """
    import pandas as pd

    frame = pd.read_csv(results.FOLDER / name, dtype={"run_id": str})
    known = {run_id for finals in results.finals(results.PRIMARY).values() for run_id in finals["run_id"]}
    if not {*frame["run_id"]} <= known:
        raise ValueError(f"{name} is from other models than the final ones of runs.csv: write it again")
    return frame


def places() -> Table:
    """Return where the logits lie, as means over the final runs of each arm."""
    rows: list[Row] = []
    for arm in results.ARMS:
        right, wrong, squared, total = (mean(arm, key) for key in ("right", "wrong", "wrong_squared", "log_partition"))
        rows.append([arm, *(number(value, 3) for value in (right, wrong, squared, spread(arm), total))])
    header = [
        "arm",
        "right class: mean logit",
        "wrong classes: mean",
        "mean square",
        "standard deviation within a token",
    ]
    return Table("logits", [*header, "log of the sum of exp(logits)"], rows)


def ranks() -> Table:
    """Return how much probability groups of classes get, and how many targets are in them, in percent."""
    means = models().groupby("arm", sort=False).mean(numeric_only=True)
    firsts = [1, *(last + 1 for last in logits.RANKS)]
    labels = [f"{first:,} to {last:,}" for first, last in zip(firsts, logits.RANKS, strict=False)]
    rows: list[Row] = []
    for arm, mean in means.iterrows():
        pairs = [(100 * mean[f"probability_{first}"], 100 * mean[f"targets_{first}"]) for first in firsts]
        rows.append([str(arm), *(Cell(f"{predicted:.1f} / {found:.1f}") for predicted, found in pairs)])
    return Table("ranks", ["arm", "the first", *labels[1:], "beyond"], rows)


def maps() -> Table:
    """Return the difference from cross-entropy before and after a map of the logits, paired by seed, and the cost."""
    frame = models()
    base = frame[frame["arm"] == BASELINE].set_index("seed")
    rows: list[Row] = []
    for arm in results.ARMS:
        own = frame[frame["arm"] == arm].set_index("seed")
        if arm == BASELINE:
            cells = [mean_cell(own[key].tolist()) for key in MAPS.values()]
        else:
            cells = [difference_cell(dict(base[key]), dict(own[key])) for key in MAPS.values()]
        fits = [number(float(own[key].mean()), 3) for key in ("temperature", "power")]
        has_cost = arm.startswith(tuple(bias.SQUARED))
        label = arm if arm == BASELINE else f"{arm} minus cross_entropy"
        rows.append([label, *cells, *fits, number(cost(arm) if has_cost else math.nan, 2)])
    header = ["arm", *MAPS, "fitted temperature", "fitted power", "cost of the penalty alone"]
    return Table("maps", header, rows)


def right_class() -> Difference:
    """Return squentropy_0.1 minus logit_penalty_0.1: does it matter that the right class is left out?"""
    nll, tokens, _ = results.stories(results.PRIMARY)
    return paired(nll["logit_penalty_0.1"], nll["squentropy_0.1"], tokens)


def mean(arm: str, key: str) -> float:
    """Return the mean of a column of logits.csv over the final runs of an arm."""
    frame = models()
    return float(frame[frame["arm"] == arm][key].mean())


def spread(arm: str) -> float:
    """Return the standard deviation, within a token, of the logits of wrong classes in the final runs of an arm."""
    return math.sqrt(mean(arm, "wrong_variance"))


def removed(arm: str, key: str) -> float:
    """Return the share of the difference of an arm from cross-entropy that a map of the logits removes."""
    return 1 - difference(arm, key) / difference(arm, "nll")


def share_of_cost(arm: str) -> float:
    """Return the cost of the penalty of an arm as a share of its difference from cross-entropy on the same stories."""
    return cost(arm) / difference(arm, "nll")


def difference(arm: str, key: str) -> float:
    """Return a column of logits.csv minus that of cross-entropy, as means over the final runs."""
    return mean(arm, key) - mean(BASELINE, key)


def cost(arm: str) -> float:
    """Return what the penalty of an arm costs a model that could give any logits, in nats per token."""
    return float(derived("bias.csv").set_index("arm")["bias"][arm])
