"""The output head: runs any per-token loss over the vocabulary, gradient included, with the logits of one chunk.

Shape suffixes: N tokens, C tokens of a chunk, V vocabulary, D model width.

The logits of a batch, N x V, are by far the largest tensor of a small language model with a large vocabulary. Here
they exist for one chunk of tokens at a time. The forward pass multiplies a chunk of hidden states by the head weight,
takes the logits through the loss and back by autograd, writes the gradient over the logits, multiplies it into the
gradients of hidden states and head weight, N x D and V x D, and goes on to the next chunk in the same memory. This is
the idea of fused linear cross-entropy (Liger kernels, arXiv 2410.10989; Cut Cross-Entropy, arXiv 2411.09009) for any
loss.

Two sizes matter. A chunk is large, so that reading and writing the V x D weight and gradient once for each is little
work beside the products. The loss makes several passes over its logits and keeps several tensors of their size, so
within a chunk it sees a tile of them at a time, as many as a CPU's cache holds.

Cross-entropy, which every study compares with and every evaluation needs, has its derivative written by hand.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nanosq.losses import cross_entropy

# (logits_NV float32 or wider, targets_N) -> losses_N: see nanosq/losses.py
Loss = Callable[[Tensor, Tensor], Tensor]

# Sizes in logits, from `python -m analysis.benchmarks.loss --sizes`.
CHUNK_LOGITS = 2**26  # 128 MiB of bfloat16; 1,334 tokens of GPT-2's vocabulary
TILE_LOGITS = 2**18  # for each thread of a CPU: 1 MiB of float32
COMPILED_TILE_LOGITS = 2**22  # fused, a loss needs no memory for its steps

# The product that is added to the weight's gradient takes this many elements of it at a time, to stay in the cache.
PRODUCT_ELEMENTS = 2**22


def head_loss(
    loss: Loss,
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    chunk_size: int | None = None,
    compile: bool = False,
) -> tuple[Tensor, Tensor]:
    """Mean objective and mean negative log-likelihood (nats) over the tokens whose target is not -1.

    hidden_ND may have more dimensions, as (B, T, D), and targets_N as many less one. Rows of the weight that pad the
    vocabulary enter a loss like any other: where they must not, give `weight_VD[:vocab_size]`.

    The objective is differentiable once, in hidden_ND and weight_VD; the negative log-likelihood is for the log.
    Matrix products run in the autocast type where autocast is on; the loss sees float32 or wider.

    chunk_size: tokens whose logits exist at once; by default from the size of the vocabulary.
    compile: fuse the loss with torch.compile; the same numbers up to rounding.

    ValueError where shapes do not match, or where the loss does not give one value for each token.
    """
    _check(hidden_ND, targets_N, chunk_size)
    differentiate = torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_VD.requires_grad)
    return _HeadLoss.apply(
        loss, hidden_ND.flatten(0, -2), weight_VD, targets_N.flatten(), chunk_size, compile, differentiate
    )


class TokenScores(NamedTuple):
    """What evaluation needs of each scored token, shape (N,), float32 or wider."""

    loss: Tensor
    nll: Tensor
    confidence: Tensor  # the largest probability
    correct: Tensor  # 1 where that was the target's; a part of it where n have the largest, as bfloat16's can, 1/n


@torch.no_grad()
def token_scores(
    loss: Loss,
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    chunk_size: int | None = None,
    compile: bool = False,
) -> TokenScores:
    """Scores of the tokens whose target is not -1, in order. Arguments are those of `head_loss`."""
    _check(hidden_ND, targets_N, chunk_size)
    hidden_ND, targets_N = hidden_ND.flatten(0, -2), targets_N.flatten()
    scored_N = targets_N >= 0
    hidden_ND, targets_N = hidden_ND[scored_N], targets_N[scored_N]
    weight_VD = weight_VD.to(_matmul_dtype(hidden_ND))
    parts = []
    with torch.autocast(hidden_ND.device.type, enabled=False):
        for tokens, logits_CV in _chunks(hidden_ND, weight_VD, chunk_size):
            parts.append(_scores(loss, logits_CV, targets_N[tokens], compile))
    return TokenScores(*(torch.cat(part) for part in zip(*parts, strict=True)))


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        loss: Loss,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        chunk_size: int | None,
        compile: bool,
        differentiate: bool,
    ) -> tuple[Tensor, Tensor]:
        cast_VD = weight_VD.to(_matmul_dtype(hidden_ND))
        scored_N = targets_N >= 0
        all_scored = targets_N.device.type == "cpu" and bool(scored_N.all())  # a GPU would have to wait for the answer
        targets_N = targets_N.clamp(min=0)
        losses_N, nll_N = hidden_ND.new_empty(2, len(targets_N), dtype=_wide(cast_VD.dtype))
        if differentiate:
            grad_hidden = torch.empty_like(hidden_ND)
            grad_weight = torch.empty_like(weight_VD, dtype=_wide(weight_VD.dtype))
        with torch.autocast(hidden_ND.device.type, enabled=False):
            for tokens, logits_CV in _chunks(hidden_ND, cast_VD, chunk_size):
                losses_N[tokens], nll_N[tokens] = _differentiated(
                    loss, logits_CV, targets_N[tokens], compile, differentiate
                )
                if differentiate:
                    if not all_scored:
                        logits_CV.masked_fill_(~scored_N[tokens, None], 0.0)
                    grad_hidden[tokens] = logits_CV @ cast_VD
                    hidden_CD = hidden_ND[tokens].to(cast_VD.dtype)
                    for rows in _slices(len(weight_VD), PRODUCT_ELEMENTS // weight_VD.shape[1]):
                        product = logits_CV[:, rows].T @ hidden_CD
                        if tokens.start == 0:
                            grad_weight[rows] = product
                        else:
                            grad_weight[rows] += product
        n = scored_N.sum().clamp(min=1)
        losses_N, nll_N = losses_N.where(scored_N, 0.0), nll_N.where(scored_N, 0.0)
        if differentiate:
            ctx.gradients = grad_hidden, grad_weight.to(weight_VD.dtype), n
        ctx.mark_non_differentiable(nll := nll_N.sum() / n)
        return losses_N.sum() / n, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # Scaled in place: a copy of the weight's gradient would be the largest tensor of all.
        if ctx.gradients is None:
            raise RuntimeError("head_loss keeps its gradients for one backward pass: call it again for another")
        (grad_hidden, grad_weight, n), ctx.gradients = ctx.gradients, None
        scale = grads[0] / n
        return None, grad_hidden.mul_(scale), grad_weight.mul_(scale), None, None, None, None


def _differentiated(
    loss: Loss, logits_CV: Tensor, targets_C: Tensor, compile: bool, differentiate: bool
) -> tuple[Tensor, Tensor]:
    """Objective and negative log-likelihood of each token; the gradient of the former is written over the logits."""
    if loss is cross_entropy:
        nll_C = _cross_entropy(logits_CV, targets_C, compile, differentiate)
        return nll_C, nll_C
    function = _compiled(_losses) if compile else _losses
    losses_C, nll_C = logits_CV.new_empty(2, len(targets_C), dtype=_wide(logits_CV.dtype))
    for tile in _tiles(logits_CV, compile):
        logits_NV = logits_CV[tile].detach().requires_grad_(differentiate)
        with torch.set_grad_enabled(differentiate):
            losses_N, nll_C[tile] = function(loss, logits_NV, targets_C[tile])
            losses_C[tile] = losses_N.detach()
            if differentiate:
                (grad_NV,) = torch.autograd.grad(losses_N.sum(), logits_NV)
                logits_CV[tile] = grad_NV
    return losses_C, nll_C


def _losses(loss: Loss, logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """The objective, to be differentiated, and the negative log-likelihood."""
    logits_NV = logits_NV.to(_wide(logits_NV.dtype))
    nll_N = cross_entropy(logits_NV.detach(), targets_N)
    losses_N = loss(logits_NV, targets_N)
    if losses_N.shape != targets_N.shape:
        raise ValueError(f"the loss returns shape {tuple(losses_N.shape)}, not one value for each token")
    return losses_N, nll_N


def _cross_entropy(logits_CV: Tensor, targets_C: Tensor, compile: bool, differentiate: bool) -> Tensor:
    """-log p_y; its gradient, p_j - [j = y], is written over the logits."""
    softmax = _compiled(_softmax) if compile else _softmax
    target_C = _at_targets(logits_CV, targets_C)
    top_C, sum_C = torch.empty_like(target_C), torch.empty_like(target_C)
    for tile in _tiles(logits_CV, compile):
        probabilities_NV, top_C[tile], sum_C[tile] = softmax(logits_CV[tile], differentiate)
        if differentiate:
            logits_CV[tile] = probabilities_NV
    nll_C = top_C - target_C + sum_C.log()
    if differentiate:  # not p_y as it has been rounded
        rows_C = torch.arange(len(targets_C), device=targets_C.device)
        logits_CV[rows_C, targets_C] = torch.expm1(-nll_C).to(logits_CV.dtype)
    return nll_C


def _softmax(logits_NV: Tensor, normalise: bool) -> tuple[Tensor, Tensor, Tensor]:
    """p, or exp(f_j - max f) where it is not to be normalised; max f; the sum over j of exp(f_j - max f)."""
    exp_NV = logits_NV.to(_wide(logits_NV.dtype), copy=True)
    top_N = exp_NV.amax(dim=-1)
    sum_N = exp_NV.sub_(top_N.unsqueeze(-1)).exp_().sum(dim=-1)
    if normalise:
        exp_NV *= sum_N.reciprocal().unsqueeze(-1)
    return exp_NV, top_N, sum_N


def _scores(loss: Loss, logits_CV: Tensor, targets_C: Tensor, compile: bool) -> TokenScores:
    softmax = _compiled(_softmax) if compile else _softmax
    function = _compiled(_loss) if compile else _loss
    target_C = _at_targets(logits_CV, targets_C)
    top_C, sum_C, ties_C, losses_C = target_C.new_empty(4, len(target_C))
    for tile in _tiles(logits_CV, compile):
        exp_NV, top_C[tile], sum_C[tile] = softmax(logits_CV[tile], False)
        # For the index of the largest a CPU needs ten times as long as for its value, and as long to add truth values.
        ties_C[tile] = exp_NV.ge_(1.0).sum(dim=-1)
        if loss is not cross_entropy:
            losses_C[tile] = function(loss, logits_CV[tile], targets_C[tile])
    nll_C = top_C - target_C + sum_C.log()
    correct_C = torch.ge(target_C, top_C) / ties_C
    return TokenScores(nll_C if loss is cross_entropy else losses_C, nll_C, sum_C.reciprocal(), correct_C)


def _loss(loss: Loss, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return loss(logits_NV.to(_wide(logits_NV.dtype)), targets_N)


def _at_targets(logits_CV: Tensor, targets_C: Tensor) -> Tensor:
    return logits_CV.gather(-1, targets_C.unsqueeze(-1)).squeeze(-1).to(_wide(logits_CV.dtype))


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function)


def _check(hidden_ND: Tensor, targets_N: Tensor, chunk_size: int | None) -> None:
    if hidden_ND.shape[:-1] != targets_N.shape:
        raise ValueError(f"hidden states {tuple(hidden_ND.shape)} do not match targets {tuple(targets_N.shape)}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}")


def _chunks(hidden_ND: Tensor, weight_VD: Tensor, chunk_size: int | None) -> Iterator[tuple[slice, Tensor]]:
    """Which tokens, and their logits_CV, in memory that the next chunk takes over."""
    V = len(weight_VD)
    n_chunks = math.ceil(len(hidden_ND) / (chunk_size or max(1, CHUNK_LOGITS // V)))
    chunk_size = math.ceil(len(hidden_ND) / max(1, n_chunks))  # all about equally large
    buffer = weight_VD.new_empty(chunk_size, V)
    for tokens in _slices(len(hidden_ND), chunk_size):
        hidden_CD = hidden_ND[tokens].to(weight_VD.dtype)
        yield tokens, torch.mm(hidden_CD, weight_VD.T, out=buffer[: len(hidden_CD)])


def _tiles(logits_CV: Tensor, compile: bool) -> Iterator[slice]:
    C, V = logits_CV.shape
    if logits_CV.device.type == "cpu":
        return _slices(C, (COMPILED_TILE_LOGITS if compile else TILE_LOGITS * torch.get_num_threads()) // V)
    return _slices(C, C)


def _slices(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover range(n); an empty one where n is 0, so that no caller has a special case."""
    for begin in range(0, max(1, n), max(1, size)):
        yield slice(begin, min(begin + max(1, size), n))


def _matmul_dtype(hidden_ND: Tensor) -> torch.dtype:
    device = hidden_ND.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def is_fused(loss: Loss) -> bool:
    return loss is cross_entropy
