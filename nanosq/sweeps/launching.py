"""Launching of trials with several seeds, and the summary at the end: the common part of all sweepers."""

import logging
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from nanosq import config, error_reports, errors, identity, terminal
from nanosq.filesystem import check_folder, file_name
from nanosq.signals import Workers
from nanosq.sweeps import checks, overrides, parallel, preset, progress, summary
from nanosq.sweeps.checks import ON_THIS_MACHINE
from nanosq.sweeps.metrics import Metric
from nanosq.sweeps.progress import Standing, SweepProgress
from nanosq.sweeps.recording import SweepRecording
from nanosq.sweeps.returns import DropConfigurations, failed_job
from nanosq.sweeps.seed_results import SeedResults, raise_first
from nanosq.sweeps.summary import TrialSummary
from nanosq.sweeps.trial import PlannedTrial, TrialRun

logger = logging.getLogger(__name__)

# A sweep shortens its trials with these settings. Its best setting is trained at full length.
LENGTH = ("train.max_steps", "train.eval_every")


class TrialLauncher(Sweeper):
    """A sweeper without its search: it composes, launches and summarizes trials."""

    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher
    recording: SweepRecording
    workers: Workers | None = None  # of a launcher that would kill them when it is interrupted
    deadline: float | None = None  # Unix time at which running trials are interrupted
    n_workers: int = 1  # runs that the launcher has at the same time, where it is known

    def __init__(self) -> None:
        # A setting may occur twice in a sweep. Each run is launched once, and found here by its identity.
        self._trials: dict[str, PlannedTrial] = {}
        self._returns: dict[str, JobReturn] = {}
        self._n_launched = 0
        self._said_first = ""  # when the first run is launched
        self._checked: dict[tuple[str, ...], DictConfig] = {}  # configurations of trials that are not launched yet
        self._seconds: dict[str, list[float]] = {}  # times of the runs that were trained, by the phase of the sweep

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Receive Hydra's objects. Hydra calls this method before `sweep`."""
        terminal.format_logs()
        self.config = config
        self.hydra_context = hydra_context
        checks.check_launcher(config.hydra.runtime.choices["hydra/launcher"])
        check_folder("hydra.sweep.dir", Path(config.hydra.sweep.dir))
        hydra_context.callbacks.callbacks.insert(0, DropConfigurations())  # it is called after those of the user
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if isinstance(self.launcher, JoblibLauncher):
            parallel.check(self.launcher.joblib)

    def check_store(self, cfg: DictConfig) -> None:
        """Check the tracking store, which a trial of this configuration names, before anything is written."""
        with error_reports.bad_input(is_single=False):
            self.recording = SweepRecording(cfg)

    def share_machine(self, examples: Sequence[DictConfig], n_runs: int, *, most: int | None = None) -> None:
        """Choose how many runs joblib has at the same time. A single one runs in this process.

        Args:
            examples: Configurations of trials. The largest one decides.
            n_runs: Number of runs of the sweep.
            most: Largest number at the same time, unless the user sets it: a search learns only from ended trials.
        """
        if not isinstance(self.launcher, JoblibLauncher):
            return
        self.n_workers = parallel.choose(self.launcher.joblib, examples, n_runs, most=most)
        if self.n_workers > 1:
            self.workers = Workers()
            self.launcher.joblib["initializer"] = self.workers.start
            self._said_first = parallel.sentence(self.launcher.joblib)

    def compose(self, overrides: Iterable[str]) -> DictConfig:
        """Return the configuration of a job, including the `hydra` node."""
        return self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))

    def check(self, name: str, trial: Sequence[str]) -> DictConfig:
        """Return the configuration of a trial. An InputError for one that cannot be composed begins with its name."""
        try:
            if tuple(trial) not in self._checked:
                self._checked[*trial] = self.compose(trial)  # takes 0.07 s: `launch` does not compose it again
            return self._checked[*trial]
        except (HydraException, OmegaConfBaseException) as error:
            reason = error_reports.one_line(error)
            raise errors.InputError(f"{name}: {reason}" if name else reason) from None

    def launch(
        self,
        trials: Sequence[PlannedTrial],
        *,
        axes: Container[str],
        seeds: Sequence[int],
        standing: Standing | None = None,
    ) -> list[SeedResults]:
        """Run each trial with all of its seeds, at the same time if the launcher can. A setting is trained once.

        Args:
            trials: The trials.
            axes: Keys of the settings to show on the console.
            seeds: The seeds of every trial; none if the configuration of the trial counts them.
            standing: How far the sweep is; None if the trials are all of it.
        """
        jobs: dict[str, TrialRun] = {}
        runs: list[list[str]] = []
        for trial in trials:
            settings = summary.settings(trial.overrides)
            setting = summary.one_line(settings, summary.short_names(key for key in settings if key in axes))
            try:
                by_identity = self._runs(trial, seeds)
            except (HydraException, OmegaConfBaseException) as error:
                failed = f"{trial.run.sweep} {trial.run.trial}"
                runs.append([failed])
                self._returns[failed] = failed_job(errors.InfeasibleError(error_reports.one_line(error)))
                logger.error("%s: failed: %s", trial, error_reports.one_line(error))
                continue
            runs.append([*by_identity])
            if by_identity.keys() <= self._trials.keys():
                print(f"{trial}: not trained, because {self._trials[runs[-1][0]]} has the same setting")
            for repeat, (run, seed) in enumerate(by_identity.items()):
                if self._trials.setdefault(run, trial) is trial:
                    jobs[run] = replace(trial.run, repeat=repeat, setting=setting, seed=seed, deadline=self.deadline)
        if jobs:
            self._returns |= zip(jobs, self._run_counted(jobs, standing or Standing(len(jobs))), strict=True)
        return [SeedResults(self._returns[run] for run in by_identity) for by_identity in runs]

    def _runs(self, trial: PlannedTrial, seeds: Sequence[int]) -> dict[str, int]:
        """Return the seeds of a trial by the identity of the run with this seed.

        A run reports to the study of its trial, so that runs of several studies are not the same.
        """
        composed = self._checked.pop(tuple(trial.overrides), None) or self.compose(trial.overrides)
        cfg = config.without_hydra(composed)
        study = trial.run.sweep if trial.run.in_study else ""
        by_identity = {}
        for seed in overrides.seeds_of(cfg, seeds):
            cfg.seed = seed
            by_identity[f"{study} {identity.planned_hash(cfg)}"] = seed
        return by_identity

    def _run_counted(self, jobs: Mapping[str, TrialRun], standing: Standing) -> list[JobReturn]:
        """Launch jobs that say how far the sweep is when they end."""
        choice = self.config.hydra.runtime.choices["hydra/launcher"]
        if choice not in ON_THIS_MACHINE:
            logger.info("hydra/launcher=%s runs %d jobs", choice, len(jobs))
        elif self._said_first and not self._n_launched:
            logger.info(self._said_first)
        seconds, n_jobs = self._seconds.get(standing.phase, []), min(len(jobs), self.n_workers)
        with progress.shared(replace(standing, n_jobs=n_jobs, seconds=seconds, deadline=self.deadline)) as path:
            shared = str(path) if choice in ON_THIS_MACHINE else ""
            lines = []
            for run, job in jobs.items():
                job = replace(job, progress=shared, is_parallel=n_jobs > 1)
                lines.append([*self._trials[run].overrides, f"seed={job.seed}", job.override()])
            returns = self._run_jobs(lines, first=self._n_launched)
            self._seconds[standing.phase] = SweepProgress.parse(path.read_bytes()).seconds
        self._n_launched += len(jobs)
        return returns

    def _run_jobs(self, jobs: Sequence[Sequence[str]], *, first: int) -> list[JobReturn]:
        """Launch jobs; `first` is the number of the first one among all jobs of this process.

        A launcher that loses a job, for lack of memory or time, or because a cluster has ended it, also loses what the
        other jobs have returned. The jobs are then launched once more, one by one: those that had finished find their
        run recorded, and those that had begun resume.
        """
        try:
            return self._launch(jobs, first)
        except Exception as error:  # an exception of the launcher: a job's own is returned
            logger.error(
                "the launcher failed: %s; launching its jobs once more, one by one", error_reports.one_line(error)
            )
        return [self._run_again(job, number) for number, job in enumerate(jobs, start=first)]

    def _run_again(self, job: Sequence[str], number: int) -> JobReturn:
        try:
            return self._launch([job], number)[0]
        except Exception as error:
            return failed_job(error)

    def _launch(self, jobs: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        with self.workers.wait() if self.workers is not None else nullcontext():
            try:
                return list(self.launcher.launch(jobs, initial_job_idx=first))
            finally:
                terminal.format_logs()

    def summarize(
        self,
        sweep: str,
        trials: Sequence[TrialSummary],
        metrics: Sequence[Metric],
        best: Mapping[int, Sequence[str]],
        failures: Mapping[str, Sequence[Exception]],
    ) -> None:
        """Print the ranked trials and write them to files. Then raise the first failure, if there is one.

        Args:
            sweep: Name of the sweep.
            trials: All trials, ranked.
            metrics: What the sweep minimizes or maximizes.
            best: The overrides of the trials to write as experiments, by their number.
            failures: The exceptions of failed trials by their name.
        """
        if not trials:
            return
        folder = self.folder(sweep)
        keys = [metric.key for metric in metrics]
        summary.write_csv(folder / "trials.csv", trials, keys)
        print("", summary.table(trials, keys), *summary.notes(trials, keys), sep="\n", end="\n\n")
        for number, lines in best.items():
            trial = [line for line in lines if line.split("=")[0].lstrip("+") not in LENGTH]
            name = f"best_{folder.name}" + (f"_{number}" if len(best) > 1 else "")
            command = preset.write(self, trial, folder, name, origin=f"trial {number} of {sweep}")
            print(terminal.command(f"best: {command}", sys.stdout))
        print(f"all trials: {folder / 'trials.csv'}\n{terminal.next_step()}")
        with self.recording.delivered():
            raise_first(failures)

    def folder(self, sweep: str) -> Path:
        """Return the folder for the files of a sweep. It is created."""
        folder = Path(self.config.hydra.sweep.dir) / file_name(sweep)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
