"""The output head: any per-token loss over the vocabulary, with its gradient, one chunk of tokens at a time.

Shape suffixes: N tokens, C tokens of a chunk, V vocabulary, D model width.

The logits of a batch, N x V, are by far the largest tensor of a small language model with a large vocabulary. Here
only the logits of one chunk of tokens exist. For each chunk, the forward pass

1. multiplies the hidden states by the head weight,
2. computes the loss and, by autograd, its gradient with respect to the logits, which replaces the logits,
3. multiplies that into the gradients of the hidden states (N x D) and of the head weight (V x D),

and then uses the memory of the logits for the next chunk. This is the idea of fused linear cross-entropy, for any loss
(Liger kernels, arXiv 2410.10989; Cut Cross-Entropy, arXiv 2411.09009).

A chunk is large, because every chunk reads and writes the V x D weight and its gradient. The loss makes several passes
over its logits and needs several tensors of their size, so it gets a tile of the chunk at a time, small enough for the
cache of a CPU.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nanosq.losses import Loss, cross_entropy, fused_form, softmax_terms, wide_dtype

# Sizes in logits, from `python -m analysis.benchmarks.loss --sizes`.
CHUNK_LOGITS = 2**26  # 128 MiB in bfloat16; 1,334 tokens with GPT-2's vocabulary
TILE_LOGITS = 2**18  # for each thread of a CPU: 1 MiB of float32
COMPILED_TILE_LOGITS = 2**22  # a compiled loss needs no memory for intermediate results

# The gradient of the weight is updated this many elements at a time, to stay in the cache.
PRODUCT_ELEMENTS = 2**22

compiled = cache(torch.compile)


def head_loss(
    loss: Loss,
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    chunk_size: int | None = None,
    compile: bool = False,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the mean objective and the mean nll (nats) over the tokens whose target is not -1.

    Matrix products run in the autocast type if autocast is enabled. The loss sees float32 or wider.

    Args:
        loss: Per-token loss.
        hidden_ND: Hidden states; they may have more dimensions, as (B, T, D).
        weight_VD: Head weight. Rows that pad the vocabulary take part in the loss; cut them off to leave them out.
        targets_N: Targets, with one dimension less than the hidden states.
        chunk_size: Tokens in a chunk; by default from the size of the vocabulary.
        compile: Whether to compile the loss. The numbers are the same up to rounding.
        scale: Factor by which you multiply the objective. Gradients in float16 get it before they are rounded.

    Returns:
        The objective, which is differentiable once in `hidden_ND` and `weight_VD`, and the nll, which is not.

    Raises:
        ValueError: Shapes do not match, or the loss does not return one value for each token.
    """
    check(hidden_ND, targets_N, chunk_size)
    differentiate = torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_VD.requires_grad)
    scale = scale if matmul_dtype(hidden_ND) == torch.float16 else None  # the other types have the range of float32
    run_loss = partial(_run_loss, loss, compile=compile)
    return _HeadLoss.apply(
        run_loss, hidden_ND.flatten(0, -2), weight_VD, targets_N.flatten(), chunk_size, differentiate, scale
    )


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        run_loss: Callable[..., tuple[Tensor, Tensor]],
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        chunk_size: int | None,
        differentiate: bool,
        scale: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        cast_VD = weight_VD.to(matmul_dtype(hidden_ND))
        scored_N = targets_N >= 0
        n = scored_N.sum().clamp(min=1)
        all_scored = targets_N.device.type == "cpu" and bool(scored_N.all())  # reading it makes a GPU wait
        targets_N = targets_N.clamp(min=0)
        losses_N, nll_N = hidden_ND.new_empty(2, len(targets_N), dtype=wide_dtype(cast_VD.dtype))
        factor = None
        if differentiate:
            # In float16, gradients neither underflow nor overflow with the factor scale / n. `backward` divides by it.
            factor = torch.ones((), device=n.device) if scale is None else scale / n
            grad_hidden = torch.empty_like(hidden_ND)
            grad_weight = torch.empty_like(weight_VD, dtype=wide_dtype(weight_VD.dtype))
        with torch.autocast(hidden_ND.device.type, enabled=False):
            for tokens, logits_CV in chunks(hidden_ND, cast_VD, chunk_size):
                losses_N[tokens], nll_N[tokens] = run_loss(logits_CV, targets_N[tokens], factor)
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
        losses_N, nll_N = losses_N.where(scored_N, 0.0), nll_N.where(scored_N, 0.0)
        if differentiate:
            ctx.gradients = grad_hidden, grad_weight.to(weight_VD.dtype), n, factor
        ctx.mark_non_differentiable(nll := nll_N.sum() / n)
        return losses_N.sum() / n, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("head_loss keeps its gradients for one backward pass: call head_loss again for another")
        (grad_hidden, grad_weight, n, factor), ctx.gradients = ctx.gradients, None
        rest = grads[0] / n / factor
        # In place, because the gradient of the weight may be the largest tensor of all.
        return None, grad_hidden.mul_(rest), grad_weight.mul_(rest), None, None, None, None


