"""The check that a loss is per token, deterministic and not in place."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanosq import losses
from nanosq.loss_check import check_loss
from tests.test_losses import LOSSES, loss_of

calls = itertools.count()


def nll(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return F.cross_entropy(logits_NV, targets_N, reduction="none")


@torch.no_grad()
def certainty(nll_N: Tensor) -> Tensor:
    return (-nll_N).exp()


class BatchNormalised(torch.nn.Module):
    def forward(self, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        return nll((logits_NV - logits_NV.mean(0)) / (logits_NV.std(0, correction=0) + 1), targets_N)


def penalty_of_the_batch(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return nll(logits_NV, targets_N) + 1e-4 * logits_NV.logsumexp(-1).mean().square()


def same_value_other_gradient(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    mean = nll(logits_NV, targets_N).mean()
    return nll(logits_NV, targets_N) + mean - mean.detach()


def in_place_without_gradient(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    if not logits_NV.requires_grad:
        logits_NV.sub_(1.0)
    return nll(logits_NV, targets_N)


def in_place_of_targets(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    targets_N[0] = 0
    return nll(logits_NV, targets_N)


def fused_of_another_loss(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return 2.0 * nll(logits_NV, targets_N)


fused_of_another_loss.fused = losses.fused_cross_entropy  # type: ignore[attr-defined]

WRONG = {
    "weights of the batch": (lambda f, y: nll(f, y) * nll(f, y).detach().softmax(0) * len(y), "loss of a token"),
    "minus the mean": (lambda f, y: nll(f, y) - nll(f, y).mean(), "loss of a token"),
    "a scalar for all tokens": (lambda f, y: nll(f, y).mean().expand(len(y)), "loss of a token"),
    "batch normalisation": (BatchNormalised(), "loss of a token"),
    "a small penalty of the batch": (penalty_of_the_batch, "loss of a token"),
    "weights of the position": (lambda f, y: nll(f, y) * torch.arange(1.0, len(y) + 1), "loss of a token"),
    "the token before": (lambda f, y: nll(f, y) + 0.1 * nll(f, y).roll(1), "loss of a token"),
    "weights of the classes in the batch": (lambda f, y: nll(f, y) / y.bincount()[y], "the others' targets"),
    "the mean without a class": (lambda f, y: nll(f, y) * (y != 13) / (y != 13).float().mean(), "the others' targets"),
    "sorted": (lambda f, y: nll(f, y).sort().values, "loss of a token"),
    "a gradient of other tokens": (same_value_other_gradient, "gradient of a token"),
    "in place": (lambda f, y: nll(f.mul_(0.5), y), "in place"),
    "in place by .data": (lambda f, y: nll(f.data.clamp_(-30, 30) * f, y), "in place"),
    "in place in evaluation": (in_place_without_gradient, "in place"),
    "in place of targets": (in_place_of_targets, "in place"),
    "dropout": (lambda f, y: nll(F.dropout(f), y), "is random or keeps a state"),
    "a state": (lambda f, y: nll(f, y) * next(calls), "is random or keeps a state"),
    "a mean": (lambda f, y: F.cross_entropy(f, y), "shape () for targets of shape (4,)"),
    "one loss for each class": (lambda f, y: f.square(), "shape (4, 256) for targets of shape (4,)"),
    "a sum where there is one token": (lambda f, y: nll(f, y).squeeze(), "shape () for targets of shape (1,)"),
    "a number": (lambda f, y: 1.0, "returns float, not a tensor"),
    "half precision": (lambda f, y: nll(f.half(), y), "returns torch.float16"),
    "integers": (lambda f, y: f.argmax(-1), "returns torch.int64"),
    "no gradient": (lambda f, y: (f.argmax(-1) == y).float(), "not differentiable"),
    "another gradient": (lambda f, y: torch.ones(len(y), requires_grad=True), "not differentiable"),
    "too few arguments": (lambda f: f, "fails: TypeError"),
    "a bug": (lambda f, y: f @ y, "fails: RuntimeError"),
    "much memory": (lambda f, y: nll(f, y) + torch.zeros(2**55).sum(), "too much memory: 4 tokens of 256 classes"),
    "a fused form of another loss": (fused_of_another_loss, "attribute 'fused'"),
}
RIGHT = {
    **{name: loss_of(name) for name in LOSSES},
    "detach": lambda f, y: nll(f, y) * (1 - (-nll(f, y)).exp()).detach(),
    "no_grad": lambda f, y: nll(f, y) * (1 - certainty(nll(f, y))),
    "the largest logits": lambda f, y: nll(f, y) + f.topk(100).values.mean(-1),
    "float64": lambda f, y: nll(f.double(), y),
    "a loop over tokens": lambda f, y: torch.stack([nll(f[i : i + 1], y[i : i + 1])[0] for i in range(len(y))]),
    "in place of a copy": lambda f, y: nll(f.clone().mul_(0.5), y),
    "very large": lambda f, y: nll(f, y) * 1e20,
    "very small": lambda f, y: nll(f, y) * 1e-20,
    "a hinge": lambda f, y: (1.0 + f.topk(2).values.sum(-1) - f.gather(-1, y[:, None]).squeeze(-1)).relu(),
    "without a class": lambda f, y: nll(f, y) * (y != 13),
    "infinite": lambda f, y: -f.softmax(-1).gather(-1, y[:, None]).squeeze(-1).log(),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_loss_is_refused_on_one_line(case: str) -> None:
    loss, message = WRONG[case]
    with pytest.raises(ValueError, match=r"^my\.loss ") as caught:
        check_loss(loss, "my.loss")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", RIGHT)
def test_a_right_loss_passes(case: str) -> None:
    state = torch.get_rng_state()
    check_loss(RIGHT[case], "my.loss")
    assert torch.equal(torch.get_rng_state(), state)
