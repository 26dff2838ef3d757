"""What stands between a model and any optimizer of torch.optim: parameter groups and learning-rate schedules."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Parameters by kind: "matrix" (hidden layers), "embedding", and "vector" (biases, norms), which never decay."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"kind": "matrix", "params": [p for p in trained if p.dim() >= 2 and id(p) not in embeddings]},
        {"kind": "embedding", "params": [p for p in trained if id(p) in embeddings]},
        {"kind": "vector", "params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]


class Muon(Optimizer):
    """Muon on the matrices of the hidden layers, AdamW on everything else, with one learning rate for both.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; updates scaled to the size of AdamW's as in
    Liu et al. 2025, arXiv 2502.16982. Takes the groups of `parameter_groups`.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        matrices, others = self._split()
        self._parts = (
            torch.optim.Muon(matrices, lr=lr, momentum=momentum, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=lr, betas=betas, fused=True),
        )
        self._share()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part in self._parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _split(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        matrices = [group for group in self.param_groups if group["kind"] == "matrix"]
        return matrices, [group for group in self.param_groups if group["kind"] != "matrix"]

    def _share(self) -> None:
        """Groups and state are this optimizer's, so that schedules and checkpoints see one optimizer."""
        for part, groups in zip(self._parts, self._split(), strict=True):
            part.param_groups, part.state = groups, self.state


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


def warmup_stable_decay(step: int, *, max_steps: int, warmup: int, min_lr_factor: float, decay: float = 0.2) -> float:
    """Linear warmup, the full learning rate, and a line down to `min_lr_factor` in the last part, `decay`, of the run.

    Hu et al. 2024, arXiv 2404.06395; the straight line from Haegele et al. 2024, arXiv 2405.18392.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"schedule.decay must be a fraction of the run in (0, 1], not {decay}")
    left = (max_steps - step) / (decay * max_steps)
    falling = min_lr_factor + (1.0 - min_lr_factor) * min(1.0, max(0.0, left))
    return min(falling, constant(step, max_steps=max_steps, warmup=warmup, min_lr_factor=min_lr_factor))


def constant(step: int, *, max_steps: int, warmup: int, min_lr_factor: float) -> float:
    """Linear warmup, then the full learning rate to the end."""
    return min(1.0, (step + 1) / (warmup + 1))


def _half_cosine(step: int, *, max_steps: int, warmup: int, min_lr_factor: float) -> float:
    progress = min(1.0, (step - warmup) / max(1, max_steps - warmup))
    return min_lr_factor + (1.0 - min_lr_factor) * 0.5 * (1.0 + math.cos(math.pi * progress))
