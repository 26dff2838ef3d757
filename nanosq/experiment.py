"""Everything that a configuration says about a run, looked up and checked before anything is written."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from nanosq import config, distributed, identity, initial_weights, memory, optim, pretrained, start
from nanosq.component_check import (
    OPTIMIZER,
    check_kind,
    check_model,
    check_optimizer,
    check_schedule,
    check_tokenizer,
)
from nanosq.component_errors import calling
from nanosq.data import batches, corpus
from nanosq.data.corpus import Corpus
from nanosq.description import Description
from nanosq.hardware import Hardware, round_robin_device
from nanosq.loss_check import check_loss
from nanosq.losses import Loss
from nanosq.schema import Config
from nanosq.settings import SampleSettings, TrainSettings
from nanosq.start import Start
from nanosq.sweeps.trial import TrialRun
from nanosq.tracking import Store

SMALL_VOCABULARY = 8  # for trying out components


@dataclass(frozen=True)
class Experiment:
    """Everything that a configuration says about a run, looked up once."""

    cfg: Config
    description: Description
    trial: TrialRun | None  # of a sweep
    settings: TrainSettings
    samples: SampleSettings
    source: Any
    tokenizer: Any
    loss: Loss
    schedule: Callable[[int], float]
    store: Store
    device: str
    config_hash: str
    code: str  # hash of the code
    start: Start
    folder: Path  # of checkpoints

    def pick_hardware(self, **size: Any) -> Hardware:
        """Resolve device, precision and compilation; `size` is that of the run, as for `Hardware.pick`."""
        cfg = self.cfg
        return Hardware.pick(device=self.device, precision=cfg.precision, compile=cfg.compile, loss=self.loss, **size)

    def build_model(self, vocab_size: int) -> Any:
        """Return a new model."""
        return config.build("model", self.cfg.model, vocab_size)

    def count_parameters(self, vocab_size: int) -> int:
        """Return the number of parameters of the model, without building it in memory."""
        with torch.device("meta"):
            return sum(p.numel() for p in self.build_model(vocab_size).parameters())

    def build_optimizer(self, model: torch.nn.Module, hardware: Hardware) -> torch.optim.Optimizer:
        """Return a new optimizer. One that multiplies matrices is told in which type."""
        optimizer = config.build("optimizer", self.cfg.optimizer)
        extra = {"matmul_dtype": hardware.matmul_dtype} if config.takes(optimizer, "matmul_dtype") else {}
        with calling(self.cfg.optimizer._target_, OPTIMIZER):
            return cast(torch.optim.Optimizer, optimizer(optim.parameter_groups(model), **extra))

    def ignores_min_lr_factor(self) -> bool:
        """Return whether train.min_lr_factor is set although the schedule does not read it."""
        if self.settings.min_lr_factor == 0:
            return False
        last, without = self.settings.max_steps - 1, _build_schedule(self.cfg, replace(self.settings, min_lr_factor=0))
        return bool(self.schedule(last) == without(last))

    def identity_tags(self, text: Corpus) -> dict[str, str]:
        """Return the tags that identify a trial: its settings, the code and the text."""
        return {"config_hash": self.config_hash, "code": self.code, "text": identity.text_hash(text)}


def check(
    cfg: Any, *, description: Description, trial: TrialRun | None = None, job_number: int | None = None
) -> Experiment:
    """Look up what a configuration says, and check all that can be wrong with it, before anything is written.

    Components are built and tried at a size that costs nothing, so that their own checks run too.

    Args:
        cfg: The configuration: a Config as Hydra composes it.
        description: What the run is, for the tracking store.
        trial: The trial of a sweep that this run belongs to.
        job_number: Number of this run among those that share the GPUs of this machine.

    Raises:
        ValueError: Something is wrong; the message says what to change.
    """
    settings, samples = config.settings(cfg.train), config.settings(cfg.samples)
    with _named("tracking"):
        store = config.build("tracking", cfg.tracking)
        check_kind(store, cfg.tracking._target_, Store, "a store is a subclass of nanosq.tracking.Store")
    with _named("data.tokenizer"):
        tokenizer = config.build("data.tokenizer", cfg.data.tokenizer)
        check_tokenizer(tokenizer, cfg.data.tokenizer._target_)
    with _named("data.source"):
        source = config.build("data.source", cfg.data.source)
        corpus.check(source, tokenizer, cache_dir=cfg.cache_dir)
    if trial is not None and distributed.launched():
        raise ValueError("torchrun trains one model on several devices, -m trains several: use one of them")
    if cfg.data.window not in batches.WINDOW_STARTS:
        raise ValueError(f"data.window={cfg.data.window}: choose {' or '.join(batches.WINDOW_STARTS)}")
    distributed.share_of_step(settings.accumulate, settings.batch_size)
    with _named("schedule"):
        schedule = _build_schedule(cfg, settings)
        check_schedule(schedule, cfg.schedule._target_, max_steps=settings.max_steps)
    with _named("loss"):
        loss = config.build("loss", cfg.loss)
        check_loss(loss, cfg.loss._target_)
    code = identity.code_hash(cfg)
    cfg, found = start.find(cfg, store, code)
    config_hash = identity.config_hash(cfg, parent=found.parent)
    experiment = Experiment(
        cfg=cfg,
        description=description,
        trial=trial,
        settings=settings,
        samples=samples,
        source=source,
        tokenizer=tokenizer,
        loss=loss,
        schedule=schedule,
        store=store,
        device=cfg.device if job_number is None or cfg.device != "auto" else round_robin_device(job_number),
        config_hash=config_hash,
        code=code,
        start=found,
        folder=Path(cfg.checkpoint_dir) / config_hash,
    )
    _check_together(experiment)
    if trial is None:  # a sweep has checked it once: its trials go on if the store cannot be reached any more
        store.check()
    return experiment


def _check_together(experiment: Experiment) -> None:
    """Check what depends on several components: the memory, the model and its weights, the optimizer, and the text."""
    cfg, weights, tokenizer = experiment.cfg, experiment.start.weights, experiment.tokenizer
    hardware = experiment.pick_hardware()
    _check_memory(experiment, hardware)
    with _named("model"), torch.device("meta"):
        if "block_size" not in cfg.model:
            raise ValueError("model.block_size is missing: set it also where the model has a default")
        vocab_size = SMALL_VOCABULARY if weights is None else weights.tokenizer.vocab_size
        model = experiment.build_model(vocab_size)
        check_model(model, cfg.model._target_, vocab_size)
    if weights is not None:
        initial_weights.check_weights(weights, model, tokenizer)
    with _named("optimizer"):
        build = partial(experiment.build_optimizer, hardware=hardware)
        check_optimizer(build, cfg.optimizer._target_, device=hardware.device)
    with _named("data.source"):
        n_tokens = cfg.model.block_size + 1
        corpus.check_size(experiment.source, tokenizer, cache_dir=cfg.cache_dir, n_tokens=n_tokens)


def _check_memory(experiment: Experiment, hardware: Hardware) -> None:
    """Refuse a GPT that does not fit into the memory of its device, before it is built: even that may take long."""
    cfg, available = experiment.cfg, hardware.memory()
    if cfg.model._target_ != pretrained.TARGET:
        return
    config.check_component("model", cfg.model)
    model, tokenizer = (config.arguments(section) for section in (cfg.model, cfg.data.tokenizer))
    sizes = {name: model[name] for name in ("n_layer", "n_embd", "block_size")}
    _, rows = distributed.share_of_step(cfg.train.accumulate, cfg.train.batch_size)
    n_windows = len(range(cfg.train.batch_size)[rows])
    pad_to = tokenizer.get("pad_to")
    memory.check(memory.needs(**sizes, n_windows=n_windows, vocab_size=pad_to, available=available), available)


def _build_schedule(cfg: Config, settings: TrainSettings) -> Callable[[int], float]:
    steps = {"max_steps": settings.max_steps, "warmup": settings.warmup_steps}
    built = config.build("schedule", cast(Any, cfg.schedule), **steps, min_lr_factor=settings.min_lr_factor)
    return cast(Callable[[int], float], built)


NAMED = re.compile(r"[a-z]\w*(\.\w+)*[:=]")  # the beginning of a message that names a key already


@contextmanager
def _named(group: str) -> Iterator[None]:
    """Name the group in an error of a component that does not name it itself."""
    try:
        yield
    except ValueError as error:
        if NAMED.match(str(error)):
            raise
        raise ValueError(f"{group}: {error}") from error
