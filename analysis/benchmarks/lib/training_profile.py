"""Where the time of a training step goes."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from analysis.benchmarks.lib.memory import synchronize
from analysis.benchmarks.lib.training_steps import Contender, Shape, batches, nanosq_step
from nanosq.model import GPT

STEPS = 3

PRODUCTS = ("aten::mm", "aten::addmm", "mkldnn::", "aten::mkldnn")
ATTENTION = ("aten::bmm", "aten::baddbmm", "aten::_softmax", "aten::_scaled_dot_product", "aten::_flash", "aten::triu")
OPTIMIZER = ("Optimizer.", "aten::_fused_adamw", "aten::_foreach", "aten::linalg_vector_norm")
LAYERS = ("aten::native_layer_norm", "aten::gelu", "aten::embedding")
COPIES = ("aten::copy_", "aten::cat", "aten::clone")


def shares(contender: Contender, shape: Shape) -> dict[str, float]:
    """Parts of the time of a step of nanosq, the largest first; they add up to 1. Nothing is compiled.

    A GPU's are of the time that its kernels take, a CPU's of the whole.
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
        if event.device_type == torch.autograd.DeviceType.CPU:
            times[group(event)] += event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
    total = sum(times.values())
    return {name: times[name] / total for name in sorted(times, key=times.__getitem__, reverse=True)}


def group(event: Any) -> str:
    """What an operation is part of, by its name, its place in the head or the optimizer, and its number of dimensions.

    Only attention's tensors have four dimensions, (B, H, T, K) and (B, H, Q, T).
    """
    within = set(_names(event))
    if _is(event.name, PRODUCTS):
        return "matrix products, head" if "_HeadLoss" in within else "matrix products, layers"
    if "_HeadLoss" in within:
        return "log-softmax and loss"
    if any(_is(name, OPTIMIZER) for name in within):
        return "clipping and optimizer"
    if _is(event.name, ATTENTION) or any(len(shape) == 4 for shape in event.input_shapes):
        return "attention"
    if any(_is(name, LAYERS) for name in within):
        return "layer norms, GELU, embeddings"
    if _is(event.name, COPIES):
        return "casts and copies"
    return "everything else"


def _names(event: Any) -> Iterable[str]:
    while event is not None:
        yield event.name
        event = event.cpu_parent


def _is(name: str, prefixes: tuple[str, ...]) -> bool:
    return name.startswith(prefixes)
