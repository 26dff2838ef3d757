"""Per-token losses over the vocabulary: plain functions from logits_NV (float32) and targets_N to losses_N.

Shape suffixes: N tokens, V vocabulary. In the formulas, f are the logits of a token, y is its target, C = V is the
number of classes and p is the softmax of f. A loss never sees the model and does no reduction. Arguments with a default
are its hyperparameters; its file in conf/loss sets them.

A loss that equals the negative log-likelihood may have an attribute `fused`: a function that computes it with fewer
passes over the logits and writes the derivative by hand (see `fused_cross_entropy`). nanosq/head.py uses it.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor
from torch.autograd.function import once_differentiable

from nanosq.ranges import NonNegative, Positive, UnitInterval

# (logits_NV, targets_N) -> losses_N
Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """-log p_y."""
    return _CrossEntropy.apply(logits_NV, targets_N)


def squentropy(logits_NV: Tensor, targets_N: Tensor, *, weight: NonNegative = 1.0) -> Tensor:
    """-log p_y + weight / (C - 1) * sum over j != y of f_j^2.

    Hui, Belkin and Wright, "Cut your Losses with Squentropy" (ICML 2023, arXiv 2302.03952), equation 2 of the student
    report. The original has weight 1.
    """
    squares_N = _WrongSquares.apply(logits_NV, targets_N)
    return cross_entropy(logits_NV, targets_N) + weight / (logits_NV.shape[-1] - 1) * squares_N


def squentropy_shifted(
    logits_NV: Tensor, targets_N: Tensor, *, weight: NonNegative = 1.0, value: float = -1.0
) -> Tensor:
    """-log p_y + weight / (C - 1) * sum over j != y of (f_j - value)^2.

    The logits of wrong classes are pulled towards `value`. A replication (github.com/ericqn/squentropy-test) proposes
    -1, but its code computes squentropy. Adding a constant to all logits does not change p, so this is squentropy of
    f - value. Only a head without bias, as in GPT-2, can tell the two apart.
    """
    return squentropy(logits_NV - value, targets_N, weight=weight)


def squentropy_listing(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """-log p_y + (1 - f_y)^2 + 1/C * sum over j != y of f_j^2: Listing A.2 of the student report.

    The listing multiplies the target's squared error by C before it takes the mean over classes.
    """
    return _squared_towards_one(logits_NV, targets_N, target_weight=logits_NV.shape[-1])


def squentropy_repo(logits_NV: Tensor, targets_N: Tensor, *, target_weight: NonNegative = 65.0) -> Tensor:
    """-log p_y + 1/C * (target_weight * (1 - f_y)^2 + sum over j != y of f_j^2): the code behind the student report.

    Its 65, hard-coded, is the vocabulary of nanoGPT's character-level Shakespeare.
    """
    return _squared_towards_one(logits_NV, targets_N, target_weight=target_weight)


def label_smoothing(logits_NV: Tensor, targets_N: Tensor, *, smoothing: UnitInterval = 0.1) -> Tensor:
    """-(1 - smoothing) * log p_y - smoothing / C * sum over j of log p_j.

    Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7, arXiv 1512.00567.
    """
    return F.cross_entropy(logits_NV, targets_N, reduction="none", label_smoothing=smoothing)


def z_loss(logits_NV: Tensor, targets_N: Tensor, *, weight: NonNegative = 1e-4) -> Tensor:
    """-log p_y + weight * (log sum over j of exp f_j)^2.

    Chowdhery et al. 2022, "PaLM", section 5, arXiv 2204.02311, with weight 1e-4.
    """
    return cross_entropy(logits_NV, targets_N) + weight * logits_NV.logsumexp(dim=-1).square()


def logit_penalty(logits_NV: Tensor, targets_N: Tensor, *, weight: NonNegative = 1.0) -> Tensor:
    """-log p_y + weight / C * sum over j of f_j^2: like squentropy, but the sum includes the target.

    Kornblith et al. 2021, "Why Do Better Loss Functions Lead to Less Transferable Features?", arXiv 2010.16402. Their
    code has beta / 2 in place of weight / C. Dividing by C keeps the meaning of the weight for every vocabulary.
    """
    return cross_entropy(logits_NV, targets_N) + weight * logits_NV.square().mean(dim=-1)


def focal(logits_NV: Tensor, targets_N: Tensor, *, gamma: NonNegative = 2.0) -> Tensor:
    """-(1 - p_y)^gamma * log p_y: Lin et al. 2017, "Focal Loss", equation 4, arXiv 1708.02002."""
    nll_N = cross_entropy(logits_NV, targets_N)
    # The derivative of a power below 1 is infinite at 0, and a confident model reaches 0.
    wrong_N = (-torch.expm1(-nll_N)).clamp(min=torch.finfo(nll_N.dtype).tiny)
    return wrong_N**gamma * nll_N


def poly1(logits_NV: Tensor, targets_N: Tensor, *, epsilon: Annotated[float, Ge(-1)] = 1.0) -> Tensor:
    """-log p_y + epsilon * (1 - p_y): Poly-1 of Leng et al. 2022, "PolyLoss", arXiv 2204.12511."""
    nll_N = cross_entropy(logits_NV, targets_N)
    return nll_N - epsilon * torch.expm1(-nll_N)


def brier(logits_NV: Tensor, targets_N: Tensor, *, weight: Positive = 1.0) -> Tensor:
    """The sum over j of weight * (p_j - [j = y])^2.

    Brier 1950, "Verification of Forecasts Expressed in Terms of Probability". Its gradient vanishes with p_y, which is
    about 1 / C for every token at initialisation.
    """
    probabilities_NV = logits_NV.softmax(dim=-1)
    target_N = (1.0 - at_targets(probabilities_NV, targets_N)).square()
    return weight * (target_N + _WrongSquares.apply(probabilities_NV, targets_N))


def mse_probabilities(logits_NV: Tensor, targets_N: Tensor, *, scale: Positive = 100.0) -> Tensor:
    """1/C * sum over j of (scale * [j = y] - scale * p_j)^2: the "mse" of the code behind the student report."""
    return brier(logits_NV, targets_N, weight=scale**2 / logits_NV.shape[-1])


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy with fewer passes over the logits than F.cross_entropy.

    F.cross_entropy writes all log-probabilities, and its derivative writes zeros and all exponentials once more.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        top_N1 = logits_NV.amax(dim=-1, keepdim=True)
        exp_NV = (logits_NV - top_N1).exp_()
        sum_N = exp_NV.sum(dim=-1)
        ctx.save_for_backward(exp_NV, sum_N, targets_N)
        return top_N1.squeeze(-1) - at_targets(logits_NV, targets_N) + sum_N.log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        exp_NV, sum_N, targets_N = ctx.saved_tensors
        gradient_NV = exp_NV * (grads[0] / sum_N).unsqueeze(-1)
        return gradient_NV.scatter_add_(-1, targets_N.unsqueeze(-1), -grads[0].unsqueeze(-1)), None


def fused_cross_entropy(
    logits_CV: Tensor,
    targets_C: Tensor,
    tiles: Iterable[slice],
    *,
    factor: Tensor | None,
    softmax: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]],
) -> Tensor:
    """Return -log p_y of each token and write its derivative times `factor`, (p_j - [j = y]) * factor, over the logits.

    Args:
        logits_CV: Logits of a chunk of tokens, of any floating-point type.
        targets_C: Targets.
        tiles: Rows to work on at a time.
        factor: Factor on the derivative. If it is None, no derivative is written: the logits stay as they are.
        softmax: The function `softmax_terms`, or a compiled version of it.
    """
    target_C = at_targets(logits_CV, targets_C)
    top_C, sum_C = torch.empty_like(target_C), torch.empty_like(target_C)
    for tile in tiles:
        gradient_NV, top_C[tile], sum_C[tile] = softmax(logits_CV[tile], factor)
        if factor is not None:
            logits_CV[tile] = gradient_NV
    nll_C = top_C - target_C + sum_C.log()
    if factor is not None:  # from the nll, because the probability of the target was rounded
        rows_C = torch.arange(len(targets_C), device=targets_C.device)
        logits_CV[rows_C, targets_C] = (torch.expm1(-nll_C) * factor).to(logits_CV.dtype)
    return nll_C


cross_entropy.fused = fused_cross_entropy  # type: ignore[attr-defined]


def fused_form(loss: Loss) -> Callable[..., Tensor] | None:
    """Return the attribute `fused` of a loss, of a `functools.partial` of it without arguments, or of a wrapper.

    `functools.wraps` copies the attribute. A wrapper that changes the value of the loss must delete it.
    """
    while isinstance(loss, partial) and not (loss.args or loss.keywords):
        loss = loss.func
    fused: Callable[..., Tensor] | None = getattr(loss, "fused", None)
    return fused


def softmax_terms(logits_NV: Tensor, factor: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return exp(f_j - max f), max f and the sum over j of exp(f_j - max f).

    With `factor`, the first one is p * factor. The results are float32 or wider.
    """
    exp_NV = logits_NV.to(wide_dtype(logits_NV.dtype), copy=True)
    top_N = exp_NV.amax(dim=-1)
    sum_N = exp_NV.sub_(top_N.unsqueeze(-1)).exp_().sum(dim=-1)
    if factor is not None:
        exp_NV *= (sum_N.reciprocal() * factor).unsqueeze(-1)
    return exp_NV, top_N, sum_N


def at_targets(values_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Return the value of each token's target, float32 or wider."""
    return values_NV.gather(-1, targets_N.unsqueeze(-1)).squeeze(-1).to(wide_dtype(values_NV.dtype))


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which a loss computes: float32, or `dtype` if that is wider."""
    return torch.promote_types(dtype, torch.float32)


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
    target_N = (1.0 - at_targets(logits_NV, targets_N)).square()
    squares_N = target_weight * target_N + _WrongSquares.apply(logits_NV, targets_N)
    return cross_entropy(logits_NV, targets_N) + squares_N / logits_NV.shape[-1]
