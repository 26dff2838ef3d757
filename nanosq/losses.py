"""Per-token losses over the vocabulary: plain functions of logits_NV (float32) and targets_N to losses_N.

Shape suffixes: N tokens, V vocabulary. In the formulas f are the logits of a token, y its target, C = V the number of
classes and p the softmax of f. A loss never sees the model and does no reduction; arguments with a default are its
hyperparameters, set from its file in conf/loss.
"""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """-log p_y."""
    return F.cross_entropy(logits_NV, targets_N, reduction="none")


def squentropy(logits_NV: Tensor, targets_N: Tensor, *, weight: float = 1.0) -> Tensor:
    """-log p_y + weight / (C - 1) * sum over j != y of f_j^2.

    Hui, Belkin and Wright, "Cut your Losses with Squentropy" (ICML 2023, arXiv 2302.03952), equation 2 of the report.
    The original has weight 1.
    """
    squares_N = logits_NV.square().sum(dim=-1) - _target_logits(logits_NV, targets_N).square()
    return cross_entropy(logits_NV, targets_N) + weight / (logits_NV.shape[-1] - 1) * squares_N


def squentropy_listing(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """-log p_y + (1 - f_y)^2 + 1/C * sum over j != y of f_j^2: Listing A.2 of the report.

    The listing multiplies the target's squared error by C before it takes the mean over classes.
    """
    return _squared_towards_one(logits_NV, targets_N, target_weight=logits_NV.shape[-1])


def squentropy_repo(logits_NV: Tensor, targets_N: Tensor, *, target_weight: float = 65.0) -> Tensor:
    """-log p_y + 1/C * (target_weight * (1 - f_y)^2 + sum over j != y of f_j^2): the code behind the report.

    Its 65, hard-coded, is the vocabulary of nanoGPT's character-level Shakespeare.
    """
    return _squared_towards_one(logits_NV, targets_N, target_weight=target_weight)


def mse_probabilities(logits_NV: Tensor, targets_N: Tensor, *, scale: float = 100.0) -> Tensor:
    """1/C * sum over j of (scale * [j = y] - scale * p_j)^2: the "mse" of the code behind the report."""
    probabilities_NV = logits_NV.softmax(dim=-1)
    target_N = _target_logits(probabilities_NV, targets_N)
    squares_N = probabilities_NV.square().sum(dim=-1) - target_N.square() + (1.0 - target_N).square()
    return scale**2 / logits_NV.shape[-1] * squares_N


def _target_logits(values_NV: Tensor, targets_N: Tensor) -> Tensor:
    return values_NV.gather(-1, targets_N.unsqueeze(-1)).squeeze(-1)


def _squared_towards_one(logits_NV: Tensor, targets_N: Tensor, *, target_weight: float) -> Tensor:
    target_N = _target_logits(logits_NV, targets_N)
    wrong_N = logits_NV.square().sum(dim=-1) - target_N.square()
    squares_N = target_weight * (1.0 - target_N).square() + wrong_N
    return cross_entropy(logits_NV, targets_N) + squares_N / logits_NV.shape[-1]
