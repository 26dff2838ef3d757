"""The chunked head compared with autograd through all logits."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nanosq import head, losses
from nanosq.head import head_loss
from nanosq.token_scores import token_scores
from tests.test_losses import LOSSES, loss_of


def full(loss: losses.Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the objective and the nll, computed from all logits in float64."""
    scored_N = targets_N >= 0
    logits_NV = hidden_ND[scored_N].double() @ weight_VD.double().T
    return loss(logits_NV, targets_N[scored_N]).mean(), F.cross_entropy(logits_NV, targets_N[scored_N])


def error(actual: Tensor, expected: Tensor) -> float:
    """Return the relative error in the Euclidean norm."""
    return ((actual - expected).norm() / expected.norm()).item()


def inputs(
    N: int, D: int, V: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden_ND = torch.randn(N, D, generator=generator, dtype=dtype, requires_grad=True)
    weight_VD = torch.randn(V, D, generator=generator, dtype=dtype, requires_grad=True)
    return hidden_ND, weight_VD, torch.randint(V, (N,), generator=generator)


@contextmanager
def sizes(*, tile: int, product: int) -> Iterator[None]:
    """Use small tiles and products, so that a test has several of them."""
    saved = head.TILE_LOGITS, head.PRODUCT_ELEMENTS
    head.TILE_LOGITS, head.PRODUCT_ELEMENTS = tile, product
    try:
        yield
    finally:
        head.TILE_LOGITS, head.PRODUCT_ELEMENTS = saved


@pytest.mark.parametrize("name", LOSSES)
@given(st.data())
def test_objective_and_gradients(name: str, data: st.DataObject) -> None:
    dtype, tolerance = data.draw(st.sampled_from([(torch.float64, 1e-6), (torch.float32, 1e-4)]))
    N, D, V = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 9)), data.draw(st.integers(2, 40))
    hidden_ND, weight_VD, targets_N = inputs(N, D, V, seed=data.draw(st.integers(0, 2**32 - 1)), dtype=dtype)
    targets_N[data.draw(st.lists(st.integers(1, N - 1), unique=True)) if N > 1 else []] = -1
    expected = full(loss_of(name), hidden_ND, weight_VD, targets_N)
    expected_grads = torch.autograd.grad(3 * expected[0], (hidden_ND, weight_VD))

    with sizes(tile=data.draw(st.integers(1, 10 * V)), product=data.draw(st.integers(1, V * D))):
        chunk_size = data.draw(st.integers(1, N + 3))
        actual = head_loss(loss_of(name), hidden_ND, weight_VD, targets_N, chunk_size=chunk_size)
    assert all(value.dtype == dtype for value in actual)
    # A loss that is almost zero, and its derivative, are differences of almost equal numbers.
    rounding = 10 * torch.finfo(dtype).eps * (1 + hidden_ND.norm() * weight_VD.norm())
    for value, expected_value in zip(actual, expected, strict=True):
        assert (value - expected_value).abs() <= tolerance * expected_value.abs() + rounding
    for grad, expected_grad in zip(
        torch.autograd.grad(3 * actual[0], (hidden_ND, weight_VD)), expected_grads, strict=True
    ):
        assert (grad - expected_grad).norm() <= tolerance * expected_grad.norm() + rounding


@pytest.mark.parametrize("name", LOSSES)
@given(st.integers(30, 300), st.integers(30, 400), st.integers(50, 300), st.integers(0, 2**32 - 1))
def test_bfloat16_autocast_is_as_close_as_plain_autograd(name: str, N: int, V: int, chunk_size: int, seed: int) -> None:
    """The sizes are large enough for rounding errors to average out."""
    hidden_ND, weight_VD, targets_N = inputs(N, 64, V, seed=seed)
    weight_VD = weight_VD.detach().mul(0.1).requires_grad_()
    exact = full(loss_of(name), hidden_ND, weight_VD, targets_N)[0]
    exact_grads = torch.autograd.grad(exact, (hidden_ND, weight_VD))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # The sum, because dividing by N before the gradient is rounded would change the rounding.
        plain = loss_of(name)((hidden_ND @ weight_VD.T).float(), targets_N).sum()
        ours, _ = head_loss(loss_of(name), hidden_ND, weight_VD, targets_N, chunk_size=chunk_size)
    plain_grads = [grad / N for grad in torch.autograd.grad(plain, (hidden_ND, weight_VD))]
    our_grads = torch.autograd.grad(ours, (hidden_ND, weight_VD))
    assert ours.item() == pytest.approx(exact.item(), rel=2e-3)
    # The product of each chunk is rounded once more before it is added up, by at most 2^-9 of itself.
    for our, plain_grad, true in zip(our_grads, plain_grads, exact_grads, strict=True):
        assert error(our, true) <= 1.1 * error(plain_grad, true) + 2**-9


@pytest.mark.parametrize("name", LOSSES)
def test_vocabulary_of_gpt2_in_bfloat16(name: str) -> None:
    """The default sizes give several tiles. The logits are as large as those of a trained model."""
    hidden_ND, weight_VD, targets_N = inputs(60, 96, 50_257)
    weight_VD = weight_VD.detach().mul(0.2).requires_grad_()
    exact = full(loss_of(name), hidden_ND, weight_VD, targets_N)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, _ = head_loss(loss_of(name), hidden_ND, weight_VD, targets_N)
    assert ours.item() == pytest.approx(exact.item(), rel=2e-3)


