"""Parameter groups and schedules, and every optimizer of conf/."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nanosq import config
from nanosq.model import GPT
from nanosq.optim import constant, cosine, cosine_from_zero, parameter_groups, warmup_stable_decay

CONF = Path(__file__).parents[1] / "conf"


def nanogpt_lr(it: int, *, old: bool, warmup: int, decay: int, lr: float, min_lr: float) -> float:
    """Return the learning rate of nanoGPT, before (`old`) and after 2024-12-09."""
    if it < warmup:
        return lr * it / warmup if old else lr * (it + 1) / (warmup + 1)
    if it > decay:
        return min_lr
    return min_lr + 0.5 * (1.0 + math.cos(math.pi * (it - warmup) / (decay - warmup))) * (lr - min_lr)


@pytest.mark.parametrize(("schedule", "old"), [(cosine, False), (cosine_from_zero, True)])
@pytest.mark.parametrize("step", [0, 1, 99, 100, 101, 550, 999, 1000, 1200])
def test_schedules_equal_those_of_nanogpt(schedule, old: bool, step: int) -> None:
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
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 0.95 if parameter.dim() == 2 else 1.0
        torch.testing.assert_close(parameter, factor * before[name])


@pytest.mark.parametrize("schedule", [constant, warmup_stable_decay, cosine])
def test_warmup_is_the_same_in_every_schedule(schedule: Callable[..., float]) -> None:
    factors = [schedule(step, max_steps=100, warmup=9, min_lr_factor=0.1) for step in range(10)]
    assert factors == pytest.approx([0.1 * (step + 1) for step in range(10)])


def test_constant_and_warmup_stable_decay() -> None:
    assert [constant(step, max_steps=100, warmup=9, min_lr_factor=0.1) for step in (10, 99)] == [1.0, 1.0]
    stable = [warmup_stable_decay(step, max_steps=100, warmup=9, min_lr_factor=0.1, decay=0.4) for step in range(101)]
    assert stable[9:61] == [1.0] * 52
    assert stable[80] == pytest.approx(0.55)
    assert stable[100] == pytest.approx(0.1)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("optimizer/*.yaml")))
def test_every_optimizer_of_conf_learns_and_decays_no_vectors(name: str) -> None:
    torch.manual_seed(0)
    model = GPT(11, block_size=8, n_layer=1, n_head=2, n_embd=16)
    optimizer = config.load(CONF / f"optimizer/{name}.yaml")(parameter_groups(model))
    assert [group["weight_decay"] for group in optimizer.param_groups if group["kind"] == "vector"] == [0.0]
    tokens_BT = torch.arange(8).repeat(4, 1)

    def step() -> float:
        logits_BTV = model(tokens_BT) @ model.head_weight.T
        nll = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT.roll(-1, 1).flatten())
        optimizer.zero_grad()
        nll.backward()
        optimizer.step()
        return nll.item()

    nlls = [step() for _ in range(30)]
    assert nlls[-1] < nlls[0] - 0.5
