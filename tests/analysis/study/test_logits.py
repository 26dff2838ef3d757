import numpy as np
import pytest
import torch

from analysis.study.logits import EDGES, describe, histogram, maps, wrong

N, V = 4000, 50


def sample(power: float, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and targets that are drawn from a power map of these logits."""
    generator = torch.Generator().manual_seed(0)
    logits_NV = torch.randn(N, V, generator=generator) * 2
    logits_NV -= logits_NV.mean(dim=1, keepdim=True)
    truth_NV = scale * logits_NV.sign() * logits_NV.abs() ** power
    return logits_NV + 3, torch.multinomial(truth_NV.softmax(dim=1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_temperature_is_found(scale: float) -> None:
    found = maps(*sample(1.0, scale))
    assert found["temperature"] == pytest.approx(1 / scale, rel=0.1)
    assert found["power"] == pytest.approx(1.0, abs=0.15)
    assert found["nll_temperature"] < found["nll"]


@pytest.mark.parametrize("power", [0.6, 1.5])
def test_a_power_is_found(power: float) -> None:
    found = maps(*sample(power, 1.0))
    assert found["power"] == pytest.approx(power, rel=0.12)
    assert found["nll_power"] < found["nll_temperature"]


def test_logits_of_wrong_classes() -> None:
    logits_NV = torch.tensor([[1.0, 2.0, 5.0], [-1.0, 0.0, 3.0]])
    targets_N = torch.tensor([2, 0])
    assert wrong(logits_NV, targets_N).tolist() == [1.0, 2.0, 0.0, 3.0]
    described = describe(logits_NV, targets_N)
    assert described["right"] == 2.0
    assert described["wrong"] == 1.5
    assert described["wrong_squared"] == 3.5
    assert described["log_partition"] == pytest.approx(float(logits_NV.logsumexp(1).mean()))
    shares = histogram(logits_NV * 100, targets_N)  # beyond the edges
    assert shares.shape == (2, len(EDGES) - 1)
    assert np.allclose(shares.sum(axis=1), 1)
    assert shares[0, -1] == 0.75
