"""The common part of the sweepers with Optuna: their settings, their time limit, and the record of a trial."""

import logging
import statistics
import time
from collections.abc import Sequence
from typing import Any

from nanosq import error_reports, errors
from nanosq.sweeps import budget, optuna_settings
from nanosq.sweeps.budget import Cost
from nanosq.sweeps.launching import TrialLauncher
from nanosq.sweeps.metrics import TRAIN_SECONDS, VAL_SECONDS, parse_metrics
from nanosq.sweeps.optuna_settings import OptunaSweeperSettings
from nanosq.sweeps.progress import Standing
from nanosq.sweeps.search import LiveSearch
from nanosq.sweeps.seed_results import SeedResults
from nanosq.sweeps.trial import PlannedTrial

logger = logging.getLogger(__name__)


class StudySweeper(TrialLauncher):
    """A sweeper whose trials belong to Optuna studies."""

    schema: type[OptunaSweeperSettings]

    def __init__(self, **settings: Any) -> None:
        """Create the sweeper from its configuration, the fields of `schema`, and check them."""
        super().__init__()
        with error_reports.bad_input(is_single=False):
            optuna_settings.check(settings, self.schema)
        self.settings = self.schema(**settings)
        self.metrics = parse_metrics(self.settings.objectives, self.settings.direction)
        if (seconds := budget.parse_seconds(self.settings.timeout)) is not None:
            self.deadline = time.time() + seconds
        self.failures: dict[str, list[Exception]] = {}  # of failed trials by their name
        self._infeasible: list[Exception] = []

    def check_effect(self) -> None:
        """Refuse settings of the sweeper that would have no effect."""
        n_jobs, launcher = self.settings.n_jobs or 1, self.config.hydra.runtime.choices["hydra/launcher"]
        if n_jobs > 1 and launcher == "basic":
            raise errors.InputError(
                f"hydra.sweeper.n_jobs={n_jobs} needs a launcher that runs trials in parallel: hydra/launcher=joblib"
            )
        if n_jobs > 1 and launcher == "joblib" and self.config.hydra.launcher.n_jobs == 1:
            raise errors.InputError(f"hydra.sweeper.n_jobs={n_jobs}: hydra.launcher.n_jobs=1 runs one trial at a time")
        for component in self.settings.spaces:
            group, _, choice = component.partition("/")
            options = self.hydra_context.config_loader.get_group_options(group)
            if choice not in options:
                raise errors.InputError(
                    f"hydra.sweeper.spaces: there is no {component}; {group} has {', '.join(options) or 'no choices'}"
                )

    def unused_name(self, search: LiveSearch, name: str) -> str:
        """Return the name; with resume=never one that no study in the database has."""
        from nanosq.sweeps import storage

        return storage.unused_name(name, search.url) if search.base.resume == "never" else name

    @property
    def seconds_left(self) -> float:
        """The time until the deadline; inf without one."""
        return float("inf") if self.deadline is None else self.deadline - time.time()

    def n_jobs(self) -> int:
        """Return the number of trials to launch together."""
        from joblib import effective_n_jobs

        return int(effective_n_jobs(self.settings.n_jobs)) if self.settings.n_jobs else self.n_workers

    def run_trials(
        self, trials: Sequence[PlannedTrial], *, axes: set[str], seeds: Sequence[int], standing: Standing
    ) -> list[tuple[PlannedTrial, SeedResults, Cost | None]]:
        """Launch trials together. Keep the exceptions of failed ones.

        Returns:
            Each trial with its results and its cost. It has no cost if it was trained before, or a part of it.
        """
        begin = time.monotonic()
        results = self.launch(trials, axes=axes, seeds=seeds, standing=standing)
        elapsed = time.monotonic() - begin
        costs = [_cost(result, elapsed, len(trials)) for result in results]
        for trial, result in zip(trials, results, strict=True):
            if result.is_infeasible:
                self._infeasible = result.failures
            elif result.failures:
                self.failures[trial.name] = result.failures
        return [*zip(trials, results, costs, strict=True)]

    def run_searches(self, taken: Sequence[tuple[LiveSearch, PlannedTrial]], standing: Standing) -> bool:
        """Run trials of searches together and record them in their studies. Return whether the sweep can continue."""
        from nanosq.sweeps.study import MAX_INFEASIBLE

        n_failed = len(self.failures)
        axes = {axis for search, _ in taken for axis in search.space.varied}
        trials = [trial for _, trial in taken]
        results = self.run_trials(trials, axes=axes, seeds=taken[0][0].seeds, standing=standing)
        for (search, _), result in zip(taken, results, strict=True):
            search.tell(*result)
        for search, trial in taken:
            if self._infeasible and search.study.is_infeasible:
                reason = error_reports.one_line(self._infeasible[0])
                message = f"the last {MAX_INFEASIBLE} trials were infeasible: change the space; {reason}"
                self.failures[trial.name] = [errors.InputError(message)]
                return False
        if len(self.failures) - n_failed > self.settings.max_failure_rate * len(taken):
            logger.error("hydra.sweeper.max_failure_rate=%g ends the sweep", self.settings.max_failure_rate)
            return False
        return True

    def check_feasible(self, search: LiveSearch) -> None:
        """Count it as a failure if all trials of a search were infeasible."""
        if self._infeasible and not self.failures and not search.best():
            self.failures["all trials"] = self._infeasible


def _cost(result: SeedResults, elapsed: float, n_trials: int) -> Cost | None:
    """Return the cost of one of several trials that have taken `elapsed` seconds together; see `run_trials`."""
    if any(run.is_recorded for run in result.results):
        return None
    if result.state != "finished":
        return Cost(elapsed / n_trials)
    training = result.mean(TRAIN_SECONDS)
    evaluation = statistics.fmean(run.metrics.get(VAL_SECONDS, 0.0) for run in result.results)
    return Cost(elapsed / n_trials, training / n_trials, evaluation / n_trials) if training <= elapsed else None
