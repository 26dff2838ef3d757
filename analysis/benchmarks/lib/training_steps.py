"""One training step at a fixed shape, by nanoGPT and by nanosq: forward, backward, clipping, optimizer.

Shape suffixes: B batch, T time, V vocabulary.
"""

import gc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR

from analysis.benchmarks.lib.loss_methods import LOSSES
from analysis.benchmarks.lib.measure import seconds, synchronize
from analysis.benchmarks.lib.memory import limit_memory, memory_meter
from analysis.benchmarks.lib.nanogpt import Checkout, WithListing, silence
from nanosq.hardware import Hardware, keep_freed_memory
from nanosq.model import GPT
from nanosq.optim import parameter_groups
from nanosq.train import LossModule

# (tokens_BT, targets_BT) -> the mean objective before the step
Step = Callable[[Tensor, Tensor], Tensor]

LR, BETAS, WEIGHT_DECAY, CLIP_NORM = 6e-4, (0.9, 0.95), 0.1, 1.0  # nanoGPT's defaults for GPT-2


@dataclass(frozen=True)
class Shape:
    """The sizes of a model and of its batches."""

    n_layer: int
    n_head: int
    n_embd: int
    vocab_size: int
    batch_size: int
    block_size: int

    def __str__(self) -> str:
        return (
            f"{self.n_layer} layers, {self.n_head} heads, D={self.n_embd}, V={self.vocab_size:,}, "
            f"{self.tokens:,} tokens a step ({self.batch_size} x {self.block_size})"
        )

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.batch_size * self.block_size

    @property
    def sizes(self) -> dict[str, Any]:
        """Arguments of the model, which have the same names in both projects."""
        names = ("n_layer", "n_head", "n_embd", "vocab_size", "block_size")
        return {**{name: getattr(self, name) for name in names}, "bias": False, "dropout": 0.0}

    @property
    def flops(self) -> float:
        """Floating-point operations of a step, attention included."""
        with torch.device("meta"):
            return GPT(**self.sizes).flops_per_token * self.tokens

    @property
    def matrix_flops(self) -> float:
        """6 N for each token of a step, where N counts the parameters without position embeddings."""
        return self.flops - 12 * self.n_layer * self.n_embd * self.block_size * self.tokens


SHAPES = {
    "tiny": Shape(n_layer=2, n_head=4, n_embd=128, vocab_size=1644, batch_size=4, block_size=256),
    "wide": Shape(n_layer=6, n_head=8, n_embd=256, vocab_size=50_304, batch_size=8, block_size=256),
    "gpt2": Shape(n_layer=12, n_head=12, n_embd=768, vocab_size=50_304, batch_size=4, block_size=1024),
    "gpt2-small": Shape(n_layer=12, n_head=12, n_embd=768, vocab_size=50_304, batch_size=1, block_size=128),
}


class MeasuredTrainer(NamedTuple):
    """A project with a loss on a device."""

    project: str  # nanoGPT or nanosq
    loss: str  # cross_entropy or squentropy: nanoGPT's squentropy is Listing A.2 of the report
    hardware: Hardware

    def __str__(self) -> str:
        listing = self.project == "nanoGPT" and self.loss == "squentropy"
        return f"{self.project} {'Listing A.2' if listing else self.loss}, {self.hardware}"


