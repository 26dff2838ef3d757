"""The contracts of a schedule, an optimizer and a model. What breaks them is in tests/bad_input/components.py."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nanosq import config, optim
from nanosq.component_check import check_model, check_optimizer, check_schedule
from tests.test_config import CONF

STEPS = {"warmup": 10, "min_lr_factor": 0.1}


class Recurrent(nn.Module):
    """The model of the README."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.block_size = 8
        self.embedding = nn.Embedding(vocab_size, 4)
        self.layers = nn.GRU(4, 4, 2, dropout=0.1, batch_first=True)
        self.head_weight = self.embedding.weight
        self.flops_per_token = 6 * sum(p.numel() for p in self.parameters())

    def forward(self, tokens_BT: Tensor) -> Any:
        return self.layers(self.embedding(tokens_BT))[0]


class ReadsValues(Recurrent):
    def forward(self, tokens_BT: Tensor) -> Any:
        assert max(tokens_BT.flatten().tolist()) < len(self.head_weight)
        return super().forward(tokens_BT)


@pytest.mark.parametrize("kind", [Recurrent, ReadsValues])
def test_a_model_of_the_user_passes(kind: type[Recurrent]) -> None:
    with torch.device("meta"):
        check_model(kind(11), "my.model", 11)


@pytest.mark.parametrize("path", sorted(CONF.glob("optimizer/*.yaml")), ids=lambda path: path.stem)
def test_the_optimizers_pass(path: Path) -> None:
    optimizer = config.load(path)
    check_optimizer(lambda model: optimizer(optim.parameter_groups(model)), path.stem)


@pytest.mark.parametrize("max_steps", [1, 2, 999, 1000, 1001, 10**6])
def test_a_schedule_is_tried_at_its_ends(max_steps: int) -> None:
    tried: list[int] = []

    def constant(step: int) -> float:
        tried.append(step)
        return np.float32(1)  # as of a schedule that NumPy computes

    check_schedule(constant, "my.schedule", max_steps=max_steps)
    assert (min(tried), max(tried)) == (0, max_steps - 1)
    assert len(tried) <= 1001


@pytest.mark.parametrize("name", ["cosine", "cosine_from_zero", "constant", "warmup_stable_decay"])
def test_the_schedules_pass(name: str) -> None:
    check_schedule(partial(getattr(optim, name), max_steps=100, **STEPS), name, max_steps=100)


@pytest.mark.parametrize("factor", [None, math.nan, math.inf, -0.1, "1", True, 1j, torch.ones(())])
def test_a_schedule_returns_a_number(factor: object) -> None:
    with pytest.raises(ValueError, match=r"^my\.schedule returns .* at step 0; a schedule maps"):
        check_schedule(lambda step: factor, "my.schedule", max_steps=10)  # type: ignore[arg-type,return-value]
