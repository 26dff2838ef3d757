"""The difference between two losses and its confidence interval: a paired bootstrap over stories and seeds.

Both losses are scored on the same stories with the same seeds, so the differences are resampled. Seeds and stories are
crossed: every seed scores every story. They are resampled independently, which is the pigeonhole bootstrap of Owen
2007, arXiv 0712.1111. Resampling both at once would count the variance that belongs neither to a seed nor to a story
three times. Here, seeds and stories are resampled separately, which counts it twice and is still conservative.

The percentiles of a bootstrap are too close together for a few seeds. Therefore each of the two variances gets
Student's quantile and the factor n / (n - 1) of Hesterberg 2015, American Statistician 69:371, and the squared half
widths are added. For normal components, this interval covers at least as often as it states (Banerjee 1960, Sankhya
22:357), and it is shorter than with the quantile of the seeds for both components.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CHUNK = 1 << 15  # resampled stories in memory at a time
LEAST_P = 1e-9  # least p-value; smaller ones depend on tails that no bootstrap knows


@dataclass(frozen=True)
class Difference:
    """Loss b minus loss a, in nats per token if the weights are tokens. It is negative if b is better."""

    effect: float
    low: float
    high: float
    standard_error: float
    n_seeds: int
    n_stories: int
    variances: Sequence[tuple[int, float]] = ()  # of the stories and of the seeds: their number, variance of the mean

    @property
    def p_value(self) -> float:
        """The smallest error rate, 1 - level, at which the interval excludes 0; at least LEAST_P."""
        from scipy import optimize

        def excess(log_p: float) -> float:
            return half_width(self.variances, 1 - math.exp(log_p)) - abs(self.effect)

        if self.effect == 0:
            return 1.0
        if excess(math.log(LEAST_P)) <= 0:
            return LEAST_P
        return math.exp(optimize.brentq(excess, math.log(LEAST_P), 0.0))

    @property
    def includes_zero(self) -> bool:
        """True if the confidence interval includes 0."""
        return self.low <= 0 <= self.high


def paired(
    nll_a: Floats, nll_b: Floats, weights: Floats, *, level: float = 0.95, n_draws: int = 10_000, seed: int = 0
) -> Difference:
    """Return the difference of a whole split: the sum of nll_b - nll_a over n_seeds times the sum of the weights.

    With a single seed, the interval is that of these two models, not of their settings.

    Args:
        nll_a: (n_seeds, n_stories) nats of loss a, summed over each story.
        nll_b: The same for loss b, with the same seeds and stories.
        weights: (n_stories,) tokens for nats per token; bytes times ln 2 for bits per byte.
        level: Level of the confidence interval.
        n_draws: Number of bootstrap samples.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: Shapes do not match, a value is not finite, a weight is not positive, or there is only one story.
    """
    if nll_a.ndim != 2 or nll_a.shape != nll_b.shape or weights.shape != nll_a.shape[1:]:
        raise ValueError(f"not paired: {nll_a.shape} and {nll_b.shape} nats, {weights.shape} weights")
    if not (np.isfinite(nll_a).all() and np.isfinite(nll_b).all() and (weights > 0).all()):
        raise ValueError("a difference needs finite nats and positive weights")
    n_seeds, n_stories = nll_a.shape
    if n_seeds < 1 or n_stories < 2:
        raise ValueError(f"an interval needs two stories or more: {n_seeds} seeds, {n_stories} stories")

    rng = np.random.default_rng(seed)
    difference_RS = nll_b - nll_a  # R seeds, S stories
    sums_D2 = _resampled_sums(np.stack([difference_RS.mean(axis=0), weights], axis=1), n_draws, rng)
    components = [(n_stories, float(np.var(sums_D2[:, 0] / sums_D2[:, 1])))]
    if n_seeds > 1:
        counts_DR = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_draws)
        means_D = counts_DR @ difference_RS.sum(axis=1) / (n_seeds * weights.sum())
        components.append((n_seeds, float(np.var(means_D))))
    variances = [(n, n / (n - 1) * variance) for n, variance in components]
    half = half_width(variances, level)
    effect = float(difference_RS.sum() / (n_seeds * weights.sum()))
    standard_error = sum(variance for _, variance in variances) ** 0.5
    return Difference(effect, effect - half, effect + half, standard_error, n_seeds, n_stories, tuple(variances))


def half_width(variances: Sequence[tuple[int, float]], level: float) -> float:
    """Return half the width of a confidence interval from `Difference.variances`."""
    from scipy import stats

    return float(sum(stats.t.isf((1 - level) / 2, n - 1) ** 2 * variance for n, variance in variances) ** 0.5)


def _resampled_sums(columns_SC: Floats, n_draws: int, rng: np.random.Generator) -> Floats:
    """Return the sums of each column over S rows that are drawn with replacement: (n_draws, C)."""
    n = len(columns_SC)
    sums_DC = np.empty((n_draws, columns_SC.shape[1]))
    chunk = max(1, CHUNK // n)
    for start in range(0, n_draws, chunk):
        size = min(chunk, n_draws - start)
        drawn_DS = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        counts_DS = np.bincount(drawn_DS.ravel(), minlength=size * n).reshape(size, n)
        sums_DC[start : start + size] = counts_DS @ columns_SC
    return sums_DC
