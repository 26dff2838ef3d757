"""A loss of a user that fails while its model is trained."""

from pathlib import Path

import torch
from torch import Tensor

from nanosq.losses import cross_entropy

TARGET = f"{__name__}.broken_loss"
SECRET = "PLANTED"


def broken_loss(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Return the cross-entropy. Fail in the folder of a file `broken` once the run has written a checkpoint."""
    if torch.is_grad_enabled() and Path("broken").exists() and [*Path("checkpoints").glob("*/last.pt")]:
        raise RuntimeError(f"cannot connect to https://alice:{SECRET}@host?token={SECRET}")
    return cross_entropy(logits_NV, targets_N)
