"""Train one model: compose -> check -> build -> train -> track -> return its validation perplexity.

python run.py loss=squentropy                     one run
python run.py -m hydra/sweeper=grid               a sweep
python run.py --help                              every setting
"""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from nanosq import config

if TYPE_CHECKING:
    from torch import Tensor

    from nanosq.console import Console
    from nanosq.data.corpus import Corpus, Split
    from nanosq.evaluate import Score
    from nanosq.hardware import Hardware

# torch, MLflow and what needs them are imported inside the functions: --help and shell completion answer without.

config.register()


@hydra.main(config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    """Returns the validation perplexity of the trained model, inf if training diverged."""
    with user_input():
        check(cfg)
        corpus = prepare(cfg)
    return run(cfg, corpus)


@contextmanager
def user_input() -> Iterator[None]:
    """Until training starts, an error of value or file is the user's to mend: one line, no traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        if HydraConfig.get().mode == RunMode.RUN:
            sys.exit(config.report(error))
        raise config.InputError(config.one_line(error)) from error  # one trial of a sweep: the others go on


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
    settings = config.settings(cfg.train)
    config.settings(cfg.samples)
    config.check_component(cfg.tracking)

    from nanosq.data import corpus

    corpus.check(config.build(cfg.data.source), config.build(cfg.data.tokenizer), cache_dir=cfg.cache_dir)

    import torch  # takes a second: what can be told without has been told by now

    from nanosq import checkpoint, optim
    from nanosq.data.batches import WINDOW_STARTS

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
    if cfg.resume is not None:
        checkpoint.load(cfg.resume)


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


def run(cfg: DictConfig, corpus: Corpus) -> float:
    """Build, train, evaluate, sample and record."""
    import torch

    from nanosq import checkpoint, optim
    from nanosq.console import Console
    from nanosq.data import batches
    from nanosq.evaluate import evaluate
    from nanosq.generate import generate
    from nanosq.train import Progress, train

    settings = config.settings(cfg.train)
    n_tokens = settings.max_steps * settings.accumulate * settings.batch_size * cfg.model.block_size
    hardware = pick_hardware(cfg, n_logits=n_tokens * corpus.tokenizer.vocab_size)
    if hardware.compile_loss:
        torch.compiler.reset()  # of a sweep's earlier trials: a function is compiled in eight versions at most
    progress = Progress()
    with user_input():
        torch.manual_seed(cfg.seed)
        model = config.build(cfg.model, corpus.tokenizer.vocab_size).to(hardware.device)
        loss = config.build(cfg.loss)
        optimizer = config.build(cfg.optimizer)(optim.parameter_groups(model))
        checkpoints = Path(cfg.checkpoint_dir) / config.config_hash(cfg)
        checkpoints.mkdir(parents=True, exist_ok=True)
        if cfg.resume is None:
            (checkpoints / "best.pt").unlink(missing_ok=True)  # of an earlier run of this configuration, cut short
        else:
            state = checkpoint.load(cfg.resume)
            config.check_resumable(cfg, state["config"])
            if state["tokenizer"] != corpus.tokenizer.state():
                raise ValueError(f"{cfg.resume} was trained on another text: its vocabulary is not that of data")
            checkpoint.restore(state, model, optimizer)
            progress = Progress(**state["progress"])
            if progress.step >= settings.max_steps:
                raise ValueError(f"{cfg.resume} is at step {progress.step} already: raise train.max_steps")
            if not (checkpoints / "best.pt").exists():  # train.max_steps was raised, which makes it another run
                progress.best_perplexity = math.inf
        tags = {"config_hash": config.config_hash(cfg), "diverged": "false", "hardware": str(hardware), **trial()}
        tracker = config.build(cfg.tracking).start(run_name(), params=config.flatten(cfg), tags=tags)
    config_yaml = OmegaConf.to_yaml(cfg, resolve=True)

    def batch(index: int) -> tuple[Tensor, Tensor]:
        return batches.random_windows(
            corpus.train,
            block_size=model.block_size,
            batch_size=settings.batch_size,
            seed=cfg.seed,
            step=index,
            start=cfg.data.window,
        )

    def score(split: Split) -> Score:
        # Without gradients, four times as many windows take no more memory.
        windows = batches.evaluation_windows(split, block_size=model.block_size, batch_size=4 * settings.batch_size)
        return evaluate(
            model, loss, windows, n_bytes=split.n_bytes, log_probability=split.log_probability, hardware=hardware
        )

    def log(metrics: Mapping[str, float], step: int) -> None:
        tracker.log(metrics, step)
        console.log(metrics, step)

    def save(name: str) -> None:
        state = {
            "architecture": config.arguments(cfg.model),
            "tokenizer": corpus.tokenizer.state(),
            "config": config_yaml,
            "progress": asdict(progress),
        }
        state |= checkpoint.snapshot(model, optimizer) if name == "last" else {"model": model.state_dict()}
        checkpoint.save(checkpoints / f"{name}.pt", state)

    with tracker, Console(settings.max_steps, first_step=progress.step) as console:
        tracker.text(config_yaml, "config.yaml")
        console.say(
            f"{run_name()}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters, "
            f"vocabulary {corpus.tokenizer.vocab_size}, {len(corpus.train.tokens):,} training tokens, {hardware}"
        )
        with resumable(checkpoints / "last.pt", console):
            val = train(
                model,
                loss,
                optimizer,
                schedule=build_schedule(cfg, settings),
                batch=batch,
                evaluate=lambda: score(corpus.val),
                log=log,
                save=save,
                progress=progress,
                max_steps=settings.max_steps,
                accumulate=settings.accumulate,
                clip_norm=settings.clip_norm,
                log_every=settings.log_every,
                eval_every=settings.eval_every,
                checkpoint_every=settings.checkpoint_every,
                hardware=hardware,
            )
        if val is None:
            tracker.tag(diverged="true")
            console.say(f"diverged after {progress.step} steps: loss, gradient or perplexity is no longer finite")
        else:
            test = score(corpus.test)
            log(test.metrics("test"), progress.step)
            samples = generate(model, corpus.tokenizer, **config.arguments(cfg.samples), seed=cfg.seed)
            tracker.text("\n\n---\n\n".join(samples), "samples.txt")
            console.report(val=val, test=test, samples=[] if trial() else samples)
        if (checkpoints / "best.pt").exists():
            tracker.keep(checkpoints / "best.pt", "checkpoint")
        (checkpoints / "last.pt").unlink(missing_ok=True)
        with suppress(OSError):
            checkpoints.rmdir()  # where nothing is left in it

    perplexity = math.inf if val is None else val.perplexity
    print(f"validation perplexity {perplexity:.4f}")
    if tracker.link and not trial():
        print(f"\nmlflow ui, then {tracker.link}")
    return perplexity


@contextmanager
def resumable(last: Path, console: Console) -> Iterator[None]:
    """Tell whoever interrupts a run how to go on with it."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        how = f"go on with resume={last}" if last.exists() else "train.checkpoint_every had saved nothing to resume yet"
        console.say(f"interrupted: {how}")
        raise


def pick_hardware(cfg: DictConfig, *, n_logits: int = 0) -> Hardware:
    from nanosq.hardware import Hardware

    return Hardware.pick(device=cfg.device, precision=cfg.precision, compile=cfg.compile, n_logits=n_logits)


def build_schedule(cfg: DictConfig, settings: config.Train) -> Callable[[int], float]:
    steps = {"max_steps": settings.max_steps, "warmup": settings.warmup_steps}
    return config.build(cfg.schedule, **steps, min_lr_factor=settings.min_lr_factor)


def trial() -> dict[str, str]:
    """The tags of a trial in a sweep: which sweep, which number; empty for a single run."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN:
        return {}
    return {"sweep": Path(hydra_config.sweep.dir).name, "trial": str(hydra_config.job.num)}


def run_name() -> str:
    choices = HydraConfig.get().runtime.choices
    model = choices.get("experiment") or choices["model"]
    number = f"#{trial()['trial']} " if trial() else ""
    return f"{number}{choices['loss']} {model} {choices['data']}"


if __name__ == "__main__":
    # A polite kill ends like Ctrl-C: files closed, the MLflow run marked KILLED.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(config.main(main))
