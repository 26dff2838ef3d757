"""Causal attention, its cache of keys and values, and dropout, with kernels of our own for a CPU.

Shape suffixes: B batch, H heads, T time, N all heads of a batch, B x H, Q queries of a block, K width of a head.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

# Sizes for a CPU, from `python -m analysis.benchmarks.attention`.
QUERIES = 256  # queries in a block
FLASH_FROM = 768  # tokens in a window from which on PyTorch's kernel is the faster one
RECOMPUTE_FROM = 1024  # from which on the backward pass computes attention with dropout again, to save memory


class KeyValues:
    """The keys and values of the tokens that an attention layer has seen, so that each is computed once.

    Args:
        size: Largest number of tokens.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.length = 0  # tokens seen

    def append(self, key_BHTK: Tensor, value_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of new tokens, and return those of all tokens."""
        if self.length == 0:
            B, H, _, K = key_BHTK.shape
            self._key_BHTK, self._value_BHTK = (key_BHTK.new_empty(B, H, self.size, K) for _ in range(2))
        begin, end = self.length, self.length + key_BHTK.shape[2]
        self._key_BHTK[:, :, begin:end] = key_BHTK
        self._value_BHTK[:, :, begin:end] = value_BHTK
        self.length = end
        return self._key_BHTK[:, :, :end], self._value_BHTK[:, :, :end]


def causal_attention(query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor, *, dropout: float = 0.0) -> Tensor:
    """Return softmax(query key^T / sqrt(K)) value, of the query's shape, where no token attends to a later one.

    Vaswani et al. 2017, arXiv 1706.03762, equation 1. `dropout` is the probability that an attention weight is dropped.
    If there are fewer queries than keys, they are the queries of the last tokens.
    """
    n_queries, n_keys = query_BHTK.shape[2], key_BHTK.shape[2]
    if n_queries < n_keys:  # one query needs no mask, which would be slow
        mask_QT = None
        if n_queries > 1:
            mask_QT = query_BHTK.new_ones(n_queries, n_keys, dtype=torch.bool).tril(n_keys - n_queries)
        return F.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, mask_QT, dropout_p=dropout)
    # On a CPU, PyTorch's kernel in bfloat16 has a slow backward pass for short windows, and its dropout uses only one
    # thread.
    T = query_BHTK.shape[2]
    slow = dropout > 0.0 or (query_BHTK.dtype is torch.bfloat16 and T < FLASH_FROM)
    if query_BHTK.device.type == "cpu" and torch.is_grad_enabled() and slow:
        if T >= RECOMPUTE_FROM:
            return checkpoint(_in_blocks, query_BHTK, key_BHTK, value_BHTK, dropout, use_reentrant=False)
        return _in_blocks(query_BHTK, key_BHTK, value_BHTK, dropout)
    return F.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, dropout_p=dropout, is_causal=True)


def _in_blocks(query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor, dropout: float) -> Tensor:
    """Compute attention for blocks of queries, each with the keys up to its end, to skip most masked scores.

    In bfloat16, scores are rounded before the softmax too. The attention weights, about half of T x T for each head,
    are saved for the backward pass.
    """
    B, H, T, K = query_BHTK.shape
    rate = _rounded(dropout)
    # Without contiguous heads, the product of every block would copy the keys and values, and save the copies. The
    # factors are on the queries and values, because there are fewer of them than scores.
    query_NTK = (query_BHTK / math.sqrt(K)).reshape(B * H, T, K)
    key_NTK = key_BHTK.reshape(B * H, T, K)
    value_NTK = (value_BHTK / (1 - rate) if rate else value_BHTK).reshape(B * H, T, K)
    mixed = []
    for begin in range(0, T, QUERIES):
        end = min(begin + QUERIES, T)
        later_QT = query_BHTK.new_full((end - begin, end), -math.inf).triu(begin + 1)
        weights_NQT = torch.baddbmm(later_QT, query_NTK[:, begin:end], key_NTK[:, :end].transpose(1, 2)).softmax(dim=-1)
        if rate:
            weights_NQT = _Zeroed.apply(weights_NQT, rate)
        mixed.append(weights_NQT @ value_NTK[:, :end])
    return (torch.cat(mixed, dim=1) if len(mixed) > 1 else mixed[0]).view(B, H, T, K)


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
    rate = _rounded(p)
    return x * _kept(x.shape, rate, x.dtype).div_(1 - rate)


class _Zeroed(torch.autograd.Function):
    """Set elements to zero with probability p, a multiple of 2^-16, on a CPU.

    The bits of an element are multiplied as an integer by 0 or 1. For bfloat16 this takes half the time of a product of
    numbers, because nothing is rounded.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        kept = _kept(x.shape, p, {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])
        ctx.save_for_backward(kept)
        return (x.view(kept.dtype) * kept).view(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (grads[0].view(kept.dtype) * kept).view(grads[0].dtype), None


def _kept(shape: torch.Size, p: float, dtype: torch.dtype) -> Tensor:
    """Return a tensor of zeros, with probability p, a multiple of 2^-16, and ones."""
    n_words = -(-shape.numel() // 4)
    bits = torch.empty(n_words, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[: shape.numel()]
    return torch.ge(bits.view(shape), int(p * 2**16) - 2**15, out=torch.empty(shape, dtype=dtype))


def _rounded(p: float) -> float:
    """Return the multiple of 2^-16 below 1 that is nearest to p."""
    return min(round(p * 2**16), 2**16 - 1) / 2**16
