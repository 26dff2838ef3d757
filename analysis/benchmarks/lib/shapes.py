"""Sizes of models and batches, and batches of tokens that can be learned.

Shape suffixes: B batch, T time, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanosq.model import GPT


@dataclass(frozen=True)
class Shape:
    """The sizes of a model and of its batches."""

    n_layer: int
    n_head: int
    n_embd: int
    vocab_size: int
    batch_size: int
    block_size: int

    def __str__(self) -> str:
        return (
            f"{self.n_layer} layers, {self.n_head} heads, D={self.n_embd}, V={self.vocab_size:,}, "
            f"{self.tokens:,} tokens a step ({self.batch_size} x {self.block_size})"
        )

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.batch_size * self.block_size

    @property
    def sizes(self) -> dict[str, Any]:
        """Arguments of the model, which have the same names in both projects."""
        names = ("n_layer", "n_head", "n_embd", "vocab_size", "block_size")
        return {**{name: getattr(self, name) for name in names}, "bias": False, "dropout": 0.0}

    @property
    def flops(self) -> float:
        """Floating-point operations of a step, attention included."""
        with torch.device("meta"):
            return GPT(**self.sizes).flops_per_token * self.tokens

    @property
    def matrix_flops(self) -> float:
        """6 N for each token of a step, where N counts the parameters without position embeddings."""
        return self.flops - 12 * self.n_layer * self.n_embd * self.block_size * self.tokens


SHAPES = {
    "tiny": Shape(n_layer=2, n_head=4, n_embd=128, vocab_size=1770, batch_size=4, block_size=256),
    "ten_minutes": Shape(n_layer=4, n_head=4, n_embd=256, vocab_size=4096, batch_size=8, block_size=256),
    "wide": Shape(n_layer=6, n_head=8, n_embd=256, vocab_size=50_304, batch_size=8, block_size=256),
    "gpt2": Shape(n_layer=12, n_head=12, n_embd=768, vocab_size=50_304, batch_size=4, block_size=1024),
    "gpt2-batch16": Shape(n_layer=12, n_head=12, n_embd=768, vocab_size=50_304, batch_size=16, block_size=1024),
    "gpt2-small": Shape(n_layer=12, n_head=12, n_embd=768, vocab_size=50_304, batch_size=1, block_size=128),
}


def batches(shape: Shape, count: int, *, device: torch.device, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Return tokens and targets of `count` steps, in a language that can be learned.

    Half of the tokens are a fixed function of the token before, the others are drawn by Zipf's law.
    """
    rng = np.random.default_rng(seed)
    V, shape_BT = shape.vocab_size, (count, shape.batch_size, shape.block_size + 1)
    follows_V = rng.permutation(V)
    cumulative_V = np.cumsum(1 / np.arange(1, V + 1))
    tokens = np.searchsorted(cumulative_V, rng.random(shape_BT) * cumulative_V[-1]).clip(max=V - 1)
    follows = rng.random(shape_BT) < 0.5
    for t in range(1, shape.block_size + 1):
        tokens[..., t] = np.where(follows[..., t], follows_V[tokens[..., t - 1]], tokens[..., t])
    windows = torch.from_numpy(tokens).to(device)
    return [(window[:, :-1].contiguous(), window[:, 1:].contiguous()) for window in windows]
