"""The exploratory tables of the study: what the penalties do to the logits."""

from typing import TYPE_CHECKING

from analysis.page import DASH, Cell, Row, Table, number
from analysis.report.bootstrap import Difference, paired
from analysis.report.scores import half_interval
from analysis.report.verdict import signed
from analysis.study import results
from analysis.study.contrasts import BASELINE

if TYPE_CHECKING:
    from pandas import DataFrame

FREE = "z_loss"  # a constant added to all logits makes this penalty 0
MAPS = {"no map": "nll", "temperature": "nll_temperature", "power map": "nll_power"}


def models() -> "DataFrame":
    """Return a row for each final model of the primary text: the numbers of logits.py."""
    import pandas as pd

    return pd.read_csv(results.FOLDER / "logits.csv")


def places() -> Table:
    """Return where the logits lie, as means over the final runs of each arm."""
    means = models().groupby("arm", sort=False).mean(numeric_only=True)
    means["spread"] = (means["wrong_squared"] - means["wrong"] ** 2) ** 0.5
    keys = {
        "mean logit of the right class": "right",
        "of the wrong classes": "wrong",
        "mean square of these": "wrong_squared",
        "their standard deviation": "spread",
        "log of the sum of exp": "log_partition",
    }
    rows: list[Row] = [
        [str(arm), *(number(float(mean[key]), 3) for key in keys.values())] for arm, mean in means.iterrows()
    ]
    return Table("logits", ["arm", *keys], rows)


def maps() -> Table:
    """Return the difference from cross-entropy before and after a map of the logits, paired by seed, and the cost."""
    frame = models()
    base = frame[frame["arm"] == BASELINE].set_index("seed")
    rows: list[Row] = []
    for arm in results.ARMS[1:]:
        own = frame[frame["arm"] == arm].set_index("seed")
        cells = []
        for key in MAPS.values():
            values = (own[key] - base[key]).tolist()
            mean = sum(values) / len(values)
            cells.append(Cell(f"{signed(mean, 3)} ± {half_interval(values):.3f}", mean))
        fits = [number(float(own[key].mean()), 3) for key in ("temperature", "power")]
        rows.append([arm, *cells, *fits, Cell(DASH) if arm.startswith(FREE) else number(cost(arm), 2)])
    header = ["arm minus cross_entropy", *MAPS, "fitted temperature", "fitted power", "cost of the penalty alone"]
    return Table("maps", header, rows)


def right_class() -> Difference:
    """Return squentropy_0.1 minus logit_penalty_0.1: does it matter that the right class is left out?"""
    nll, tokens, _ = results.stories(results.PRIMARY)
    return paired(nll["logit_penalty_0.1"], nll["squentropy_0.1"], tokens)


def mean(arm: str, key: str) -> float:
    """Return the mean of a column of logits.csv over the final runs of an arm."""
    frame = models()
    return float(frame[frame["arm"] == arm][key].mean())


def removed(arm: str, key: str) -> float:
    """Return the share of the difference of an arm from cross-entropy that a map of the logits removes."""
    before, after = (mean(arm, column) - mean(BASELINE, column) for column in ("nll", key))
    return 1 - after / before


def cost(arm: str) -> float:
    """Return what the penalty of an arm costs a model that could give any logits, in nats per token."""
    import pandas as pd

    return float(pd.read_csv(results.FOLDER / "bias.csv").set_index("arm")["bias"][arm])
