"""Attention and dropout of the CPU compared with those of PyTorch."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanosq import attention
from nanosq.attention import causal_attention, drop


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.999999])
def test_dropout_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 997, dtype=dtype, requires_grad=True)
    dropped = drop(x, p)
    kept = dropped != 0
    n, sigma = x.numel(), math.sqrt(p * (1 - p) * x.numel())
    assert kept.sum().item() == pytest.approx(n * (1 - p), abs=5 * sigma + n * 2**-16)
    if p < 0.9:
        torch.testing.assert_close(
            dropped[kept].double().unique(), torch.tensor([1 / (1 - p)]).double(), rtol=2**-8, atol=0
        )
        assert dropped.double().mean().item() == pytest.approx(1, rel=1e-2)
        columns = kept.double().mean(dim=0)  # no column is preferred
        assert columns.std().item() == pytest.approx(math.sqrt(p * (1 - p) / len(x)), rel=0.1)
    (grad,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.equal(grad, dropped)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_is_the_same_with_gradients_and_without(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 300, 8, dtype=dtype, requires_grad=True) for _ in range(3))
    with torch.no_grad():
        expected = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), is_causal=True)
        without = causal_attention(query, key, value)
    tolerance = 1e-5 if dtype is torch.float32 else 0.03
    torch.testing.assert_close(without.float(), expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(causal_attention(query, key, value).float(), expected, rtol=0, atol=tolerance)


def test_gradients_of_attention_with_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "QUERIES", 3)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 7, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))

    def mixed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        torch.manual_seed(1)  # the same weights are dropped
        return causal_attention(query, key, value, dropout=0.3)

    assert torch.autograd.gradcheck(mixed, (query, key, value))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_of_attention_keeps_the_mean(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 1, 50, 8, dtype=dtype) for _ in range(3))
    expected = causal_attention(query, key, value)
    many = [tensor.expand(2000, -1, -1, -1).clone().requires_grad_() for tensor in (query, key, value)]
    mean = causal_attention(*many, dropout=0.3).double().mean(dim=0, keepdim=True)
    torch.testing.assert_close(mean, expected.double(), rtol=0, atol=0.1)
