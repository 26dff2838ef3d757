"""The training loop in half precision."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from nanosq import losses
from nanosq.hardware import Hardware
from tests.commandline import SMALL, command, runs
from tests.test_train import Training


def test_fp16_scales_the_loss_and_skips_overflowing_steps() -> None:
    half, single = Training(), Training()
    half.state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    hardware = Hardware(torch.device("cpu"), precision="fp16")
    before = half.weights()
    half.train(hardware=hardware, max_steps=1)
    torch.testing.assert_close(half.weights(), before, rtol=0, atol=0)  # infinite gradients: no step
    half.train(hardware=hardware, max_steps=60)
    assert 2.0 < half.state.scaler.get_scale() < 2.0**30
    single.train(max_steps=60)
    (ours, exact) = ([m["train/nll"] for _, m in run.logged if "train/nll" in m][-1] for run in (half, single))
    assert ours == pytest.approx(exact, rel=0.05)


def test_fp16_overflow_at_every_scale_is_divergence() -> None:
    run = Training()
    run.state.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    sound = losses.cross_entropy

    def infinite_gradient(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        return sound(logits_NV, targets_N) + (logits_NV - logits_NV.detach()).abs().sqrt().sum(-1)

    assert run.train(loss=infinite_gradient, hardware=Hardware(torch.device("cpu"), precision="fp16")) is None
    assert run.state.progress.step == 3


def test_bf16_differs_by_rounding_only() -> None:
    fast, plain = Training(), Training()
    fast.train(hardware=Hardware(torch.device("cpu"), precision="bf16"), max_steps=40)
    plain.train(max_steps=40)
    for (step, ours), (_, exact) in zip(fast.logged, plain.logged, strict=True):
        if "train/nll" in ours:
            assert ours["train/nll"] == pytest.approx(exact["train/nll"], rel=0.02), step


@pytest.mark.parametrize(
    "settings",
    [["loss=brier", "loss.weight=1e-3"], ["loss=mse_probabilities", "loss.scale=1", "train.accumulate=3"]],
    ids=["brier", "mse_probabilities"],
)
def test_fp16_keeps_small_gradients(settings: list[str], tmp_path: Path) -> None:
    one_step = ["train.max_steps=1", "train.eval_every=1", "train.log_every=1", "samples.count=0"]
    for precision in ("fp32", "fp16"):
        command(*SMALL, *one_step, *settings, f"precision={precision}", cwd=tmp_path, check=True)
    exact, half = sorted(runs(tmp_path), key=lambda run: run.data.params["precision"], reverse=True)
    assert half.data.metrics["train/grad_norm"] == pytest.approx(exact.data.metrics["train/grad_norm"], rel=5e-3)
