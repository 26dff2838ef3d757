"""The output head: runs a per-token loss over the vocabulary in chunks of tokens, gradient included.

Shape suffixes: N tokens, V vocabulary, D model width.

The logits of a batch, N x V, are by far the largest tensor of a small language model with a large vocabulary. Here
they exist for one chunk of tokens at a time: the forward pass takes a chunk through the loss and back by autograd,
keeps the gradients of hidden states and head weight, N x D and V x D, and forgets the logits. This is the idea of
fused linear cross-entropy (Liger kernels, arXiv 2410.10989; Cut Cross-Entropy, arXiv 2411.09009) for any loss.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# (logits_NV float32, targets_N) -> losses_N: see nanosq/losses.py
Loss = Callable[[Tensor, Tensor], Tensor]

# 2^22 float32 logits are 16 MiB: large enough for full-speed matrix products, small enough for a few copies of a chunk
# to stay near the cache.
CHUNK_LOGITS = 2**22


def head_loss(
    loss: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, *, chunk_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Mean objective and mean negative log-likelihood (nats) over the tokens whose target is not -1.

    The objective is differentiable once, in hidden_ND and weight_VD; the negative log-likelihood is for the log.
    Matrix products run in the autocast type where autocast is on; logits and losses are float32 or wider.
    """
    hidden_ND, targets_N = _scored(hidden_ND, targets_N)
    differentiate = torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_VD.requires_grad)
    chunk_size = chunk_size or _chunk_size(weight_VD)
    return _HeadLoss.apply(loss, hidden_ND, weight_VD, targets_N, chunk_size, differentiate)


class TokenScores(NamedTuple):
    """What evaluation needs of each scored token; all float32 of shape (N,) but `correct`, which is bool."""

    loss: Tensor
    nll: Tensor
    confidence: Tensor  # the largest probability
    correct: Tensor  # whether that was the target's


@torch.no_grad()
def token_scores(
    loss: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, *, chunk_size: int | None = None
) -> TokenScores:
    """Scores of the tokens whose target is not -1, in order."""
    hidden_ND, targets_N = _scored(hidden_ND, targets_N)
    weight_VD = weight_VD.to(_matmul_dtype(hidden_ND))
    chunks = []
    for hidden, targets in _chunks(hidden_ND, targets_N, chunk_size or _chunk_size(weight_VD)):
        logits_NV = _logits(hidden, weight_VD)
        nll_N = F.cross_entropy(logits_NV, targets, reduction="none")
        top_N, guess_N = logits_NV.max(dim=-1)
        confidence_N = torch.exp(top_N - logits_NV.logsumexp(dim=-1))
        chunks.append(TokenScores(loss(logits_NV, targets), nll_N, confidence_N, guess_N == targets))
    return TokenScores(*(torch.cat(parts) for parts in zip(*chunks, strict=True)))


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        loss: Loss,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        chunk_size: int,
        differentiate: bool,
    ) -> tuple[Tensor, Tensor]:
        dtype = _matmul_dtype(hidden_ND)
        cast_VD = weight_VD.detach().to(dtype)
        grad_hidden = torch.empty_like(hidden_ND) if differentiate else None
        grad_weight = torch.zeros_like(weight_VD) if differentiate else None
        objective = nll = torch.zeros((), dtype=_logits_dtype(dtype), device=hidden_ND.device)
        start = 0
        for hidden, targets in _chunks(hidden_ND.detach().to(dtype), targets_N, chunk_size):
            logits_NV = _logits(hidden, cast_VD)
            nll = nll + F.cross_entropy(logits_NV, targets, reduction="sum")
            with torch.set_grad_enabled(differentiate), torch.autocast(hidden.device.type, enabled=False):
                losses_N = loss(logits_NV.requires_grad_(differentiate), targets)
                objective = objective + losses_N.detach().sum()
                if grad_hidden is not None and grad_weight is not None:
                    (grad_NV,) = torch.autograd.grad(losses_N.sum(), logits_NV)
                    grad_NV = grad_NV.to(dtype)
                    grad_hidden[start : start + len(hidden)] = grad_NV @ cast_VD
                    grad_weight += grad_NV.T @ hidden
            start += len(hidden)
        n = max(1, len(targets_N))
        ctx.n = n
        if grad_hidden is not None and grad_weight is not None:
            ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(nll := nll / n)
        return objective / n, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grads[0] / ctx.n
        grad_hidden, grad_weight = grad_hidden * scale.to(grad_hidden.dtype), grad_weight * scale.to(grad_weight.dtype)
        return None, grad_hidden, grad_weight, None, None, None


def _scored(hidden_ND: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Flattened, without the tokens whose target is -1."""
    hidden_ND, targets_N = hidden_ND.flatten(0, -2), targets_N.flatten()
    scored_N = targets_N >= 0
    return (hidden_ND, targets_N) if scored_N.all() else (hidden_ND[scored_N], targets_N[scored_N])


def _matmul_dtype(hidden_ND: Tensor) -> torch.dtype:
    device = hidden_ND.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype


def _logits_dtype(matmul_dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(matmul_dtype, torch.float32)


def _logits(hidden_ND: Tensor, weight_VD: Tensor) -> Tensor:
    return (hidden_ND.to(weight_VD.dtype) @ weight_VD.T).to(_logits_dtype(weight_VD.dtype))


def _chunk_size(weight_VD: Tensor) -> int:
    return max(1, CHUNK_LOGITS // len(weight_VD))


def _chunks(hidden_ND: Tensor, targets_N: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(hidden_ND.split(size), targets_N.split(size), strict=True)
