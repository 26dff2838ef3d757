"""Launching of trials with several seeds, and the summary at the end: the common part of both sweepers."""

import io
import logging
import math
import re
import shlex
import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
from omegaconf import DictConfig

from nanosq import config, errors, identity
from nanosq.result import Result
from nanosq.signals import Workers
from nanosq.sweeps import summary
from nanosq.sweeps.summary import STATES, TrialSummary
from nanosq.sweeps.trial import TrialRun

logger = logging.getLogger(__name__)

# A sweep shortens its trials with these settings. Its best setting is trained at full length.
LENGTH = ("train.max_steps", "train.eval_every")
COMPONENTS = ("model", "loss", "optimizer", "schedule", "data")


@dataclass(frozen=True)
class Metric:
    """A metric that a sweep minimizes or maximizes, by its MLflow key."""

    key: str = "val/perplexity"
    maximize: bool = False

    @property
    def worst(self) -> float:
        """The value of a trial that has none."""
        return -math.inf if self.maximize else math.inf


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
    def state(self) -> str:
        """The worst state of the runs."""
        return "failed" if self.failures else max((result.state for result in self.results), key=STATES.index)

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


class TrialLauncher(Sweeper):
    """A sweeper without its search: it composes, launches and summarizes trials."""

    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher
    workers: Workers | None = None  # of a launcher that would kill them when it is interrupted

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Receive Hydra's objects. Hydra calls this method before `sweep`."""
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if isinstance(self.launcher, JoblibLauncher) and self.launcher.joblib.get("backend") != "multiprocessing":
            self.workers = Workers()
            self.launcher.joblib["initializer"] = self.workers.start

    def compose(self, overrides: Iterable[str]) -> DictConfig:
        """Return the configuration of a job, including the `hydra` node."""
        return self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))

    def seeds(self, cfg: DictConfig) -> int:
        """Return the number of seeds of every trial."""
        if cfg.seeds < 1:
            raise errors.InputError(f"seeds must be at least 1, not {cfg.seeds}")
        return int(cfg.seeds)

    def launch(
        self, sweep: str, trials: Mapping[int, Sequence[str]], *, axes: Container[str], seeds: int
    ) -> list[SeedResults]:
        """Run `seeds` runs of each trial, at the same time if the launcher can.

        Args:
            sweep: Name of the sweep.
            trials: The overrides of each trial by its number.
            axes: Keys of the settings to show on the console.
            seeds: Number of runs of each trial.
        """
        jobs = []
        for number, overrides in trials.items():
            setting = summary.one_line(summary.settings(overrides), axes)
            first_seed = self.compose(overrides).seed if seeds > 1 else 0
            for repeat in range(seeds):
                seed = [f"seed={first_seed + repeat}"] if repeat else []
                jobs.append([*overrides, *seed, TrialRun(sweep, number, repeat, setting).override()])
        choice = self.config.hydra.runtime.choices["hydra/launcher"]
        if choice != "basic":
            logger.info("hydra/launcher=%s runs %d jobs", choice, len(jobs))
        returns = self._run_jobs(jobs, first=min(trials) * seeds)
        return [SeedResults(returns[start : start + seeds]) for start in range(0, len(jobs), seeds)]

    def _run_jobs(self, jobs: Sequence[Sequence[str]], *, first: int) -> list[JobReturn]:
        """Launch jobs; `first` is the number of the first one.

        A launcher that loses a job, for lack of memory or time, or because a cluster has ended it, also loses what the
        other jobs have returned. The jobs are then launched once more, one by one: those that had finished find their
        run recorded, and those that had begun resume.
        """
        try:
            return self._launch(jobs, first)
        except Exception as error:  # an exception of the launcher: a job's own is returned
            logger.error("the launcher failed: %s; launching its jobs once more, one by one", errors.one_line(error))
        return [self._run_again(job, number) for number, job in enumerate(jobs, start=first)]

    def _run_again(self, job: Sequence[str], number: int) -> JobReturn:
        try:
            return self._launch([job], number)[0]
        except Exception as error:
            lost = JobReturn(status=JobStatus.FAILED)
            lost.return_value = error
            return lost

    def _launch(self, jobs: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        with self.workers.wait() if self.workers is not None else nullcontext():
            return list(self.launcher.launch(jobs, initial_job_idx=first))

    def summarize(
        self,
        sweep: str,
        trials: Sequence[TrialSummary],
        metrics: Sequence[Metric],
        best: Mapping[int, Sequence[str]],
        failures: Mapping[int, Sequence[Exception]],
    ) -> None:
        """Print the ranked trials and write them to files. Then raise the first failure, if there is one.

        Args:
            sweep: Name of the sweep.
            trials: All trials, ranked.
            metrics: What the sweep minimizes or maximizes.
            best: The overrides of the trials to write as experiments, by their number.
            failures: The exceptions of failed trials by their number.
        """
        folder = Path(self.config.hydra.sweep.dir) / re.sub(r"[^\w.-]", "_", sweep)
        (folder / "experiment").mkdir(parents=True, exist_ok=True)
        keys = [metric.key for metric in metrics]
        summary.write_csv(folder / "trials.csv", trials, keys)
        print(f"\n{summary.table(trials, keys)}\n")
        for number, overrides in best.items():
            name = f"best_{folder.name}" + (f"_{number}" if len(best) > 1 else "")
            text = self._preset(f"Setting of trial {number} of {sweep}, at full length.", overrides)
            (folder / "experiment" / f"{name}.yaml").write_text(text)
            print(f"best: python run.py --config-dir {shlex.quote(str(folder))} experiment={name}")
        print(f"all trials: {folder / 'trials.csv'}")
        for number, exceptions in failures.items():
            for error in exceptions:
                logger.error("trial %d failed: %s", number, errors.one_line(error))
        for exceptions in failures.values():
            raise exceptions[0]

    def _preset(self, title: str, overrides: Sequence[str]) -> str:
        """Return the text of an experiment that trains a setting at full length."""
        full = self.compose(line for line in overrides if line.split("=")[0].lstrip("+") not in LENGTH)
        choices = {group: full.hydra.runtime.choices[group] for group in COMPONENTS}
        default = self.hydra_context.config_loader.load_configuration(
            config_name=self.config.hydra.job.config_name,
            overrides=[f"{group}={choice}" for group, choice in choices.items()],
            run_mode=RunMode.RUN,
        )
        before, after = config.flatten(config.without_hydra(default)), config.flatten(config.without_hydra(full))
        changed = {key: value for key, value in after.items() if key not in before or before[key] != value}
        return summary.preset(
            title, choices, {key: value for key, value in changed.items() if identity.affects_result(key)}
        )
