import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.report.bootstrap import LEAST_P, half_width, paired
from analysis.study import tables
from analysis.study.contrasts import contrasts, holm


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_against_its_definition(p_values: list[float]) -> None:
    """The corrected value is the largest of (m - k + 1) p over the values that are not larger."""
    ordered = sorted(p_values)
    m = len(p_values)
    for p, corrected in zip(p_values, holm(p_values, m), strict=True):
        products = [(m - k) * other for k, other in enumerate(ordered) if other <= p]
        assert corrected == pytest.approx(min(1.0, max(products)))


def test_holm_of_an_example_of_a_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005], 4) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.integers(1, 3))
def test_missing_p_values_count_as_1(p_values: list[float], n_missing: int) -> None:
    m = len(p_values) + n_missing
    assert holm(p_values, m) == holm([*p_values, *[1.0] * n_missing], m)[: len(p_values)]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(5, 40), st.floats(-0.5, 0.5), st.integers(0, 2**32 - 1))
def test_the_interval_at_the_level_of_the_p_value_ends_at_0(
    n_seeds: int, n_stories: int, effect: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    nll = rng.normal(300, 20, (n_seeds, n_stories))
    other = nll + rng.normal(effect * 100, 20, nll.shape)
    difference = paired(nll, other, np.full(n_stories, 100.0), n_draws=300)
    p = difference.p_value
    assert 0 < p <= 1
    if p > LEAST_P:
        assert half_width(difference.variances, 1 - p) == pytest.approx(abs(difference.effect))
    assert (p > 0.05) == difference.includes_zero


def test_the_p_value_of_one_seed_is_that_of_the_t_test_over_stories() -> None:
    rng = np.random.default_rng(0)
    nll = rng.normal(300, 20, (1, 400))
    other = nll + rng.normal(3, 20, nll.shape)
    expected = stats.ttest_rel(other[0], nll[0]).pvalue
    assert paired(nll, other, np.full(400, 100.0)).p_value == pytest.approx(expected, rel=0.15)


def test_findings() -> None:
    """Each rule of the design, with arms that differ by a known number."""
    rng = np.random.default_rng(1)
    base = rng.normal(300, 10, (5, 500))
    noise = [rng.normal(0, 1, base.shape) + 1.5 * rng.normal(0, 1, (5, 1)) for _ in range(4)]
    arms = {"cross_entropy": base, "worse": base + 20 + noise[0], "better": base - 20 + noise[1]}
    arms |= {"equal": base + noise[2] * 0.01, "no difference": base + 1.5 + noise[3]}
    found = contrasts(arms, np.full(500, 100.0), n_planned=4)
    assert [contrast.arm for contrast in found] == [contrast.finding for contrast in found]
    assert all(contrast.corrected_p >= contrast.difference.p_value for contrast in found)


def test_a_significant_difference_that_is_small_is_still_a_difference() -> None:
    base = np.full((5, 100), 300.0) + np.arange(5.0)[:, None]
    other = base + 0.5 + 0.01 * np.arange(100.0)  # 0.5 to 1.5 nats of 200 tokens
    (contrast,) = contrasts({"cross_entropy": base, "arm": other}, np.full(100, 200.0), n_planned=5)
    assert contrast.finding == "worse"
    assert contrast.is_small
    assert tables.sentence(contrast).endswith(
        "within the margin of 0.01 that the plan calls equal for practical purposes."
    )
