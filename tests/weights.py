"""Random weights of a small model."""

from pathlib import Path
from typing import Any

import torch

from nanosq.data.tokenizers import Tokenizer
from nanosq.model import GPT
from nanosq.pretrained import Pretrained

SIZES: dict[str, Any] = {
    "n_layer": 1,
    "n_head": 1,
    "n_embd": 4,
    "block_size": 8,
    "bias": True,
    "activation": "gelu_tanh",
}


def random_weights(tokenizer: Tokenizer, **sizes: Any) -> Pretrained:
    torch.manual_seed(0)
    architecture = {**SIZES, **sizes}
    weights = GPT(tokenizer.vocab_size, **architecture, embedding_std=1.0).state_dict()
    return Pretrained(Path("weights"), architecture, weights, tokenizer, {})
