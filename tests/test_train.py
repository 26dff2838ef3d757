"""The training loop on a model small enough to follow."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor

from nanosq import losses
from nanosq.console import Console
from nanosq.data.batches import MicroBatch
from nanosq.evaluation import Score
from nanosq.hardware import Hardware
from nanosq.model import GPT
from nanosq.optim import cosine, parameter_groups
from nanosq.run_log import RunLog
from nanosq.settings import TrainSettings
from nanosq.signals import Interruption
from nanosq.sweeps.trial import PrunerReport
from nanosq.tracking import Run
from nanosq.train import TrainState, train

CONF = Path(__file__).parents[1] / "conf"
CPU = Hardware(torch.device("cpu"))
SCORE = Score(1.0, 1.0, math.e, 1.0, 0.5, 0.1, math.nan, math.nan)
SETTINGS = TrainSettings(
    max_steps=20,
    batch_size=2,
    accumulate=1,
    clip_norm=1.0,
    warmup=3,
    min_lr_factor=0.1,
    eval_every=10,
    log_every=5,
    checkpoint_every=None,
    patience=None,
    weights="best",
    keep_last=False,
)


def batch(index: int) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(index))
    return tokens[:, :-1], tokens[:, 1:]


def schedule(step: int) -> float:
    return cosine(step, max_steps=20, warmup=3, min_lr_factor=0.1)


class Batches:
    """Micro-batches that a function makes from their number."""

    def __init__(self, batch: Callable[[int], tuple[Tensor, Tensor]], accumulate: int) -> None:
        self.batch = batch
        self.n_micro_batches = accumulate

    def micro_batches(self, first_step: int, max_steps: int) -> Iterator[MicroBatch]:
        for index in range(first_step * self.n_micro_batches, max_steps * self.n_micro_batches):
            yield MicroBatch(*self.batch(index), seed=index)


class Training(Run):
    """A small training run. As a run of a store and as checkpoints it remembers what the loop reports."""

    def __init__(self, *, seed: int = 0, dropout: float = 0.0) -> None:
        torch.manual_seed(seed)
        model = GPT(11, block_size=8, n_layer=1, n_head=2, n_embd=16, dropout=dropout)
        optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.01, weight_decay=0.1)
        self.state = TrainState(model, optimizer, CPU.scaler())
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.saved: list[tuple[str, int]] = []
        self.evaluated: list[int] = []
        self.perplexities = [math.e]

    @property
    def model(self) -> GPT:
        return self.state.model

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.logged.append((step, dict(metrics)))

    def save_best(self, state: TrainState) -> None:
        self.saved.append(("best", state.progress.step))

    def save_last(self, state: TrainState) -> None:
        self.saved.append(("last", state.progress.step))

    def evaluate(self) -> Score:
        self.evaluated.append(self.state.progress.step)
        is_last = len(self.perplexities) == 1
        return replace(SCORE, perplexity=self.perplexities[0] if is_last else self.perplexities.pop(0))

    def train(
        self,
        *,
        loss: Callable = losses.cross_entropy,
        batch: Callable = batch,
        hardware: Hardware = CPU,
        stop_if_asked: Callable[[], None] | None = None,
        **changes: Any,
    ) -> Score | None:
        settings = replace(SETTINGS, **changes)
        progress = self.state.progress
        log = RunLog(
            run=self,
            console=Console(settings.max_steps, quiet=True),
            pruner=PrunerReport(None, OmegaConf.create({}), max_steps=settings.max_steps),
            checkpoints=self,  # type: ignore[arg-type]
            interruption=Interruption(),
            settings=settings,
            hardware=hardware,
            tokens_per_step=16 * settings.accumulate,
            how_to_resume="",
            logged_step=progress.step,
            logged_seconds=progress.seconds,
        )
        if stop_if_asked is not None:
            log.stop_if_asked = lambda _: stop_if_asked()  # type: ignore[method-assign]
        return train(
            self.state,
            loss,
            Batches(batch, settings.accumulate),  # type: ignore[arg-type]
            settings=settings,
            schedule=schedule,
            evaluate=self.evaluate,
            hardware=hardware,
            log=log,
        )

    def weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]


def test_weights_equal_those_of_a_plain_loop() -> None:
    """The plain loop uses all logits, PyTorch's cross-entropy, no accumulation and a learning rate set by hand."""
    run, plain = Training(), Training()
    run.train(max_steps=12)
    for step in range(12):
        for group in plain.state.optimizer.param_groups:
            group["lr"] = 0.01 * schedule(step)
        tokens_BT, targets_BT = batch(step)
        logits = plain.model(tokens_BT) @ plain.model.head_weight.T
        F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(plain.model.parameters(), 1.0)
        plain.state.optimizer.step()
        plain.state.optimizer.zero_grad()
    torch.testing.assert_close(run.weights(), plain.weights(), rtol=1e-4, atol=1e-6)


