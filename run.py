"""Train one model: compose -> check -> build -> train -> track -> return its validation perplexity.

python run.py loss=squentropy                     one run
python run.py -m hydra/sweeper=grid               a sweep
python run.py --help                              every setting
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from nanosq import config, errors, identity, sweeps
from nanosq.result import Ended, Result
from nanosq.sweeps import trial as job

if TYPE_CHECKING:
    from torch import Tensor

    from nanosq.data.corpus import Corpus, Split
    from nanosq.evaluate import Evaluation, Score
    from nanosq.hardware import Hardware
    from nanosq.head import Loss
    from nanosq.signals import Interruption
    from nanosq.tracking import Tracker
    from nanosq.train import State

# torch, MLflow and what needs them are imported inside the functions: --help and shell completion answer without.

logger = logging.getLogger(__name__)

config.register()
sweeps.register()


@hydra.main(config_path="conf", config_name="config")
def main(cfg: DictConfig) -> Result:
    """What the run came to; to a sweeper, its validation perplexity, inf where training diverged."""
    trial = job.current(cast(DictConfig, HydraConfig.get()))
    with ExitStack() as held:
        held.push(told_at_once)
        with user_input():
            check(cfg)
            corpus = prepare(cfg)

            from nanosq import checkpoint, distributed
            from nanosq.signals import Interruption

            held.enter_context(distributed.processes(pick_hardware(cfg).device))
            if distributed.rank() == 0:
                # Two sweeps may come to the same trial: the second waits, and finds what the first has recorded.
                held.enter_context(checkpoint.exclusive(checkpoint_folder(cfg), wait=trial is not None))
            report = job.PrunerReport(trial, HydraConfig.get().sweeper, max_steps=cfg.train.max_steps)
            if trial is not None:
                result = recorded(cfg, corpus, trial, report)
                if result is not None:
                    return result
            interruption = held.enter_context(Interruption())
            parts = build(cfg, corpus)
        result = run(cfg, corpus, parts, interruption, report)
        if interruption.received and trial is not None:  # too late for this trial, in time for those that follow
            interruption.end()
        return result


def told_at_once(_: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
    """Say that a trial fails when it does; its sweep names it again at its end."""
    trial = job.current(cast(DictConfig, HydraConfig.get()))
    if trial is not None and isinstance(error, Exception):
        logger.error("%s: failed: %s", trial, errors.one_line(error))


@contextmanager
def user_input() -> Iterator[None]:
    """Until training starts, an error of value or file is the user's to mend: one line, no traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        if HydraConfig.get().mode == RunMode.RUN:
            sys.exit(errors.report(error))
        raise errors.InputError(errors.one_line(error)) from error  # one trial of a sweep: the others go on


def check(cfg: DictConfig) -> None:
    """Say everything that can be wrong with a configuration before anything is written.

    Components are built and tried at a size that costs nothing, so that what they refuse themselves counts too.
    """
    sweeper = HydraConfig.get().runtime.choices["hydra/sweeper"]
    if HydraConfig.get().mode == RunMode.RUN and sweeper != "basic":
        raise ValueError(f"hydra/sweeper={sweeper} sweeps and needs -m: python run.py -m ... (one run: =basic)")
    for key in cfg:
        if key not in config.Config.__annotations__:
            raise ValueError(f"unknown setting {key!r}: python run.py --help lists them all")
    if HydraConfig.get().mode == RunMode.RUN and cfg.seeds != 1:
        raise ValueError(f"seeds={cfg.seeds} repeats the trials of a sweep and needs -m: python run.py -m ...")
    settings = config.settings(cfg.train)
    config.settings(cfg.samples)
    config.check_component(cfg.tracking)

    from nanosq.data import corpus

    corpus.check(config.build(cfg.data.source), config.build(cfg.data.tokenizer), cache_dir=cfg.cache_dir)

    import torch  # takes a second: what can be told without has been told by now

    from nanosq import checkpoint, distributed, optim, resume
    from nanosq.data.batches import WINDOW_STARTS

    if job.current(cast(DictConfig, HydraConfig.get())) is not None and distributed.launched():
        raise ValueError("torchrun trains one model on several devices, -m trains several: use one of them")
    pick_hardware(cfg)
    vocab_size = 8
    with component("model"), torch.device("meta"):
        config.build(cfg.model, vocab_size)
    with component("optimizer"):
        config.build(cfg.optimizer)(optim.parameter_groups(torch.nn.Linear(1, 1)))
    with component("schedule"):
        build_schedule(cfg, settings)(0)
    with component("loss"):
        losses_N = config.build(cfg.loss)(torch.zeros(2, vocab_size), torch.tensor([0, 1]))
        if losses_N.shape != (2,):
            raise ValueError(f"{cfg.loss._target_} returns shape {tuple(losses_N.shape)}, not one loss for each token")
    if cfg.data.window not in WINDOW_STARTS:
        raise ValueError(f"data.window={cfg.data.window}: choose {' or '.join(WINDOW_STARTS)}")
    distributed.share(settings.accumulate, settings.batch_size)
    resumed = resume.find(cfg.resume, checkpoint_folder(cfg))
    if resumed is not None:
        identity.check_resumable(checkpoint.load(resumed)["settings"], identity.relevant_settings(cfg))
    elif cfg.init_from is not None:
        checkpoint.load(initial_weights(cfg))


@contextmanager
def component(group: str) -> Iterator[None]:
    """Name the group where a component's own complaint does not."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        if str(error).startswith(group):
            raise
        raise ValueError(f"{group}: {error}") from error


def prepare(cfg: DictConfig) -> Corpus:
    """The tokenised corpus, from the cache if it is there."""
    from nanosq.data import batches, corpus

    prepared = corpus.prepare(config.build(cfg.data.source), config.build(cfg.data.tokenizer), cache_dir=cfg.cache_dir)
    batches.check_block_size(prepared, cfg.model.block_size)
    return prepared


def recorded(cfg: DictConfig, corpus: Corpus, trial: job.TrialRun, report: job.PrunerReport) -> Result | None:
    """What this very trial of a sweep has come to before; None where it is to be trained."""
    if report.pruned_before:
        return Result("pruned")
    if cfg.resume != "auto":
        return None
    tracker = config.build(cfg.tracking)
    tags = identity_tags(cfg, corpus)
    result = tracker.find({**tags, "pruned": "false"}) or tracker.find({**tags, "pruned": "true", **trial.tags})
    if result is None:
        return None
    clear(checkpoint_folder(cfg))
    report.start(result.run_id, result.link)
    outcome = f"validation perplexity {float(result):.4f}" if result.state == "finished" else result.state
    print(f"{trial}: {outcome}, as recorded in {result.link}")
    return result


def identity_tags(cfg: DictConfig, corpus: Corpus) -> dict[str, str]:
    """The tags that tell one trial from another: what it is set to, the program, the text."""
    return {
        "config_hash": identity.config_hash(cfg),
        "code": identity.code_hash(cfg),
        "text": identity.text_hash(corpus),
    }


@dataclass
class Parts:
    """What a run is made of, once everything that can be wrong with it has been said."""

    state: State
    loss: Loss
    hardware: Hardware
    tracker: Tracker
    run_id: str  # of the tracker, or where it has none of the run that this one goes on with


def build(cfg: DictConfig, corpus: Corpus) -> Parts:
    """The parts of the run of a configuration, from its beginning or from where it was cut short."""
    import torch

    from nanosq import distributed, optim, resume
    from nanosq.hardware import keep_freed_memory
    from nanosq.losses import cross_entropy
    from nanosq.tracking import NoTracker
    from nanosq.train import Progress, State

    settings = config.settings(cfg.train)
    trial = job.current(cast(DictConfig, HydraConfig.get()))
    torch.manual_seed(cfg.seed)
    model = config.build(cfg.model, corpus.tokenizer.vocab_size)
    loss = config.build(cfg.loss)
    n_tokens = settings.max_steps * settings.accumulate * settings.batch_size * cfg.model.block_size
    # Compiling cross-entropy gains nothing: it is written by hand.
    n_logits = 0 if loss is cross_entropy else n_tokens * corpus.tokenizer.vocab_size
    hardware = pick_hardware(cfg, n_flops=n_tokens * model.flops_per_token, n_logits=n_logits)
    if hardware.device.type == "cpu":
        keep_freed_memory()
    if hardware.compile_loss:
        torch.compiler.reset()  # of a sweep's earlier trials: a function is compiled in eight versions at most
    model = model.to(hardware.device)
    optimizer = config.build(cfg.optimizer)(optim.parameter_groups(model))
    state = State(model, optimizer, hardware.scaler(), Progress())

    folder = checkpoint_folder(cfg)
    tags = {
        **identity_tags(cfg, corpus),
        "checkpoints": f"{socket.gethostname()}:{folder.resolve()}",
        "diverged": "false",
        "pruned": "false",
        "hardware": str(hardware),
        **(trial.tags if trial is not None else {}),
    }
    origin = resume.Origin()
    path = resume.find(cfg.resume, folder)
    if path is not None:
        origin = resume.go_on(
            state,
            path,
            corpus=corpus,
            config_hash=tags["config_hash"],
            max_steps=settings.max_steps,
            best=folder / "best.pt",
        )
        if origin.resumed_from is not None:
            tags["resumed_from"] = origin.resumed_from
    elif cfg.init_from is not None:
        resume.start_from(state, initial_weights(cfg), corpus=corpus)
    first = distributed.rank() == 0
    name = name_of() if trial is None else f"{trial} {name_of()}"
    tracker = config.build(cfg.tracking) if first else NoTracker()
    tracker.start(name, params=config.flatten(cfg), tags=tags, run_id=origin.run_id, anew=cfg.resume == "never")
    if origin.anew and first:
        clear(folder)
    return Parts(state, loss, hardware, tracker, tracker.run_id or origin.run_id)


def run(cfg: DictConfig, corpus: Corpus, parts: Parts, interruption: Interruption, report: job.PrunerReport) -> Result:
    """Train, evaluate, sample and record."""
    import torch

    from nanosq import artifacts as details
    from nanosq import checkpoint, distributed
    from nanosq.console import Console
    from nanosq.data import batches
    from nanosq.evaluate import evaluate
    from nanosq.generate import generate
    from nanosq.train import train

    settings = config.settings(cfg.train)
    state, tracker = parts.state, parts.tracker
    model, progress = state.model, state.progress
    first = distributed.rank() == 0  # of several processes, the one that speaks, records and saves
    micro_batches, rows = distributed.share(settings.accumulate, settings.batch_size)
    tokens_per_step = settings.accumulate * settings.batch_size * model.block_size
    folder = checkpoint_folder(cfg)
    last, best = folder / "last.pt", folder / "best.pt"
    config_yaml = OmegaConf.to_yaml(cfg, resolve=True)
    facts = {
        "architecture": config.arguments(cfg.model),
        "settings": identity.relevant_settings(cfg),
        "config_hash": identity.config_hash(cfg),
        "run_id": parts.run_id,
        **identity.text_identity(corpus),
    }

    def batch(index: int) -> tuple[Tensor, Tensor]:
        tokens_BT, targets_BT = batches.random_windows(
            corpus.train,
            block_size=model.block_size,
            batch_size=settings.batch_size,
            seed=cfg.seed,
            step=index,
            start=cfg.data.window,
        )
        return tokens_BT[rows], targets_BT[rows]

    def evaluation_batches(split: Split) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        # Without gradients, four times as many windows take no more memory.
        windows = batches.evaluation_windows(split, block_size=model.block_size, batch_size=4 * settings.batch_size)
        for window in islice(windows, distributed.rank(), None, distributed.world_size()):
            if distributed.world_size() == 1:  # several have different numbers of windows, and could not agree
                safe_point()
            yield window

    def score(split: Split) -> Evaluation:
        return evaluate(
            model,
            parts.loss,
            evaluation_batches(split),
            n_documents=len(split.document_bytes),
            n_bytes=split.n_bytes,
            log_probability=split.log_probability,
            hardware=parts.hardware,
        )

    def log(metrics: Mapping[str, float], step: int) -> None:
        tracker.log(metrics, step)
        console.log(metrics, step)
        report.evaluated(metrics, step)

    def save_last() -> None:
        if first:
            tracker.flush()
            checkpoint.save(last, {**facts, **state.snapshot()})

    def save_best() -> None:
        if first:
            checkpoint.save(best, {**facts, "model": model.state_dict()})

    def safe_point() -> None:
        """Leave the run where a signal asks for it, all processes at the same step."""
        if distributed.all_reduce(torch.tensor(float(interruption.received))) > 0:
            save_last()
            how = "the same command goes on from there" if cfg.resume == "auto" else f"go on with resume={last}"
            console.say(f"interrupted after step {progress.step}: {how}")
            interruption.end()

    trial = job.current(cast(DictConfig, HydraConfig.get()))
    label = str(trial) if trial is not None else ""
    with tracker, Console(settings.max_steps, first_step=progress.step, label=label, quiet=not first) as console:
        report.start(tracker.run_id, tracker.link)
        tracker.text(config_yaml, "config.yaml")
        n_parameters = sum(p.numel() for p in model.parameters())
        tracker.tag(parameters=str(n_parameters))
        console.say(
            trial.setting
            if trial is not None
            else f"{name_of()}: {n_parameters / 1e6:.2f}M parameters, vocabulary {corpus.tokenizer.vocab_size}, "
            f"{len(corpus.train.tokens):,} training tokens, {parts.hardware}"
        )
        if progress.step > 0:
            console.say(f"goes on after step {progress.step}")
        val: Score | None = None
        ended = "finished"
        try:
            val = train(
                state,
                parts.loss,
                schedule=build_schedule(cfg, settings),
                batch=batch,
                evaluate=lambda: score(corpus.val).score,
                log=log,
                save_best=save_best,
                save_last=save_last,
                safe_point=safe_point,
                max_steps=settings.max_steps,
                accumulate=settings.accumulate,
                clip_norm=settings.clip_norm,
                log_every=settings.log_every,
                eval_every=settings.eval_every,
                checkpoint_every=settings.checkpoint_every,
                patience=settings.patience,
                seed=(cfg.seed, rows.start or 0),
                hardware=parts.hardware,
                micro_batches=micro_batches,
            )
            if val is None:
                ended = "diverged"
                console.say(f"diverged after {progress.step} steps: loss, gradient or perplexity has exploded")
        except job.Pruned:
            ended = "pruned"
        metrics: dict[str, float] = {}
        if val is None:
            tracker.tag(**{ended: "true"})
        else:
            evaluation = score(corpus.test)
            test = evaluation.score
            figures = {
                **test.metrics("test"),
                "train/seconds": progress.seconds,
                "train/tokens": float(progress.step * tokens_per_step),
            }
            log(figures, progress.step)
            metrics = {**val.metrics("val"), **figures}
            if first:
                tracker.text(details.stories_csv(corpus.test, corpus.tokenizer, evaluation.document_nll), "stories.csv")
                tracker.text(details.calibration_csv(evaluation.bins), "calibration.csv")
                samples = generate(model, corpus.tokenizer, **config.arguments(cfg.samples), seed=cfg.seed)
                tracker.text("\n\n---\n\n".join(samples), "samples.txt")
                if trial is None:
                    console.report(val=val, test=test, samples=samples)
        kept = first and best.exists() and tracker.keep(best, "checkpoint")
    if first:  # the run is recorded as finished: nothing is left to go on from
        last.unlink(missing_ok=True)
        if kept:
            best.unlink()

    result = Result(cast("Ended", ended), metrics, tracker.run_id, tracker.link)
    if first:
        outcome = f"validation perplexity {float(result):.4f}"
        if ended == "pruned":
            outcome = f"pruned after {progress.step} steps"
        print(f"{trial}: {outcome}" if trial is not None else outcome)
        if tracker.table and trial is None:
            print(f"\nmlflow ui, then {tracker.table}")
    return result


def pick_hardware(cfg: DictConfig, **size: float) -> Hardware:
    from nanosq.hardware import Hardware, in_turn

    device, trial = cfg.device, job.current(cast(DictConfig, HydraConfig.get()))
    if device == "auto" and trial is not None and HydraConfig.get().runtime.choices["hydra/launcher"] == "joblib":
        device = in_turn(HydraConfig.get().job.num)  # Ray and Slurm give a job GPUs of its own
    return Hardware.pick(device=device, precision=cfg.precision, compile=cfg.compile, **size)


def checkpoint_folder(cfg: DictConfig) -> Path:
    return Path(cfg.checkpoint_dir) / identity.config_hash(cfg)


def clear(folder: Path) -> None:
    """Remove what an earlier run has left to go on from."""
    for name in ("last.pt", "best.pt"):
        (folder / name).unlink(missing_ok=True)


def initial_weights(cfg: DictConfig) -> Path:
    """The checkpoint that `init_from` names, by its path or by the id of its run."""
    from nanosq.resume import RUN_ID

    by_id = RUN_ID.fullmatch(cfg.init_from)
    return config.build(cfg.tracking).weights(cfg.init_from) if by_id else Path(cfg.init_from)


def build_schedule(cfg: DictConfig, settings: config.Train) -> Callable[[int], float]:
    steps = {"max_steps": settings.max_steps, "warmup": settings.warmup_steps}
    return config.build(cfg.schedule, **steps, min_lr_factor=settings.min_lr_factor)


def name_of() -> str:
    """What is trained: the loss, the model or the experiment, and the data."""
    choices = HydraConfig.get().runtime.choices
    return f"{choices['loss']} {choices.get('experiment') or choices['model']} {choices['data']}"


if __name__ == "__main__":
    # A polite kill ends like Ctrl-C: files closed, the MLflow run marked KILLED.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(errors.exit_status(main))
