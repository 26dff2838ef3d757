"""The Optuna sweeper: a search with Optuna that can be resumed, prunes trials, and repeats them with several seeds."""

import logging
import time
from collections.abc import Mapping
from typing import Any, cast

from nanosq import errors
from nanosq.sweeps import budget
from nanosq.sweeps.launching import TrialLauncher
from nanosq.sweeps.metrics import parse_metrics
from nanosq.sweeps.optuna_settings import OptunaSweeperSettings
from nanosq.sweeps.search import LiveSearch

logger = logging.getLogger(__name__)


class StudySweeper(TrialLauncher):
    """A sweeper whose trials are those of studies. It checks and applies the settings that such sweepers share."""

    schema: type[OptunaSweeperSettings]

    def __init__(self, **settings: Any) -> None:
        """Create the sweeper from its configuration, the fields of `schema`, and check them."""
        super().__init__()
        self.settings = self.schema(**settings)
        for name in ("n_trials", "n_jobs"):
            number = settings[name]
            if number is not None and number < 1:
                raise errors.InputError(f"hydra.sweeper.{name} must be at least 1, not {number}")
        if not 0 <= self.settings.max_failure_rate <= 1:
            rate = self.settings.max_failure_rate
            raise errors.InputError(f"hydra.sweeper.max_failure_rate is a fraction of the trials, 0 to 1, not {rate}")
        self.metrics = parse_metrics(self.settings.objectives, self.settings.direction)
        self.seconds = budget.parse_seconds(self.settings.timeout)

    def check_effect(self) -> None:
        """Refuse settings of the sweeper that would have no effect."""
        n_jobs = self.settings.n_jobs
        if n_jobs is not None and n_jobs > 1 and self.config.hydra.runtime.choices["hydra/launcher"] == "basic":
            raise errors.InputError(
                f"hydra.sweeper.n_jobs={n_jobs} needs a launcher that runs trials in parallel: hydra/launcher=joblib"
            )
        for component in self.settings.spaces:
            group, _, choice = component.partition("/")
            options = self.hydra_context.config_loader.get_group_options(group)
            if choice not in options:
                raise errors.InputError(
                    f"hydra.sweeper.spaces: there is no {component}; {group} has {', '.join(options) or 'no choices'}"
                )

    def start_clock(self) -> None:
        """Set the deadline, if the time is limited."""
        if self.seconds is not None:
            self.deadline = time.time() + self.seconds

    def is_out_of_time(self) -> bool:
        """Return whether the deadline has passed."""
        return self.deadline is not None and time.time() >= self.deadline

    def n_jobs(self) -> int:
        """Return the number of trials to launch together."""
        n_jobs = self.settings.n_jobs or self.config.hydra.launcher.get("n_jobs", 1)  # the joblib launcher's
        from joblib import effective_n_jobs

        return cast(int, effective_n_jobs(n_jobs))


class OptunaSweeper(StudySweeper):
    """Runs trials of an Optuna study until it has `n_trials`, including those of earlier starts."""

    schema = OptunaSweeperSettings

    def sweep(self, arguments: list[str]) -> None:
        """Run the search. Hydra calls this method with the overrides of the command line."""
        self.start_clock()
        self.check_effect()
        search = LiveSearch(self, self.settings, self.metrics, arguments)
        search.open(self.settings.study_name or search.default_name())
        if search.compared:
            logger.info(search.compared)
        failures = self._run(search)
        best = {trial.number: search.space.overrides(trial.params) for trial in search.best()}
        self.summarize(search.study.name, search.summaries(), self.metrics, best, failures)

    def _run(self, search: LiveSearch) -> Mapping[int, list[Exception]]:
        """Run trials until the study has enough. Return the exceptions of failed trials by their number."""
        from nanosq.sweeps.study import MAX_INFEASIBLE

        failures: dict[int, list[Exception]] = {}
        infeasible: list[list[Exception]] = []
        try:
            while not self.is_out_of_time() and (taken := search.take(self.n_jobs())):
                begin = time.monotonic()
                results = self.launch(taken, axes=search.space.varied, seeds=search.seeds)
                seconds = (time.monotonic() - begin) / len(taken)
                for trial, result in zip(taken, results, strict=True):
                    search.tell(trial, result, seconds=seconds)
                self._log_progress(search)
                if results[-1].is_infeasible and search.study.is_infeasible:
                    reason = errors.one_line(results[-1].failures[0])
                    message = f"the last {MAX_INFEASIBLE} trials were infeasible: change the space; {reason}"
                    failures[taken[-1].number] = [errors.InputError(message)]
                    break
                pairs = zip(taken, results, strict=True)
                failed = {t.number: r.failures for t, r in pairs if r.failures and not r.is_infeasible}
                failures |= failed
                infeasible = [result.failures for result in results if result.is_infeasible] or infeasible
                if len(failed) > self.settings.max_failure_rate * len(taken):
                    logger.error("hydra.sweeper.max_failure_rate=%g ends the search", self.settings.max_failure_rate)
                    break
        finally:
            search.study.release()
        if self.is_out_of_time() and search.n_done < search.total:
            logger.info(
                "hydra.sweeper.timeout=%s ends the search; run the same command again to continue it",
                self.settings.timeout,
            )
        if infeasible and not failures and not search.best():
            failures[-1] = infeasible[-1]
        return failures

    def _log_progress(self, search: LiveSearch) -> None:
        best = [f"#{trial.number} {trial.values[0]:.5g}" for trial in search.best()]
        done = search.n_done
        logger.info("%d of %d trials, best: %s", done, max(search.total, done), ", ".join(best) or "none yet")
