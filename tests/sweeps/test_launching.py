"""Launching the runs of trials, with a launcher that runs nothing."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from nanosq.result import Result
from nanosq.sweeps.grid import GridSweeper
from nanosq.sweeps.launching import Metric, SeedResults

MISSING_LOSS = "loss=missing"


class LossyLauncher:
    """A launcher that fails as a whole if one of its jobs does, as one whose worker process is killed.

    Args:
        losses: How often it fails.
    """

    def __init__(self, losses: float = math.inf) -> None:
        self.losses = losses
        self.launched: list[tuple[list[list[str]], int]] = []

    def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        settings = [[override for override in job if not override.startswith("++hydra")] for job in jobs]
        self.launched.append((settings, initial_job_idx))
        if any(MISSING_LOSS in job for job in jobs) and self.losses > 0:
            self.losses -= 1
            raise MemoryError("the worker was killed")
        return [finished(number) for number, _ in enumerate(jobs)]


def finished(perplexity: float) -> JobReturn:
    returned = JobReturn(status=JobStatus.COMPLETED)
    returned.return_value = Result("finished", {"val/perplexity": float(perplexity)})
    return returned


def launch(
    trials: dict[int, list[str]], *, seeds: int, losses: float = math.inf
) -> tuple[list[SeedResults], LossyLauncher]:
    sweeper, launcher = GridSweeper(params={}), LossyLauncher(losses)
    fakes: Any = SimpleNamespace(load_sweep_config=lambda master, overrides: OmegaConf.create({"seed": 5}))
    sweeper.hydra_context = SimpleNamespace(config_loader=fakes)  # type: ignore[assignment]
    sweeper.config = OmegaConf.create({"hydra": {"runtime": {"choices": {"hydra/launcher": "basic"}}}})
    sweeper.launcher = launcher  # type: ignore[assignment]
    return sweeper.launch("a sweep", trials, axes=(), seeds=seeds), launcher


def test_jobs_of_a_launcher_that_fails_are_launched_one_by_one() -> None:
    results, launcher = launch({3: ["loss=focal"], 4: [MISSING_LOSS], 5: ["loss=brier"]}, seeds=1)
    jobs = [["loss=focal"], [MISSING_LOSS], ["loss=brier"]]
    assert launcher.launched == [(jobs, 3), ([jobs[0]], 3), ([jobs[1]], 4), ([jobs[2]], 5)]
    assert [result.state for result in results] == ["finished", "failed", "finished"]
    (failure,) = results[1].failures
    assert isinstance(failure, MemoryError)


@pytest.mark.parametrize(("losses", "state"), [(1, "finished"), (2, "failed")])
def test_a_single_job_that_is_lost_is_launched_once_more(losses: int, state: str) -> None:
    """A cluster has ended it. It resumes from its checkpoint."""
    results, launcher = launch({3: [MISSING_LOSS]}, seeds=1, losses=losses)
    assert launcher.launched == [([[MISSING_LOSS]], 3)] * 2
    assert [result.state for result in results] == [state]


def test_every_seed_of_a_trial_is_a_job_with_its_own_seed() -> None:
    results, launcher = launch({2: ["loss=focal"], 3: ["loss=brier"]}, seeds=3)
    seeds = [[], ["seed=6"], ["seed=7"]]
    jobs = [[loss, *seed] for loss in ("loss=focal", "loss=brier") for seed in seeds]
    assert launcher.launched == [(jobs, 6)]
    metric = Metric()
    assert [result.mean(metric) for result in results] == [1.0, 4.0]
    assert results[0].standard_error(metric) == pytest.approx(1 / math.sqrt(3))


def test_a_trial_is_as_bad_as_its_worst_seed() -> None:
    diverged = JobReturn(status=JobStatus.COMPLETED)
    diverged.return_value = Result("diverged")
    results = SeedResults([finished(2.0), diverged])
    assert results.state == "diverged"
    assert results.mean(Metric()) == math.inf
    assert results.mean(Metric("val/accuracy", maximize=True)) == -math.inf
    assert math.isnan(results.standard_error(Metric()))
