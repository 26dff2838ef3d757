"""A profile of the time of a training step, by kind of operation."""

from collections import defaultdict
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from analysis.benchmarks.lib.measure import synchronize
from analysis.benchmarks.lib.shapes import Shape, batches
from analysis.benchmarks.lib.training_steps import MeasuredTrainer, nanosq_step
from nanosq.model import GPT

STEPS = 3

# How the names of operations begin.
PRODUCTS = ("aten::mm", "aten::addmm", "mkldnn::", "aten::mkldnn")
ATTENTION = ("aten::bmm", "aten::baddbmm", "aten::_softmax", "aten::_scaled_dot_product", "aten::_flash", "aten::triu")
OPTIMIZER = ("Optimizer.", "aten::_fused_adamw", "aten::_foreach", "aten::linalg_vector_norm")
LAYERS = ("aten::native_layer_norm", "aten::gelu", "aten::embedding")
COPIES = ("aten::copy_", "aten::cat", "aten::clone")
HEAD = "_HeadLoss"  # the autograd function in nanosq/head.py


def time_shares(contender: MeasuredTrainer, shape: Shape) -> dict[str, float]:
    """Return the share of each kind of operation in the time of a step of nanosq, the largest first.

    On a GPU these are shares of the time of its kernels, on a CPU of the whole time. Nothing is compiled.
    """
    device = contender.hardware.device
    torch.manual_seed(0)
    step = nanosq_step(GPT(**shape.sizes).to(device), contender)
    first, *others = batches(shape, 1 + STEPS, device=device)
    step(*first)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        for batch in others:
            step(*batch)
        synchronize(device)
    times: defaultdict[str, float] = defaultdict(float)
    for event in profiler.events() or []:
        if event.device_type.name == "CPU":
            times[kind(event)] += event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
    total = sum(times.values())
    return {name: times[name] / total for name in sorted(times, key=times.__getitem__, reverse=True)}


def kind(event: Any) -> str:
    """Return the kind of an operation, by its name, the operations around it and its number of dimensions.

    Only the tensors of attention have four dimensions, (B, H, T, K) and (B, H, Q, T).
    """
    names = [event.name]
    parent = event.cpu_parent
    while parent is not None:
        names.append(parent.name)
        parent = parent.cpu_parent
    if event.name.startswith(PRODUCTS):
        return "matrix products, head" if HEAD in names else "matrix products, layers"
    if HEAD in names:
        return "log-softmax and loss"
    if any(name.startswith(OPTIMIZER) for name in names):
        return "clipping and optimizer"
    if event.name.startswith(ATTENTION) or any(len(shape) == 4 for shape in event.input_shapes):
        return "attention"
    if any(name.startswith(LAYERS) for name in names):
        return "layer norms, GELU, embeddings"
    return "casts and copies" if event.name.startswith(COPIES) else "everything else"
