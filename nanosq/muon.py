"""The optimizer Muon."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

HALF = (torch.bfloat16, torch.float16)


class Muon(Optimizer):
    """Muon for the matrices of the hidden layers and AdamW for everything else, with one learning rate for both.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. Updates are scaled to the size of AdamW's, as in
    Liu et al. 2025, arXiv 2502.16982. Of a weight that holds several matrices, as query, key and value, each is
    orthogonalized on its own, as Jordan et al. advise.

    torch.optim.Muon multiplies in bfloat16 on every device. Without instructions for bfloat16, a CPU takes tens of
    times as long for that as for float32. Here the type is an argument.

    Args:
        params: Groups from `nanosq.optim.parameter_groups`.
        lr: Learning rate.
        momentum: Momentum of the matrices, in [0, 1).
        betas: Betas of AdamW.
        weight_decay: Weight decay.
        matmul_dtype: Type of matrix products; by default the type of the weights, even inside of autocast.

    Raises:
        ValueError: The momentum is out of range, or a "matrix" has more than two dimensions.
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
        for weight in (weight for group in self._groups(matrices=True) for weight in group["params"]):
            if weight.dim() > 2:
                raise ValueError(f"Muon takes matrices, not a weight of shape {tuple(weight.shape)}")
        self._adamw = torch.optim.AdamW(self._groups(matrices=False), lr=lr, betas=betas, fused=True)
        self._share_state()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters."""
        for group in self._groups(matrices=True):
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)
        self._adamw.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of both optimizers."""
        super().load_state_dict(state_dict)
        self._share_state()

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        lr, momentum, state = group["lr"], group["momentum"], self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        dtype = self._matmul_dtype or weight.dtype
        with torch.autocast(weight.device.type, dtype=dtype, enabled=dtype in HALF):
            matrices = gradient.lerp(average, momentum).chunk(group.get("n_matrices", 1))  # Nesterov momentum
            update = torch.cat([orthogonalize(matrix) for matrix in matrices])
        weight.mul_(1 - lr * group["weight_decay"])
        weight.add_(update, alpha=-lr * 0.2 * math.sqrt(max(matrices[0].shape)))

    def _groups(self, *, matrices: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if (group["kind"] == "matrix") is matrices]

    def _share_state(self) -> None:
        """Let AdamW use the groups and the state of this optimizer, so that schedules and checkpoints see only one."""
        self._adamw.param_groups, self._adamw.state = self._groups(matrices=False), self.state


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return approximately U V^T, where U S V^T is the singular value decomposition of the matrix.

    Five Newton-Schulz iterations with the coefficients of Jordan et al. 2024.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if tall else x
