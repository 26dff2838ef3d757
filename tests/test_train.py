"""The training loop on a model small enough to follow."""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanosq import config, losses
from nanosq.evaluate import Score
from nanosq.hardware import Hardware
from nanosq.model import GPT
from nanosq.optim import cosine, parameter_groups
from nanosq.train import Progress, State, train

CONF = Path(__file__).parents[1] / "conf"
CPU = Hardware(torch.device("cpu"))
SCORE = Score(1.0, 1.0, math.e, 1.0, 0.5, 0.1, math.nan, math.nan)


def batch(index: int) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(index))
    return tokens[:, :-1], tokens[:, 1:]


def schedule(step: int) -> float:
    return cosine(step, max_steps=20, warmup=3, min_lr_factor=0.1)


class Run:
    """A training run that keeps everything the loop tells it."""

    def __init__(self, *, seed: int = 0, dropout: float = 0.0) -> None:
        torch.manual_seed(seed)
        self.model = GPT(11, block_size=8, n_layer=1, n_head=2, n_embd=16, dropout=dropout)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model), lr=0.01, weight_decay=0.1)
        self.scaler = CPU.scaler()
        self.progress = Progress()
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.saved: list[tuple[str, int]] = []
        self.evaluated: list[int] = []
        self.perplexities = [math.e]

    def evaluate(self) -> Score:
        self.evaluated.append(self.progress.step)
        last = len(self.perplexities) == 1
        return replace(SCORE, perplexity=self.perplexities[0] if last else self.perplexities.pop(0))

    def train(self, *, loss: Callable = losses.cross_entropy, batch: Callable = batch, **settings) -> Score | None:
        defaults = {"max_steps": 20, "accumulate": 1, "clip_norm": 1.0, "log_every": 5, "eval_every": 10}
        defaults |= {"checkpoint_every": None, "patience": None, "seed": (0,), "hardware": CPU}
        return train(
            State(self.model, self.optimizer, self.scaler, self.progress),
            loss,
            schedule=schedule,
            batch=batch,
            evaluate=self.evaluate,
            log=lambda metrics, step: self.logged.append((step, dict(metrics))),
            save_best=lambda: self.saved.append(("best", self.progress.step)),
            save_last=lambda: self.saved.append(("last", self.progress.step)),
            **{"safe_point": lambda: None, **defaults, **settings},
        )

    def weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]


def test_against_a_plain_loop() -> None:
    """Full logits, torch's own cross-entropy, no accumulation, the learning rate set by hand."""
    run, plain = Run(), Run()
    run.train(max_steps=12)
    for step in range(12):
        for group in plain.optimizer.param_groups:
            group["lr"] = 0.01 * schedule(step)
        tokens_BT, targets_BT = batch(step)
        logits = plain.model(tokens_BT) @ plain.model.head_weight.T
        F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(plain.model.parameters(), 1.0)
        plain.optimizer.step()
        plain.optimizer.zero_grad()
    torch.testing.assert_close(run.weights(), plain.weights(), rtol=1e-4, atol=1e-6)


def test_accumulated_micro_batches_are_one_batch() -> None:
    def both(index: int) -> tuple[Tensor, Tensor]:
        first, second = batch(2 * index), batch(2 * index + 1)
        return torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])

    accumulated, whole = Run(), Run()
    accumulated.train(accumulate=2, max_steps=6)
    whole.train(batch=both, max_steps=6)
    torch.testing.assert_close(accumulated.weights(), whole.weights(), rtol=1e-4, atol=1e-6)
    assert accumulated.logged[0][1]["train/nll"] == pytest.approx(whole.logged[0][1]["train/nll"], rel=1e-5)


def test_what_is_logged_evaluated_and_saved() -> None:
    run = Run()
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


