"""A loss of a user that fails while its model is trained."""

from pathlib import Path

from torch import Tensor

from nanosq.loss_check import V
from nanosq.losses import cross_entropy

TARGET = f"{__name__}.broken_loss"
SECRET = "PLANTED"


def broken_loss(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Return the cross-entropy. In a folder with a file `broken`, fail in training after the first checkpoint."""
    if logits_NV.shape[1] != V and Path("broken").exists() and [*Path("checkpoints").glob("*/last.pt")]:
        url = f"https://alice:{SECRET}@host"
        try:
            raise FileNotFoundError(2, "not found", f"{url}/file")
        except FileNotFoundError as error:
            error.add_note(f"see {url}")
            raise RuntimeError(f"cannot connect to {url}?token={SECRET}") from error
    return cross_entropy(logits_NV, targets_N)
