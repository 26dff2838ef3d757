"""One training step by nanosq, nanoGPT and Hugging Face's transformers: forward, backward, clipping, optimizer.

Shape suffixes: B batch, T time, V vocabulary.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR

from analysis.benchmarks.lib.loss_methods import LOSSES
from analysis.benchmarks.lib.nanogpt import Checkout, WithListing, silence
from analysis.benchmarks.lib.shapes import Shape
from nanosq.hardware import Hardware, keep_freed_memory
from nanosq.model import GPT
from nanosq.optim import parameter_groups
from nanosq.train import LossModule

# (tokens_BT, targets_BT) -> the mean objective before the step
Step = Callable[[Tensor, Tensor], Tensor]

LR, BETAS, WEIGHT_DECAY, CLIP_NORM = 6e-4, (0.9, 0.95), 0.1, 1.0  # nanoGPT's defaults for GPT-2


class MeasuredTrainer(NamedTuple):
    """A project with a loss on a device."""

    project: str  # nanosq, nanoGPT or transformers
    loss: str  # cross_entropy or squentropy: nanoGPT's squentropy is Listing A.2 of the report
    hardware: Hardware

    @property
    def name(self) -> str:
        """Project, precision and what is compiled."""
        return f"{self.project} {str(self.hardware).removeprefix(f'{self.hardware.device} ')}"

    def __str__(self) -> str:
        return f"{self.loss}, {self.name}"


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


def transformers_step(shape: Shape, contender: MeasuredTrainer) -> Step:
    """Return a step of a plain training loop with GPT2LMHeadModel of Hugging Face, with its own loss.

    Its linear layers have a bias, as those of GPT-2.
    """
    from transformers import GPT2Config, GPT2LMHeadModel, logging

    logging.set_verbosity_error()  # it warns that GPT-2's end of text is not in a smaller vocabulary
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    names = ("n_layer", "n_head", "n_embd", "vocab_size")
    sizes = {name: getattr(shape, name) for name in names} | {"n_positions": shape.block_size}
    model = GPT2LMHeadModel(GPT2Config(**sizes, **no_dropout, use_cache=False))
    model.train().to(contender.hardware.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    objective = torch.compile(model) if contender.hardware.compile else model

    def step(tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        with contender.hardware.autocast():
            # By default, the model shifts labels itself and has no target for the last token.
            loss = objective(tokens_BT, labels=targets_BT, shift_labels=targets_BT).loss
        loss.backward()
        clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def build_step(contender: MeasuredTrainer, shape: Shape, nanogpt: Path | None) -> Step:
    """Return a step of a new model; `nanogpt` is the checkout, if the contender needs it."""
    device = contender.hardware.device
    torch.manual_seed(0)
    if contender.project == "transformers":
        return transformers_step(shape, contender)
    if contender.project == "nanoGPT":
        assert nanogpt is not None
        return nanogpt_step(Checkout(nanogpt).model(**shape.sizes).to(device), contender)
    return nanosq_step(GPT(**shape.sizes).to(device), contender)
