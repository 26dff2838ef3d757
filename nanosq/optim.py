"""What stands between a model and any optimizer of torch.optim: parameter groups and learning-rate schedules."""

import math
from collections.abc import Iterable
from typing import Any

from torch import nn


def parameter_groups(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Two groups, so that weight decay touches matrices and embeddings but neither biases nor norms."""
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() >= 2]},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]


def cosine(step: int, *, max_steps: int, warmup: int, min_lr_factor: float) -> float:
    """Factor on the learning rate at a step (from 0): linear warmup, then half a cosine down to `min_lr_factor`.

    Loshchilov and Hutter 2017, arXiv 1608.03983, with the warmup of nanoGPT since December 2024, whose first step
    already learns: (step + 1) / (warmup + 1).
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return _half_cosine(step, max_steps=max_steps, warmup=warmup, min_lr_factor=min_lr_factor)


def cosine_from_zero(step: int, *, max_steps: int, warmup: int, min_lr_factor: float) -> float:
    """`cosine` with nanoGPT's older warmup, step / warmup, whose first step has a learning rate of zero."""
    if step < warmup:
        return step / warmup
    return _half_cosine(step, max_steps=max_steps, warmup=warmup, min_lr_factor=min_lr_factor)


def _half_cosine(step: int, *, max_steps: int, warmup: int, min_lr_factor: float) -> float:
    progress = min(1.0, (step - warmup) / max(1, max_steps - warmup))
    return min_lr_factor + (1.0 - min_lr_factor) * 0.5 * (1.0 + math.cos(math.pi * progress))
