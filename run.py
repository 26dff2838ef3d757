"""Train one model: compose -> check -> prepare -> build -> train and score -> result.

python run.py loss=squentropy                     one run
python run.py -m hydra/sweeper=grid               a sweep
python run.py --help                              every setting
"""

import sys
from contextlib import ExitStack
from pathlib import Path

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from nanosq import config, errors, privacy, signals, sweeps, terminal
from nanosq.description import describe
from nanosq.imports import quick_imports
from nanosq.result import Result
from nanosq.sweeps.progress import TrialReport
from nanosq.sweeps.trial import PrunerReport, TrialRun, current

SWEEP = ("hydra.sweeper.", "hydra.launcher.", "hydra/launcher=")  # settings that a single run does not read
DEFAULTS = {"hydra/sweeper": "basic", "hydra/launcher": "joblib"}

privacy.set_defaults()
config.register()
sweeps.register()


@hydra.main(config_path="conf", config_name="config")
def main(cfg: DictConfig) -> Result:
    """Train the configured model and return its result, which a sweeper converts to the validation perplexity."""
    terminal.format_logs()
    context = HydraConfig.get()
    trial = current(context)
    batch = {"batch_size": cfg.train.batch_size, "accumulate": cfg.train.accumulate}
    with signals.job(), TrialReport(trial) as report, errors.out_of_memory(is_single=trial is None, **batch):
        result = run(cfg, context, trial, report)
        if trial is None and result.unrecorded:
            sys.exit(errors.report(errors.NotRecordedError([result.unrecorded])))
        return result


def run(cfg: DictConfig, context: HydraConf, trial: TrialRun | None, report: TrialReport) -> Result:
    """Train the configured model; `trial` is the trial of a sweep that it belongs to."""
    with ExitStack() as stack:
        with quick_imports(), errors.bad_input(is_single=trial is None, kind=errors.InfeasibleError):
            check_command_line(cfg, context)
            # PyTorch is imported here, so that --help and tab completion answer at once.
            from nanosq import experiment, recorded_result, training_run

            about = describe(context, cfg, trial)
            exp = experiment.check(cfg, description=about, trial=trial, job_number=signals.worker_number())
        with errors.bad_input(is_single=trial is None):
            text = training_run.prepare(exp)
            stack.enter_context(training_run.alone(exp))
            pruner = PrunerReport(trial, context.sweeper, max_steps=cfg.train.max_steps)
            if result := recorded_result.recorded(exp, text, trial, pruner):
                return report.ended(result, pruner)
            # Not earlier: while a sweep reuses recorded trials, Ctrl-C ends it at once.
            interruption = stack.enter_context(signals.Interruption(deadline=trial.deadline if trial else None))
            if interruption.is_late:
                return Result("interrupted")
            state, log = training_run.build(exp, text, pruner, interruption)
        try:
            result = report.ended(training_run.train_and_score(exp, text, state, log), pruner)
        except signals.OutOfTime:
            return Result("interrupted")
        if interruption.is_signaled and trial is not None:  # too late to stop this trial: do not start the next one
            interruption.end()
        return result


def check_command_line(cfg: DictConfig, context: HydraConf) -> None:
    """Raise a ValueError for settings of a sweep in a single run, and for unknown settings."""
    if context.mode == RunMode.RUN:
        choices = context.runtime.choices
        chosen = [f"{key}={choices[key]}" for key, default in DEFAULTS.items() if choices[key] != default]
        typed = [text for text in context.overrides.hydra if text.lstrip("+").startswith(SWEEP)]
        for text in [*chosen, *typed]:
            raise ValueError(f"{text} is for sweeps and needs -m: python run.py -m {text}")
    for key in cfg:
        if key not in config.Config.__annotations__:
            raise ValueError(f"unknown setting {key!r}: python run.py --help lists them all")
    if context.mode == RunMode.RUN and cfg.seeds != 1:
        raise ValueError(f"seeds={cfg.seeds} repeats the trials of a sweep and needs -m: python run.py -m ...")


if __name__ == "__main__":
    signals.end_by_exception()
    sys.path.append(str(Path.cwd()))  # for a loss or another component in a module of the user
    # Settings of components in a sweep are left to its trials, because the trials may choose other components.
    sys.argv[1:] = sweeps.defer(config.with_pretrained_model(sys.argv[1:]))
    sys.exit(errors.exit_status(main))
