"""What the grid and the search have in common: a trial is launched once for each seed, and comes to the mean."""

import io
import logging
import math
import re
import shlex
import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig

from nanosq import config, errors, identity
from nanosq.result import Result
from nanosq.sweeps import summary
from nanosq.sweeps.summary import STATES, Row
from nanosq.sweeps.trial import TrialRun

logger = logging.getLogger(__name__)

# How long a trial trains is the sweep's matter: its best setting is to be trained at full length.
OF_THE_SWEEP = ("train.max_steps", "train.eval_every")
COMPONENTS = ("model", "loss", "optimizer", "schedule", "data")


@dataclass(frozen=True)
class Objective:
    """A metric of the runs, by its MLflow key, and which of its values are good."""

    metric: str = "val/perplexity"
    maximize: bool = False

    @property
    def worst(self) -> float:
        return -math.inf if self.maximize else math.inf


class Jobs:
    """What the jobs of one trial, one for each seed, have come to."""

    def __init__(self, returns: Iterable[JobReturn]) -> None:
        self.results: list[Result] = []
        self.failures: list[Exception] = []
        for each in returns:
            try:
                with redirect_stderr(io.StringIO()):  # where Hydra writes the overrides of each failure
                    self.results.append(each.return_value)
            except Exception as error:  # whatever the job has raised
                self.failures.append(error)

    @property
    def state(self) -> str:
        """That of the worst of them."""
        return "failed" if self.failures else max((result.state for result in self.results), key=STATES.index)

    def mean(self, objective: Objective) -> float:
        if self.state != "finished":
            return objective.worst
        return statistics.fmean(self._values(objective))

    def standard_error(self, objective: Objective) -> float:
        """The standard deviation of the seeds over the root of their number; nan for a single one."""
        if self.state != "finished" or len(self.results) < 2:
            return math.nan
        return statistics.stdev(self._values(objective)) / math.sqrt(len(self.results))

    def _values(self, objective: Objective) -> list[float]:
        values = (result.metrics.get(objective.metric, math.nan) for result in self.results)
        return [objective.worst if math.isnan(value) else value for value in values]


class Launching(Sweeper):
    """The part of a sweeper that composes, launches and ends with a summary."""

    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def compose(self, overrides: Iterable[str]) -> DictConfig:
        """The configuration of a job, with Hydra's own part."""
        return self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))

    def seeds(self, cfg: DictConfig) -> int:
        """How often each trial is trained."""
        if cfg.seeds < 1:
            raise errors.InputError(f"seeds must be at least 1, not {cfg.seeds}")
        return int(cfg.seeds)

    def launch(
        self, sweep: str, trials: Mapping[int, Sequence[str]], *, axes: Container[str], seeds: int
    ) -> list[Jobs]:
        """Run trials, given by their number and overrides, side by side where the launcher can."""
        jobs = [
            (*overrides, TrialRun(sweep, number, repeat, summary.short(summary.settings(overrides), axes)).override())
            for number, overrides in trials.items()
            for repeat in range(seeds)
        ]
        choice = self.config.hydra.runtime.choices["hydra/launcher"]
        if choice != "basic":
            logger.info("%d jobs for hydra/launcher=%s", len(jobs), choice)
        returns = self._returns(jobs, first=min(trials) * seeds)
        return [Jobs(returns[start : start + seeds]) for start in range(0, len(jobs), seeds)]

    def _returns(self, jobs: Sequence[Sequence[str]], *, first: int) -> list[JobReturn]:
        """What jobs come to. Where a launcher loses one, as to a lack of memory or time, it loses what others have
        returned: then one after the other, those that have finished are found recorded.
        """
        try:
            return list(self.launcher.launch(jobs, initial_job_idx=first))
        except Exception as error:  # what jobs raise themselves is returned
            if len(jobs) > 1:
                logger.error("the launcher fails: %s; its jobs one by one", errors.one_line(error))
                return [each for at, job in enumerate(jobs) for each in self._returns([job], first=first + at)]
            lost = JobReturn(status=JobStatus.FAILED)
            lost.return_value = error
            return [lost]

    def summarize(
        self,
        sweep: str,
        rows: Sequence[Row],
        objectives: Sequence[Objective],
        best: Mapping[int, Sequence[str]],
        failures: Mapping[int, Sequence[Exception]],
    ) -> None:
        """Print the trials, keep them and the best of them as files, and raise the first failure, if there was one.

        best, failures: the overrides, and what was raised, by the number of the trial.
        """
        folder = Path(self.config.hydra.sweep.dir) / re.sub(r"[^\w.-]", "_", sweep)
        (folder / "experiment").mkdir(parents=True, exist_ok=True)
        metrics = [objective.metric for objective in objectives]
        summary.write_csv(folder / "trials.csv", rows, metrics)
        print(f"\n{summary.table(rows, metrics)}\n")
        for number, overrides in best.items():
            name = f"best_{folder.name}" + (f"_{number}" if len(best) > 1 else "")
            text = self._preset(f"Trial {number} of {sweep}, to be trained at full length.", overrides)
            (folder / "experiment" / f"{name}.yaml").write_text(text)
            print(f"best: python run.py --config-dir {shlex.quote(str(folder))} experiment={name}")
        print(f"all of it: {folder / 'trials.csv'}")
        for number, raised in failures.items():
            for error in raised:
                logger.error("trial %d failed: %s", number, errors.one_line(error))
        for raised in failures.values():
            raise raised[0]

    def _preset(self, title: str, overrides: Sequence[str]) -> str:
        """An experiment that trains a setting at full length."""
        full = self.compose(
            override for override in overrides if override.split("=")[0].lstrip("+") not in OF_THE_SWEEP
        )
        choices = {group: full.hydra.runtime.choices[group] for group in COMPONENTS}
        plain = self.hydra_context.config_loader.load_configuration(
            config_name=self.config.hydra.job.config_name,
            overrides=[f"{group}={choice}" for group, choice in choices.items()],
            run_mode=RunMode.RUN,
        )
        before, after = config.flatten(config.without_hydra(plain)), config.flatten(config.without_hydra(full))
        settings = {key: value for key, value in after.items() if key not in before or before[key] != value}
        return summary.preset(
            title, choices, {key: value for key, value in settings.items() if identity.affects_result(key)}
        )
