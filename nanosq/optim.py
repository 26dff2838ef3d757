"""What stands between a model and any optimizer of torch.optim: parameter groups and learning-rate schedules."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
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

    torch.optim.Muon multiplies in bfloat16 wherever it runs, which takes a CPU that has no instructions for it tens of
    times as long as float32. Here autocast says what to multiply in; without it that is the weights' own type.

    ValueError for a momentum outside [0, 1) and for a "matrix" of more than two dimensions.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.1,
        matmul_dtype: torch.dtype | None = None,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}")
        self._matmul_dtype = matmul_dtype
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        shapes = [tuple(weight.shape) for group in self._groups(matrices=True) for weight in group["params"]]
        if more := [shape for shape in shapes if len(shape) > 2]:
            raise ValueError(f"Muon takes matrices, not a weight of shape {more[0]}")
        self._adamw = torch.optim.AdamW(self._groups(matrices=False), lr=lr, betas=betas, fused=True)
        self._share()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self._groups(matrices=True):
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group["lr"], group["momentum"], group["weight_decay"])
        self._adamw.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _update(self, weight: Tensor, gradient: Tensor, lr: float, momentum: float, weight_decay: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        dtype = self._matmul_dtype or weight.dtype
        with torch.autocast(weight.device.type, dtype=dtype, enabled=dtype is not torch.float32):
            update = orthogonalized(gradient.lerp(average, momentum))  # Nesterov's
        weight.mul_(1 - lr * weight_decay)
        weight.add_(update, alpha=-lr * 0.2 * math.sqrt(max(weight.shape)))

    def _groups(self, *, matrices: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if (group["kind"] == "matrix") is matrices]

    def _share(self) -> None:
        """Groups and state are this optimizer's, so that schedules and checkpoints see one optimizer."""
        self._adamw.param_groups, self._adamw.state = self._groups(matrices=False), self.state


def orthogonalized(matrix: Tensor) -> Tensor:
    """About U V^T, where U S V^T is the singular value decomposition of the matrix: S becomes about 1.

    Five Newton-Schulz iterations with the coefficients of Jordan et al. 2024.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if tall else x


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
