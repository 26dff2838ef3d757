"""Golden values and reference implementations of every loss; N tokens, V vocabulary."""

import inspect
import math
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from nanosq import config, losses

CONF = Path(__file__).parents[1] / "conf" / "loss"
LOSSES = sorted(path.stem for path in CONF.glob("*.yaml"))


def loss_of(name: str):
    """The loss as conf/loss configures it."""
    return config.build("loss", OmegaConf.load(CONF / f"{name}.yaml"))


def softmax(f: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in f)
    return [math.exp(v) / total for v in f]


def wrong(f: list[float], y: int) -> float:
    return sum(f[j] ** 2 for j in range(len(f)) if j != y)


def nll(f: list[float], y: int) -> float:
    return -math.log(softmax(f)[y])


# The formula of a loss for one token with logits f and target y, term by term.
FORMULAS = {
    "cross_entropy": nll,
    "squentropy": lambda f, y: nll(f, y) + wrong(f, y) / (len(f) - 1),
    "squentropy_shifted": lambda f, y: nll(f, y) + wrong([v + 1 for v in f], y) / (len(f) - 1),
    "squentropy_listing": lambda f, y: nll(f, y) + (len(f) * (1 - f[y]) ** 2 + wrong(f, y)) / len(f),
    "squentropy_repo": lambda f, y: nll(f, y) + (65 * (1 - f[y]) ** 2 + wrong(f, y)) / len(f),
    "label_smoothing": lambda f, y: 0.9 * nll(f, y) + 0.1 * sum(nll(f, j) for j in range(len(f))) / len(f),
    "z_loss": lambda f, y: nll(f, y) + 1e-4 * math.log(sum(math.exp(v) for v in f)) ** 2,
    "logit_penalty": lambda f, y: nll(f, y) + sum(v**2 for v in f) / len(f),
    "focal": lambda f, y: (1 - softmax(f)[y]) ** 2 * nll(f, y),
    "poly1": lambda f, y: nll(f, y) + 1 - softmax(f)[y],
    "brier": lambda f, y: sum(((j == y) - p) ** 2 for j, p in enumerate(softmax(f))),
    "mse_probabilities": lambda f, y: sum((100 * (j == y) - 100 * p) ** 2 for j, p in enumerate(softmax(f))) / len(f),
}


@pytest.mark.parametrize("name", LOSSES)
def test_defaults_are_the_values_of_conf(name: str) -> None:
    configured = OmegaConf.to_object(OmegaConf.load(CONF / f"{name}.yaml"))
    parameters = inspect.signature(config.get_target(configured.pop("_target_"))).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}
    assert configured == {"_partial_": True, **defaults}


@pytest.mark.parametrize("name", FORMULAS)
@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_formula(name: str, V: int, N: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits_NV = 3 * torch.randn(N, V, generator=generator, dtype=torch.float64)
    targets_N = torch.randint(V, (N,), generator=generator)
    expected = [FORMULAS[name](f, y) for f, y in zip(logits_NV.tolist(), targets_N.tolist(), strict=True)]
    assert loss_of(name)(logits_NV, targets_N).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("gap", [-200.0, 200.0])
def test_finite_where_the_model_is_certain(name: str, gap: float) -> None:
    """Wrong or right beyond what float32 tells from 0 and 1."""
    logits_NV = torch.zeros(1, 4)
    logits_NV[0, 1] = gap
    losses_N = loss_of(name)(logits_NV.requires_grad_(), torch.tensor([1]))
    (grad_NV,) = torch.autograd.grad(losses_N.sum(), logits_NV)
    assert torch.isfinite(losses_N).all()
    assert torch.isfinite(grad_NV).all()


def test_squentropy_listing_is_the_listing() -> None:
    """The lines of Listing A.2, with a batch of one."""

    def mse_loss(targets_expanded: Tensor, logits: Tensor, vocab_size: int) -> Tensor:
        squared_error = (targets_expanded - logits) ** 2
        targets = targets_expanded == 1
        squared_error = torch.where(targets, squared_error * vocab_size, squared_error)
        return torch.mean(squared_error)

    logits_NV, targets_N = torch.randn(1, 50), torch.tensor([7])
    listing = mse_loss(F.one_hot(targets_N, 50).float(), logits_NV, 50) + F.cross_entropy(logits_NV, targets_N)
    assert losses.squentropy_listing(logits_NV, targets_N).item() == pytest.approx(listing.item(), rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        partial(losses.squentropy, weight=0.0),
        partial(losses.squentropy_shifted, weight=0.0),
        partial(losses.label_smoothing, smoothing=0.0),
        partial(losses.z_loss, weight=0.0),
        partial(losses.logit_penalty, weight=0.0),
        partial(losses.focal, gamma=0.0),
        partial(losses.poly1, epsilon=0.0),
    ],
    ids=lambda loss: loss.func.__name__,
)
def test_without_its_term_a_loss_is_cross_entropy(loss: partial[Tensor]) -> None:
    torch.manual_seed(0)
    logits_NV, targets_N = torch.randn(4, 6), torch.tensor([0, 1, 2, 3])
    torch.testing.assert_close(loss(logits_NV, targets_N), losses.cross_entropy(logits_NV, targets_N))


