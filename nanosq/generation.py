"""Texts that a model writes.

Shape suffixes: B texts, T tokens of a window, D model width, V ids that may be drawn.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanosq.data.tokenizers import Tokenizer
from nanosq.hardware import Hardware
from nanosq.model import GPT
from nanosq.settings import SampleSettings


def prepare(model: GPT, hardware: Hardware) -> GPT:
    """Move a model to a device and convert its weights to a precision, once for all tokens. It cannot train then."""
    model = model.to(hardware.device, hardware.matmul_dtype).requires_grad_(False).eval()
    if hardware.device.type == "cpu" and hardware.matmul_dtype is torch.float32:
        # Products with four to eight rows take half the time if a weight is stored column by column, and those with one
        # row at most as long.
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Embedding):
                layer.weight.data = layer.weight.t().contiguous().t()
    return model


def generate(  # noqa: PLR0913  the settings of conf/config.yaml
    model: Any,
    tokenizer: Tokenizer,
    *,
    prompt: str = "",
    count: int = 1,
    length: int = 256,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> list[str]:
    """Return `count` texts that begin with `prompt`, each up to its end-of-text token or `length` new tokens.

    Args:
        model: The model, a `GPT` or another one as the README describes.
        tokenizer: Its tokenizer.
        prompt: Beginning of every text. The model sees the end of one that is longer than its window.
        count: Number of texts.
        length: Largest number of new tokens.
        temperature: Divisor of the logits. 0 always takes the most likely token.
        top_k: Draw from this number of tokens, the most likely ones. None: no limit.
        top_p: Draw from the most likely tokens, as few as together have at least this probability. It comes after
            temperature and `top_k`. None: no limit.
        seed: Seed of the random numbers. Text i depends on the seed and on i, not on `count`.

    Raises:
        ValueError: A number is out of range.
    """
    settings = SampleSettings(
        count=count, length=length, temperature=temperature, prompt=prompt, top_k=top_k, top_p=top_p
    )
    pieces = stream(model, tokenizer, settings, seed=seed)
    return ["".join(text) for text in zip(*pieces, strict=True)]


def stream(model: Any, tokenizer: Tokenizer, settings: SampleSettings, *, seed: int = 0) -> Iterator[list[str]]:
    """Yield the texts of `generate` in pieces, while the model writes: a list with the next piece of each text.

    The first pieces are the prompt. A character of several tokens comes as a whole.
    """
    prompt, end = tokenizer.encode([settings.prompt])[0].tolist(), tokenizer.end_of_text
    texts = [_Text(tokenizer, prompt) for _ in range(settings.count)]
    yield [settings.prompt] * settings.count
    for ids in new_ids(model, tokenizer, settings, seed=seed):
        yield ["" if token == end else text.add(token) for text, token in zip(texts, ids, strict=True)]
    yield [text.rest() for text in texts]


class _Text:
    """The text of ids that come one by one: `tokenizer.decode` of all of them, in pieces.

    Each step decodes only the ids of the last piece and those after it. Without the last piece, the new ids would be
    the beginning of a text, which some tokenizers decode without its space.
    """

    def __init__(self, tokenizer: Tokenizer, ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._last: list[int] = [*ids]  # the ids of the last piece
        self._new: list[int] = []  # those after it
        self._n_known = len(tokenizer.decode(ids))  # characters of the last piece

    def add(self, token: int) -> str:
        """Return the next piece: nothing while its last character may not be whole."""
        self._new.append(token)
        piece = self.rest()
        if not piece or piece.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        self._last, self._new = self._new, []
        self._n_known = len(self._tokenizer.decode(self._last))
        return piece

    def rest(self) -> str:
        """Return the text of the ids after the last piece."""
        return self._tokenizer.decode(self._last + self._new)[self._n_known :]


@torch.inference_mode()
def new_ids(model: Any, tokenizer: Tokenizer, settings: SampleSettings, *, seed: int = 0) -> Iterator[list[int]]:
    """Yield the next id of each text, again and again, until all texts have ended or have their length.

    A text that has ended continues with ends of text. When the window of the model is full, a new one begins with its
    last half, as in the evaluation of long documents: nanosq/data/batches.py.

    A model that has a method `new_cache()` sees each token of a window once: `model(tokens_BT, cache)`. Any other one
    sees the whole window at each step: `model(tokens_BT)`. Apart from rounding, the result is the same.

    Raises:
        ValueError: A number is out of range, or the logits are not finite.
    """
    settings.check(str)
    if seed < 0:
        raise ValueError(f"seed must not be negative, not {seed}")
    if not settings.count:
        return
    device, end = model.head_weight.device, tokenizer.end_of_text
    generators = [np.random.default_rng([seed, i]) for i in range(settings.count)]
    start = [end, *tokenizer.encode([settings.prompt])[0].tolist()]
    window_BT = torch.tensor(start, device=device).repeat(settings.count, 1)
    stride = model.block_size - model.block_size // 2
    ended_B = torch.zeros(settings.count, dtype=torch.bool)
    cache = None
    was_training = model.training
    model.eval()
    try:
        for _ in range(settings.length):
            uniform_B = torch.tensor([generator.random() for generator in generators], dtype=torch.float64)
            n_excess = window_BT.shape[1] - model.block_size
            if cache is None or n_excess > 0:
                window_BT = unseen_BT = window_BT[:, stride * math.ceil(max(n_excess, 0) / stride) :]
                cache = model.new_cache() if hasattr(model, "new_cache") else None
            hidden_BTD = model(unseen_BT) if cache is None else model(unseen_BT, cache)
            logits_BV = _logits(hidden_BTD[:, -1], model.head_weight[: tokenizer.n_ids])  # no padding
            next_B = draw(logits_BV, uniform_B, settings).masked_fill(ended_B, end)
            yield next_B.tolist()
            ended_B |= next_B == end
            if ended_B.all():
                break
            unseen_BT = next_B[:, None].to(device)
            window_BT = torch.cat([window_BT, unseen_BT], dim=1)
    finally:
        model.train(was_training)


def draw(logits_BV: Tensor, uniform_B: Tensor, settings: SampleSettings) -> Tensor:
    """Return an id for each row, on the CPU: the inverse of the cumulative distribution at a number from [0, 1).

    Raises:
        ValueError: A logit is NaN or infinite.
    """
    highest_B1, likeliest_B1 = logits_BV.max(dim=-1, keepdim=True)
    if not highest_B1.isfinite().all():
        raise ValueError("the model is broken: its logits are not finite numbers")
    if settings.temperature == 0:
        return likeliest_B1[:, 0].cpu()
    ids_BV = None
    if settings.top_k or settings.top_p:  # sorted, the most likely one first
        V = logits_BV.shape[1]
        logits_BV, ids_BV = logits_BV.topk(min(settings.top_k or V, V))
    # Sums of many probabilities need float64, which not every device has.
    scaled_BV = (logits_BV - highest_B1).cpu().double() / settings.temperature
    probability_BV = scaled_BV.softmax(dim=-1)
    cumulative_BV = probability_BV.cumsum(dim=-1)
    is_kept_BV = cumulative_BV - probability_BV < (settings.top_p or math.inf)
    last_B1 = is_kept_BV.sum(dim=-1, keepdim=True) - 1
    target_B1 = uniform_B[:, None] * cumulative_BV.gather(1, last_B1)
    drawn_B1 = torch.searchsorted(cumulative_BV, target_B1, right=True).minimum(last_B1)
    return (drawn_B1 if ids_BV is None else ids_BV.cpu().gather(1, drawn_B1))[:, 0]


def _logits(hidden_BD: Tensor, weight_VD: Tensor) -> Tensor:
    """Return the logits in float32. On a CPU, the fastest product in bfloat16 depends on the number of rows."""
    if hidden_BD.dtype is torch.float32:
        return F.linear(hidden_BD, weight_VD)
    if len(hidden_BD) == 1:
        return (weight_VD @ hidden_BD[0])[None].float()
    return (weight_VD @ hidden_BD.T).T.float().contiguous()
