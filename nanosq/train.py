"""The training loop."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nanosq.evaluate import Score
from nanosq.hardware import Hardware
from nanosq.head import Loss, head_loss
from nanosq.model import GPT


@dataclass
class Progress:
    """How far a run has come: kept in its checkpoints."""

    step: int = 0  # optimizer steps taken
    best_perplexity: float = math.inf  # the lowest validation perplexity so far


def train(
    model: GPT,
    loss: Loss,
    optimizer: Optimizer,
    *,
    schedule: Callable[[int], float],
    batch: Callable[[int], tuple[Tensor, Tensor]],
    evaluate: Callable[[], Score],
    log: Callable[[Mapping[str, float], int], None],
    save: Callable[[str], None],
    progress: Progress,
    max_steps: int,
    accumulate: int,
    clip_norm: float | None,
    log_every: int,
    eval_every: int,
    checkpoint_every: int | None,
    hardware: Hardware,
) -> Score | None:
    """Train from `progress` to `max_steps` and return the final validation score, or None if training diverged.

    schedule: step to a factor on every group's learning rate.
    batch: index of a micro-batch, counted over the whole run, to (tokens_BT, targets_BT).
    save: called with "best" after the best evaluation so far and with "last" every `checkpoint_every` steps.

    A step whose objective or gradient norm is not finite ends the run before it touches the weights.
    """
    forward = torch.compile(model) if hardware.compile else model
    scheduler = LambdaLR(optimizer, schedule, last_epoch=progress.step - 1)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    score = None
    n_tokens, seconds = 0, 0.0  # since the last log line, evaluation left out
    model.train()
    while progress.step < max_steps:
        begin = time.perf_counter()
        lr = scheduler.get_last_lr()[0]
        objective = nll = torch.zeros((), device=hardware.device)
        for index in range(progress.step * accumulate, (progress.step + 1) * accumulate):
            tokens_BT, targets_BT = (t.to(hardware.device, non_blocking=True) for t in batch(index))
            with hardware.autocast():
                hidden_BTD = forward(tokens_BT)
                micro_objective, micro_nll = head_loss(
                    loss, hidden_BTD, model.head_weight, targets_BT, compile=hardware.compile_loss
                )
            (micro_objective / accumulate).backward()
            objective = objective + micro_objective.detach() / accumulate
            nll = nll + micro_nll / accumulate
            n_tokens += targets_BT.numel()
        grad_norm = clip_grad_norm_(parameters, math.inf if clip_norm is None else clip_norm)
        if not torch.isfinite(objective + grad_norm):
            return None
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        progress.step += 1
        seconds += time.perf_counter() - begin

        last = progress.step == max_steps
        if progress.step % log_every == 0 or last:
            log(
                {
                    "train/loss": float(objective),
                    "train/nll": float(nll),
                    "train/grad_norm": float(grad_norm),
                    "train/lr": float(lr),
                    "train/tokens_per_second": n_tokens / seconds,
                },
                progress.step,
            )
            n_tokens, seconds = 0, 0.0
        if progress.step % eval_every == 0 or last:
            score = evaluate()
            if not math.isfinite(score.perplexity):
                return None
            if score.perplexity < progress.best_perplexity:
                progress.best_perplexity = score.perplexity
                save("best")
            log({**score.metrics("val"), "best/val_perplexity": progress.best_perplexity}, progress.step)
        if checkpoint_every is not None and progress.step % checkpoint_every == 0 and not last:
            save("last")
    return score
