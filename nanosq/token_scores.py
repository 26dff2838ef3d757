"""Scores of tokens from hidden states. As in nanosq/head.py, only the logits of one chunk of tokens exist.

Shape suffixes: N tokens, C tokens of a chunk, V vocabulary, D model width.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from nanosq import head
from nanosq.losses import Loss, at_targets, fused_form, softmax_terms, wide_dtype


class TokenScores(NamedTuple):
    """Values of each scored token, shape (N,), float32 or wider."""

    loss: Tensor
    nll: Tensor
    confidence: Tensor  # the largest probability
    correct: Tensor  # 1 if the target has it, or 1/n if n classes share it, which happens in bfloat16


class ScaledScores(NamedTuple):
    """Values of each scored token for p = softmax(scale * logits), shape (N,), float32 or wider."""

    nll: Tensor
    slope: Tensor  # derivative of the nll with respect to the scale: mean of the logits under p - logit of the target
    curvature: Tensor  # its derivative: variance of the logits under p
    confidence: Tensor
    correct: Tensor


def token_scores(
    loss: Loss,
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    chunk_size: int | None = None,
    compile: bool = False,
) -> TokenScores:
    """Return the scores of the tokens whose target is not -1, in order. The arguments are those of `head_loss`."""
    function = partial(_plain, loss, compile=compile)
    return TokenScores(*_over_chunks(function, hidden_ND, weight_VD, targets_N, chunk_size))


def scaled_scores(
    scale: float, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, *, chunk_size: int | None = None
) -> ScaledScores:
    """Return the scores for logits times `scale`, as `token_scores` does."""
    return ScaledScores(*_over_chunks(partial(_scaled, scale), hidden_ND, weight_VD, targets_N, chunk_size))


@torch.no_grad()
def _over_chunks(
    function: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    chunk_size: int | None = None,
) -> list[Tensor]:
    """Return the values of a function of logits_CV and targets_C for all tokens whose target is not -1."""
    head.check(hidden_ND, targets_N, chunk_size)
    hidden_ND, targets_N = hidden_ND.flatten(0, -2), targets_N.flatten()
    scored_N = targets_N >= 0
    hidden_ND, targets_N = hidden_ND[scored_N], targets_N[scored_N]
    weight_VD = weight_VD.to(head.matmul_dtype(hidden_ND))
    with torch.autocast(hidden_ND.device.type, enabled=False):
        chunks = head.chunks(hidden_ND, weight_VD, chunk_size)
        parts = [function(logits_CV, targets_N[tokens]) for tokens, logits_CV in chunks]
    return [torch.cat(part) for part in zip(*parts, strict=True)]


def _plain(loss: Loss, logits_CV: Tensor, targets_C: Tensor, *, compile: bool) -> TokenScores:
    softmax = head.compiled(softmax_terms) if compile else softmax_terms
    function = head.compiled(head.losses_of) if compile else head.losses_of
    is_nll = fused_form(loss) is not None
    target_C = at_targets(logits_CV, targets_C)
    top_C, sum_C, ties_C, losses_C = target_C.new_empty(4, len(target_C))
    for tile in head.tiles(logits_CV, compile):
        exp_NV, top_C[tile], sum_C[tile] = softmax(logits_CV[tile], None)
        # A CPU needs ten times as long for the index of the largest value as for the value, and as long for a sum of
        # booleans.
        ties_C[tile] = exp_NV.ge_(1.0).sum(dim=-1)
        if not is_nll:
            losses_C[tile] = function(loss, logits_CV[tile], targets_C[tile])
    nll_C = top_C - target_C + sum_C.log()
    correct_C = torch.ge(target_C, top_C) / ties_C
    return TokenScores(nll_C if is_nll else losses_C, nll_C, sum_C.reciprocal(), correct_C)


def _scaled(scale: float, logits_CV: Tensor, targets_C: Tensor) -> ScaledScores:
    target_C = at_targets(logits_CV, targets_C)
    top_C, sum_C, mean_C, square_C, ties_C = target_C.new_empty(5, len(target_C))
    for tile in head.tiles(logits_CV, compile=False):
        gap_NV = logits_CV[tile].to(wide_dtype(logits_CV.dtype), copy=True)  # f_j - max f
        top_C[tile] = gap_NV.amax(dim=-1)
        gap_NV.sub_(top_C[tile, None])
        weighted_NV = (gap_NV * scale).exp_()
        sum_C[tile] = weighted_NV.sum(dim=-1)
        mean_C[tile] = weighted_NV.mul_(gap_NV).sum(dim=-1)
        square_C[tile] = weighted_NV.mul_(gap_NV).sum(dim=-1)
        ties_C[tile] = gap_NV.ge_(0.0).sum(dim=-1)
    gap_C = target_C - top_C
    mean_C, square_C = mean_C / sum_C, square_C / sum_C
    return ScaledScores(
        nll=sum_C.log() - scale * gap_C,
        slope=mean_C - gap_C,
        curvature=square_C - mean_C.square(),
        confidence=sum_C.reciprocal(),
        correct=torch.ge(gap_C, 0.0) / ties_C,
    )
