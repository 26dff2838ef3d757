"""Log of a run while it trains: to the tracking store, the console, the pruner and checkpoints."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nanosq import distributed
from nanosq.checkpoint import Checkpoints
from nanosq.console import Console
from nanosq.evaluation import Score
from nanosq.hardware import Hardware
from nanosq.settings import TrainSettings
from nanosq.signals import Interruption
from nanosq.sweeps.trial import PrunerReport
from nanosq.tracking import Run
from nanosq.train import TrainState


@dataclass
class RunLog:
    """Log of one run. The training loop calls its four methods.

    Args:
        run: Run of the tracking store; one that records nothing in all but the first of several processes.
        console: Console; a quiet one in all but the first process.
        pruner: Report to the study of a search.
        checkpoints: Checkpoints of the run, or None in all but the first process.
        interruption: Signals received.
        settings: Settings of the training loop.
        hardware: Device, for its peak speed.
        tokens_per_step: Tokens of a step, of all processes together.
        how_to_resume: What to tell the user when the run is interrupted.
    """

    run: Run
    console: Console
    pruner: PrunerReport
    checkpoints: Checkpoints | None
    interruption: Interruption
    settings: TrainSettings
    hardware: Hardware
    tokens_per_step: int
    how_to_resume: str
    logged_step: int = 0
    logged_seconds: float = 0.0
    saved: tuple[int, int] | None = None  # step and last evaluation of the last checkpoint

    def evaluated(self, score: Score, state: TrainState) -> None:
        """Record the score of the validation split, and keep the weights if they are the run's model so far.

        Raises:
            Pruned: The study ends the trial.
        """
        progress = state.progress
        if self.is_model(state) and self.checkpoints is not None:
            self.checkpoints.save_best(state)
        metrics = {**score.metrics("val"), "best/val_perplexity": progress.best_perplexity}
        self.run.log(metrics, progress.step)
        self.console.evaluated(score, progress.step)
        self.pruner.evaluated(metrics, progress.step, is_last=progress.has_ended(self.settings))

    def stepped(self, state: TrainState, means: Tensor, grad_norm: Tensor) -> None:
        """Record a training step, if it is one that is logged.

        Args:
            state: State after the step.
            means: Objective and nll of the step, shape (2,).
            grad_norm: Norm of the gradient before clipping.

        Raises:
            Pruned: Training has taken longer than a constraint of the sweep allows.
        """
        progress = state.progress
        if not self.settings.is_logged(progress.step):
            return
        loss, nll = means.tolist()
        n_tokens = (progress.step - self.logged_step) * self.tokens_per_step
        speed = n_tokens / (progress.seconds - self.logged_seconds)
        self.logged_step, self.logged_seconds = progress.step, progress.seconds
        peak = self.hardware.peak_flops * distributed.world_size()
        metrics = {
            "train/loss": loss,
            "train/nll": nll,
            "train/grad_norm": float(grad_norm),
            "train/lr": state.optimizer.param_groups[0]["lr"],
            "train/seconds": progress.seconds,
            "train/tokens_per_second": speed,
            "train/mfu": speed * state.model.flops_per_token / peak,
        }
        self.run.log(metrics, progress.step)
        self.console.stepped(metrics, progress.step)
        # A constraint on train/seconds may end the trial between evaluations.
        self.pruner.evaluated(metrics, progress.step, is_last=progress.has_ended(self.settings))

    def checkpoint_if_due(self, state: TrainState) -> None:
        """Save a checkpoint to resume from, if one is due after this step."""
        if self.settings.is_checkpointed(state.progress.step):
            self.save_last(state)

    def stop_if_asked(self, state: TrainState) -> None:
        """End the run with a checkpoint if a signal asks for it, all processes at the same step.

        Raises:
            KeyboardInterrupt: The signal was Ctrl-C.
            SystemExit: The signal was SIGTERM.
        """
        if distributed.all_reduce(torch.tensor(float(self.interruption.is_requested))) > 0:
            self.save_last(state)
            self.console.say(f"interrupted after step {state.progress.step}: {self.how_to_resume}")
            self.interruption.end()

    def is_model(self, state: TrainState) -> bool:
        """Return whether the weights of the last evaluation are the run's model, as far as training has come."""
        return self.settings.weights == "last" or state.progress.since_best == 0

    def save_last(self, state: TrainState) -> None:
        """Save a checkpoint to resume from, unless the one of this step and evaluation exists."""
        saved = state.progress.step, state.progress.evaluated
        if self.checkpoints is not None and saved != self.saved:
            self.run.flush()  # no value up to the checkpoint can be lost
            if self.run.run_id:  # the store may have been away when the run started
                self.checkpoints = replace(
                    self.checkpoints, facts={**self.checkpoints.facts, "run_id": self.run.run_id}
                )
            self.checkpoints.save_last(state)
            self.saved = saved