def test_a_loss_that_is_not_finite_ends_the_run_before_it_touches_the_weights() -> None:
    def explodes(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        losses_N = losses.cross_entropy(logits_NV, targets_N)
        return losses_N * math.nan if run.progress.step == 7 else losses_N

    run, sound = Run(), Run()
    assert run.train(loss=explodes) is None
    assert run.progress.step == 7
    # Not cross_entropy itself, whose derivative the head has by hand.
    sound.train(loss=lambda logits_NV, targets_N: losses.cross_entropy(logits_NV, targets_N), max_steps=7)
    torch.testing.assert_close(run.weights(), sound.weights(), rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_ends_the_run() -> None:
    run = Run()
    assert run.train(loss=lambda logits, targets: (logits - logits.detach()).abs().sqrt().sum(-1)) is None
    assert run.progress.step == 0


def test_an_infinite_perplexity_is_divergence() -> None:
    run = Run()
    run.perplexities = [math.inf]
    assert run.train() is None
    assert run.saved == []


def test_clipping_bounds_the_step() -> None:
    free, clipped = Run(), Run()
    for run in (free, clipped):
        run.optimizer = torch.optim.SGD(parameter_groups(run.model), lr=1.0)
    before = free.weights()
    free.train(max_steps=1, clip_norm=None)
    clipped.train(max_steps=1, clip_norm=1e-3)
    moved = [
        math.sqrt(sum((a - b).square().sum().item() for a, b in zip(before, run.weights(), strict=True)))
        for run in (free, clipped)
    ]
    assert moved[1] == pytest.approx(1e-3 * schedule(0), rel=1e-3)
    assert moved[0] == pytest.approx(free.logged[0][1]["train/grad_norm"] * schedule(0), rel=1e-3)


def test_patience_counts_evaluations_that_are_no_better() -> None:
    run = Run()
    run.perplexities = [3.0, 2.0, 2.5, 1.5, 2.0, 1.5, 1.0]
    score = run.train(max_steps=100, eval_every=2, patience=2)
    assert score is not None
    assert run.evaluated == [2, 4, 6, 8, 10, 12]
    assert [step for name, step in run.saved if name == "best"] == [2, 4, 8]
    # Taken up again after its end, it ends.
    assert run.train(max_steps=100, eval_every=2, patience=2) is not None
    assert run.progress.step == 12


class Stop(BaseException):
    pass


@pytest.mark.parametrize(("optimizer", "expected"), [("muon", True), ("adafactor", False), ("adamw", False)])
def test_of_all_optimizers_muon_alone_multiplies_in_the_precision_of_the_run(optimizer: str, expected: bool) -> None:
    run, seen = Run(), []
    run.optimizer = config.load(CONF / f"optimizer/{optimizer}.yaml")(parameter_groups(run.model))
    run.optimizer.register_step_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    run.train(max_steps=1, hardware=Hardware(torch.device("cpu"), precision="bf16"))
    assert seen == [expected]


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "adafactor"])
def test_a_run_left_at_any_safe_point_ends_where_it_would_have_ended(optimizer: str) -> None:
    """Bit for bit, dropout included, and without a point of its metrics lost or repeated."""
    settings = {"max_steps": 6, "accumulate": 2, "log_every": 1, "eval_every": 3, "checkpoint_every": 2}

    def new() -> Run:
        run = Run(dropout=0.2)
        make = config.load(CONF / f"optimizer/{optimizer}.yaml")
        run.optimizer = make(parameter_groups(run.model))
        return run

    def without_times(run: Run) -> list[tuple[int, dict[str, float]]]:
        times = ("train/seconds", "train/tokens_per_second", "train/mfu")
        return [(step, {k: v for k, v in metrics.items() if k not in times}) for step, metrics in run.logged]

    whole = new()
    n_safe_points = 0

    def count() -> None:
        nonlocal n_safe_points
        n_safe_points += 1

    whole.train(safe_point=count, **settings)
    assert n_safe_points == 12
    for left_at in range(1, n_safe_points + 1):
        run, countdown = new(), iter(range(left_at - 1, -1, -1))

        def leave(countdown: Iterator[int] = countdown) -> None:
            if next(countdown) == 0:
                raise Stop

        with pytest.raises(Stop):
            run.train(safe_point=leave, **settings)
        snapshot = State(run.model, run.optimizer, run.scaler, run.progress).snapshot()
        resumed = new()
        resumed.logged = run.logged
        state = State(resumed.model, resumed.optimizer, resumed.scaler, resumed.progress)
        state.restore(torch_round_trip(snapshot))
        resumed.progress = state.progress
        torch.rand(left_at)  # whatever the process did before
        resumed.train(**settings)
        torch.testing.assert_close(resumed.weights(), whole.weights(), rtol=0, atol=0)
        assert without_times(resumed) == without_times(whole)


def torch_round_trip(snapshot: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(snapshot, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_loss_that_explodes_ends_the_run() -> None:
    run = Run()
    with torch.no_grad():
        run.model.head_weight.mul_(1e4)  # logits in the thousands, and a finite loss
    before = run.weights()
    assert run.train() is None
    torch.testing.assert_close(run.weights(), before, rtol=0, atol=0)


def test_fp16_scales_its_loss_and_skips_what_overflows() -> None:
    half, single = Run(), Run()
    half.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    hardware = Hardware(torch.device("cpu"), precision="fp16")
    before = half.weights()
    half.train(hardware=hardware, max_steps=1)
    torch.testing.assert_close(half.weights(), before, rtol=0, atol=0)  # infinite gradients: no step
    half.train(hardware=hardware, max_steps=60)
    assert 2.0 < half.scaler.get_scale() < 2.0**30
    single.train(max_steps=60)
    (ours, exact) = ([m["train/nll"] for _, m in run.logged if "train/nll" in m][-1] for run in (half, single))
    assert ours == pytest.approx(exact, rel=0.05)


def test_fp16_that_overflows_at_any_scale_is_divergence() -> None:
    run = Run()
    run.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    sound = losses.cross_entropy

    def infinite_gradient(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        return sound(logits_NV, targets_N) + (logits_NV - logits_NV.detach()).abs().sqrt().sum(-1)

    assert run.train(loss=infinite_gradient, hardware=Hardware(torch.device("cpu"), precision="fp16")) is None
    assert run.progress.step == 3


def test_bf16_changes_nothing_beyond_rounding() -> None:
    fast, plain = Run(), Run()
    fast.train(hardware=Hardware(torch.device("cpu"), precision="bf16"), max_steps=40)
    plain.train(max_steps=40)
    for (step, ours), (_, exact) in zip(fast.logged, plain.logged, strict=True):
        if "train/nll" in ours:
            assert ours["train/nll"] == pytest.approx(exact["train/nll"], rel=0.02), step
