"""The results of a trial: those of its runs, one run for each seed."""

import io
import logging
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict
from typing import Any

from hydra.core.utils import JobReturn

from nanosq import error_reports
from nanosq.errors import InfeasibleError
from nanosq.result import Result
from nanosq.sweeps.attributes import COST, DIVERGED, INFEASIBLE, LINK, run_id_key
from nanosq.sweeps.budget import Cost
from nanosq.sweeps.constraints import PARAMETERS
from nanosq.sweeps.metrics import TRAIN_SECONDS, Metric
from nanosq.sweeps.summary import STATES

logger = logging.getLogger(__name__)

MAX_NAMES = 5  # of trials that have failed for the same reason


class SeedResults:
    """The results and failures of the runs of one trial, one run for each seed."""

    def __init__(self, returns: Iterable[JobReturn]) -> None:
        self.results: list[Result] = []
        self.failures: list[Exception] = []
        for job_return in returns:
            try:
                with redirect_stderr(io.StringIO()):  # Hydra prints the overrides of every failed job
                    self.results.append(job_return.return_value)
            except Exception as error:  # whatever the job has raised
                self.failures.append(error)

    @property
    def is_infeasible(self) -> bool:
        """True if the trial has failed because its setting was refused before training."""
        return bool(self.failures) and all(isinstance(error, InfeasibleError) for error in self.failures)

    @property
    def state(self) -> str:
        """The worst state of the runs."""
        return "failed" if self.failures else max((result.state for result in self.results), key=STATES.index)

    @property
    def runs(self) -> list[str]:
        """The ids of the recorded runs."""
        return [result.run_id for result in self.results if result.run_id]

    @property
    def link(self) -> str:
        """The link to the first recorded run; empty without one."""
        return next((result.link for result in self.results if result.link), "")

    def attributes(self, cost: Cost | None) -> dict[str, Any]:
        """Return the attributes that the trial has in its study. The cost is None if it is unknown."""
        found: dict[str, Any] = {
            DIVERGED: self.state == "diverged",
            INFEASIBLE: self.is_infeasible,
            COST: cost and asdict(cost),
        }
        if self.state != "failed":
            found |= {LINK: self.link, **{run_id_key(i): run for i, run in enumerate(self.runs)}}
        return {name: value for name, value in found.items() if value}

    def bounded(self, key: str) -> float | None:
        """Return the value that a constraint bounds: the mean over the seeds, or None if it is unknown."""
        if key == PARAMETERS:
            return max(result.n_parameters for result in self.results)
        if self.state != "pruned":
            return self.mean(Metric(key))
        known = [result.metrics[key] for result in self.results if key == TRAIN_SECONDS.key and key in result.metrics]
        return max(known, default=None)

    def mean(self, metric: Metric) -> float:
        """Return the mean over the seeds, or the worst value if a run has not finished."""
        return statistics.fmean(self._values(metric)) if self.state == "finished" else metric.worst

    def standard_error(self, metric: Metric) -> float:
        """Return the standard error of the mean, or nan if there is one seed or a run has not finished."""
        if self.state != "finished" or len(self.results) < 2:
            return math.nan
        return statistics.stdev(self._values(metric)) / math.sqrt(len(self.results))

    def _values(self, metric: Metric) -> list[float]:
        values = (result.metrics.get(metric.key, math.nan) for result in self.results)
        return [metric.worst if math.isnan(value) else value for value in values]


def raise_first(failures: Mapping[str, Sequence[Exception]]) -> None:
    """Log why trials have failed, by the name of the trial, with one line for each reason. Then raise the first one."""
    names: dict[str, list[str]] = {}
    for name, exceptions in failures.items():
        for reason in dict.fromkeys(map(error_reports.one_line, exceptions)):
            names.setdefault(reason, []).append(name)
    for reason, failed in names.items():
        shown = ", ".join(failed[:MAX_NAMES]) + ", ..." * (len(failed) > MAX_NAMES)
        logger.error("%s failed: %s", shown if len(failed) == 1 else f"{len(failed)} trials ({shown})", reason)
    for exceptions in failures.values():
        raise exceptions[0]
