"""Causal attention and dropout, with kernels of our own for a CPU.

Shape suffixes: B batch, H heads, T time, Q queries of a block, K width of a head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Sizes for a CPU, from `python -m analysis.benchmarks.attention`.
QUERIES = 256  # queries in a block
RECOMPUTE_FROM = 1024  # tokens in a window from which on the backward pass recomputes attention, to save memory


def causal_attention(query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor, *, dropout: float = 0.0) -> Tensor:
    """Return softmax(query key^T / sqrt(K)) value, shape (B, H, T, K), where no token attends to a later one.

    Vaswani et al. 2017, arXiv 1706.03762, equation 1. `dropout` is the probability that an attention weight is dropped.
    """
    # On a CPU, the backward pass of PyTorch's kernel is slower in bfloat16 than in float32, and its dropout uses only
    # one thread.
    slow = query_BHTK.dtype is torch.bfloat16 or dropout > 0.0
    if query_BHTK.device.type == "cpu" and torch.is_grad_enabled() and slow:
        if query_BHTK.shape[2] >= RECOMPUTE_FROM:
            return checkpoint(_in_blocks, query_BHTK, key_BHTK, value_BHTK, dropout, use_reentrant=False)
        return _in_blocks(query_BHTK, key_BHTK, value_BHTK, dropout)
    return F.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, dropout_p=dropout, is_causal=True)


def _in_blocks(query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor, dropout: float) -> Tensor:
    """Compute attention for blocks of queries, each with the keys up to its end, to skip most masked scores.

    In bfloat16, scores are rounded before the softmax too. The attention weights, about half of T x T for each head,
    are saved for the backward pass.
    """
    T, K = query_BHTK.shape[-2:]
    # Without contiguous heads, the product of every block would copy the keys and values, and save the copies.
    query_BHTK = (query_BHTK / math.sqrt(K)).contiguous()
    key_BHTK, value_BHTK = key_BHTK.contiguous(), value_BHTK.contiguous()
    mixed = []
    for begin in range(0, T, QUERIES):
        end = min(begin + QUERIES, T)
        later_QT = query_BHTK.new_full((end - begin, end), -math.inf).triu(begin + 1)
        scores_BHQT = query_BHTK[..., begin:end, :] @ key_BHTK[..., :end, :].transpose(-1, -2) + later_QT
        weights_BHQT = drop(scores_BHQT.softmax(dim=-1), dropout)
        mixed.append(weights_BHQT @ value_BHTK[..., :end, :])
    return torch.cat(mixed, dim=-2)


class Dropout(nn.Dropout):
    """Dropout that is fast on a CPU too."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply dropout in training."""
        return drop(input, self.p) if self.training else input


def drop(x: Tensor, p: float) -> Tensor:
    """Return x with elements set to zero with probability p and the others divided by 1 - p.

    Srivastava et al. 2014, "Dropout". On a CPU, F.dropout draws 64 random bits for each element on one thread. This
    function draws 16, so p is rounded to a multiple of 2^-16 there.
    """
    if p == 0.0 or x.device.type != "cpu":
        return F.dropout(x, p)
    n_words = -(-x.numel() // 4)
    bits = torch.empty(n_words, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[: x.numel()]
    dropped = min(round(p * 2**16), 2**16 - 1)  # of 2^16 equally likely values
    kept = torch.ge(bits.view(x.shape), dropped - 2**15, out=torch.empty_like(x, requires_grad=False))
    return x * kept.div_(1 - dropped / 2**16)
