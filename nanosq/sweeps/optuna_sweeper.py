"""The Optuna sweeper: a search with Optuna that can be resumed, prunes trials, and repeats them with several seeds."""

import logging

from nanosq.sweeps.optuna_settings import OptunaSweeperSettings
from nanosq.sweeps.search import LiveSearch
from nanosq.sweeps.study_sweeper import StudySweeper

logger = logging.getLogger(__name__)


class OptunaSweeper(StudySweeper):
    """Runs trials of an Optuna study until it has `n_trials`, including those of earlier starts."""

    schema = OptunaSweeperSettings

    def sweep(self, arguments: list[str]) -> None:
        """Run the search. Hydra calls this method with the overrides of the command line."""
        self.check_effect()
        search = LiveSearch(self, self.settings, self.metrics, arguments)
        self.check_store(search.base)
        self.share_machine(search.largest, search.total * search.n_seeds, most=max(2, search.total // 5))
        search.open(self.unused_name(search, self.settings.study_name or search.default_name))
        if search.compared:
            logger.info(search.compared)
        try:
            while self.seconds_left > 0 and (taken := search.take(self.n_jobs())):
                if not self.run_searches([(search, trial) for trial in taken], search.standing()):
                    break
        finally:
            search.study.release()
        if self.seconds_left <= 0 and search.n_done < search.total:
            timeout = f"hydra.sweeper.timeout={self.settings.timeout}"
            logger.info("%s ends the search; run the same command again to continue it", timeout)
        self.check_feasible(search)
        search.note_violations()
        best = {trial.number: search.space.overrides(trial.params) for trial in search.best()}
        self.summarize(search.study.name, search.summaries(), self.metrics, best, self.failures)