def batches(shape: Shape, count: int, *, device: torch.device, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Return tokens and targets of `count` steps, in a language that can be learned.

    Half of the tokens are a fixed function of the token before, the others are drawn by Zipf's law.
    """
    rng = np.random.default_rng(seed)
    V, shape_BT = shape.vocab_size, (count, shape.batch_size, shape.block_size + 1)
    follows_V = rng.permutation(V)
    cumulative_V = np.cumsum(1 / np.arange(1, V + 1))
    tokens = np.searchsorted(cumulative_V, rng.random(shape_BT) * cumulative_V[-1]).clip(max=V - 1)
    follows = rng.random(shape_BT) < 0.5
    for t in range(1, shape.block_size + 1):
        tokens[..., t] = np.where(follows[..., t], follows_V[tokens[..., t - 1]], tokens[..., t])
    windows = torch.from_numpy(tokens).to(device)
    return [(window[:, :-1].contiguous(), window[:, 1:].contiguous()) for window in windows]


def nanogpt_step(model: Any, contender: MeasuredTrainer, *, schedule: Callable[[int], float] = lambda _: LR) -> Step:
    """Return a step like that of nanoGPT's train.py, with its optimizer; `schedule` maps steps to learning rates."""
    device = contender.hardware.device.type
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    with silence():
        optimizer = model.configure_optimizers(WEIGHT_DECAY, LR, BETAS, device)
    objective = model if contender.loss == "cross_entropy" else WithListing(model)
    if contender.hardware.compile:
        objective = torch.compile(objective)
    n_steps = 0

    def step(tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        nonlocal n_steps
        for group in optimizer.param_groups:
            group["lr"] = schedule(n_steps)
        n_steps += 1
        with contender.hardware.autocast():
            _logits_BTV, loss = objective(tokens_BT, targets_BT)  # the logits stay in memory as in train.py
        loss.backward()
        clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def nanosq_step(model: GPT, contender: MeasuredTrainer, *, schedule: Callable[[int], float] = lambda _: 1.0) -> Step:
    """Return a step like that of nanosq/train.py, with AdamW; `schedule` maps steps to factors on the learning rate."""
    hardware, loss = contender.hardware, LOSSES[contender.loss]
    if hardware.device.type == "cpu":
        keep_freed_memory()
    groups = parameter_groups(model)
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    scheduler = LambdaLR(optimizer, schedule)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    objective = LossModule(model, loss, hardware)

    def step(tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        mean, _ = objective(tokens_BT, targets_BT)
        mean.backward()
        clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        return mean.detach()

    return step


def build_step(contender: MeasuredTrainer, shape: Shape, checkout: Checkout) -> Step:
    """Return a step of a new model."""
    device = contender.hardware.device
    torch.manual_seed(0)
    if contender.project == "nanoGPT":
        return nanogpt_step(checkout.model(**shape.sizes).to(device), contender)
    return nanosq_step(GPT(**shape.sizes).to(device), contender)


class Measured(NamedTuple):
    """The time of one step, and the peak memory so far beyond what the process had before the model was built."""

    seconds: float
    peak_bytes: int


class Worker:
    """A process that trains one contender and takes a step when it is asked to; RuntimeError if memory is too small."""

    def __init__(self, contender: MeasuredTrainer, shape: Shape, folder: Path) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        self._arguments = contender, shape, folder

    def step(self) -> Measured:
        """Take a step; the first one builds the model."""
        return self._pool.submit(_measure_step, *self._arguments).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


_built: list[Callable[[], Measured]] = []  # in a worker's process: its step, once it is built


def _measure_step(contender: MeasuredTrainer, shape: Shape, folder: Path) -> Measured:
    if not _built:
        _built.append(_build(contender, shape, Checkout(folder)))
    return _built[0]()


def _build(contender: MeasuredTrainer, shape: Shape, checkout: Checkout) -> Callable[[], Measured]:
    device = contender.hardware.device
    if device.type == "cpu":
        limit_memory()
    # A step of a small model loads libraries. It is not compiled: that would be one more version for another shape.
    plain = contender._replace(hardware=replace(contender.hardware, compile=False, compile_loss=False))
    small = replace(SHAPES["tiny"], batch_size=1, block_size=32)
    build_step(plain, small, checkout)(*batches(small, 1, device=device)[0])
    gc.collect()
    peak = memory_meter(device)
    step = build_step(contender, shape, checkout)
    (batch,) = batches(shape, 1, device=device)

    def run() -> None:
        step(*batch)
        synchronize(device)

    return lambda: Measured(seconds(run), peak())
