"""The further questions of the study: the report's grid, vocabulary, size and optimizer. They are descriptive."""

import itertools
import math
from typing import TYPE_CHECKING, Any

from analysis.page import Cell, Row, Table, number, value_cell
from analysis.report.bootstrap import Difference, paired
from analysis.report.verdict import signed
from analysis.study import results
from analysis.study.contrasts import BASELINE
from analysis.study.tables import DECIMALS, interval_cell

if TYPE_CHECKING:
    from pandas import DataFrame

GRIDS = {
    "grid_report": "as the report ran it: warmup of 2,000 steps",
    "grid_warmup": "warmup over 10 % of the 50 steps",
}
POINT = ["lr", "dropout", "layers"]  # what the grid varies


def grid(part: str) -> "DataFrame":
    """Return the validation nll of the points of a grid, a column for each seed. Diverged runs are infinite."""
    frame = results.runs(part)
    return frame.pivot_table(index=POINT, columns="seed", values="val/nll", dropna=False).fillna(math.inf)


def rank_correlation(a: Any, b: Any) -> float:
    """Return Kendall's tau-b of two series."""
    from scipy import stats

    return float(stats.kendalltau(a, b).statistic)


def between_seeds(frame: "DataFrame") -> float:
    """Return the mean rank correlation of the pairs of seeds of a grid."""
    values = [rank_correlation(frame[a], frame[b]) for a, b in itertools.combinations(frame.columns, 2)]
    return sum(values) / len(values)


def between_grids() -> float:
    """Return the rank correlation of the two grids, of the means over their seeds."""
    a, b = (grid(part).mean(axis=1) for part in GRIDS)
    return rank_correlation(a, b[a.index])


def grids() -> Table:
    """Return what each grid selects, and where its choice stands in the other one."""
    means = {part: grid(part).mean(axis=1) for part in GRIDS}
    rows: list[Row] = []
    for part, other in zip(GRIDS, reversed(GRIDS), strict=True):
        best = means[part].idxmin()
        lr, dropout, layers = best
        rank = int(means[other].rank(method="min")[best])
        rows.append(
            [
                GRIDS[part],
                value_cell(lr),
                value_cell(dropout),
                value_cell(layers),
                number(float(means[part].min())),
                number(float(means[part].max())),
                number(between_seeds(grid(part)), 2),
                Cell(f"{rank} of {len(means[other])}", rank),
            ]
        )
    header = ["grid", "selects lr", "dropout", "layers", "best nll", "worst nll", "tau of seeds", "rank in the other"]
    return Table("grids", header, rows)


def effect(part: str, arm: str, *, bits: bool = False) -> Difference:
    """Return an arm minus cross-entropy, in nats per token or in bits per byte."""
    nll, tokens, n_bytes = results.stories(part)
    return paired(nll[BASELINE], nll[arm], n_bytes * math.log(2) if bits else tokens)


def effects(name: str, parts: dict[str, str], *, bits: bool = False) -> Table:
    """Return the differences from cross-entropy in several parts, by their labels."""
    rows: list[Row] = []
    for part, label in parts.items():
        finals = results.finals(part)
        for arm in finals:
            if arm == BASELINE or arm not in ("squentropy_1", "squentropy_0.1"):
                continue
            difference = effect(part, arm, bits=bits)
            baseline = float(finals[BASELINE]["test/bits_per_byte" if bits else "test/nll"].mean())
            rows.append(
                [
                    label,
                    number(baseline),
                    arm,
                    Cell(signed(difference.effect, DECIMALS), difference.effect),
                    interval_cell(difference.low, difference.high),
                    difference.n_seeds,
                ]
            )
    unit = "bits/byte" if bits else "test nll"
    return Table(name, ["", f"{unit} of cross_entropy", "arm", "minus cross_entropy", "95 % interval", "seeds"], rows)


def maps() -> Table:
    """Return what a map of all logits undoes, in nats per token, as means over the final runs of each arm."""
    import pandas as pd

    frame = pd.read_csv(results.FOLDER / "logits.csv")
    means = frame.groupby("arm", sort=False).mean(numeric_only=True)
    base = means.loc[BASELINE]
    rows: list[Row] = []
    for arm, mean in means.iterrows():
        cells = [
            Cell(signed(mean[key] - base[key], DECIMALS), mean[key] - base[key])
            for key in ("nll", "nll_temperature", "nll_power")
        ]
        keys = ("right", "wrong", "wrong_squared", "log_partition", "temperature", "power")
        rows.append([str(arm), *(number(float(mean[key]), 3) for key in keys), *cells])
    header = ["arm", "right logit", "wrong logit", "its square", "log of the sum of exp", "temperature", "power"]
    return Table("maps", [*header, "nll difference", "after temperature", "after power map"], rows)
