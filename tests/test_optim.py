import math

import pytest
import torch

from nanosq.model import GPT
from nanosq.optim import cosine, cosine_from_zero, parameter_groups


def nanogpt_lr(it: int, *, old: bool, warmup: int, decay: int, lr: float, min_lr: float) -> float:
    """The schedule of nanoGPT before and after 2024-12-09, as its formulas read."""
    if it < warmup:
        return lr * it / warmup if old else lr * (it + 1) / (warmup + 1)
    if it > decay:
        return min_lr
    return min_lr + 0.5 * (1.0 + math.cos(math.pi * (it - warmup) / (decay - warmup))) * (lr - min_lr)


@pytest.mark.parametrize(("schedule", "old"), [(cosine, False), (cosine_from_zero, True)])
@pytest.mark.parametrize("step", [0, 1, 99, 100, 101, 550, 999, 1000, 1200])
def test_schedule_is_nanogpts(schedule, old: bool, step: int) -> None:
    factor = schedule(step, max_steps=1000, warmup=100, min_lr_factor=0.1)
    expected = nanogpt_lr(step, old=old, warmup=100, decay=1000, lr=1.0, min_lr=0.1)
    assert factor == pytest.approx(expected)


def test_the_27_trials_of_the_report_end_inside_their_warmup() -> None:
    factors = [cosine_from_zero(step, max_steps=20_000, warmup=2000, min_lr_factor=0.1) for step in range(50)]
    assert factors[0] == 0.0
    assert max(factors) == pytest.approx(0.0245)


def test_no_warmup() -> None:
    assert cosine(0, max_steps=10, warmup=0, min_lr_factor=0.0) == 1.0


def test_weight_decay_touches_matrices_only() -> None:
    model = GPT(11, block_size=8, n_layer=1, n_head=2, n_embd=8, bias=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(parameter_groups(model.parameters()), lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 0.95 if parameter.dim() == 2 else 1.0
        torch.testing.assert_close(parameter, factor * before[name])
