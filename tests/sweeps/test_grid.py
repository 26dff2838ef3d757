"""The combinations of a grid, and a launcher that loses jobs, without the command line."""

from collections.abc import Sequence

import pytest
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext

from nanosq.errors import InputError
from nanosq.sweeps.grid import GridSweeper

PARAMS = {"optimizer.lr": "0.001,0.002", "model.n_layer": "1,2"}


def grid(params: dict[str, str], zip: Sequence[str] = ()) -> GridSweeper:
    sweeper = GridSweeper(params=params, zip=zip)
    loader = ConfigLoaderImpl(create_config_search_path(None))
    sweeper.hydra_context = HydraContext(config_loader=loader, callbacks=Callbacks())
    return sweeper


def combinations(*arguments: str, zip: Sequence[str] = ()) -> list[list[str]]:
    params = (f"{key}={value}" for key, value in PARAMS.items())
    return grid(PARAMS, zip)._combinations([*params, *arguments])


def test_the_last_axis_turns_fastest() -> None:
    assert combinations("seed=5,6") == [
        [f"optimizer.lr={lr}", f"model.n_layer={n_layer}", f"seed={seed}"]
        for lr in ("0.001", "0.002")
        for n_layer in ("1", "2")
        for seed in ("5", "6")
    ]


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_later_axis_takes_the_place_of_an_earlier_one_and_keeps_its_prefix(prefix: str) -> None:
    assert combinations(f"{prefix}optimizer.lr=0.003,0.004", "model.n_layer=1") == [
        [f"{prefix}optimizer.lr=0.003", "model.n_layer=1"],
        [f"{prefix}optimizer.lr=0.004", "model.n_layer=1"],
    ]


def test_what_is_deleted_is_deleted_in_every_trial() -> None:
    assert combinations("model.n_layer=1", "~train.patience") == [
        ["optimizer.lr=0.001", "model.n_layer=1", "~train.patience"],
        ["optimizer.lr=0.002", "model.n_layer=1", "~train.patience"],
    ]


def test_paired_axes_go_together() -> None:
    assert combinations("seed=5,6", zip=["optimizer.lr", "seed"]) == [
        ["optimizer.lr=0.001", "seed=5", "model.n_layer=1"],
        ["optimizer.lr=0.001", "seed=5", "model.n_layer=2"],
        ["optimizer.lr=0.002", "seed=6", "model.n_layer=1"],
        ["optimizer.lr=0.002", "seed=6", "model.n_layer=2"],
    ]


@pytest.mark.parametrize(
    ("arguments", "zip", "message"),
    [
        (["seed=5,6,7"], ["optimizer.lr", "seed"], "not optimizer.lr 2, seed 3"),
        ([], ["sed"], "sed is no axis; there are optimizer.lr, model.n_layer"),
        (["train.warmup=interval(0, 1)"], [], "a grid takes lists of values"),
    ],
)
def test_what_is_no_grid_is_refused(arguments: list[str], zip: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        combinations(*arguments, zip=zip)


class Lossy:
    """A launcher that fails as a whole where one of its jobs does, as one whose worker process is killed."""

    def __init__(self) -> None:
        self.launched: list[tuple[list[str], int]] = []

    def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        self.launched.append(([*map(" ".join, jobs)], initial_job_idx))
        if ["bad"] in jobs:
            raise MemoryError("the worker was killed")
        return [JobReturn(overrides=job, status=JobStatus.COMPLETED) for job in jobs]


def test_a_launcher_that_loses_one_job_gets_them_one_by_one() -> None:
    sweeper, launcher = grid(PARAMS), Lossy()
    sweeper.launcher = launcher  # type: ignore[assignment]
    returns = sweeper._returns([["first"], ["bad"], ["last"]], first=6)
    assert launcher.launched == [(["first", "bad", "last"], 6), (["first"], 6), (["bad"], 7), (["last"], 8)]
    assert [each.status for each in returns] == [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.COMPLETED]
    with pytest.raises(MemoryError, match="the worker was killed"):
        _ = returns[1].return_value
