"""Tests of what a pruner compares, without the command line."""

from dataclasses import replace

from omegaconf import OmegaConf
from optuna.pruners import MedianPruner

from nanosq.sweeps import pruning
from nanosq.sweeps.metrics import Metric
from nanosq.sweeps.search_space import SearchSpace
from tests.test_train import SETTINGS


def describe(*axes: str, eval_every: int) -> str:
    space = SearchSpace.parse({}, {}, axes, lambda _: {})
    train = replace(SETTINGS, max_steps=2, eval_every=eval_every)
    return pruning.describe(MedianPruner(), [Metric()], space, train, arguments=OmegaConf.create())


def test_a_pruner_without_evaluations_is_named() -> None:
    assert describe(eval_every=2) == "trials are not pruned: each is evaluated only once, at its end"
    assert describe(eval_every=1) == "pruning compares val/perplexity at the same fraction of training"
    assert describe("train.max_steps=choice(2, 4)", eval_every=2).startswith("pruning compares")
