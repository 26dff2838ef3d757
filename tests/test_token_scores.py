"""Scores of tokens, compared with those from all logits in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from nanosq.token_scores import scaled_scores, token_scores
from tests.test_head import inputs, sizes
from tests.test_head_execution import LargestTensor
from tests.test_losses import loss_of


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_token_scores(chunk_size: int) -> None:
    hidden_ND, weight_VD, _ = inputs(10, 4, 7)
    targets_N = torch.tensor([0, 1, -1, 3, 4, 5, 6, -1, 1, 2])
    with sizes(tile=14, product=8):
        scores = token_scores(loss_of("squentropy"), hidden_ND, weight_VD, targets_N, chunk_size=chunk_size)
    kept = targets_N >= 0
    logits_NV = hidden_ND[kept] @ weight_VD.T
    confidence, guess = logits_NV.softmax(dim=-1).max(dim=-1)
    torch.testing.assert_close(scores.loss, loss_of("squentropy")(logits_NV, targets_N[kept]))
    torch.testing.assert_close(scores.nll, F.cross_entropy(logits_NV, targets_N[kept], reduction="none"))
    torch.testing.assert_close(scores.confidence, confidence)
    assert torch.equal(scores.correct, (guess == targets_N[kept]).float())


@given(st.data())
def test_scaled_scores_and_the_derivatives_of_autograd(data: st.DataObject) -> None:
    N, D, V = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 9)), data.draw(st.integers(2, 40))
    hidden_ND, weight_VD, targets_N = inputs(N, D, V, seed=data.draw(st.integers(0, 2**32 - 1)))
    targets_N[data.draw(st.lists(st.integers(1, N - 1), unique=True)) if N > 1 else []] = -1
    scale = data.draw(st.floats(0.05, 8.0))
    with sizes(tile=data.draw(st.integers(1, 10 * V)), product=8):
        chunk_size = data.draw(st.integers(1, N + 3))
        scores = scaled_scores(scale, hidden_ND, weight_VD, targets_N, chunk_size=chunk_size)

    kept = targets_N >= 0
    logits_NV = (hidden_ND[kept].double() @ weight_VD.double().T).detach()
    scale_N = torch.full((len(logits_NV),), scale, dtype=torch.float64, requires_grad=True)
    p_NV = (scale_N[:, None] * logits_NV).softmax(dim=-1)
    nll_N = F.cross_entropy(scale_N[:, None] * logits_NV, targets_N[kept], reduction="none")
    (slope_N,) = torch.autograd.grad(nll_N.sum(), scale_N, create_graph=True)
    (curvature_N,) = torch.autograd.grad(slope_N.sum(), scale_N)
    confidence_N, guess_N = p_NV.max(dim=-1)
    expected = (nll_N, slope_N, curvature_N, confidence_N, (guess_N == targets_N[kept]).double())
    for ours, true in zip(scores, expected, strict=True):
        torch.testing.assert_close(ours.double(), true.detach(), rtol=1e-4, atol=1e-4)


def test_a_scale_of_one_changes_nothing() -> None:
    hidden_ND, weight_VD, targets_N = inputs(50, 8, 300)
    arguments = (hidden_ND.bfloat16(), weight_VD.bfloat16(), targets_N)
    plain = token_scores(loss_of("cross_entropy"), *arguments)
    torch.testing.assert_close(scaled_scores(1.0, *arguments).nll, plain.nll)


def test_logits_exist_for_one_chunk_at_a_time() -> None:
    hidden_ND, weight_VD, targets_N = inputs(400, 5, 100)
    with LargestTensor() as largest:
        token_scores(loss_of("squentropy"), hidden_ND, weight_VD, targets_N, chunk_size=30)
        scaled_scores(2.0, hidden_ND, weight_VD, targets_N, chunk_size=30)
    assert largest.numel == 29 * 100  # 14 chunks of about equal size


def test_classes_that_share_the_largest_logit_share_the_accuracy() -> None:
    """This happens in bfloat16, where close logits are equal."""
    hidden_ND, weight_VD = torch.ones(3, 1), torch.tensor([[2.0], [1.0], [2.0], [2.0]])
    targets_N = torch.tensor([0, 1, 3])
    scores = token_scores(loss_of("cross_entropy"), hidden_ND, weight_VD, targets_N)
    torch.testing.assert_close(scores.correct, torch.tensor([1 / 3, 0.0, 1 / 3]))
    # With a scale that is almost 0, probabilities are equal, but logits are not.
    assert torch.equal(scaled_scores(1e-9, hidden_ND, weight_VD, targets_N).correct, scores.correct)
