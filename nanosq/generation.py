"""Texts that a model writes."""

import torch

from nanosq.data.tokenizers import Tokenizer
from nanosq.model import GPT


@torch.no_grad()
def generate(
    model: GPT,
    tokenizer: Tokenizer,
    *,
    prompt: str = "",
    count: int = 1,
    length: int = 256,
    temperature: float = 0.8,
    seed: int = 0,
) -> list[str]:
    """Return `count` texts that begin with `prompt`, each up to its end-of-text token or `length` new tokens.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        prompt: Beginning of every text.
        count: Number of texts.
        length: Largest number of new tokens.
        temperature: Divisor of the logits. 0 always takes the most likely token.
        seed: Seed of the random numbers.

    Raises:
        ValueError: A number is negative.
    """
    if min(count, length, temperature) < 0:
        raise ValueError("count, length and temperature must not be negative")
    device = model.head_weight.device
    generator = torch.Generator(device).manual_seed(seed)
    start = [tokenizer.end_of_text, *(tokenizer.encode([prompt])[0].tolist() if prompt else [])]
    tokens_BT = torch.tensor(start, device=device).repeat(count, 1)
    ended_B = torch.zeros(count, dtype=torch.bool, device=device)
    was_training = model.training
    model.eval()
    for _ in range(length if count else 0):
        hidden_BTD = model(tokens_BT[:, -model.block_size :])
        logits_BV = (hidden_BTD[:, -1] @ model.head_weight.T).float()
        if temperature == 0:
            next_B = logits_BV.argmax(dim=-1)
        else:
            next_B = torch.multinomial((logits_BV / temperature).softmax(dim=-1), 1, generator=generator)[:, 0]
        ended_B |= next_B == tokenizer.end_of_text
        if ended_B.all():
            break
        tokens_BT = torch.cat([tokens_BT, next_B.masked_fill(ended_B, tokenizer.end_of_text)[:, None]], dim=1)
    model.train(was_training)
    texts = (row[1:] for row in tokens_BT.tolist())
    return [tokenizer.decode(_until(row, tokenizer.end_of_text)) for row in texts]


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids
