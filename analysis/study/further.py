"""The further questions of the study: the report's grid, vocabulary, size and optimizer. They are descriptive."""

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from analysis.page import DASH, Cell, Row, Table, number, value_cell
from analysis.report.bootstrap import Difference, Floats, paired
from analysis.study import results
from analysis.study.contrasts import BASELINE
from analysis.study.tables import difference_cells

if TYPE_CHECKING:
    from pandas import DataFrame, Series

ARMS = ("squentropy_1", "squentropy_0.1")
GRIDS = {"grid_report": "warmup of 2,000 steps, as the report ran it", "grid_warmup": "warmup of 10 % of the 50 steps"}
POINT = ["lr", "dropout", "layers"]  # what the grid varies
N_POINTS, N_SEEDS = 27, 3


def grid(part: str) -> "DataFrame":
    """Return the validation nll of the points of a grid, a column for each seed. Diverged runs are infinite."""
    frame = results.runs(part)
    nll = frame[frame["state"].isin(results.ENDED)].set_index([*POINT, "seed"])["val/nll"].fillna(math.inf).unstack()
    if nll.shape != (N_POINTS, N_SEEDS) or nll.isna().any(axis=None):
        raise ValueError(f"{part} has not all of {N_POINTS} points with {N_SEEDS} seeds: {nll.shape}")
    return nll


def rank_correlation(a: "Series", b: "Series") -> float:
    """Return Kendall's tau-b of two columns of grids."""
    from scipy import stats

    return float(stats.kendalltau(a, b[a.index]).statistic)


def of_seeds(part: str, other: str) -> float:
    """Return the mean rank correlation of runs of one seed in a grid with runs of another seed in a grid."""
    a, b = grid(part), grid(other)
    values = [rank_correlation(a[i], b[j]) for i, j in itertools.permutations(a.columns, 2)]
    return sum(values) / len(values)


def of_means() -> float:
    """Return the rank correlation of the two grids, of the means over their seeds."""
    a, b = (grid(part).mean(axis=1) for part in GRIDS)
    return rank_correlation(a, b)


def grids() -> Table:
    """Return what each grid selects by the mean of its seeds, and where its choice stands in the other one."""
    means = {part: grid(part).mean(axis=1) for part in GRIDS}
    rows: list[Row] = []
    for part, other in zip(GRIDS, reversed(GRIDS), strict=True):
        best = means[part].idxmin()
        n_same = sum(grid(part)[seed].idxmin() == best for seed in grid(part))
        rank = int(means[other].rank(method="min")[best])
        rows.append(
            [
                GRIDS[part],
                *(value_cell(value) for value in best),
                f"{n_same} of {N_SEEDS}",
                number(float(means[part].min())),
                number(float(means[part].median())),
                number(float(means[part].max())),
                Cell(f"{rank} of {N_POINTS}", rank),
            ]
        )
    header = ["grid", "selects lr", "dropout", "layers", "seeds that select it", "its val nll", "median of the grid"]
    return Table("grids", [*header, "worst", "its rank in the other grid"], rows)


def weights(part: str, *, bits: bool) -> Floats:
    """Return what divides the nats of stories: tokens, or bytes for bits per byte."""
    _, tokens, n_bytes = results.stories(part)
    return n_bytes * math.log(2) if bits else tokens


def effect(part: str, arm: str, *, bits: bool = False) -> Difference:
    """Return an arm minus cross-entropy, in nats per token or in bits per byte."""
    nll, _, _ = results.stories(part)
    return paired(nll[BASELINE], nll[arm], weights(part, bits=bits))


def change(part: str, other: str, arm: str, *, bits: bool = False) -> Difference:
    """Return the effect in one part minus the effect in another part, paired by their common seeds and by story.

    Raises:
        ValueError: The parts have other stories, or other tokens if the unit is that of tokens.
    """
    seeds = [*({*results.finals(part)[arm]["seed"]} & {*results.finals(other)[arm]["seed"]})]
    a, b = (results.stories(name, sorted(seeds))[0] for name in (part, other))
    divisor = weights(part, bits=bits)
    if (divisor != weights(other, bits=bits)).any():
        raise ValueError(f"{part} and {other} were scored on different stories or tokens")
    return paired(b[arm] - b[BASELINE], a[arm] - a[BASELINE], divisor)


def effects(name: str, parts: Mapping[str, str], reference: str, *, bits: bool = False) -> Table:
    """Return the differences from cross-entropy in parts, by their labels, and how they differ from a reference."""
    unit = "test/bits_per_byte" if bits else "test/nll"
    rows: list[Row] = []
    for part, label in parts.items():
        finals = results.finals(part)
        for arm in ARMS:
            rates = [value_cell(finals[key].iloc[0]["lr"]).text for key in (BASELINE, arm)]
            difference = effect(part, arm, bits=bits)
            changed = [Cell(DASH), Cell(DASH)]
            if part != reference:
                changed = difference_cells(change(part, reference, arm, bits=bits))
            rows.append(
                [
                    label,
                    arm,
                    " and ".join(rates),
                    number(float(finals[BASELINE][unit].mean(skipna=False))),
                    *difference_cells(difference),
                    difference.n_seeds,
                    *changed,
                ]
            )
    measure = "bits/byte" if bits else "test nll"
    header = ["", "arm", "lr of both", f"{measure} of cross_entropy", "minus cross_entropy", "95 % interval", "seeds"]
    return Table(name, [*header, f"change from {parts[reference]}", "95 % interval of the change"], rows)
