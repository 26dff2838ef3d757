"""The ways to compute a loss over the vocabulary, and its gradient, that analysis/benchmarks/loss.py compares.

Shape suffixes: N tokens, V vocabulary, D model width.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nanosq import config
from nanosq.head import Loss, head_loss
from nanosq.losses import cross_entropy

# (loss, hidden_ND, weight_VD, targets_N) -> mean objective, differentiable in hidden_ND and weight_VD
Method = Callable[[Loss, Tensor, Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {
    path.stem: config.load(path) for path in sorted(Path(__file__).parents[3].glob("conf/loss/*.yaml"))
}


def head(loss: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    return head_loss(loss, hidden_ND, weight_VD, targets_N)[0]


def head_compiled(loss: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    return head_loss(loss, hidden_ND, weight_VD, targets_N, compile=True)[0]


def all_logits(loss: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """What a training script does: all logits at once, and autograd."""
    if loss is cross_entropy:
        loss = partial(F.cross_entropy, reduction="none")
    logits_NV = F.linear(hidden_ND, weight_VD)
    return loss(logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)), targets_N).mean()


def listing(_: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    return listing_of_logits(F.linear(hidden_ND, weight_VD), targets_N)


def listing_of_logits(logits: Tensor, targets_N: Tensor) -> Tensor:
    """Listing A.2 of the report, line by line; its targets are one-hot in float32, as in the code it is from."""
    vocab_size = logits.size(-1)
    targets_expanded = F.one_hot(targets_N, num_classes=vocab_size).to(torch.float32)
    squared_error = (targets_expanded - logits) ** 2
    targets = targets_expanded == 1
    squared_error = torch.where(targets, squared_error * vocab_size, squared_error)
    mse_loss = torch.mean(squared_error)
    return mse_loss + F.cross_entropy(logits, targets_N)


def torch_linear(_: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    return F.linear_cross_entropy(hidden_ND, weight_VD, targets_N)


def torch_linear_chunked(_: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(_cast(hidden_ND), _cast(weight_VD), targets_N, options=options).float()


def liger(_: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    return liger_fused_linear_cross_entropy(_cast(hidden_ND), _cast(weight_VD), targets_N)


def cut(_: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(_cast(hidden_ND), _cast(weight_VD), targets_N)


def methods(loss: str, device: str) -> dict[str, Method]:
    """What can compute a loss, by the name it has in tables."""
    found: dict[str, Method] = {"head": head, "head, compiled": head_compiled, "all logits": all_logits}
    if loss == "squentropy_listing":
        found["Listing A.2"] = listing
    if loss == "cross_entropy" and hasattr(F, "linear_cross_entropy"):  # torch 2.13
        found |= {"F.linear_cross_entropy": torch_linear, "F.linear_cross_entropy, chunked": torch_linear_chunked}
    if loss == "cross_entropy" and device == "cuda":
        fused: dict[str, Method] = {"liger_kernel": liger, "cut_cross_entropy": cut}
        found |= {name: method for name, method in fused.items() if find_spec(name)}
    return found


def _cast(tensor: Tensor) -> Tensor:
    """In the autocast type: these multiply in the type they are given."""
    device = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tensor