@pytest.mark.parametrize("V", [2, 131_072])
def test_smallest_and_large_vocabularies(V: int) -> None:
    hidden_ND, weight_VD, targets_N = inputs(9, 4, V)
    actual = head_loss(loss_of("squentropy"), hidden_ND, weight_VD, targets_N)
    expected = full(loss_of("squentropy"), hidden_ND, weight_VD, targets_N)
    assert error(torch.stack(actual), torch.stack(expected)) <= 1e-4
    grads = torch.autograd.grad(actual[0], (hidden_ND, weight_VD))
    for grad, expected_grad in zip(grads, torch.autograd.grad(expected[0], (hidden_ND, weight_VD)), strict=True):
        assert error(grad, expected_grad) <= 1e-4


def test_hidden_states_of_a_batch_and_a_tied_weight() -> None:
    """Hidden states may be (B, T, D), and the gradient of a tied weight adds to that of the embedding."""
    torch.manual_seed(0)
    weight_VD = torch.randn(11, 4, requires_grad=True)
    tokens_BT = torch.randint(11, (2, 3))
    hidden_BTD = weight_VD[tokens_BT].tanh()
    reference, _ = full(loss_of("squentropy"), hidden_BTD.flatten(0, 1), weight_VD, tokens_BT.flatten())
    (expected,) = torch.autograd.grad(reference, weight_VD, retain_graph=True)  # both use the graph of hidden_BTD
    objective, _ = head_loss(loss_of("squentropy"), hidden_BTD, weight_VD, tokens_BT, chunk_size=2)
    (grad,) = torch.autograd.grad(objective, weight_VD)
    assert error(grad, expected) <= 1e-5


def test_gradients_accumulate_over_micro_batches() -> None:
    hidden_ND, weight_VD, targets_N = inputs(12, 5, 7)
    for rows in (slice(0, 6), slice(6, 12)):
        objective, _ = head_loss(loss_of("squentropy"), hidden_ND[rows], weight_VD, targets_N[rows], chunk_size=4)
        (objective / 2).backward()
    expected, _ = full(loss_of("squentropy"), hidden_ND, weight_VD, targets_N)
    expected_grads = torch.autograd.grad(expected, (hidden_ND, weight_VD))
    assert error(hidden_ND.grad, expected_grads[0]) <= 1e-5
    assert error(weight_VD.grad, expected_grads[1]) <= 1e-5


def test_rows_that_pad_the_vocabulary_can_be_cut_off() -> None:
    hidden_ND, weight_VD, targets_N = inputs(12, 5, 7)
    padded = torch.cat([weight_VD.detach(), torch.full((3, 5), 99.0)]).requires_grad_()
    expected = head_loss(loss_of("squentropy"), hidden_ND, weight_VD, targets_N)
    actual = head_loss(loss_of("squentropy"), hidden_ND, padded[:7], targets_N)
    assert torch.equal(torch.stack(actual), torch.stack(expected))
    (grad,) = torch.autograd.grad(actual[0], padded)
    assert torch.equal(grad[:7], torch.autograd.grad(expected[0], weight_VD)[0])
    assert torch.equal(grad[7:], torch.zeros(3, 5))


def test_nothing_scored() -> None:
    hidden_ND, weight_VD, targets_N = inputs(3, 5, 7)
    objective, nll = head_loss(loss_of("squentropy"), hidden_ND, weight_VD, torch.full_like(targets_N, -1))
    assert (objective.item(), nll.item()) == (0.0, 0.0)
    assert all(not grad.any() for grad in torch.autograd.grad(objective, (hidden_ND, weight_VD)))
    assert all(len(values) == 0 for values in token_scores(loss_of("squentropy"), hidden_ND, weight_VD, targets_N - 10))


def test_no_gradient_is_computed_if_none_is_needed() -> None:
    hidden_ND, weight_VD, targets_N = inputs(5, 4, 6)
    differentiable = []

    def loss(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        differentiable.append(logits_NV.requires_grad)
        return loss_of("cross_entropy")(logits_NV, targets_N)

    with torch.no_grad():
        objective, nll = head_loss(loss, hidden_ND, weight_VD, targets_N, chunk_size=3)
    assert differentiable == [False, False]
    assert not objective.requires_grad
    assert error(objective, full(loss, hidden_ND, weight_VD, targets_N)[0]) <= 1e-6
    assert torch.equal(objective, nll)


@pytest.mark.parametrize("n_targets", [4, 6])
def test_refuses_targets_that_do_not_match(n_targets: int) -> None:
    hidden_ND, weight_VD, _ = inputs(5, 4, 6)
    for function in (head_loss, token_scores):
        with pytest.raises(ValueError, match="do not match targets"):
            function(loss_of("squentropy"), hidden_ND, weight_VD, torch.zeros(n_targets, dtype=torch.long))
        with pytest.raises(ValueError, match="chunk_size"):
            function(loss_of("squentropy"), hidden_ND, weight_VD, torch.zeros(5, dtype=torch.long), chunk_size=0)


def test_refuses_a_loss_that_takes_the_mean() -> None:
    with pytest.raises(ValueError, match="not one value for each token"):
        head_loss(F.cross_entropy, *inputs(5, 4, 6))


def test_an_infinite_derivative_of_an_unscored_token_is_ignored() -> None:
    def loss(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        return (logits_NV.sum(dim=-1) ** 2).sqrt()  # infinite at 0

    hidden_ND, weight_VD, targets_N = inputs(5, 4, 6)
    hidden_ND.data[2] = 0.0
    targets_N[2] = -1
    objective, _ = head_loss(loss, hidden_ND, weight_VD, targets_N)
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(objective, (hidden_ND, weight_VD)))


def test_a_second_backward_pass_is_refused() -> None:
    objective, _ = head_loss(loss_of("squentropy"), *inputs(5, 4, 6))
    objective.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="call head_loss again"):
        objective.backward()
