"""Training with nanoGPT and with nanosq from the same weights on the same batches."""

import sys
from functools import partial

import pandas as pd
import torch
from tqdm import tqdm

from analysis.benchmarks.lib.nanogpt import Checkout, weights_for_nanogpt
from analysis.benchmarks.lib.shapes import Shape, batches
from analysis.benchmarks.lib.training_steps import LR, MeasuredTrainer, nanogpt_step, nanosq_step
from nanosq.hardware import Hardware
from nanosq.model import GPT
from nanosq.optim import cosine, cosine_from_zero

MIN_LR_FACTOR, MAX_STEPS = 0.1, 600_000  # nanoGPT's defaults


def parity(
    checkout: Checkout, shape: Shape, steps: int, device: torch.device, *, warmup: int, dtype: torch.dtype
) -> pd.DataFrame:
    """Return the losses of both projects at each step, from the same weights and on the same batches."""
    schedule = checkout.schedule(lr=LR, warmup=warmup, max_steps=MAX_STEPS, min_lr=MIN_LR_FACTOR * LR)
    cosine_schedule = cosine if schedule(0) else cosine_from_zero  # nanoGPT before December 2024
    factors = partial(cosine_schedule, max_steps=MAX_STEPS, warmup=warmup, min_lr_factor=MIN_LR_FACTOR)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(0)
        model, nanogpt_model = GPT(**shape.sizes).to(device), checkout.model(**shape.sizes).to(device)
        nanogpt_model.load_state_dict(weights_for_nanogpt(model))
        hardware = Hardware.pick(device=str(device), precision="fp32", compile=False)
        theirs = nanogpt_step(nanogpt_model, MeasuredTrainer("nanoGPT", "cross_entropy", hardware), schedule=schedule)
        ours = nanosq_step(model, MeasuredTrainer("nanosq", "cross_entropy", hardware), schedule=factors)
        losses = [
            (float(theirs(*batch)), float(ours(*batch)))
            for batch in tqdm(batches(shape, steps, device=device), desc="parity", disable=not sys.stderr.isatty())
        ]
    finally:
        torch.set_default_dtype(default)
    table = pd.DataFrame(losses, columns=["nanoGPT", "nanosq"]).rename_axis("step")
    return table.assign(difference=table["nanosq"] - table["nanoGPT"])
