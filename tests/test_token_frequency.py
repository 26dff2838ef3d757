"""The bands of frequent, medium and rare tokens."""

from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosq import token_frequency
from nanosq.token_frequency import PERCENT, bands, count_tokens, nll_by_band


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 70))
def test_tokens_are_counted_in_chunks(tokens: list[int], chunk: int) -> None:
    with mock.patch.object(token_frequency, "CHUNK", chunk):
        counts_V = count_tokens(np.array(tokens, np.uint16), 12)
    assert counts_V.tolist() == [tokens[1:].count(token) for token in range(12)]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([80, 15, 5], "frequent medium rare"),  # the borders are reached exactly
        ([79, 16, 5], "frequent frequent rare"),  # 79 are not yet 80 %; both make up 95 %
        ([5, 0, 15, 80], "rare rare medium frequent"),
        ([1, 1, 1, 1, 1], "frequent frequent frequent frequent medium"),  # equal numbers: by id
        ([7, 0], "frequent rare"),
        ([0, 0], "rare rare"),
    ],
)
def test_borders_and_ties(counts: list[int], expected: str) -> None:
    assert " ".join(bands(np.array(counts))) == expected


@given(st.lists(st.one_of(st.integers(0, 5), st.integers(0, 2**40)), min_size=1, max_size=30))
def test_bands_are_the_fewest_entries_that_make_up_their_share(counts: list[int]) -> None:
    found = bands(np.array(counts)).tolist()
    assert all(band == "rare" for band, count in zip(found, counts, strict=True) if count == 0)
    order = sorted(range(len(counts)), key=lambda entry: (-counts[entry], entry))
    ranks = [[*PERCENT].index(found[entry]) for entry in order]
    assert ranks == sorted(ranks)
    for rank, percent in enumerate((80, 95)):
        inside = [counts[entry] for entry, other in zip(order, ranks, strict=True) if other <= rank]
        if sum(counts) > 0:
            share = Fraction(percent, 100) * sum(counts)
            assert sum(inside) >= share > sum(inside[:-1])


@given(st.data())
def test_nll_by_band_against_plain_numpy(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    V, n = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 60))
    bands_V = rng.choice([*PERCENT], V)
    targets_N, nll_N = rng.integers(V, size=n), rng.exponential(size=n)
    target_nll_2V = np.stack([np.bincount(targets_N, minlength=V), np.bincount(targets_N, nll_N, minlength=V)])
    found = nll_by_band(target_nll_2V, bands_V)
    expected = {name: nll_N[bands_V[targets_N] == name] for name in PERCENT}
    assert found == pytest.approx({f"nll_{name}": nll.mean() for name, nll in expected.items() if len(nll)})
