"""Models of transformers, the oracle."""

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from nanosq.model import GPT

TINY = {"vocab_size": 300, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
END = {"bos_token_id": 256, "eos_token_id": 256}


def random_model(**settings) -> GPT2LMHeadModel:
    """Return a model in which no weight is zero or one, as biases and norms are at first."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def tokens(model: GPT2LMHeadModel, n: int = 1000) -> Tensor:
    """Return windows of at least n tokens together."""
    T = min(n, model.config.n_positions)
    return torch.randint(model.config.vocab_size, (-(-n // T), T), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: GPT2LMHeadModel | GPT, tokens_BT: Tensor) -> Tensor:
    if isinstance(model, GPT):
        return model(tokens_BT) @ model.head_weight.T
    return model(tokens_BT).logits
