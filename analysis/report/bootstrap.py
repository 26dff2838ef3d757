"""The difference between two losses and its confidence interval: a paired bootstrap over stories and seeds.

Both losses are scored on the same stories with the same seeds, so what is resampled are their differences. Seeds and
stories are crossed - every seed has every story - and are resampled independently: the pigeonhole bootstrap, Owen
2007, arXiv 0712.1111. Its joint variance counts three times what is neither of a seed nor of a story; the two parts
that are taken here, seeds resampled and stories resampled, count it twice, which still errs on the safe side.

Seeds are few, and the percentiles of a bootstrap are too close together for three of anything. Each part therefore has
Student's quantile and the factor n / (n - 1) of Hesterberg 2015, American Statistician 69:371, and the half-lengths of
the two are added as squares. That covers at least as often as it says where the parts are normal (Banerjee 1960,
Sankhya 22:357), and is shorter than the few seeds' quantile for both parts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
AT_ONCE = 1 << 15  # resampled stories that are held in memory


@dataclass(frozen=True)
class Difference:
    """Difference between loss b and loss a, negative if b is better, in nats per token if the weights are tokens."""

    effect: float
    low: float
    high: float
    standard_error: float
    n_seeds: int
    n_stories: int
    seeds_resampled: bool  # not where there is one: the interval is then of these two models, not of their settings

    @property
    def holds_zero(self) -> bool:
        """True if the interval contains zero."""
        return self.low <= 0 <= self.high


def paired(
    nll_a: Floats, nll_b: Floats, weights: Floats, *, level: float = 0.95, n_draws: int = 10_000, seed: int = 0
) -> Difference:
    """Return the difference of two means over a split: sum of nll_b - nll_a / (n_seeds * sum of the weights).

    nll_a, nll_b: (n_seeds, n_stories) nats summed over each story; a row of both is one seed, a column one story.
    weights: (n_stories,) tokens for nats a token, bytes times ln 2 for bits per byte. ValueError where the shapes do
    not match, a value is not finite, a weight not positive, or there are less than two stories.
    """
    from scipy import stats

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
    parts = [(n_stories, float(np.var(sums_D2[:, 0] / sums_D2[:, 1])))]
    if n_seeds > 1:
        counts_DR = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_draws)
        parts.append((n_seeds, float(np.var(counts_DR @ difference_RS.sum(axis=1) / (n_seeds * weights.sum())))))
    variance = sum(n / (n - 1) * part for n, part in parts)
    squared = sum(stats.t.ppf((1 + level) / 2, n - 1) ** 2 * n / (n - 1) * part for n, part in parts)
    effect = float(difference_RS.sum() / (n_seeds * weights.sum()))
    return Difference(
        effect=effect,
        low=effect - float(np.sqrt(squared)),
        high=effect + float(np.sqrt(squared)),
        standard_error=float(np.sqrt(variance)),
        n_seeds=n_seeds,
        n_stories=n_stories,
        seeds_resampled=n_seeds > 1,
    )


def _resampled_sums(columns_SC: Floats, n_draws: int, rng: np.random.Generator) -> Floats:
    """Return the sums of each column over rows drawn with replacement, shape (n_draws, C)."""
    n = len(columns_SC)
    sums_DC = np.empty((n_draws, columns_SC.shape[1]))
    at_once = max(1, AT_ONCE // n)
    for begin in range(0, n_draws, at_once):
        size = min(at_once, n_draws - begin)
        drawn_DS = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        counts_DS = np.bincount(drawn_DS.ravel(), minlength=size * n).reshape(size, n)
        sums_DC[begin : begin + size] = counts_DS @ columns_SC
    return sums_DC