def _run_loss(
    loss: Loss, logits_CV: Tensor, targets_C: Tensor, factor: Tensor | None, *, compile: bool
) -> tuple[Tensor, Tensor]:
    """Return the objective and the nll of each token. With `factor`, write the gradient times it over the logits."""
    if (fused := fused_form(loss)) is not None:
        softmax = compiled(softmax_terms) if compile else softmax_terms
        nll_C = fused(logits_CV, targets_C, tiles(logits_CV, compile), factor=factor, softmax=softmax)
        return nll_C, nll_C
    function = compiled(_loss_and_nll) if compile else _loss_and_nll
    losses_C, nll_C = logits_CV.new_empty(2, len(targets_C), dtype=wide_dtype(logits_CV.dtype))
    for tile in tiles(logits_CV, compile):
        logits_NV = logits_CV[tile].detach().requires_grad_(factor is not None)
        with torch.set_grad_enabled(factor is not None):
            losses_N, nll_C[tile] = function(loss, logits_NV, targets_C[tile])
            losses_C[tile] = losses_N.detach()
            if factor is not None:
                (grad_NV,) = torch.autograd.grad(losses_N, logits_NV, factor.to(losses_N.dtype).expand_as(losses_N))
                logits_CV[tile] = grad_NV
    return losses_C, nll_C


def _loss_and_nll(loss: Loss, logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    logits_NV = logits_NV.to(wide_dtype(logits_NV.dtype))
    nll_N = cross_entropy(logits_NV.detach(), targets_N)
    return losses_of(loss, logits_NV, targets_N), nll_N


def losses_of(loss: Loss, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Return the loss of each token, computed in float32 or wider."""
    losses_N = loss(logits_NV.to(wide_dtype(logits_NV.dtype)), targets_N)
    if losses_N.shape != targets_N.shape:
        raise ValueError(f"the loss returns shape {tuple(losses_N.shape)}, not one value for each token")
    return losses_N


def check(hidden_ND: Tensor, targets_N: Tensor, chunk_size: int | None) -> None:
    """Raise ValueError if the arguments of `head_loss` do not fit together."""
    if hidden_ND.shape[:-1] != targets_N.shape:
        raise ValueError(f"hidden states {tuple(hidden_ND.shape)} do not match targets {tuple(targets_N.shape)}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}")


def chunks(hidden_ND: Tensor, weight_VD: Tensor, chunk_size: int | None) -> Iterator[tuple[slice, Tensor]]:
    """Yield the tokens of each chunk and their logits_CV, whose memory the next chunk uses again."""
    V = len(weight_VD)
    n_chunks = math.ceil(len(hidden_ND) / (chunk_size or max(1, CHUNK_LOGITS // V)))
    chunk_size = math.ceil(len(hidden_ND) / max(1, n_chunks))  # chunks of about equal size
    buffer = weight_VD.new_empty(chunk_size, V)
    for tokens in _slices(len(hidden_ND), chunk_size):
        hidden_CD = hidden_ND[tokens].to(weight_VD.dtype)
        yield tokens, torch.mm(hidden_CD, weight_VD.T, out=buffer[: len(hidden_CD)])


def tiles(logits_CV: Tensor, compile: bool) -> Iterator[slice]:
    """Yield the rows of each tile of a chunk."""
    C, V = logits_CV.shape
    if logits_CV.device.type == "cpu":
        return _slices(C, (COMPILED_TILE_LOGITS if compile else TILE_LOGITS * torch.get_num_threads()) // V)
    return _slices(C, C)


def _slices(n: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` that cover range(n); an empty one for n = 0."""
    for begin in range(0, max(1, n), max(1, size)):
        yield slice(begin, min(begin + max(1, size), n))


def matmul_dtype(hidden_ND: Tensor) -> torch.dtype:
    """Return the type in which the head multiplies matrices."""
    device = hidden_ND.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype
