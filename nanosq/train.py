"""The training loop."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from nanosq import distributed
from nanosq.data.batches import TrainingBatches
from nanosq.evaluation import Score
from nanosq.hardware import Hardware
from nanosq.head import head_loss
from nanosq.losses import Loss
from nanosq.model import GPT
from nanosq.settings import TrainSettings

if TYPE_CHECKING:
    from nanosq.run_log import RunLog

# A training step whose nll is this many times that of a uniform guess has diverged: no run recovers from there.
DIVERGENCE_FACTOR = 10.0


@dataclass
class Progress:
    """How far a run is. Checkpoints hold it."""

    step: int = 0  # optimizer steps taken
    evaluated: int = 0  # step of the last evaluation
    best_perplexity: float = math.inf  # lowest validation perplexity so far
    best_step: int = 0  # its step
    since_best: int = 0  # evaluations since then
    seconds: float = 0.0  # time of these steps without evaluation

    def has_ended(self, settings: TrainSettings) -> bool:
        """Return whether the run has all its steps, or is stopped early."""
        is_patient = settings.patience is None or self.since_best < settings.patience
        return self.step == settings.max_steps or not is_patient

    def record(self, score: Score) -> None:
        """Update the best perplexity with the score of this step, once."""
        if self.evaluated == self.step:
            return
        self.evaluated = self.step
        self.since_best += 1
        if score.perplexity < self.best_perplexity:
            self.best_perplexity, self.best_step, self.since_best = score.perplexity, self.step, 0


@dataclass
class TrainState:
    """Everything that training changes. Random numbers are not part of it: they follow from the seed and the step."""

    model: GPT
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress = field(default_factory=Progress)

    @property
    def n_parameters(self) -> int:
        """Number of parameters of the model."""
        return sum(p.numel() for p in self.model.parameters())

    def snapshot(self) -> dict[str, Any]:
        """Return tensors and plain values for a checkpoint."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore a snapshot.

        Raises:
            ValueError: The snapshot holds weights only, or is of another model or optimizer.
        """
        if "optimizer" not in snapshot:
            raise ValueError("the checkpoint holds only weights: init_from=... starts from them")
        self.restore_weights(snapshot)
        try:
            self.optimizer.load_state_dict(snapshot["optimizer"])
        except ValueError as error:
            raise ValueError("the checkpoint belongs to another model or optimizer") from error
        if snapshot["scaler"] and self.scaler.is_enabled():  # it is empty if either run had another precision
            self.scaler.load_state_dict(snapshot["scaler"])
        self.progress = Progress(**snapshot["progress"])

    def restore_weights(self, snapshot: Mapping[str, Any]) -> None:
        """Restore the weights of a snapshot, or raise a ValueError where they are of another model."""
        try:
            self.model.load_state_dict(snapshot["model"])
        except RuntimeError as error:
            raise ValueError("the checkpoint belongs to another model or vocabulary") from error


class LossModule(nn.Module):
    """The differentiated part of a step: (tokens_BT, targets_BT, scale) -> mean objective, mean nll."""

    def __init__(self, model: GPT, loss: Loss, hardware: Hardware) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.hardware = hardware
        self.hidden = torch.compile(model) if hardware.compile else model

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return two scalars; the first is differentiable, and multiplied by `scale` before its backward pass."""
        with self.hardware.autocast():
            hidden_BTD = self.hidden(tokens_BT)
            compile = self.hardware.compile_loss
            weight_VD = self.model.head_weight
            return head_loss(self.loss, hidden_BTD, weight_VD, targets_BT, compile=compile, scale=scale)


def train(
    state: TrainState,
    loss: Loss,
    batches: TrainingBatches,
    *,
    settings: TrainSettings,
    schedule: Callable[[int], float],
    evaluate: Callable[[], Score],
    hardware: Hardware,
    log: "RunLog",
) -> Score | None:
    """Train to the last step, or until early stopping. Return the last score, or None if training diverged.

    `schedule` maps a step, counted from 0, to the factor on the learning rate. `log` may raise an exception to stop the
    run at a point from which it can be resumed.
    """
    model, optimizer, scaler, progress = state.model, state.optimizer, state.scaler, state.progress
    objective = distributed.data_parallel(LossModule(model, loss, hardware))
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])  # a restored optimizer has it
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    max_nll = DIVERGENCE_FACTOR * math.log(len(model.head_weight))
    model.train()
    with closing(batches.micro_batches(progress.step, settings.max_steps)) as micro_batches:
        while True:  # one more turn than steps: the last one evaluates
            is_due = settings.is_evaluated(progress.step) and progress.evaluated < progress.step
            if is_due or progress.has_ended(settings):
                score = evaluate()
                if not math.isfinite(score.perplexity):
                    return None
                progress.record(score)
                log.evaluated(score, state)
                if progress.has_ended(settings):
                    return score
            log.checkpoint_if_due(state)

            begin = time.perf_counter()
            means = torch.zeros(2, device=hardware.device)  # objective, nll
            scale = scaler.scale(torch.ones((), device=hardware.device) / batches.n_micro_batches)
            for number in range(batches.n_micro_batches):
                log.stop_if_asked(state)
                micro_batch = next(micro_batches)
                micro_batch.seed_everything()
                with distributed.gradient_sync(objective, enabled=number == batches.n_micro_batches - 1):
                    micro_objective, micro_nll = objective(micro_batch.tokens_BT, micro_batch.targets_BT, scale)
                    (micro_objective * scale).backward()
                means += torch.stack([micro_objective.detach(), micro_nll]) / batches.n_micro_batches
            means = distributed.all_reduce(means) / distributed.world_size()
            scaler.unscale_(optimizer)
            grad_norm = clip_grad_norm_(parameters, settings.clip_norm or math.inf)
            is_read = hardware.reads_are_free or settings.is_read(progress.step + 1)
            if is_read and not _can_continue(means, grad_norm, max_nll, scaler):
                return None
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(progress.step)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            progress.step += 1
            progress.seconds += time.perf_counter() - begin
            log.stepped(state, means, grad_norm)


def _can_continue(means: Tensor, grad_norm: Tensor, max_nll: float, scaler: torch.amp.GradScaler) -> bool:
    """Return whether a step may change the weights: its values are finite and its nll has not exploded.

    Reading the values makes a GPU wait. There, only steps that are logged, evaluated or checkpointed are read.
    """
    is_finite = means.isfinite().all() & (means[1] < max_nll)
    if scaler.is_enabled():  # the scaler answers an infinite gradient with a lower scale, until that is below 1
        return bool(is_finite) and scaler.get_scale() >= 1
    return bool(is_finite & grad_norm.isfinite())
