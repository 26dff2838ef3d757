"""The intervals of the study again, from the files alone, with numpy and without a bootstrap."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis.study import further, tables

RESULTS = Path(__file__).parents[3] / "analysis/study/results"
SETTING = ("lr", "dropout", "optimizer", "layers", "width", "vocabulary", "steps")
N_GRID = 400_001
with (RESULTS / "runs.csv").open(newline="") as file:
    ROWS = list(csv.DictReader(file))
PARTS = sorted({row["part"] for row in ROWS if row["role"] == "final"})


def chosen(part: str, arm: str) -> list[dict[str, str]]:
    """Return the final runs of the setting with the lowest validation nll, by seed."""
    rows = [row for row in ROWS if row["part"] == part and row["arm"] == arm]
    tried = [row for row in rows if row["role"] == "tuning" and row["state"] == "finished"]
    best = min(tried, key=lambda row: float(row["val/nll"]))
    final = [row for row in rows if (row["role"], row["state"]) == ("final", "finished")]
    finals = [row for row in final if all(row[key] == best[key] for key in SETTING)]
    return sorted(finals, key=lambda row: int(row["seed"]))


def t_quantile(probability: float, df: int) -> float:
    """Return a quantile of Student's distribution above the median, by integration of its density."""
    x = np.linspace(0, 60, N_GRID)
    density = (1 + x**2 / df) ** (-(df + 1) / 2)
    area = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    beyond = np.exp((df + 1) / 2 * np.log(df) - df * np.log(x[-1])) / df  # there, the density is about a power of x
    tail = beyond / (x[1] - x[0])
    return float(np.interp(2 * probability - 1, area / (area[-1] + tail), x))


def interval(part: str, arm: str) -> tuple[float, float, float]:
    """Return the difference from cross-entropy and its 95 % interval.

    The variance over stories is that of a ratio of sums, linearized; that over seeds the variance of a mean.
    """
    with np.load(RESULTS / "stories.npz") as arrays:
        tokens = arrays[f"{part}/tokens"].astype(float)
        pairs = list(zip(chosen(part, arm), chosen(part, "cross_entropy"), strict=True))
        assert all(own["seed"] == base["seed"] for own, base in pairs)
        nll = [[arrays[f"{part}/{row['run_id']}"].astype(float) for row in pair] for pair in pairs]
        nats = [own - base for own, base in nll]
    difference = np.array(nats)
    n_seeds, n_stories = difference.shape
    effect = difference.sum() / n_seeds / tokens.sum()
    residual = difference.mean(axis=0) - effect * tokens
    of_stories = n_stories / (n_stories - 1) * (residual**2).sum() / tokens.sum() ** 2
    of_seeds = (difference.sum(axis=1) / tokens.sum()).var(ddof=1) / n_seeds
    half = np.sqrt(t_quantile(0.975, n_stories - 1) ** 2 * of_stories + t_quantile(0.975, n_seeds - 1) ** 2 * of_seeds)
    return effect, effect - half, effect + half


@pytest.mark.parametrize("part", PARTS)
def test_intervals_are_those_of_separate_code(part: str) -> None:
    contrasts = tables.of_part(part)
    assert contrasts
    for contrast in contrasts:
        effect, low, high = interval(part, contrast.arm)
        tolerance = 0.05 * (high - low) / 2  # the error of 10,000 draws has a standard deviation of about 0.01
        assert contrast.difference.effect == pytest.approx(effect, abs=1e-9)
        assert contrast.difference.low == pytest.approx(low, abs=tolerance)
        assert contrast.difference.high == pytest.approx(high, abs=tolerance)


@pytest.mark.parametrize("part", PARTS)
def test_the_story_scores_are_those_of_the_runs(part: str) -> None:
    with np.load(RESULTS / "stories.npz") as arrays:
        tokens, n_bytes = arrays[f"{part}/tokens"], arrays[f"{part}/bytes"]
        for row in ROWS:
            if (row["part"], row["role"], row["state"]) == (part, "final", "finished"):
                nats = arrays[f"{part}/{row['run_id']}"].astype(float).sum()
                assert nats / tokens.sum() == pytest.approx(float(row["test/nll"]), rel=1e-6)
                assert nats / np.log(2) / n_bytes.sum() == pytest.approx(float(row["test/bits_per_byte"]), rel=1e-6)


def test_quantiles() -> None:
    assert [t_quantile(0.975, df) for df in (2, 4, 100)] == pytest.approx([4.30265, 2.77645, 1.98397], abs=2e-4)


@pytest.mark.skipif(not all(any(row["part"] == part for row in ROWS) for part in further.GRIDS), reason="not run yet")
def test_the_rank_correlation_of_the_grids() -> None:
    """Kendall's tau-b by its definition."""
    means: list[dict[tuple[float, ...], float]] = []
    for part in further.GRIDS:
        values: dict[tuple[float, ...], list[float]] = {}
        for row in ROWS:
            if row["part"] == part:
                values.setdefault(tuple(float(row[key]) for key in ("lr", "dropout", "layers")), []).append(
                    float(row["val/nll"] or "inf")
                )
        assert len(values) == 27
        means.append({key: float(np.mean(nll)) for key, nll in values.items()})
    a, b = means
    signs = np.array([(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in itertools.combinations(a, 2)])
    tau = signs.prod(axis=1).sum() / np.sqrt((signs[:, 0] != 0).sum() * (signs[:, 1] != 0).sum())
    assert further.of_means() == pytest.approx(tau)


def test_the_rank_correlation_of_grids_whose_learning_rate_decides() -> None:
    """Blocks of nine points in the same order, in a random order inside."""
    rng = np.random.default_rng(0)
    order = np.repeat([0.0, 10.0, 20.0], 9)
    values = [stats.kendalltau(order + rng.random(27), order + rng.random(27)).statistic for _ in range(400)]
    assert np.mean(values) == pytest.approx(further.by_learning_rate(), abs=0.01)


def test_the_rank_correlation_within_a_learning_rate() -> None:
    rows = [[cell.value for cell in row] for row in further.within().cells()]
    for lr, _, _, tau, *_ in rows:
        a, b = (further.grid(part).loc[lr].mean(axis=1) for part in further.GRIDS)
        pairs = list(itertools.combinations(a.index, 2))
        signs = [np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i, j in pairs]
        assert tau == pytest.approx(np.mean(signs))
    assert [row[0] for row in rows] == [6e-06, 0.0006, 0.06]
