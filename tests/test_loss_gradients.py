"""The derivative of every loss compared with finite differences; N tokens, V vocabulary.

A loss may stop gradients: for autograd, but not for a finite difference, weights like (1 - p_y).detach() are constants.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nanosq import losses
from tests.test_losses import LOSSES, loss_of


class StopGradients(TorchFunctionMode):
    """Record what a loss computes without gradient, or replay it: finite differences then see constants there, too."""

    def __init__(self, replayed: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.recorded: list[Tensor] = []
        self.replayed = None if replayed is None else iter(replayed)
        self.is_stopped = False  # inside no_grad; the forward pass of an autograd.Function is not

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "_set_grad_enabled":
            self.is_stopped = not args[0]
        elif isinstance(result, Tensor) and (self.is_stopped or func in (Tensor.detach, Tensor.data.__get__)):
            if self.replayed is not None:
                return next(self.replayed).clone()
            self.recorded.append(result.clone())
        return result


def has_right_gradient(loss: losses.Loss) -> bool:
    """Return whether the derivative of a loss is that of its formula, in which stopped gradients are constants."""
    logits_NV = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    targets_N = torch.tensor([0, 4, 2])
    with StopGradients() as mode:
        loss(logits_NV, targets_N)

    def with_constants(logits_NV: Tensor) -> Tensor:
        with StopGradients(mode.recorded):
            return loss(logits_NV, targets_N)

    return torch.autograd.gradcheck(with_constants, (logits_NV,), raise_exception=False)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient(name: str) -> None:
    assert has_right_gradient(loss_of(name))


def detached(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    nll_N = losses.cross_entropy(logits_NV, targets_N)
    return (1 - torch.exp(-nll_N)).detach() * nll_N


def data(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    nll_N = losses.cross_entropy(logits_NV, targets_N)
    return (1 - torch.exp(-nll_N.data)) * nll_N


def no_grad(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    with torch.no_grad():
        wrong_N = 1 - torch.exp(-losses.cross_entropy(logits_NV, targets_N))
    return wrong_N * losses.cross_entropy(logits_NV, targets_N)


class WrongDerivative(torch.autograd.Function):
    """A detached loss with a derivative by hand that lacks its factor."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        ctx.save_for_backward(logits_NV.softmax(-1) - F.one_hot(targets_N, logits_NV.shape[-1]))
        return detached(logits_NV, targets_N)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * grads[0].unsqueeze(-1), None


@pytest.mark.parametrize(
    ("loss", "expected"), [(detached, True), (data, True), (no_grad, True), (WrongDerivative.apply, False)]
)
def test_a_stopped_gradient_is_no_wrong_gradient(loss: losses.Loss, expected: bool) -> None:
    assert has_right_gradient(loss) == expected
