"""Parameter groups and learning-rate schedules for any optimizer of torch.optim."""

import math
from typing import Any

from torch import nn

from nanosq.ranges import Part


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters in groups: "matrix" (hidden layers), "embedding", "vector" (biases and norms).

    Vectors have no weight decay. A module whose weight holds several matrices, one above the other, has their number in
    an attribute `n_matrices`; such weights are in a group of their own, with this number.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    trained = [p for p in model.parameters() if p.requires_grad]
    stacked = {id(m.weight): n for m in model.modules() if isinstance(n := getattr(m, "n_matrices", None), int)}
    matrices: dict[int, list[nn.Parameter]] = {1: []}
    for p in trained:
        if p.dim() >= 2 and id(p) not in embeddings:
            matrices.setdefault(stacked.get(id(p), 1), []).append(p)
    return [
        *({"kind": "matrix", "n_matrices": n, "params": weights} for n, weights in matrices.items()),
        {"kind": "embedding", "params": [p for p in trained if id(p) in embeddings]},
        {"kind": "vector", "params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]


def cosine(step: int, *, max_steps: int, warmup: int, min_lr_factor: float) -> float:
    """Return the factor on the learning rate: linear warmup, then half a cosine down to `min_lr_factor`.

    Steps are counted from 0. Loshchilov and Hutter 2017, arXiv 1608.03983. The warmup is that of nanoGPT since December
    2024: (step + 1) / (warmup + 1), so the first step has a learning rate above zero.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return _half_cosine(step, max_steps=max_steps, warmup=warmup, min_lr_factor=min_lr_factor)


def cosine_from_zero(step: int, *, max_steps: int, warmup: int, min_lr_factor: float) -> float:
    """Return the factor of `cosine` with the older warmup of nanoGPT, step / warmup: the first one is zero."""
    if step < warmup:
        return step / warmup
    return _half_cosine(step, max_steps=max_steps, warmup=warmup, min_lr_factor=min_lr_factor)


def warmup_stable_decay(step: int, *, max_steps: int, warmup: int, min_lr_factor: float, decay: Part = 0.2) -> float:
    """Return the factor for linear warmup, a constant, and a line down to `min_lr_factor`.

    The line takes the last part of the run, the fraction `decay`. Hu et al. 2024, arXiv 2404.06395; the straight line
    is from Haegele et al. 2024, arXiv 2405.18392.
    """
    left = (max_steps - step) / (decay * max_steps)
    falling = min_lr_factor + (1.0 - min_lr_factor) * min(1.0, max(0.0, left))
    return min(falling, constant(step, max_steps=max_steps, warmup=warmup, min_lr_factor=min_lr_factor))


def constant(step: int, *, max_steps: int, warmup: int, min_lr_factor: float) -> float:
    """Return the factor for linear warmup, then a constant learning rate."""
    return min(1.0, (step + 1) / (warmup + 1))


def _half_cosine(step: int, *, max_steps: int, warmup: int, min_lr_factor: float) -> float:
    progress = min(1.0, (step - warmup) / max(1, max_steps - warmup))
    return min_lr_factor + (1.0 - min_lr_factor) * 0.5 * (1.0 + math.cos(math.pi * progress))
