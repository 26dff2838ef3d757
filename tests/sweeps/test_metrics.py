"""The metrics that a search minimizes or maximizes."""

from collections.abc import Sequence
from typing import Any

import pytest
from hydra_plugins.hydra_optuna_sweeper.config import Direction

from nanosq.errors import InputError
from nanosq.sweeps.metrics import METRICS, Metric, parse_metrics

BOTH = ["val/accuracy", "val/nll"]


def test_the_direction_belongs_to_the_metric() -> None:
    maximized = {metric.key for metric in parse_metrics(list(METRICS), None) if metric.maximize}
    assert maximized == {"val/accuracy"}


@pytest.mark.parametrize(
    ("keys", "direction"),
    [
        (["val/accuracy"], "maximize"),
        (["val/accuracy"], Direction.maximize),
        (["val/nll", "train/seconds"], "minimize"),
        (BOTH, ["maximize", "minimize"]),
    ],
)
def test_the_right_direction_may_be_named(keys: Sequence[str], direction: Any) -> None:
    assert parse_metrics(keys, direction) == [Metric(key) for key in keys]


@pytest.mark.parametrize(
    ("keys", "direction", "message"),
    [
        (["test/nll"], None, "test/nll is not a metric; choose from val/perplexity, val/nll"),
        (["val/nl"], None, "did you mean 'val/nll'"),
        (["val/nll"], "max", "direction=max: the direction of val/nll is minimize"),
        (["val/nll"], "maximize", "direction=maximize: the direction of val/nll is minimize"),
        (["val/accuracy"], Direction.minimize, "direction=minimize: the direction of val/accuracy is maximize"),
        (BOTH, "minimize", "is maximize,minimize"),
        (BOTH, ["maximize", "maximize"], "is maximize,minimize"),
        (["val/nll"], ["minimize", "minimize"], "is minimize"),
        (["val/nll", "val/nll"], None, "names val/nll twice"),
        ([], None, "is empty"),
    ],
)
def test_bad_metrics_are_refused(keys: Sequence[str], direction: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_metrics(keys, direction)
