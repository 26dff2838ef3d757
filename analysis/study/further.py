"""The further questions of the study: the report's grid, vocabulary, size and optimizer. They are descriptive."""

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from analysis.page import DASH, Cell, Row, Table, number, value_cell
from analysis.report.bootstrap import Difference, Floats, paired
from analysis.report.verdict import signed
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


def between_seeds(a: "DataFrame", b: "DataFrame") -> float:
    """Return the mean rank correlation of runs of one seed in a grid with runs of another seed in a grid."""
    values = [rank_correlation(a[i], b[j]) for i, j in itertools.permutations(a.columns, 2)]
    return sum(values) / len(values)


def of_means() -> float:
    """Return the rank correlation of the two grids, of the means over their seeds."""
    a, b = (grid(part).mean(axis=1) for part in GRIDS)
    return rank_correlation(a, b)


def by_learning_rate() -> float:
    """Return the rank correlation of two grids if the learning rate decides and the rest is random."""
    n_rates = 3
    return 1 - n_rates * math.comb(N_POINTS // n_rates, 2) / math.comb(N_POINTS, 2)


def within() -> Table:
    """Return the range of the validation nll at each learning rate, and the rank correlation of its nine points."""
    grids = [grid(part) for part in GRIDS]
    rows: list[Row] = []
    for lr in grids[0].index.unique("lr"):
        points = [frame.loc[lr] for frame in grids]
        ranges = [f"{frame.min(axis=None):.3f} to {frame.max(axis=None):.3f}" for frame in points]
        taus = [rank_correlation(*(frame.mean(axis=1) for frame in points))]
        taus += [between_seeds(*pair) for pair in ((points[0], points[0]), (points[1], points[1]), points)]
        rows.append([value_cell(lr), *ranges, *(Cell(signed(tau, 2), tau) for tau in taus)])
    header = ["lr", "val nll of runs, report's warmup", "warmup of 10 %", "τ of the means of the grids"]
    return Table("within", [*header, *(f"τ of seeds, {of}" for of in ("report's", "10 %", "one of each"))], rows)


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
    header = [
        "grid",
        "selects lr",
        "dropout",
        "layers",
        "seeds that select it",
        "its mean val nll",
        "median of the means",
    ]
    return Table("grids", [*header, "highest mean", "its rank in the other grid"], rows)


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
        ValueError: The parts have other stories, or other tokens if the unit is that of tokens, or two versions of the
            program trained them.
    """
    finals = [results.finals(name)[arm] for name in (part, other)]
    if len({program for frame in finals for program in frame["program"]}) > 1:
        raise ValueError(f"{part} and {other} were trained by different versions of the program")
    seeds = [*({*finals[0]["seed"]} & {*finals[1]["seed"]})]
    a, b = (results.stories(name, sorted(seeds))[0] for name in (part, other))
    divisor = weights(part, bits=bits)
    if (divisor != weights(other, bits=bits)).any():
        raise ValueError(f"{part} and {other} were scored on different stories or tokens")
    return paired(b[arm] - b[BASELINE], a[arm] - a[BASELINE], divisor)


def trend(part: str, other: str, arm: str, *, bits: bool = False) -> str:
    """Return whether the effect of an arm grows or shrinks from one part to another, for a sentence."""
    difference = change(other, part, arm, bits=bits)
    if difference.low <= 0 <= difference.high:
        return "does not clearly change"
    return "grows" if difference.effect > 0 else "shrinks"


def effects(name: str, parts: Mapping[str, str], reference: str, *, bits: bool = False) -> Table:
    """Return the differences from cross-entropy in parts, by their labels, and how they differ from a reference.

    `name` says in what the parts differ. The change is that of the seeds that both parts have.
    """
    unit = "test/bits_per_byte" if bits else "test/nll"
    rows: list[Row] = []
    for part, label in parts.items():
        finals, without = results.finals(part), {*results.diverged(part), *results.diverged(reference)}
        for arm in ARMS:
            rates = [value_cell(finals[key].iloc[0]["lr"]).text for key in (BASELINE, arm)]
            shown = changed = [number(math.nan), Cell(DASH)]
            if without.isdisjoint({BASELINE, arm}):
                shown = difference_cells(effect(part, arm, bits=bits))
                if part != reference:
                    changed = difference_cells(change(part, reference, arm, bits=bits))
            rows.append(
                [
                    label,
                    arm,
                    " and ".join(rates),
                    number(float(finals[BASELINE][unit].mean(skipna=False))),
                    *shown,
                    len(finals[arm]),
                    *changed,
                ]
            )
    measure = "bits/byte" if bits else "test nll"
    header = [name, "arm", "lr of both", f"{measure} of cross_entropy", "minus cross_entropy", "95 % interval", "seeds"]
    return Table(name, [*header, f"change from {parts[reference]}", "95 % interval of the change"], rows)
