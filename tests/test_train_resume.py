"""A run that is stopped anywhere and resumed equals an uninterrupted one, bit for bit."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from nanosq import config
from nanosq.optim import parameter_groups
from tests.test_train import CONF, Training


class Stop(BaseException):
    pass


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "adafactor"])
def test_a_run_resumed_from_any_stop_equals_an_uninterrupted_one(optimizer: str) -> None:
    """The weights are equal bit for bit, dropout included, and no metric is lost or logged twice."""
    settings = {"max_steps": 6, "accumulate": 2, "log_every": 1, "eval_every": 3, "checkpoint_every": 2}

    def new() -> Training:
        run = Training(dropout=0.2)
        make = config.load(CONF / f"optimizer/{optimizer}.yaml")
        run.state.optimizer = make(parameter_groups(run.model))
        return run

    def without_times(run: Training) -> list[tuple[int, dict[str, float]]]:
        times = ("train/seconds", "train/tokens_per_second", "train/mfu")
        return [(step, {k: v for k, v in metrics.items() if k not in times}) for step, metrics in run.logged]

    whole = new()
    n_stops = 0

    def count() -> None:
        nonlocal n_stops
        n_stops += 1

    whole.train(stop_if_asked=count, **settings)
    assert n_stops == 12
    for left_at in range(1, n_stops + 1):
        run, countdown = new(), iter(range(left_at - 1, -1, -1))

        def leave(countdown: Iterator[int] = countdown) -> None:
            if next(countdown) == 0:
                raise Stop

        with pytest.raises(Stop):
            run.train(stop_if_asked=leave, **settings)
        snapshot = torch_round_trip(run.state.snapshot())
        resumed = new()
        resumed.logged = run.logged
        resumed.state.restore(snapshot)
        torch.rand(left_at)  # the process may have used random numbers before
        resumed.train(**settings)
        torch.testing.assert_close(resumed.weights(), whole.weights(), rtol=0, atol=0)
        assert without_times(resumed) == without_times(whole)


def torch_round_trip(snapshot: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(snapshot, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
