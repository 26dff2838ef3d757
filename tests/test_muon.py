"""Muon compared with the optimizers of PyTorch."""

import copy
import math
from itertools import chain

import pytest
import torch
from torch import nn

from nanosq.model import GPT
from nanosq.muon import Muon, orthogonalize
from nanosq.optim import parameter_groups


def gradients(model: GPT, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def small_model() -> GPT:
    torch.manual_seed(0)
    return GPT(11, block_size=8, n_layer=2, n_head=2, n_embd=8, bias=True)


def parts(name: str, weight: torch.Tensor) -> list[torch.Tensor]:
    """Return the matrices of a weight: query, key and value of attention, otherwise itself."""
    return [nn.Parameter(part.detach().clone()) for part in weight.chunk(3 if "query_key_value" in name else 1)]


def test_muon_equals_muon_and_adamw_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)  # PyTorch's Muon rounds to bfloat16
    ours, theirs = small_model(), small_model()
    optimizer = Muon(parameter_groups(ours), lr=0.01, momentum=0.9, betas=(0.8, 0.9), weight_decay=0.3)
    hidden = {name: p for name, p in theirs.named_parameters() if p.dim() == 2 and "embedding" not in name}
    matrices = {name: parts(name, weight) for name, weight in hidden.items()}  # PyTorch's Muon gets them one by one
    embeddings = [p for name, p in theirs.named_parameters() if "embedding" in name]
    vectors = [p for p in theirs.parameters() if p.dim() == 1]
    references = (
        torch.optim.Muon(
            [*chain(*matrices.values())], lr=0.01, momentum=0.9, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(embeddings, lr=0.01, betas=(0.8, 0.9), weight_decay=0.3),
        torch.optim.AdamW(vectors, lr=0.01, betas=(0.8, 0.9), weight_decay=0.0),
    )
    assert sum(map(len, (hidden, embeddings, vectors))) == len(list(theirs.parameters()))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    for step in range(3):
        gradients(ours, step)
        gradients(theirs, step)
        for name, weight in hidden.items():
            for matrix, gradient in zip(matrices[name], parts(name, weight.grad), strict=True):
                matrix.grad = gradient
        optimizer.step()
        for reference in references:
            reference.param_groups[0]["lr"] = 0.01 * 0.5**step
            reference.step()
        schedule.step()
    for name, weight in hidden.items():
        weight.data = torch.cat(matrices[name])
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()))


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (8, 32)])
def test_orthogonalize_keeps_singular_vectors_and_sets_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    values = torch.linspace(1.0, 0.05, values.shape[-1])
    matrices = 100 * left @ values.diag() @ right
    result = left.mT @ orthogonalize(matrices) @ right.mT
    diagonals = result.diagonal(dim1=1, dim2=2)
    assert diagonals.min() > 0.5
    assert diagonals.max() < 1.5
    torch.testing.assert_close(result, diagonals.diag_embed(), rtol=0, atol=1e-5)
    rounded = orthogonalize(matrices, torch.bfloat16)
    assert rounded.dtype is torch.bfloat16
    torch.testing.assert_close(rounded.float(), orthogonalize(matrices), rtol=0, atol=0.05)


def test_muon_with_a_missing_gradient_and_a_gradient_of_zero() -> None:
    model = small_model()
    gradients(model, 0)
    without, zero = model.blocks[0].mlp.expand.weight, model.blocks[1].mlp.expand.weight
    without.grad = None
    zero.grad = torch.zeros_like(zero)
    before, after = without.clone(), zero * (1 - 0.01 * 0.1)
    Muon(parameter_groups(model), lr=0.01, weight_decay=0.1).step()
    assert torch.equal(without, before)
    torch.testing.assert_close(zero, after)


def test_muon_refuses_what_is_no_matrix() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1, 3\)"):
        Muon(parameter_groups(nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(1, 1))))


def test_muon_resumes_from_its_state() -> None:
    models = small_model(), small_model()
    optimizers = [Muon(parameter_groups(model), lr=0.01) for model in models]
    for optimizer, model in zip(optimizers, models, strict=True):
        gradients(model, 0)
        optimizer.step()
    optimizers[1] = Muon(parameter_groups(models[1]), lr=0.5)
    optimizers[1].load_state_dict(
        copy.deepcopy(optimizers[0].state_dict())
    )  # without a copy both would share their buffers
    for optimizer, model in zip(optimizers, models, strict=True):
        gradients(model, 1)
        optimizer.step()
    torch.testing.assert_close(list(models[1].parameters()), list(models[0].parameters()), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_computed_in_matmul_dtype(dtype: torch.dtype) -> None:
    model = small_model()
    gradients(model, 0)
    weight = model.blocks[0].mlp.expand.weight
    assert weight.grad is not None
    average = torch.zeros_like(weight).lerp_(weight.grad, 1 - 0.95)
    update = orthogonalize(weight.grad.lerp(average, 0.95).T[None], dtype)[0].T
    expected = weight.detach().clone().mul_(1 - 0.01 * 0.1).add_(update, alpha=-0.01 * 0.2 * math.sqrt(32))
    Muon(parameter_groups(model), lr=0.01, matmul_dtype=dtype).step()
    assert update.dtype is dtype
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-7)
