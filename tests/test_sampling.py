"""The distribution of sampled tokens, compared with its definition and with the processors of transformers."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from nanosq.data import tokenizers
from nanosq.generation import draw, new_ids
from nanosq.settings import SampleSettings

TOKENIZER = tokenizers.byte_level()
V = TOKENIZER.vocab_size
N_TEXTS, LENGTH = 4000, 10
# Some tokens are much more likely than others, and the order of the ids is not that of the probabilities.
LOGITS_V = 2.5 * torch.randn(V, generator=torch.Generator().manual_seed(0))
LOGITS_V[TOKENIZER.end_of_text] = -math.inf
CASES = [
    (1.0, None, None),
    (0.7, None, None),
    (1.5, None, None),
    (1.0, 1, None),
    (1.0, 12, None),
    (0.8, 400, None),
    (1.0, None, 0.6),
    (0.6, None, 0.9),
    (1.0, None, 1.0),
    (1.0, None, 1e-9),
    (1.3, 20, 0.8),
    (0.7, 30, 0.9),
    (1e-300, None, 0.5),
]


class Constant(nn.Module):
    """A model with the same logits everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.block_size = 4
        self.head_weight = LOGITS_V[:, None]

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return torch.ones(*tokens_BT.shape, 1)


def expected_probabilities(temperature: float, top_k: int | None, top_p: float | None) -> dict[int, float]:
    """Return the probability of each token that may be drawn, from the definitions."""
    peak = float(LOGITS_V.max())
    odds = {i: math.exp((float(logit) - peak) / temperature) for i, logit in enumerate(LOGITS_V)}
    order = sorted(odds, key=lambda i: -odds[i])[:top_k]
    total = math.fsum(odds[i] for i in order)
    kept, mass = [], 0.0
    for i in order:
        if top_p is None or not kept or mass < top_p:
            kept.append(i)
        mass += odds[i] / total
    total = math.fsum(odds[i] for i in kept)
    return {i: odds[i] / total for i in kept if odds[i] > 0}


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), CASES)
def test_drawn_tokens_have_the_distribution(temperature: float, top_k: int | None, top_p: float | None) -> None:
    settings = SampleSettings(N_TEXTS, LENGTH, temperature, "", top_k, top_p)
    drawn = np.array([*new_ids(Constant(), TOKENIZER, settings, seed=1)])
    assert drawn.shape == (LENGTH, N_TEXTS)
    expected = expected_probabilities(temperature, top_k, top_p)
    counts = np.bincount(drawn.ravel(), minlength=V)
    assert {*np.flatnonzero(counts).tolist()} <= {*expected}
    ids = sorted(expected, key=lambda i: expected[i])
    n_expected = drawn.size * np.array([expected[i] for i in ids])
    # The test needs at least five expected tokens in each class: the first class has all rare tokens.
    begins = [0, *np.flatnonzero(n_expected >= 5)[1:]]
    classes, n_classes = np.add.reduceat(counts[ids], begins), np.add.reduceat(n_expected, begins)
    assert len(classes) > 5 or len(classes) == len(expected)
    if len(classes) > 1:
        assert stats.chisquare(classes, n_classes).pvalue > 1e-3


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), CASES[:-1])
def test_the_definition_is_that_of_transformers(temperature: float, top_k: int | None, top_p: float | None) -> None:
    transformers = pytest.importorskip("transformers")
    processors = [
        transformers.TemperatureLogitsWarper(temperature),
        *([transformers.TopKLogitsWarper(top_k)] if top_k else []),
        *([transformers.TopPLogitsWarper(top_p)] if top_p else []),
    ]
    scores_1V = LOGITS_V[None].double()
    for process in processors:
        scores_1V = process(torch.zeros(1, 1, dtype=torch.long), scores_1V)
    probability_V = scores_1V[0].softmax(dim=-1)
    expected_V = torch.zeros(V, dtype=torch.float64)
    for i, probability in expected_probabilities(temperature, top_k, top_p).items():
        expected_V[i] = probability
    assert {*probability_V.nonzero()[:, 0].tolist()} == {*expected_V.nonzero()[:, 0].tolist()}
    torch.testing.assert_close(probability_V, expected_V)


@pytest.mark.parametrize("top_p", [None, 0.9, 1.0])
def test_texts_are_independent_of_each_other_and_of_their_seeds(top_p: float | None) -> None:
    settings = SampleSettings(2, 1500, 1.0, "", 4, top_p)
    rows = [row for seed in (0, 1) for row in zip(*new_ids(Constant(), TOKENIZER, settings, seed=seed), strict=True)]
    for i in range(4):
        for j in range(i):
            table = stats.contingency.crosstab(rows[i], rows[j]).count
            assert stats.chi2_contingency(table).pvalue > 1e-3
    after = stats.contingency.crosstab(rows[0][:-1], rows[0][1:]).count
    assert stats.chi2_contingency(after).pvalue > 1e-3


def test_a_large_vocabulary_is_drawn_to_its_end() -> None:
    """In float32, a sum of 50,257 equal probabilities misses 1 by more than some of them."""
    n_ids = 50_257
    logits_BV = torch.zeros(1, n_ids).expand(3, n_ids)
    ends_B = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    settings = SampleSettings(3, 1, 1.0, "", None, None)
    assert draw(logits_BV, ends_B, settings).tolist() == [0, n_ids // 2, n_ids - 1]


def test_a_token_without_probability_is_never_drawn() -> None:
    logits_BV = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]])
    for uniform, token in [(0.0, 1), (0.5, 3), (1 - 2**-53, 3)]:
        uniform_B = torch.tensor([uniform], dtype=torch.float64)
        assert draw(logits_BV, uniform_B, SampleSettings(1, 1, 1.0, "", None, None)) == token


def test_greedy_takes_the_most_likely_token_whatever_the_limits() -> None:
    uniform_B = torch.tensor([0.99], dtype=torch.float64)
    for limits in ((None, None), (3, None), (None, 0.9)):
        for temperature in (0, 5e-324):
            settings = SampleSettings(1, 1, temperature, "", *limits)
            assert draw(LOGITS_V[None], uniform_B, settings) == LOGITS_V.argmax()
