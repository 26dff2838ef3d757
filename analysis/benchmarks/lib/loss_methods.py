"""Methods that compute a loss over the vocabulary and its gradient, and one pass of each: its result and its memory.

Shape suffixes: N tokens, V vocabulary, D model width.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.benchmarks.lib.measure import describe_machine, median_seconds, seconds, synchronize
from analysis.benchmarks.lib.memory import limit_memory, memory_meter
from nanosq import config
from nanosq.errors import is_out_of_memory
from nanosq.hardware import Hardware
from nanosq.head import Loss, head_loss
from nanosq.installation import CONF
from nanosq.losses import cross_entropy

# (loss, hidden_ND, weight_VD, targets_N) -> mean objective, differentiable in hidden_ND and weight_VD
Method = Callable[[Loss, Tensor, Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {path.stem: config.load(path) for path in sorted(CONF.glob("loss/*.yaml"))}


def head(loss: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, *, compile: bool = False) -> Tensor:
    """Use the head of nanosq."""
    return head_loss(loss, hidden_ND, weight_VD, targets_N, compile=compile)[0]


def all_logits(loss: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Compute all logits at once and differentiate by autograd, as training scripts usually do."""
    if loss is cross_entropy:
        loss = partial(F.cross_entropy, reduction="none")
    logits_NV = F.linear(hidden_ND, weight_VD)
    return loss(logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)), targets_N).mean()


def listing_of_logits(logits: Tensor, targets_N: Tensor) -> Tensor:
    """Compute Listing A.2 of the report line by line; targets are one-hot in float32, as in the code that was run."""
    vocab_size = logits.size(-1)
    targets_expanded = F.one_hot(targets_N, num_classes=vocab_size).to(torch.float32)
    squared_error = (targets_expanded - logits) ** 2
    targets = targets_expanded == 1
    squared_error = torch.where(targets, squared_error * vocab_size, squared_error)
    mse_loss = torch.mean(squared_error)
    return mse_loss + F.cross_entropy(logits, targets_N)


def torch_linear_chunked(_: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Use PyTorch's fused cross-entropy in chunks."""
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(_cast(hidden_ND), _cast(weight_VD), targets_N, options=options).float()


def liger(_: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Use the fused cross-entropy of liger-kernel."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    return liger_fused_linear_cross_entropy(_cast(hidden_ND), _cast(weight_VD), targets_N)


def cut(_: Loss, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Use the package cut-cross-entropy."""
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(_cast(hidden_ND), _cast(weight_VD), targets_N)


def methods(loss: str, device: str) -> dict[str, Method]:
    """Return the methods that can compute a loss on a device, by their names in tables."""
    found: dict[str, Method] = {
        "head": head,
        "head, compiled": partial(head, compile=True),
        "all logits": all_logits,
    }
    if loss == "squentropy_listing":
        found["Listing A.2"] = lambda _, hidden_ND, weight_VD, targets_N: listing_of_logits(
            F.linear(hidden_ND, weight_VD), targets_N
        )
    if loss == "cross_entropy" and hasattr(F, "linear_cross_entropy"):  # torch 2.13
        found["F.linear_cross_entropy"] = lambda _, *tensors: F.linear_cross_entropy(*tensors)
        found["F.linear_cross_entropy, chunked"] = torch_linear_chunked
    if loss == "cross_entropy" and device == "cuda":
        packages: dict[str, Method] = {"liger_kernel": liger, "cut_cross_entropy": cut}
        found |= {name: method for name, method in packages.items() if find_spec(name)}
    return found


def _cast(tensor: Tensor) -> Tensor:
    """Cast to the autocast type, because these functions compute in the type of their inputs."""
    device = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tensor


class Case(NamedTuple):
    """One loss, computed by one method."""

    loss: str
    method: str


@dataclass(frozen=True)
class Problem:
    """The sizes of a pass, and where it runs."""

    tokens: int
    width: int
    vocabulary: int
    hardware: Hardware

    def __str__(self) -> str:
        sizes = f"N={self.tokens:,} tokens, D={self.width}, V={self.vocabulary:,}"
        return f"{sizes}, {self.hardware}, {describe_machine(self.hardware)}"

    def inputs(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
        """Return hidden_ND as after the final layer norm, weight_VD as GPT-2 is initialised, and targets_N."""
        generator = torch.Generator().manual_seed(0)
        hidden_ND = F.layer_norm(torch.randn(self.tokens, self.width, generator=generator), (self.width,))
        weight_VD = torch.randn(self.vocabulary, self.width, generator=generator) * 0.02
        targets_N = torch.randint(self.vocabulary, (self.tokens,), generator=generator)
        device = self.hardware.device
        hidden_ND, weight_VD = (tensor.to(device, dtype).requires_grad_() for tensor in (hidden_ND, weight_VD))
        return hidden_ND, weight_VD, targets_N.to(device)


def run_pass(case: Case, problem: Problem, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Run one forward and backward pass and return the objective; the gradients stay in the inputs."""
    hidden_ND, weight_VD, targets_N = inputs
    hidden_ND.grad = weight_VD.grad = None
    method = methods(case.loss, problem.hardware.device.type)[case.method]
    with problem.hardware.autocast():
        objective = method(LOSSES[case.loss], hidden_ND, weight_VD, targets_N)
    objective.backward()
    synchronize(problem.hardware.device)
    return objective.detach()


def pass_seconds(case: Case, problem: Problem, inputs: tuple[Tensor, Tensor, Tensor]) -> float:
    """Return how long one pass takes."""
    return seconds(partial(run_pass, case, problem, inputs))


def measure_alone(case: Case, problem: Problem, rounds: int = 0) -> tuple[int, float] | None:
    """Measure a case in a process of its own.

    Returns:
        The peak memory of a pass in bytes beyond its inputs, and its median time over `rounds`, 0.0 for no rounds; None
        if the memory of the machine is too small.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_memory_and_time, case, problem, rounds).result()
        except RuntimeError as error:
            if is_out_of_memory(error):
                return None
            raise


def _memory_and_time(case: Case, problem: Problem, rounds: int) -> tuple[int, float]:
    if problem.hardware.device.type == "cpu":
        limit_memory()
    small = replace(problem, tokens=64)
    run_pass(case, small, small.inputs())  # loads libraries, compiles
    inputs = problem.inputs()
    peak = memory_meter(problem.hardware.device)
    run_pass(case, problem, inputs)
    n_bytes = peak()
    times = median_seconds({case: partial(pass_seconds, case, problem, inputs)}, rounds) if rounds else {case: 0.0}
    return n_bytes, times[case]
