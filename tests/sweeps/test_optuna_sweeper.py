"""The metrics that a search minimizes or maximizes."""

from collections.abc import Sequence
from typing import Any

import pytest
from hydra_plugins.hydra_optuna_sweeper.config import Direction

from nanosq.errors import InputError
from nanosq.sweeps.launching import Metric
from nanosq.sweeps.optuna_sweeper import parse_metrics


def test_one_direction_is_for_all_metrics() -> None:
    keys = ["val/accuracy", "val/nll"]
    assert parse_metrics(keys, Direction.maximize) == [Metric("val/accuracy", True), Metric("val/nll", True)]
    assert parse_metrics(keys, ["maximize", "minimize"]) == [Metric("val/accuracy", True), Metric("val/nll")]


@pytest.mark.parametrize(
    ("keys", "direction", "message"),
    [
        (["test/nll"], "minimize", "test/nll is not one of val/perplexity"),
        (["val/nll"], "max", "max is neither minimize nor maximize"),
        (["val/nll"], ["minimize", "minimize"], "2 directions for 1 objectives"),
        ([], "minimize", "is empty"),
    ],
)
def test_bad_metrics_are_refused(keys: Sequence[str], direction: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_metrics(keys, direction)
