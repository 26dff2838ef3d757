"""GPT-2, from tokens to hidden states: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".

Shape suffixes: B batch, T time, D model width, H heads, K width of a head, V vocabulary.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanosq.attention import Dropout, KeyValues, causal_attention
from nanosq.ranges import BelowOne, Positive, Size

INIT_STD = 0.02  # standard deviation of initial weights, as in GPT-2
Activation = Literal["gelu", "gelu_tanh"]
APPROXIMATIONS = {"gelu": "none", "gelu_tanh": "tanh"}  # names of PyTorch


class GPT(nn.Module):
    """A pre-norm transformer decoder with learned positions and a head tied to the token embedding.

    The model returns hidden states. The logits are `hidden @ head_weight.T`; nanosq/head.py computes them for a few
    tokens at a time, because the logits of a batch are by far the largest tensor of a small language model.

    Args:
        vocab_size: Number of tokens of the vocabulary.
        block_size: Largest number of tokens in a window.
        n_layer: Number of blocks.
        n_head: Attention heads of a block.
        n_embd: Model width.
        dropout: Probability of dropout.
        bias: Whether linear layers and norms have biases.
        embedding_std: Standard deviation of the initial token embeddings. GPT-2 has 0.02.
        activation: Activation of the MLP: "gelu", as in nanoGPT, or "gelu_tanh", its approximation by a tanh (Hendrycks
            and Gimpel 2016, arXiv 1606.08415), with which OpenAI trained the weights of GPT-2.

    Raises:
        ValueError: `n_head` does not divide `n_embd`.
    """

    def __init__(  # noqa: PLR0913  the signature is the schema of conf/model/*.yaml
        self,
        vocab_size: int,
        *,
        block_size: Size,
        n_layer: Size,
        n_head: Size,
        n_embd: Size,
        dropout: BelowOne = 0.0,
        bias: bool = False,
        embedding_std: Positive = INIT_STD,
        activation: Activation = "gelu",
    ) -> None:
        if n_embd % n_head:
            raise ValueError(f"n_embd={n_embd} is not divisible by n_head={n_head}")
        super().__init__()
        self.block_size = block_size
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(n_embd=n_embd, n_head=n_head, dropout=dropout, bias=bias, activation=activation)
            for _ in range(n_layer)
        )
        self.final_norm = nn.LayerNorm(n_embd, bias=bias)
        self.apply(_init_weights)
        with torch.no_grad():  # not a second draw, which would change the random numbers of all other weights
            self.token_embedding.weight.mul_(embedding_std / INIT_STD)
        # Every block adds to the residual stream twice. This keeps the initial variance independent of the depth.
        for name, parameter in self.named_parameters():
            if name.endswith("project.weight"):
                nn.init.normal_(parameter, std=INIT_STD / math.sqrt(2 * n_layer))

    @property
    def head_weight(self) -> Tensor:
        """Weight of the output head, shape (V, D). It is the token embedding itself."""
        return self.token_embedding.weight

    @property
    def flops_per_token(self) -> float:
        """Number of floating-point operations of a forward and backward pass for one token.

        Six for each weight of a matrix product, and those of attention without a mask: Chowdhery et al. 2022,
        arXiv 2204.02311, appendix B.
        """
        n_multiplied = sum(p.numel() for p in self.parameters()) - self.position_embedding.weight.numel()
        return 6 * n_multiplied + 12 * len(self.blocks) * self.block_size * self.head_weight.shape[1]

    def new_cache(self) -> list[KeyValues]:
        """Return an empty cache for a window, with an entry for each block."""
        return [KeyValues(self.block_size) for _ in self.blocks]

    def forward(self, tokens_BT: Tensor, cache: list[KeyValues] | None = None) -> Tensor:
        """Return the hidden states after the final norm, shape (B, T, D).

        Args:
            tokens_BT: At most `block_size` tokens. With a cache, only those that it has not seen.
            cache: Keys and values of the tokens before. Those of these tokens are added to it.
        """
        begin = cache[0].length if cache else 0
        end = begin + tokens_BT.shape[1]
        assert end <= self.block_size, "the window is full"
        hidden_BTD = self.token_embedding(tokens_BT) + self.position_embedding.weight[begin:end]
        hidden_BTD = self.dropout(hidden_BTD)
        for number, block in enumerate(self.blocks):
            hidden_BTD = block(hidden_BTD, cache[number] if cache else None)
        return self.final_norm(hidden_BTD)


class Block(nn.Module):
    """Attention and MLP, each with a norm before it and added to the residual stream."""

    def __init__(self, *, n_embd: int, n_head: int, dropout: float, bias: bool, activation: Activation) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(n_embd, bias=bias)
        self.attention = Attention(n_embd=n_embd, n_head=n_head, dropout=dropout, bias=bias)
        self.mlp_norm = nn.LayerNorm(n_embd, bias=bias)
        self.mlp = MLP(n_embd=n_embd, dropout=dropout, bias=bias, activation=activation)

    def forward(self, hidden_BTD: Tensor, seen: KeyValues | None = None) -> Tensor:
        """Return the updated hidden states. `seen` has the keys and values of the tokens before."""
        hidden_BTD = hidden_BTD + self.attention(self.attention_norm(hidden_BTD), seen)
        return hidden_BTD + self.mlp(self.mlp_norm(hidden_BTD))


class StackedLinear(nn.Linear):
    """Several linear layers with the same input, computed as one. Their weights, each (n_out, n_in), are stacked."""

    def __init__(self, n_in: int, n_out: int, *, n_matrices: int, bias: bool) -> None:
        super().__init__(n_in, n_matrices * n_out, bias=bias)
        self.n_matrices = n_matrices  # nanosq/optim.py reads it


class Attention(nn.Module):
    """Multi-head causal self-attention."""

    def __init__(self, *, n_embd: int, n_head: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.n_head = n_head
        self.query_key_value = StackedLinear(n_embd, n_embd, n_matrices=3, bias=bias)
        self.project = nn.Linear(n_embd, n_embd, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, hidden_BTD: Tensor, seen: KeyValues | None = None) -> Tensor:
        """Map hidden states to an update of the same shape. `seen` has the keys and values of the tokens before."""
        B, T, D = hidden_BTD.shape
        heads = self.query_key_value(hidden_BTD).view(B, T, 3, self.n_head, D // self.n_head)
        query_BHTK, key_BHTK, value_BHTK = heads.permute(2, 0, 3, 1, 4)
        if seen is not None:
            key_BHTK, value_BHTK = seen.append(key_BHTK, value_BHTK)
        dropout = self.dropout.p if self.training else 0.0
        mixed_BHTK = causal_attention(query_BHTK, key_BHTK, value_BHTK, dropout=dropout)
        return self.dropout(self.project(mixed_BHTK.transpose(1, 2).reshape(B, T, D)))


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, *, n_embd: int, dropout: float, bias: bool, activation: Activation) -> None:
        super().__init__()
        self.approximate = APPROXIMATIONS[activation]
        self.expand = nn.Linear(n_embd, 4 * n_embd, bias=bias)
        self.project = nn.Linear(4 * n_embd, n_embd, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Map hidden states to an update of the same shape."""
        return self.dropout(self.project(F.gelu(self.expand(hidden_BTD), approximate=self.approximate)))


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
