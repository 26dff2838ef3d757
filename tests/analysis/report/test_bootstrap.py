import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis.report.bootstrap import paired

Floats = NDArray[np.float64]


def experiment(
    rng: np.random.Generator,
    n_seeds: int,
    n_stories: int = 250,
    *,
    effect: float = 0.3,
    seed_sd: float = 0.008,
    story_sd: float = 0.06,
    noise_sd: float = 0.06,
) -> tuple[Floats, Floats, Floats]:
    """Return nats of losses a and b and the tokens of the stories, with the variances of runs of 300 steps."""
    tokens = rng.integers(140, 220, n_stories).astype(float)
    difficulty = 0.8 + 0.2 * rng.standard_normal(n_stories) + 0.01 * rng.standard_normal((n_seeds, 1))
    difference = (
        effect
        + seed_sd * rng.standard_normal((n_seeds, 1))
        + story_sd * rng.standard_normal(n_stories)
        + noise_sd * rng.standard_normal((n_seeds, n_stories))
    )
    return difficulty * tokens, (difficulty + difference) * tokens, tokens


@pytest.mark.parametrize("seed_sd", [0.0, 0.008, 0.03])
@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_the_interval_covers_a_known_difference(n_seeds: int, seed_sd: float) -> None:
    rng = np.random.default_rng(7)
    intervals = [
        paired(*experiment(rng, n_seeds, effect=0.3, seed_sd=seed_sd), n_draws=500, seed=number)
        for number in range(200)
    ]
    covered = sum(interval.low <= 0.3 <= interval.high for interval in intervals)
    assert 186 <= covered < 200


def test_effect_and_units() -> None:
    nll_a = np.array([[10.0, 20.0], [12.0, 18.0]])
    nll_b = np.array([[11.0, 22.0], [12.0, 21.0]])
    tokens, n_bytes = np.array([5.0, 15.0]), np.array([20.0, 70.0])
    result = paired(nll_a, nll_b, tokens)
    assert result.effect == pytest.approx(6 / (2 * 20))
    assert (result.n_seeds, result.n_stories) == (2, 2)
    assert paired(nll_a, nll_b, n_bytes * np.log(2)).effect == pytest.approx(6 / (2 * 90 * np.log(2)))
    assert result == paired(nll_a, nll_b, tokens)
    assert result != paired(nll_a, nll_b, tokens, seed=1)


def test_without_variance_between_seeds_it_is_the_paired_t_interval() -> None:
    """The interval is then the classical paired interval of the mean over stories."""
    nll_a, nll_b, _ = experiment(np.random.default_rng(0), 200, seed_sd=0.0)
    result = paired(nll_a, nll_b, np.ones(250))
    differences = (nll_b - nll_a).mean(axis=0)
    classical = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert result.standard_error == pytest.approx(stats.sem(differences), rel=0.02)
    assert result.high - result.low == pytest.approx(classical.high - classical.low, rel=0.02)


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_without_variance_between_stories_it_is_the_t_interval_of_seeds(n_seeds: int) -> None:
    """The interval is then Student's interval of the mean over seeds."""
    nll_a, nll_b, tokens = experiment(np.random.default_rng(1), n_seeds, story_sd=0.0, noise_sd=0.0)
    result = paired(nll_a, nll_b, tokens)
    differences = (nll_b - nll_a).sum(axis=1) / tokens.sum()
    student = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert result.low == pytest.approx(student.low, abs=0.03 * (student.high - student.low))
    assert result.high == pytest.approx(student.high, abs=0.03 * (student.high - student.low))
    assert result.standard_error == pytest.approx(stats.sem(differences), rel=0.03)


def test_both_variances_are_added() -> None:
    nll_a, nll_b, tokens = experiment(np.random.default_rng(2), 5)
    result = paired(nll_a, nll_b, tokens)
    seeds = stats.sem((nll_b - nll_a).sum(axis=1) / tokens.sum())
    residual = (nll_b - nll_a).mean(axis=0) - result.effect * tokens
    stories = stats.sem(residual) / tokens.mean()  # of a ratio of sums, linearised
    assert result.standard_error == pytest.approx(np.hypot(seeds, stories), rel=0.02)
    half = np.hypot(stats.t.ppf(0.975, 4) * seeds, stats.t.ppf(0.975, 249) * stories)
    assert result.high - result.effect == pytest.approx(half, rel=0.02)


def test_one_seed_is_the_bootstrap_of_scipy() -> None:
    nll_a, nll_b, tokens = experiment(np.random.default_rng(3), 1)
    result = paired(nll_a, nll_b, tokens)
    expected = stats.bootstrap(
        ((nll_b - nll_a)[0], tokens),
        lambda difference, weights, axis: difference.sum(axis=axis) / weights.sum(axis=axis),
        paired=True,
        n_resamples=5_000,
        batch=500,
        rng=np.random.default_rng(0),
    )
    low, high = expected.confidence_interval
    assert result.n_seeds == 1
    assert result.standard_error == pytest.approx(expected.standard_error, rel=0.03)
    assert (result.low, result.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_standard_error_equals_a_loop_over_resamples() -> None:
    rng = np.random.default_rng(4)
    nll_a, nll_b, tokens = experiment(rng, 1, n_stories=8)
    draws = []
    for _ in range(5_000):
        drawn = rng.choice(8, size=8)
        draws.append((nll_b - nll_a)[0, drawn].sum() / tokens[drawn].sum())
    assert paired(nll_a, nll_b, tokens).standard_error == pytest.approx(np.std(draws) * np.sqrt(8 / 7), rel=0.05)


def test_a_common_shift_of_both_losses_cancels() -> None:
    nll_a, nll_b, tokens = experiment(np.random.default_rng(5), 4)
    shift = 50 * np.random.default_rng(6).random((4, 250)) * tokens
    result, shifted = paired(nll_a, nll_b, tokens), paired(nll_a + shift, nll_b + shift, tokens)
    assert (shifted.low, shifted.high) == pytest.approx((result.low, result.high))
    swapped = paired(nll_b, nll_a, tokens)
    assert (swapped.low, swapped.high) == pytest.approx((-result.high, -result.low))


def test_memory_does_not_grow_with_the_draws() -> None:
    nll_a, nll_b, tokens = experiment(np.random.default_rng(8), 5, n_stories=22_000)
    tracemalloc.start()
    paired(nll_a, nll_b, tokens, n_draws=300)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6  # all counts would be 53 MB


@pytest.mark.parametrize(
    ("nll_a", "nll_b", "weights", "message"),
    [
        (np.ones((2, 3)), np.ones((1, 3)), np.ones(3), "not paired"),
        (np.ones((2, 3)), np.ones((2, 3)), np.ones(2), "not paired"),
        (np.ones(3), np.ones(3), np.ones(3), "not paired"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), np.ones(3), "finite"),
        (np.ones((2, 3)), np.full((2, 3), np.inf), np.ones(3), "finite"),
        (np.ones((2, 3)), np.ones((2, 3)), np.array([1.0, 0.0, 1.0]), "positive weights"),
        (np.ones((2, 1)), np.ones((2, 1)), np.ones(1), "two stories"),
        (np.ones((0, 3)), np.ones((0, 3)), np.ones(3), "0 seeds"),
    ],
)
def test_bad_input_is_an_error(nll_a: Floats, nll_b: Floats, weights: Floats, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired(nll_a, nll_b, weights)