def test_accumulated_micro_batches_equal_one_batch() -> None:
    def both(index: int) -> tuple[Tensor, Tensor]:
        first, second = batch(2 * index), batch(2 * index + 1)
        return torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])

    accumulated, whole = Training(), Training()
    accumulated.train(accumulate=2, max_steps=6)
    whole.train(batch=both, max_steps=6)
    torch.testing.assert_close(accumulated.weights(), whole.weights(), rtol=1e-4, atol=1e-6)
    assert accumulated.logged[0][1]["train/nll"] == pytest.approx(whole.logged[0][1]["train/nll"], rel=1e-5)


def test_steps_that_are_logged_evaluated_and_saved() -> None:
    run = Training()
    run.perplexities = [3.0, 2.0, 2.5]
    score = run.train(loss=losses.squentropy, max_steps=23, checkpoint_every=4)
    assert [step for step, metrics in run.logged if "train/loss" in metrics] == [5, 10, 15, 20, 23]
    assert [step for step, metrics in run.logged if "val/nll" in metrics] == [10, 20, 23]
    assert [m["best/val_perplexity"] for _, m in run.logged if "val/nll" in m] == [3.0, 2.0, 2.0]
    assert run.saved == [("last", 4), ("last", 8), ("best", 10), ("last", 12), ("last", 16), ("best", 20), ("last", 20)]
    assert score is not None
    assert score.perplexity == 2.5
    step, metrics = run.logged[0]
    assert metrics["train/lr"] == pytest.approx(0.01 * schedule(step - 1))
    assert metrics["train/loss"] > metrics["train/nll"] > 0
    assert metrics["train/tokens_per_second"] > 0
    assert 0 < metrics["train/mfu"] < 1


def test_a_loss_that_is_not_finite_ends_the_run_before_the_weights_change() -> None:
    def explodes(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        losses_N = losses.cross_entropy(logits_NV, targets_N)
        return losses_N * math.nan if run.state.progress.step == 7 else losses_N

    run, sound = Training(), Training()
    assert run.train(loss=explodes) is None
    assert run.state.progress.step == 7
    # A lambda has no fused implementation, so the head computes it like the loss above.
    sound.train(loss=lambda logits_NV, targets_N: losses.cross_entropy(logits_NV, targets_N), max_steps=7)
    torch.testing.assert_close(run.weights(), sound.weights(), rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_ends_the_run() -> None:
    run = Training()
    assert run.train(loss=lambda logits, targets: (logits - logits.detach()).abs().sqrt().sum(-1)) is None
    assert run.state.progress.step == 0


def test_an_infinite_perplexity_is_divergence() -> None:
    run = Training()
    run.perplexities = [math.inf]
    assert run.train() is None
    assert run.saved == []


def test_clipping_bounds_the_step() -> None:
    free, clipped = Training(), Training()
    for run in (free, clipped):
        run.state.optimizer = torch.optim.SGD(parameter_groups(run.model), lr=1.0)
    before = free.weights()
    free.train(max_steps=1, clip_norm=None)
    clipped.train(max_steps=1, clip_norm=1e-3)
    moved = [
        math.sqrt(sum((a - b).square().sum().item() for a, b in zip(before, run.weights(), strict=True)))
        for run in (free, clipped)
    ]
    assert moved[1] == pytest.approx(1e-3 * schedule(0), rel=1e-3)
    assert moved[0] == pytest.approx(free.logged[0][1]["train/grad_norm"] * schedule(0), rel=1e-3)


def test_patience_counts_evaluations_without_improvement() -> None:
    run = Training()
    run.perplexities = [3.0, 2.0, 2.5, 1.5, 2.0, 1.5, 1.0]
    score = run.train(max_steps=100, eval_every=2, patience=2)
    assert score is not None
    assert run.evaluated == [2, 4, 6, 8, 10, 12]
    assert [step for name, step in run.saved if name == "best"] == [2, 4, 8]
    # Resumed after its end, it ends at once.
    assert run.train(max_steps=100, eval_every=2, patience=2) is not None
    assert run.state.progress.step == 12


def test_an_exploding_loss_ends_the_run() -> None:
    run = Training()
    with torch.no_grad():
        run.model.head_weight.mul_(1e4)  # logits in the thousands, and a finite loss
    before = run.weights()
    assert run.train() is None
    torch.testing.assert_close(run.weights(), before, rtol=0, atol=0)
