"""Launching the runs of trials, with a launcher that runs nothing."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from nanosq.result import Result
from nanosq.sweeps.grid import GridSweeper
from nanosq.sweeps.metrics import Metric
from nanosq.sweeps.seed_results import SeedResults
from nanosq.sweeps.trial import PlannedTrial, TrialRun

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
    trials: dict[int, list[str]], *, n_seeds: int = 1, seeds: Sequence[int] = (), losses: float = math.inf
) -> tuple[list[SeedResults], LossyLauncher]:
    sweeper, launcher = GridSweeper(params={}), LossyLauncher(losses)

    def load_sweep_config(_: Any, overrides: list[str]) -> DictConfig:
        return OmegaConf.from_dotlist([f"seeds={n_seeds}", "seed=5", "resume=auto", *overrides])

    fakes: Any = SimpleNamespace(load_sweep_config=load_sweep_config)
    sweeper.hydra_context = SimpleNamespace(config_loader=fakes)  # type: ignore[assignment]
    sweeper.config = OmegaConf.create({"hydra": {"runtime": {"choices": {"hydra/launcher": "basic"}}}})
    sweeper.launcher = launcher  # type: ignore[assignment]
    planned = [PlannedTrial(TrialRun("a sweep", number), trial) for number, trial in trials.items()]
    return sweeper.launch(planned, axes=(), seeds=seeds), launcher


def test_jobs_of_a_launcher_that_fails_are_launched_one_by_one() -> None:
    results, launcher = launch({3: ["loss=focal"], 4: [MISSING_LOSS], 5: ["loss=brier"]})
    jobs = [["loss=focal", "seed=5"], [MISSING_LOSS, "seed=5"], ["loss=brier", "seed=5"]]
    assert launcher.launched == [(jobs, 0), ([jobs[0]], 0), ([jobs[1]], 1), ([jobs[2]], 2)]
    assert [result.state for result in results] == ["finished", "failed", "finished"]
    (failure,) = results[1].failures
    assert isinstance(failure, MemoryError)


@pytest.mark.parametrize(("losses", "state"), [(1, "finished"), (2, "failed")])
def test_a_single_job_that_is_lost_is_launched_once_more(losses: int, state: str) -> None:
    """A cluster has ended it. It resumes from its checkpoint."""
    results, launcher = launch({3: [MISSING_LOSS]}, losses=losses)
    assert launcher.launched == [([[MISSING_LOSS, "seed=5"]], 0)] * 2
    assert [result.state for result in results] == [state]


def test_every_seed_of_a_trial_is_a_job_with_its_own_seed() -> None:
    results, launcher = launch({2: ["loss=focal"], 3: ["loss=brier"]}, n_seeds=3)
    jobs = [[loss, f"seed={seed}"] for loss in ("loss=focal", "loss=brier") for seed in (5, 6, 7)]
    assert launcher.launched == [(jobs, 0)]
    metric = Metric()
    assert [result.mean(metric) for result in results] == [1.0, 4.0]
    assert results[0].standard_error(metric) == pytest.approx(1 / math.sqrt(3))


def test_seeds_may_be_listed() -> None:
    _, launcher = launch({0: ["loss=focal"]}, seeds=(9, 2))
    assert launcher.launched == [([["loss=focal", "seed=9"], ["loss=focal", "seed=2"]], 0)]


def test_a_setting_that_occurs_twice_is_launched_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Settings are the same if they differ only in what does not affect the result."""
    trials = {0: ["lr=1"], 1: ["lr=2"], 2: ["lr=1.0"], 3: ["lr=2", "device=cuda"], 4: ["lr=3"]}
    results, launcher = launch(trials, n_seeds=2)
    assert [[job[0] for job in jobs] for jobs, _ in launcher.launched] == [["lr=1"] * 2 + ["lr=2"] * 2 + ["lr=3"] * 2]
    assert [result.mean(Metric()) for result in results] == [0.5, 2.5, 0.5, 2.5, 4.5]
    assert capsys.readouterr().out.splitlines() == [
        "#2: not trained, because #0 has the same setting",
        "#3: not trained, because #1 has the same setting",
    ]


def test_a_trial_is_as_bad_as_its_worst_seed() -> None:
    diverged = JobReturn(status=JobStatus.COMPLETED)
    diverged.return_value = Result("diverged")
    results = SeedResults([finished(2.0), diverged])
    assert results.state == "diverged"
    assert results.mean(Metric()) == math.inf
    assert results.mean(Metric("val/accuracy")) == -math.inf
    assert math.isnan(results.standard_error(Metric()))
