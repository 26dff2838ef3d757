import math

import pytest
import torch
from torch import Tensor

from analysis.study.bias import SQUARED, cost, expected_loss, lowest_point
from nanosq import losses

N, V = 6, 12
LOSSES = {"squentropy": losses.squentropy, "logit_penalty": losses.logit_penalty}


@pytest.fixture
def probabilities() -> Tensor:
    """Return distributions (N, V) over the targets."""
    return torch.randn(N, V, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(3).softmax(dim=1)


@pytest.mark.parametrize("name", LOSSES)
def test_the_expected_loss_is_the_mean_of_the_loss_over_the_targets(name: str, probabilities: Tensor) -> None:
    z_NV = torch.randn(N, V, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    each = [LOSSES[name](z_NV, torch.full((N,), target), weight=0.3) for target in range(V)]
    expected = (torch.stack(each, dim=1) * probabilities).sum(dim=1)
    assert torch.allclose(expected_loss(z_NV, probabilities, 0.3 * SQUARED[name](probabilities)), expected)


@pytest.mark.parametrize("weight", [1e-3, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("name", LOSSES)
def test_the_lowest_point_is_that_of_another_optimizer(name: str, weight: float, probabilities: Tensor) -> None:
    a_NV = weight * SQUARED[name](probabilities)
    found_NV = lowest_point(probabilities, a_NV)
    z_NV = torch.zeros(N, V, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z_NV], max_iter=3000, line_search_fn="strong_wolfe", tolerance_change=1e-14)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = expected_loss(z_NV, probabilities, a_NV).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(found_NV.softmax(dim=1), z_NV.detach().softmax(dim=1), atol=1e-4)
    assert torch.allclose(found_NV.softmax(dim=1), probabilities - 2 * a_NV * found_NV, atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_more_weight_costs_more(name: str, probabilities: Tensor) -> None:
    costs = [cost(probabilities, f"{name}_{weight}") for weight in (0.01, 0.1, 1)]
    assert 0 < costs[0] < costs[1] < costs[2]


@pytest.mark.parametrize("x", [0.0, 0.1, 0.3])
def test_two_classes_with_known_lowest_point(x: float) -> None:
    """Logits (x, -x) are the lowest point for q = (sigmoid(2 x) + weight x, the rest)."""
    weight = 0.5
    q = 1 / (1 + math.exp(-2 * x)) + weight * x
    q_NV = torch.tensor([[q, 1 - q]], dtype=torch.float64)
    found_NV = lowest_point(q_NV, weight * SQUARED["logit_penalty"](q_NV))
    assert found_NV[0].tolist() == pytest.approx([x, -x], abs=1e-9)
    p = 1 / (1 + math.exp(-2 * x))
    expected = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    assert cost(q_NV, "logit_penalty_0.5") == pytest.approx(expected, abs=1e-12)


def test_distributions_of_a_large_vocabulary_have_a_lowest_point() -> None:
    q_NV = (torch.randn(20, 4096, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 5).softmax(dim=1)
    a_NV = 0.01 * SQUARED["squentropy"](q_NV)
    z_NV = lowest_point(q_NV, a_NV)
    assert torch.allclose(z_NV.softmax(dim=1), q_NV - 2 * a_NV * z_NV, atol=1e-9)
