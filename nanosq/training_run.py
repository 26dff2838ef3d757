"""One run of an experiment, top to bottom: prepare, build, train, score, record."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from nanosq import checkpoint, config, distributed, final_score, identity, start, threads
from nanosq.checkpoint import Checkpoints
from nanosq.component_errors import user_errors
from nanosq.console import Console
from nanosq.data import batches, corpus
from nanosq.data.batches import TrainingBatches
from nanosq.data.corpus import Corpus
from nanosq.description import recorded_data
from nanosq.evaluation import Batches, Evaluator, Score
from nanosq.experiment import Experiment
from nanosq.hardware import Hardware, prepare_memory
from nanosq.losses import fused_form
from nanosq.recorded_result import keep_last_tag
from nanosq.result import Ended, Result
from nanosq.run_log import RunLog
from nanosq.signals import Interruption
from nanosq.start import Origin
from nanosq.sweeps.trial import Pruned, PrunerReport
from nanosq.tracking import Store, parameters
from nanosq.train import TrainState, train


def prepare(experiment: Experiment) -> Corpus:
    """Return the tokenized text, from the cache if it is there."""
    text = corpus.prepare(experiment.source, experiment.tokenizer, cache_dir=experiment.cfg.cache_dir)
    batches.check_block_size(text, experiment.cfg.model.block_size)
    return text


@contextmanager
def alone(experiment: Experiment) -> Iterator[None]:
    """Connect to the other processes of this run, and hold the lock of its checkpoint folder."""
    with ExitStack() as stack:
        stack.enter_context(distributed.processes(experiment.pick_hardware().device))
        if distributed.rank() == 0:
            # Two sweeps may have the same trial: the second sweep waits, and finds what the first has recorded.
            stack.enter_context(checkpoint.exclusive(experiment.folder, wait=experiment.trial is not None))
        yield


def build(
    experiment: Experiment, text: Corpus, pruner: PrunerReport, interruption: Interruption
) -> tuple[TrainState, RunLog]:
    """Return the state to train, new or resumed, and the log of its run."""
    cfg, settings, is_first = experiment.cfg, experiment.settings, distributed.rank() == 0
    threads.use(None)
    torch.manual_seed(cfg.seed)
    model = experiment.build_model(text.tokenizer.vocab_size)
    tokens_per_step = settings.accumulate * settings.batch_size * model.block_size
    n_tokens = settings.max_steps * tokens_per_step
    n_logits = 0 if fused_form(experiment.loss) else n_tokens * text.tokenizer.vocab_size  # of what compiling speeds up
    hardware = experiment.pick_hardware(
        n_flops=n_tokens * model.flops_per_token,
        n_logits=n_logits,
        n_tokens=settings.batch_size * model.block_size,
        n_classes=text.tokenizer.vocab_size,
    )
    if hardware.device.type == "cpu":
        prepare_memory()
    model = model.to(hardware.device)
    state = TrainState(model, experiment.build_optimizer(model, hardware), hardware.scaler())
    facts, folder = _facts(experiment, text), experiment.folder
    origin = start.restore(experiment.start, state, facts=facts, max_steps=settings.max_steps, folder=folder)
    facts |= {"threads": threads.use(origin.n_threads), "precision": hardware.precision}
    tracked = (experiment.store if is_first else Store()).start(
        experiment.description.name,
        params=parameters.readable(config.flatten(cfg)),
        tags=_tags(experiment, text, state.n_parameters, origin, hardware),
        data=recorded_data(experiment.description.data, cfg, text),
        run_id=origin.run_id,
        is_new=cfg.resume == "never" or bool(origin.notice),
        folder=folder,
    )
    with ExitStack() as stack:
        stack.push(tracked)  # end the run if this fails
        distributed.barrier()  # every process has read the checkpoint
        if origin.is_new and is_first:
            checkpoint.clear(folder, keep_previous=bool(origin.notice))
        stack.pop_all()
    facts["run_id"] = tracked.run_id or origin.run_id
    step, label = state.progress.step, str(experiment.trial or "")
    has_bar = experiment.trial is None or not experiment.trial.is_parallel
    console = Console(settings.max_steps, first_step=step, label=label, quiet=not is_first, bar=has_bar)
    for line in (origin.notice, origin.lost):
        if line:
            console.say(line)
    return state, RunLog(
        run=tracked,
        console=console,
        pruner=pruner,
        checkpoints=Checkpoints(folder, facts) if is_first else None,
        interruption=interruption,
        settings=settings,
        hardware=hardware,
        tokens_per_step=tokens_per_step,
        how_to_resume="run the same command again to resume"
        if experiment.start.is_repeatable
        else f"resume with resume={folder / 'last.pt'}",
        logged_step=step,
        logged_seconds=state.progress.seconds,
    )


def train_and_score(experiment: Experiment, text: Corpus, state: TrainState, log: RunLog) -> Result:
    """Train, score the model, and record how the run ended."""
    cfg, settings, trial, progress = experiment.cfg, experiment.settings, experiment.trial, state.progress
    model, loss, hardware, is_first = state.model, experiment.loss, log.hardware, log.checkpoints is not None
    # Four times as many windows as in training need no more memory, as no gradients are computed.
    n, stop = 4 * settings.batch_size, lambda: log.stop_if_asked(state)
    evaluator = Evaluator(model, loss, hardware, batch_size=n, before_batch=stop)
    training = TrainingBatches(text.train, model.block_size, settings, cfg.seed, cfg.data.window, hardware.device)
    folder, val_batches = experiment.folder, Batches(evaluator, text.val)
    seconds: dict[str, float] = {}  # empty if the run was interrupted after its last evaluation

    def evaluate() -> Score:
        begin = time.perf_counter()
        is_last = progress.step == settings.max_steps  # the final score needs these hidden states again
        score = evaluator.score(text.val, val_batches() if is_last else None).score
        seconds["last/val_seconds"] = time.perf_counter() - begin
        return score

    with log.run as tracked, log.console, hardware.waiting(), user_errors(progress):
        _announce(experiment, text, state, log)
        ended: Ended = "finished"
        try:
            val = train(
                state,
                loss,
                training,
                settings=settings,
                schedule=experiment.schedule,
                evaluate=evaluate,
                hardware=hardware,
                log=log,
            )
            if val is None:
                ended = "diverged"
                log.console.say(
                    f"diverged after {progress.step} steps: the loss, its gradient or the perplexity exploded",
                    also_in_sweeps=False,
                )
        except Pruned:
            val, ended = None, "pruned"
        if val is None:
            metrics = {"train/seconds": progress.seconds}
            tracked.tag(**{ended: "true"}, state=ended)
        else:
            metrics = final_score.score_and_record(
                experiment, text, state, log, evaluator, last=val, val_batches=val_batches, also=seconds
            )
        files = [folder / "best.pt", *([folder / "last.pt"] if settings.keep_last else [])]
        kept = [file for file in files if is_first and file.exists() and tracked.keep(file, "checkpoint")]
    if is_first:  # the run is recorded as finished: nothing is left to resume
        checkpoint.finish(folder, kept=kept, keep_last=settings.keep_last)
    result = Result(
        ended,
        metrics,
        tracked.run_id,
        tracked.link,
        state.n_parameters,
        note=f"{ended} after {progress.step} steps",
        unrecorded=tracked.unrecorded,
    )
    if is_first and trial is None:
        is_kept = settings.keep_last and ended == "finished" and not tracked.unrecorded
        further = experiment.description.further(tracked.run_id or str(folder / "final.pt")) if is_kept else ""
        log.console.end(result, tracked, further=further)
    return result


def _announce(experiment: Experiment, text: Corpus, state: TrainState, log: RunLog) -> None:
    """Record that the run has started, and say what it trains."""
    n_parameters, settings = state.n_parameters, experiment.settings
    log.pruner.start(log.run.run_id, log.run.link)
    log.run.text(config.to_yaml(experiment.cfg), "config.yaml")
    if experiment.trial is not None:
        log.console.say(experiment.trial.setting or f"seed={experiment.cfg.seed}")
    else:
        size = f"{n_parameters / 1e6:.2f}M parameters, vocabulary {text.tokenizer.vocab_size}"
        log.console.say(
            f"{experiment.description.subject}: {size}, {len(text.train.tokens):,} training tokens, {log.hardware}"
        )
    if experiment.ignores_min_lr_factor():
        log.console.say(f"train.min_lr_factor={settings.min_lr_factor} has no effect with this schedule")
    if settings.warmup_steps > settings.max_steps:
        log.console.say(
            f"train.warmup={settings.warmup} is longer than training: the learning rate does not reach its full value"
        )
    if settings.patience is not None and settings.patience >= settings.n_evaluations - 1:
        log.console.say(
            f"train.patience={settings.patience} has no effect with {settings.n_evaluations} evaluations: "
            f"lower train.eval_every={settings.eval_every}"
        )
    if state.progress.step > 0:
        log.console.say(f"resumed after step {state.progress.step}")


def _facts(experiment: Experiment, text: Corpus) -> dict[str, Any]:
    """Return what every checkpoint of the run holds besides the state."""
    return {
        "architecture": config.arguments(experiment.cfg.model),
        "settings": identity.relevant_settings(experiment.cfg),
        "parent": experiment.start.parent,
        **experiment.identity_tags(text),
        **identity.text_identity(text),
    }


def _tags(experiment: Experiment, text: Corpus, size: int, origin: Origin, hardware: Hardware) -> dict[str, str]:
    return {
        **experiment.description.tags(n_parameters=size, n_classes=text.tokenizer.vocab_size),
        **experiment.identity_tags(text),
        "checkpoints": f"{socket.gethostname()}:{experiment.folder.resolve()}",
        "diverged": "false",
        "pruned": "false",
        "hardware": str(hardware),
        "threads": str(torch.get_num_threads()),
        **keep_last_tag(experiment),
        "without_effect": ",".join((*identity.WITHOUT_EFFECT, "seed")),  # runs with other seeds repeat a setting
        **({"parent": experiment.start.parent[:12]} if experiment.start.parent else {}),
        **({} if origin.resumed_from is None else {"resumed_from": origin.resumed_from}),
        **(experiment.trial.tags if experiment.trial is not None else {}),
    }
