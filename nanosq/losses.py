"""Per-token losses over the vocabulary: plain functions of logits_NV (float32) and targets_N to losses_N.

Shape suffixes: N tokens, V vocabulary. In the formulas f are the logits of a token, y its target, C = V the number of
classes and p the softmax of f. A loss never sees the model and does no reduction; arguments with a default are its
hyperparameters, set from its file in conf/loss.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """-log p_y."""
    return _CrossEntropy.apply(logits_NV, targets_N)


def squentropy(logits_NV: Tensor, targets_N: Tensor, *, weight: float = 1.0) -> Tensor:
    """-log p_y + weight / (C - 1) * sum over j != y of f_j^2.

    Hui, Belkin and Wright, "Cut your Losses with Squentropy" (ICML 2023, arXiv 2302.03952), equation 2 of the report.
    The original has weight 1.
    """
    squares_N = _WrongSquares.apply(logits_NV, targets_N)
    return cross_entropy(logits_NV, targets_N) + weight / (logits_NV.shape[-1] - 1) * squares_N


def squentropy_shifted(logits_NV: Tensor, targets_N: Tensor, *, weight: float = 1.0, value: float = -1.0) -> Tensor:
    """-log p_y + weight / (C - 1) * sum over j != y of (f_j - value)^2.

    Wrong classes are drawn to `value`; a replication (github.com/ericqn/squentropy-test) proposes -1, though what its
    code computes is squentropy. As p does not change when all logits do by the same amount, this is squentropy of the
    logits f - value: only a head without bias, as GPT-2's, can tell the two apart.
    """
    return squentropy(logits_NV - value, targets_N, weight=weight)


def squentropy_listing(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """-log p_y + (1 - f_y)^2 + 1/C * sum over j != y of f_j^2: Listing A.2 of the report.

    The listing multiplies the target's squared error by C before it takes the mean over classes.
    """
    return _squared_towards_one(logits_NV, targets_N, target_weight=logits_NV.shape[-1])


def squentropy_repo(logits_NV: Tensor, targets_N: Tensor, *, target_weight: float = 65.0) -> Tensor:
    """-log p_y + 1/C * (target_weight * (1 - f_y)^2 + sum over j != y of f_j^2): the code behind the report.

    Its 65, hard-coded, is the vocabulary of nanoGPT's character-level Shakespeare.
    """
    return _squared_towards_one(logits_NV, targets_N, target_weight=target_weight)


def label_smoothing(logits_NV: Tensor, targets_N: Tensor, *, smoothing: float = 0.1) -> Tensor:
    """-(1 - smoothing) * log p_y - smoothing / C * sum over j of log p_j.

    Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7, arXiv 1512.00567.
    """
    return F.cross_entropy(logits_NV, targets_N, reduction="none", label_smoothing=smoothing)


def z_loss(logits_NV: Tensor, targets_N: Tensor, *, weight: float = 1e-4) -> Tensor:
    """-log p_y + weight * (log sum over j of exp f_j)^2.

    Chowdhery et al. 2022, "PaLM", section 5, arXiv 2204.02311, with weight 1e-4.
    """
    return cross_entropy(logits_NV, targets_N) + weight * logits_NV.logsumexp(dim=-1).square()


def logit_penalty(logits_NV: Tensor, targets_N: Tensor, *, weight: float = 1.0) -> Tensor:
    """-log p_y + weight / C * sum over j of f_j^2: squentropy that does not spare the target.

    Kornblith et al. 2021, "Why Do Better Loss Functions Lead to Less Transferable Features?", arXiv 2010.16402. Their
    code has beta / 2 where this has weight / C, which keeps its meaning from one vocabulary to another.
    """
    return cross_entropy(logits_NV, targets_N) + weight * logits_NV.square().mean(dim=-1)


def focal(logits_NV: Tensor, targets_N: Tensor, *, gamma: float = 2.0) -> Tensor:
    """-(1 - p_y)^gamma * log p_y: Lin et al. 2017, "Focal Loss", equation 4, arXiv 1708.02002."""
    nll_N = cross_entropy(logits_NV, targets_N)
    # The derivative of a power below 1 is infinite at 0, which a confident model reaches.
    wrong_N = (-torch.expm1(-nll_N)).clamp(min=torch.finfo(nll_N.dtype).tiny)
    return wrong_N**gamma * nll_N


def poly1(logits_NV: Tensor, targets_N: Tensor, *, epsilon: float = 1.0) -> Tensor:
    """-log p_y + epsilon * (1 - p_y): Poly-1 of Leng et al. 2022, "PolyLoss", arXiv 2204.12511."""
    nll_N = cross_entropy(logits_NV, targets_N)
    return nll_N - epsilon * torch.expm1(-nll_N)


def brier(logits_NV: Tensor, targets_N: Tensor, *, weight: float = 1.0) -> Tensor:
    """Weight * sum over j of (p_j - [j = y])^2.

    Brier 1950, "Verification of Forecasts Expressed in Terms of Probability". Its gradient vanishes with p_y, which is
    about 1 / C for every token at initialisation.
    """
    probabilities_NV = logits_NV.softmax(dim=-1)
    target_N = (1.0 - _at_targets(probabilities_NV, targets_N)).square()
    return weight * (target_N + _WrongSquares.apply(probabilities_NV, targets_N))


def mse_probabilities(logits_NV: Tensor, targets_N: Tensor, *, scale: float = 100.0) -> Tensor:
    """1/C * sum over j of (scale * [j = y] - scale * p_j)^2: the "mse" of the code behind the report."""
    return brier(logits_NV, targets_N, weight=scale**2 / logits_NV.shape[-1])


def _at_targets(values_NV: Tensor, targets_N: Tensor) -> Tensor:
    return values_NV.gather(-1, targets_N.unsqueeze(-1)).squeeze(-1)


class _CrossEntropy(torch.autograd.Function):
    """F.cross_entropy writes all log-probabilities, and its derivative a tensor of zeros and all exponentials again."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        top_N1 = logits_NV.amax(dim=-1, keepdim=True)
        exp_NV = (logits_NV - top_N1).exp_()
        sum_N = exp_NV.sum(dim=-1)
        ctx.save_for_backward(exp_NV, sum_N, targets_N)
        return top_N1.squeeze(-1) - _at_targets(logits_NV, targets_N) + sum_N.log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        exp_NV, sum_N, targets_N = ctx.saved_tensors
        gradient_NV = exp_NV * (grads[0] / sum_N).unsqueeze(-1)
        return gradient_NV.scatter_add_(-1, targets_N.unsqueeze(-1), -grads[0].unsqueeze(-1)), None


class _WrongSquares(torch.autograd.Function):
    """Sum over j != y of f_j^2, with its derivative by hand: autograd's goes over memory three times as often."""

    @staticmethod
    def forward(ctx: Any, values_NV: Tensor, targets_N: Tensor) -> Tensor:
        ctx.save_for_backward(values_NV, targets_N)
        return values_NV.scatter(-1, targets_N.unsqueeze(-1), 0.0).square().sum(dim=-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        values_NV, targets_N = ctx.saved_tensors
        return (values_NV * (2.0 * grads[0].unsqueeze(-1))).scatter_(-1, targets_N.unsqueeze(-1), 0.0), None


def _squared_towards_one(logits_NV: Tensor, targets_N: Tensor, *, target_weight: float) -> Tensor:
    target_N = (1.0 - _at_targets(logits_NV, targets_N)).square()
    squares_N = target_weight * target_N + _WrongSquares.apply(logits_NV, targets_N)
    return cross_entropy(logits_NV, targets_N) + squares_N / logits_NV.shape[-1]
