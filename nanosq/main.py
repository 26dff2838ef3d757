"""The command line that trains: compose -> check -> prepare -> build -> train and score -> result."""

import sys
from contextlib import ExitStack

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from nanosq import command_line, error_reports, errors, hydra_errors, privacy, schema, signals, sweeps, terminal
from nanosq.description import describe
from nanosq.imports import quick_imports
from nanosq.installation import CONF, add_current_folder
from nanosq.result import Result
from nanosq.sweeps import single_run
from nanosq.sweeps.progress import TrialReport
from nanosq.sweeps.trial import PrunerReport, TrialRun, current


def main() -> int:
    """Run the command line and return its exit status."""
    signals.end_by_exception()
    add_current_folder()
    privacy.set_defaults()
    schema.register()
    sweeps.register()
    return hydra_errors.exit_status(start)


def start() -> None:
    """Let Hydra compose the configuration and start a run or a sweep."""
    # Settings of components in a sweep are left to its trials, because the trials may choose other components.
    sys.argv[1:] = sweeps.defer(command_line.prepared(sys.argv[1:]))
    train()


@hydra.main(config_path=str(CONF), config_name="config")
def train(cfg: DictConfig) -> Result:
    """Train the configured model and return its result, which a sweeper converts to the validation perplexity."""
    terminal.format_logs()
    context = HydraConfig.get()
    trial = current(context)
    is_single = trial is None
    with signals.job(), TrialReport(trial) as report:
        with quick_imports(), error_reports.bad_input(is_single=is_single, kind=errors.InfeasibleError):
            schema.check(cfg)
            single_run.check(cfg, context)
        batch = {"batch_size": cfg.train.batch_size, "accumulate": cfg.train.accumulate}
        with error_reports.file_error(is_single=is_single), error_reports.out_of_memory(is_single=is_single, **batch):
            result = run(cfg, context, trial, report)
        if is_single and result.unrecorded:
            sys.exit(error_reports.report(errors.NotRecordedError([result.unrecorded])))
        return result


def run(cfg: DictConfig, context: HydraConf, trial: TrialRun | None, report: TrialReport) -> Result:
    """Train the configured model; `trial` is the trial of a sweep that it belongs to."""
    with ExitStack() as stack:
        with quick_imports(), error_reports.bad_input(is_single=trial is None, kind=errors.InfeasibleError):
            # PyTorch is imported here, so that --help and tab completion answer at once.
            from nanosq import experiment, recorded_result, training_run

            about = describe(context, cfg, trial)
            exp = experiment.check(cfg, description=about, trial=trial, job_number=signals.worker_number())
        with error_reports.bad_input(is_single=trial is None):
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