def test_a_shift_of_all_logits_turns_one_squentropy_into_the_other() -> None:
    torch.manual_seed(0)
    logits_NV, targets_N = torch.randn(4, 6), torch.tensor([0, 1, 2, 3])
    shifted = losses.squentropy_shifted(logits_NV - 2.5, targets_N, weight=0.3, value=-2.5)
    torch.testing.assert_close(shifted, losses.squentropy(logits_NV, targets_N, weight=0.3))


def test_focal_below_one_is_differentiable_at_certainty() -> None:
    logits_NV = torch.tensor([[100.0, 0.0, 0.0]], requires_grad=True)
    losses.focal(logits_NV, torch.tensor([0]), gamma=0.5).sum().backward()
    assert logits_NV.grad is not None
    assert torch.isfinite(logits_NV.grad).all()


def test_weight_scales_the_squared_term() -> None:
    logits_NV, targets_N = torch.randn(4, 6), torch.tensor([0, 1, 2, 3])
    plain = losses.cross_entropy(logits_NV, targets_N)
    full = losses.squentropy(logits_NV, targets_N) - plain
    torch.testing.assert_close(losses.squentropy(logits_NV, targets_N, weight=0.1) - plain, 0.1 * full)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cross_entropy", 10.98),
        ("squentropy", 11.287),
        ("squentropy_listing", 12.594),
        ("squentropy_repo", 11.288),
        ("squentropy_shifted", 12.287),  # E(f + 1)^2 = E f^2 + 1
        ("label_smoothing", 10.98),  # the logits of the target and of all classes have the same mean
        ("z_loss", 10.992),  # log-sum-exp is log C + 0.307 / 2 = 10.98
        ("logit_penalty", 11.287),
        ("focal", 10.98),  # p_y is 1 / C
        ("poly1", 11.98),
        ("brier", 1.0),
    ],
)
def test_value_at_initialisation_of_gpt2(name: str, expected: float) -> None:
    """C = 50304: logits of a final layer norm of width 768 with a head of standard deviation 0.02."""
    torch.manual_seed(0)
    hidden_ND = F.layer_norm(torch.randn(256, 768), (768,))
    logits_NV = hidden_ND @ torch.randn(50304, 768).mul(0.02).T
    value = loss_of(name)(logits_NV, torch.randint(50304, (256,))).mean().item()
    # 256 targets leave a standard error of 0.55 / 16 on the logit of the target, which enters with a factor of up to 3.
    assert value == pytest.approx(expected, abs=0.12)


@pytest.mark.parametrize(
    ("name", "floor", "minimiser"),
    [
        ("cross_entropy", 0.0, None),
        ("squentropy", 0.0, None),
        ("squentropy_listing", 9.326, (1.5, -0.5)),
        ("squentropy_repo", 0.2585, None),
        ("squentropy_shifted", 0.0, None),
        ("focal", 0.0, None),
        ("poly1", 0.0, None),
        ("mse_probabilities", 0.0, None),
    ],
)
def test_floor_over_all_logits(name: str, floor: float, minimiser: tuple[float, float] | None) -> None:
    """The least value for a target that is certain, C = 50304; by symmetry all wrong logits are equal there."""
    loss, V = loss_of(name), 50304
    f = torch.tensor([3.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([f], lr=0.5, max_iter=600, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def value() -> Tensor:
        logits_NV = torch.cat([f[:1], f[1:].expand(V - 1)]).unsqueeze(0)
        return loss(logits_NV, torch.tensor([0])).sum()

    def closure() -> Tensor:
        optimizer.zero_grad()
        (objective := value()).backward()
        return objective

    optimizer.step(closure)
    assert value().item() == pytest.approx(floor, abs=2e-3)
    if minimiser is not None:
        assert f.tolist() == pytest.approx(minimiser, abs=0.02)
