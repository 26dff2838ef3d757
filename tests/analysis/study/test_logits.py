import math

import pytest
import torch

from analysis.study.logits import EDGES, describe, histogram, maps, ranks, wrong

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
    assert described["wrong_variance"] == (0.5**2 + 1.5**2) / 2
    assert described["log_partition"] == pytest.approx(float(logits_NV.logsumexp(1).mean()))
    shares = histogram(logits_NV * 100, targets_N)  # minus the means, all but the two zeros beyond the edges
    assert shares.shape == (len(EDGES) - 1,)
    assert shares.sum() == pytest.approx(1)
    assert (shares[0], shares[-1]) == (0.75, 0.25)


def test_the_probability_and_the_targets_of_ranks() -> None:
    """Probabilities of 1/2, 1/4 and so on, in any order of the classes. The targets have the ranks 1, 3 and 12."""
    log_p_V = -torch.arange(1.0, 21.0) * math.log(2)
    logits_NV = torch.stack([log_p_V, log_p_V.flip(0), log_p_V])
    found = ranks(logits_NV, torch.tensor([0, 17, 11]))
    assert found["targets_1"] == found["targets_2"] == found["targets_11"] == pytest.approx(1 / 3)
    total = 1 - 2**-20
    assert found["probability_1"] == pytest.approx(0.5 / total)
    assert found["probability_2"] == pytest.approx((0.5 - 2**-10) / total)
    assert found["probability_11"] == pytest.approx((2**-10 - 2**-20) / total)
    assert found["targets_1001"] == found["probability_1001"] == 0
