"""GPT-2: tokens to hidden states. Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".

Shape suffixes: B batch, T time, D model width, H heads, K width of a head, Q queries of a block, V vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# On a CPU: `python -m analysis.benchmarks.attention`.
QUERIES = 256  # of a block
RECOMPUTE_FROM = 1024  # tokens in a window; the weights would be a third of what a layer keeps for its backward pass


class GPT(nn.Module):
    """A pre-norm transformer decoder with learned positions and a head tied to the token embedding.

    It ends at the hidden states: the logits are `hidden @ head_weight.T`, and whoever needs them forms them a few
    tokens at a time, because all of them at once are by far the largest tensor of a small language model.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        block_size: int,
        n_layer: int,
        n_head: int,
        n_embd: int,
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        sizes = {"block_size": block_size, "n_layer": n_layer, "n_head": n_head, "n_embd": n_embd}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        if n_embd % n_head:
            raise ValueError(f"n_embd={n_embd} is not divisible by n_head={n_head}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), not {dropout}")
        super().__init__()
        self.block_size = block_size
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(n_embd=n_embd, n_head=n_head, dropout=dropout, bias=bias) for _ in range(n_layer)
        )
        self.final_norm = nn.LayerNorm(n_embd, bias=bias)
        self.apply(_init_weights)
        # Every block adds twice to the residual stream; this keeps its variance at initialisation independent of depth.
        for name, parameter in self.named_parameters():
            if name.endswith("project.weight"):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * n_layer))

    @property
    def head_weight(self) -> Tensor:
        """The output head, shape (V, D): the token embedding itself."""
        return self.token_embedding.weight

    @property
    def flops_per_token(self) -> float:
        """Floating-point operations of a forward and backward pass.

        Six for each weight that is multiplied, and attention as if without a mask: Chowdhery et al. 2022,
        arXiv 2204.02311, appendix B.
        """
        n_multiplied = sum(p.numel() for p in self.parameters()) - self.position_embedding.weight.numel()
        return 6 * n_multiplied + 12 * len(self.blocks) * self.block_size * self.head_weight.shape[1]

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Hidden states (B, T, D) after the final norm; T is at most `block_size`."""
        T = tokens_BT.shape[1]
        hidden_BTD = self.token_embedding(tokens_BT) + self.position_embedding.weight[:T]
        hidden_BTD = self.dropout(hidden_BTD)
        for block in self.blocks:
            hidden_BTD = block(hidden_BTD)
        return self.final_norm(hidden_BTD)


class Block(nn.Module):
    def __init__(self, *, n_embd: int, n_head: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(n_embd, bias=bias)
        self.attention = Attention(n_embd=n_embd, n_head=n_head, dropout=dropout, bias=bias)
        self.mlp_norm = nn.LayerNorm(n_embd, bias=bias)
        self.mlp = MLP(n_embd=n_embd, dropout=dropout, bias=bias)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        hidden_BTD = hidden_BTD + self.attention(self.attention_norm(hidden_BTD))
        return hidden_BTD + self.mlp(self.mlp_norm(hidden_BTD))


class Attention(nn.Module):
    def __init__(self, *, n_embd: int, n_head: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.n_head = n_head
        self.query_key_value = nn.Linear(n_embd, 3 * n_embd, bias=bias)
        self.project = nn.Linear(n_embd, n_embd, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        B, T, D = hidden_BTD.shape
        heads = self.query_key_value(hidden_BTD).view(B, T, 3, self.n_head, D // self.n_head)
        query_BHTK, key_BHTK, value_BHTK = heads.permute(2, 0, 3, 1, 4)
        dropout = self.dropout.p if self.training else 0.0
        mixed_BHTK = causal_attention(query_BHTK, key_BHTK, value_BHTK, dropout=dropout)
        return self.dropout(self.project(mixed_BHTK.transpose(1, 2).reshape(B, T, D)))


def causal_attention(query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor, *, dropout: float = 0.0) -> Tensor:
    """softmax(query key^T / sqrt(K)) value, shape (B, H, T, K), in which no token sees a later one.

    Vaswani et al. 2017, arXiv 1706.03762, equation 1. dropout: probability that a weight is left out.
    """
    # PyTorch's kernels for the CPU go backward in bfloat16 more slowly than in float32, and draw dropout on one thread.
    slow = query_BHTK.dtype is torch.bfloat16 or dropout > 0.0
    if query_BHTK.device.type == "cpu" and torch.is_grad_enabled() and slow:
        if query_BHTK.shape[2] >= RECOMPUTE_FROM:
            return checkpoint(_in_blocks, query_BHTK, key_BHTK, value_BHTK, dropout, use_reentrant=False)
        return _in_blocks(query_BHTK, key_BHTK, value_BHTK, dropout)
    return F.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, dropout_p=dropout, is_causal=True)


def _in_blocks(query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor, dropout: float) -> Tensor:
    """Each block of queries against the keys up to its end: what lies above the diagonal is hardly computed.

    In bfloat16, scores are rounded to it before the softmax too. Its weights, about half of T x T for each head, are
    kept for the backward pass.
    """
    T, K = query_BHTK.shape[-2:]
    # Whole heads in a row, or every block's product would make, and keep, its own copy of the keys and values.
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
    def forward(self, input: Tensor) -> Tensor:
        return drop(input, self.p) if self.training else input


def drop(x: Tensor, p: float) -> Tensor:
    """Zero with probability p, else x / (1 - p): Srivastava et al. 2014, "Dropout".

    On a CPU, where F.dropout draws 64 bits for each element, one after the other, this draws 16: p is a multiple of
    2^-16 there.
    """
    if p == 0.0 or x.device.type != "cpu":
        return F.dropout(x, p)
    n_words = -(-x.numel() // 4)
    bits = torch.empty(n_words, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[: x.numel()]
    dropped = min(round(p * 2**16), 2**16 - 1)  # of the 2^16 values of a number
    kept = torch.ge(bits.view(x.shape), dropped - 2**15, out=torch.empty_like(x, requires_grad=False))
    return x * kept.div_(1 - dropped / 2**16)


class MLP(nn.Module):
    def __init__(self, *, n_embd: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.expand = nn.Linear(n_embd, 4 * n_embd, bias=bias)
        self.project = nn.Linear(4 * n_embd, n_embd, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        # The exact GELU, as in nanoGPT; OpenAI's weights were trained with its tanh approximation.
        return self.dropout(self.project(F.gelu(self.expand(hidden_BTD))))


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
