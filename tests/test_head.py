"""The chunked head against autograd through all logits at once."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nanosq.head import head_loss, token_scores
from tests.test_losses import LOSSES, loss_of


def full(loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    scored_N = targets_N >= 0
    logits_NV = hidden_ND[scored_N] @ weight_VD.T
    objective = loss(logits_NV, targets_N[scored_N]).mean()
    return objective, F.cross_entropy(logits_NV, targets_N[scored_N])


@pytest.mark.parametrize("name", LOSSES)
@given(st.data())
def test_objective_and_gradients(name: str, data: st.DataObject) -> None:
    V, D, N = data.draw(st.integers(2, 40)), data.draw(st.integers(1, 9)), data.draw(st.integers(1, 30))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32 - 1)))
    hidden_ND = torch.randn(N, D, generator=generator, dtype=torch.float64, requires_grad=True)
    weight_VD = torch.randn(V, D, generator=generator, dtype=torch.float64, requires_grad=True)
    targets_N = torch.randint(-1, V, (N,), generator=generator)
    targets_N[0] = 0  # at least one is scored
    expected = full(loss_of(name), hidden_ND, weight_VD, targets_N)
    expected_grads = torch.autograd.grad(3 * expected[0], (hidden_ND, weight_VD))

    chunk_size = data.draw(st.integers(1, N + 3))
    actual = head_loss(loss_of(name), hidden_ND, weight_VD, targets_N, chunk_size=chunk_size)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(3 * actual[0], (hidden_ND, weight_VD)), expected_grads)


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_autocast_is_as_close_as_plain_autograd(name: str) -> None:
    torch.manual_seed(0)
    hidden_ND = torch.randn(200, 64, requires_grad=True)
    weight_VD = (0.1 * torch.randn(300, 64)).requires_grad_()
    targets_N = torch.randint(300, (200,))
    exact = full(loss_of(name), hidden_ND.double(), weight_VD.double(), targets_N)[0]
    exact_grads = torch.autograd.grad(exact, (hidden_ND, weight_VD))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = loss_of(name)((hidden_ND @ weight_VD.T).float(), targets_N).mean()
        ours, _ = head_loss(loss_of(name), hidden_ND, weight_VD, targets_N, chunk_size=64)
    assert ours.item() == pytest.approx(exact.item(), rel=2e-3)
    plain_grads = torch.autograd.grad(plain, (hidden_ND, weight_VD))
    for our, their, true in zip(
        torch.autograd.grad(ours, (hidden_ND, weight_VD)), plain_grads, exact_grads, strict=True
    ):
        assert (our - true).norm() <= 1.2 * (their - true).norm() + 1e-3 * true.norm()


def test_hidden_states_of_a_batch_and_a_tied_weight() -> None:
    """(B, T, D) is taken as it is, and the weight's gradient adds to what else uses the weight."""
    torch.manual_seed(0)
    weight_VD = torch.randn(11, 4, requires_grad=True)
    tokens_BT = torch.randint(11, (2, 3))
    hidden_BTD = weight_VD[tokens_BT].tanh()
    objective, _ = head_loss(loss_of("squentropy"), hidden_BTD, weight_VD, tokens_BT, chunk_size=2)
    reference, _ = full(loss_of("squentropy"), hidden_BTD.flatten(0, 1), weight_VD, tokens_BT.flatten())
    (expected,) = torch.autograd.grad(reference, weight_VD, retain_graph=True)  # both share the way to hidden_BTD
    torch.testing.assert_close(torch.autograd.grad(objective, weight_VD)[0], expected, rtol=1e-4, atol=1e-6)


def test_without_gradients_none_are_computed() -> None:
    hidden_ND, weight_VD = torch.randn(5, 4), torch.randn(6, 4, requires_grad=True)
    differentiable = []

    def loss(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        differentiable.append(logits_NV.requires_grad)
        return loss_of("cross_entropy")(logits_NV, targets_N)

    with torch.no_grad():
        objective, _ = head_loss(loss, hidden_ND, weight_VD, torch.arange(5), chunk_size=3)
    assert differentiable == [False, False]
    assert not objective.requires_grad
    expected, _ = full(loss_of("cross_entropy"), hidden_ND, weight_VD, torch.arange(5))
    torch.testing.assert_close(objective, expected.detach())


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_token_scores(chunk_size: int) -> None:
    torch.manual_seed(0)
    hidden_ND, weight_VD = torch.randn(10, 4), torch.randn(7, 4)
    targets_N = torch.tensor([0, 1, -1, 3, 4, 5, 6, -1, 1, 2])
    scores = token_scores(loss_of("squentropy"), hidden_ND, weight_VD, targets_N, chunk_size=chunk_size)
    kept = targets_N >= 0
    logits_NV = hidden_ND[kept] @ weight_VD.T
    confidence, guess = logits_NV.softmax(dim=-1).max(dim=-1)
    torch.testing.assert_close(scores.loss, loss_of("squentropy")(logits_NV, targets_N[kept]))
    torch.testing.assert_close(scores.nll, F.cross_entropy(logits_NV, targets_N[kept], reduction="none"))
    torch.testing.assert_close(scores.confidence, confidence)
    assert torch.equal(scores.correct, guess == targets_N[kept])
