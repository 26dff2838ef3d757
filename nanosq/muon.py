"""The optimizer Muon.

Shape suffixes: N matrices of a batch, R rows, C columns.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from nanosq.ranges import BelowOne, NonNegative

# Small matrices of one shape are multiplied together, up to this many elements: the products of four matrices of
# 128 x 512 take 0.6 of the time. For larger matrices this saves nothing and needs memory.
BATCH_ELEMENTS = 2**20


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
        momentum: Momentum of the matrices.
        betas: Betas of AdamW.
        weight_decay: Weight decay.
        matmul_dtype: Type of matrix products; by default the type of the weights, even inside of autocast.

    Raises:
        ValueError: A "matrix" has more than two dimensions.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: NonNegative = 1e-3,
        momentum: BelowOne = 0.95,
        betas: tuple[BelowOne, BelowOne] = (0.9, 0.95),
        weight_decay: NonNegative = 0.1,
        matmul_dtype: torch.dtype | None = None,
    ) -> None:
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
            alike: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for weight in (weight for weight in group["params"] if weight.grad is not None):
                shape = weight.shape[0] // group.get("n_matrices", 1), weight.shape[1]
                alike[tuple(sorted(shape))].append(weight)
            for (n_rows, n_columns), weights in alike.items():
                size = max(1, BATCH_ELEMENTS // (n_rows * n_columns))
                for begin in range(0, len(weights), size):
                    self._update(weights[begin : begin + size], group)
        self._adamw.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of both optimizers."""
        super().load_state_dict(state_dict)
        self._share_state()

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Update weights of a group that have the same shape, or the transposed one."""
        lr, momentum, n_matrices = group["lr"], group["momentum"], group.get("n_matrices", 1)
        matrices: list[Tensor] = []
        directions: list[Tensor] = []
        for weight in weights:
            gradient, state = weight.grad, self.state[weight]
            assert gradient is not None
            if not state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
            matrices += weight.chunk(n_matrices)
            directions += map(_wide, gradient.lerp(average, momentum).chunk(n_matrices))  # Nesterov momentum
        directions_NRC = torch.stack(directions)
        with torch.autocast(directions_NRC.device.type, enabled=False):
            updates_NRC = orthogonalize(directions_NRC, self._matmul_dtype).to(directions_NRC.dtype)
        for matrix, update_RC in zip(matrices, updates_NRC, strict=True):
            matrix.mul_(1 - lr * group["weight_decay"])
            _wide(matrix).add_(update_RC, alpha=-lr * 0.2 * math.sqrt(max(matrix.shape)))

    def _groups(self, *, matrices: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if (group["kind"] == "matrix") is matrices]

    def _share_state(self) -> None:
        """Let AdamW use the groups and the state of this optimizer, so that schedules and checkpoints see only one."""
        self._adamw.param_groups, self._adamw.state = self._groups(matrices=False), self.state


def orthogonalize(matrices_NRC: Tensor, matmul_dtype: torch.dtype | None = None) -> Tensor:
    """Return approximately U V^T of each matrix, where U S V^T is its singular value decomposition.

    Five Newton-Schulz iterations with the coefficients of Jordan et al. 2024.

    Args:
        matrices_NRC: Matrices with at most as many rows as columns.
        matmul_dtype: Type of the matrix products and of the result; by default that of the matrices.
    """
    norm_N11 = torch.linalg.vector_norm(matrices_NRC, dim=(1, 2), keepdim=True)
    x_NRC = (matrices_NRC / norm_N11.clamp(min=1e-7)).to(matmul_dtype or matrices_NRC.dtype)
    for _ in range(5):
        gram_NRR = x_NRC @ x_NRC.mT
        polynomial_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=-4.7750, alpha=2.0315)
        x_NRC = torch.baddbmm(x_NRC, polynomial_NRR, x_NRC, beta=3.4445)
    return x_NRC


def _wide(matrix: Tensor) -> Tensor:
    """Return the matrix, transposed if it has more rows than columns."""
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
