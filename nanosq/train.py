"""The training loop."""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from nanosq import distributed
from nanosq.data.batches import prefetched
from nanosq.evaluate import Score
from nanosq.hardware import Hardware
from nanosq.head import Loss, head_loss
from nanosq.model import GPT
from nanosq.optim import Muon

# A training step whose nll is so many times that of a uniform guess has exploded: nothing comes back from there.
EXPLODED = 10.0


@dataclass
class Progress:
    """How far a run has come: kept in its checkpoints."""

    step: int = 0  # optimizer steps taken
    evaluated: int = 0  # the step of the last evaluation
    best_perplexity: float = math.inf  # the lowest validation perplexity so far
    since_best: int = 0  # evaluations since then
    seconds: float = 0.0  # that these steps have taken, evaluation left out


@dataclass
class State:
    """All that training changes. Random numbers are no part of it: they follow from the seed and the step."""

    model: GPT
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress

    def snapshot(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Undo what training has changed since; ValueError for weights alone or for those of another model."""
        if "optimizer" not in snapshot:
            raise ValueError("the checkpoint holds weights alone: init_from=... starts from them")
        self.restore_weights(snapshot)
        try:
            self.optimizer.load_state_dict(snapshot["optimizer"])
        except ValueError as error:
            raise ValueError("the checkpoint belongs to another model or optimizer") from error
        if snapshot["scaler"] and self.scaler.is_enabled():  # not where either ran in another precision
            self.scaler.load_state_dict(snapshot["scaler"])
        self.progress = Progress(**snapshot["progress"])

    def restore_weights(self, snapshot: Mapping[str, Any]) -> None:
        try:
            self.model.load_state_dict(snapshot["model"])
        except RuntimeError as error:
            raise ValueError("the checkpoint belongs to another model or vocabulary") from error


class Objective(nn.Module):
    """(tokens_BT, targets_BT) -> mean objective, mean nll: the part of a step that is differentiated."""

    def __init__(self, model: GPT, loss: Loss, hardware: Hardware) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.hardware = hardware
        self.hidden = torch.compile(model) if hardware.compile else model

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        with self.hardware.autocast():
            hidden_BTD = self.hidden(tokens_BT)
            compile = self.hardware.compile_loss
            return head_loss(self.loss, hidden_BTD, self.model.head_weight, targets_BT, compile=compile)


def train(
    state: State,
    loss: Loss,
    *,
    schedule: Callable[[int], float],
    batch: Callable[[int], tuple[Tensor, Tensor]],
    evaluate: Callable[[], Score],
    log: Callable[[Mapping[str, float], int], None],
    save_best: Callable[[], None],
    save_last: Callable[[], None],
    safe_point: Callable[[], None],
    max_steps: int,
    accumulate: int,
    clip_norm: float | None,
    log_every: int,
    eval_every: int,
    checkpoint_every: int | None,
    patience: int | None,
    seed: Sequence[int],
    hardware: Hardware,
    micro_batches: slice = slice(None),
) -> Score | None:
    """Train until `max_steps` and return the score of the last evaluation, or None where training diverged.

    schedule: from a step (from 0) to the factor on the learning rate.
    batch: from the number of a micro-batch, counted over the whole run, to (tokens_BT, targets_BT).
    save_best: called after the best evaluation so far.
    save_last: called every `checkpoint_every` steps.
    safe_point: called where weights and `progress` belong together; it may raise, and the run can be taken up there.
    patience: evaluations without a lower validation perplexity after which training ends; None: never.
    seed: with the number of a micro-batch, what its random numbers follow from, as those of dropout.
    micro_batches: which of the `accumulate` of a step this process takes, where there are several processes.

    A step whose objective or gradient norm is not finite, or whose nll explodes, ends the run before it touches the
    weights. On a GPU, which a look at them would hold up, it does so at the next step that is logged, evaluated or due
    for a checkpoint.
    """
    model, optimizer, scaler, progress = state.model, state.optimizer, state.scaler, state.progress
    objective = distributed.data_parallel(Objective(model, loss, hardware))
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])  # a restored optimizer has it
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    mine = range(accumulate)[micro_batches]
    most_nll = EXPLODED * math.log(len(model.head_weight))
    n_tokens, seconds = 0, 0.0  # since the last log line, evaluation left out

    def due(step: int, every: int | None) -> bool:
        return every is not None and step % every == 0

    def indices() -> Iterator[int]:
        for step in range(progress.step, max_steps):
            yield from (step * accumulate + index for index in mine)

    model.train()
    with closing(prefetched(batch, indices(), hardware.device)) as batches:
        while True:
            ended = progress.step == max_steps or (patience is not None and progress.since_best >= patience)
            if ended or (due(progress.step, eval_every) and progress.evaluated < progress.step):
                score = evaluate()
                if not math.isfinite(score.perplexity):
                    return None
                if progress.evaluated < progress.step:
                    progress.evaluated = progress.step
                    progress.since_best += 1
                    if score.perplexity < progress.best_perplexity:
                        progress.best_perplexity, progress.since_best = score.perplexity, 0
                        save_best()
                log({**score.metrics("val"), "best/val_perplexity": progress.best_perplexity}, progress.step)
                if ended or (patience is not None and progress.since_best >= patience):
                    return score
            if progress.step > 0 and due(progress.step, checkpoint_every):
                save_last()

            begin = time.perf_counter()
            means = torch.zeros(2, device=hardware.device)  # objective, nll
            for index in mine:
                safe_point()
                tokens_BT, targets_BT = next(batches)
                _seed(seed, progress.step * accumulate + index)
                with _unsynchronized(objective) if index != mine[-1] else nullcontext():
                    micro_objective, micro_nll = objective(tokens_BT, targets_BT)
                    scaler.scale(micro_objective / len(mine)).backward()
                means += torch.stack([micro_objective.detach(), micro_nll]) / len(mine)
                n_tokens += targets_BT.numel() * distributed.world_size()
            means = distributed.all_reduce(means) / distributed.world_size()
            scaler.unscale_(optimizer)
            grad_norm = clip_grad_norm_(parameters, math.inf if clip_norm is None else clip_norm)
            step = progress.step + 1
            logged = due(step, log_every) or step == max_steps
            checked = hardware.device.type == "cpu" or logged or due(step, eval_every) or due(step, checkpoint_every)
            if checked and not _sound(means, grad_norm, most_nll, scaler):
                return None
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(progress.step)
            # An optimizer's arithmetic is float32, but for the matrices that Muon multiplies.
            with hardware.autocast() if isinstance(optimizer, Muon) else nullcontext():
                scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            progress.step = step
            elapsed = time.perf_counter() - begin
            seconds += elapsed
            progress.seconds += elapsed
            if logged:
                train_loss, train_nll = means.tolist()
                peak = hardware.peak_flops * distributed.world_size()
                log(
                    {
                        "train/loss": train_loss,
                        "train/nll": train_nll,
                        "train/grad_norm": float(grad_norm),
                        "train/lr": optimizer.param_groups[0]["lr"],
                        "train/seconds": progress.seconds,
                        "train/tokens_per_second": n_tokens / seconds,
                        "train/mfu": n_tokens / seconds * model.flops_per_token / peak,
                    },
                    step,
                )
                n_tokens, seconds = 0, 0.0


def _seed(seed: Sequence[int], micro_batch: int) -> None:
    """Make random numbers the same after an interruption, and on whichever process the micro-batch is computed."""
    mixed = int(np.random.SeedSequence([*map(abs, seed), micro_batch]).generate_state(1)[0])
    torch.manual_seed(mixed)
    np.random.seed(mixed)
    random.seed(mixed)


def _unsynchronized(objective: nn.Module) -> AbstractContextManager[None]:
    """Leave the exchange of gradients to a later micro-batch."""
    return objective.no_sync() if isinstance(objective, DistributedDataParallel) else nullcontext()


def _sound(means: Tensor, grad_norm: Tensor, most_nll: float, scaler: torch.amp.GradScaler) -> bool:
    if scaler.is_enabled():  # an infinite gradient is met by a lower scale, until that is none any more
        return bool(means.isfinite().all() & (means[1] < most_nll)) and scaler.get_scale() >= 1
    return bool(means.isfinite().all() & (means[1] < most_nll) & grad_norm.isfinite())
