"""One forward and backward pass of a loss over the vocabulary: its time, and its memory in a process of its own.

Shape suffixes: N tokens, V vocabulary, D model width.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from analysis.benchmarks.lib.loss_methods import LOSSES, methods
from analysis.benchmarks.lib.memory import is_out_of_memory, limit_memory, memory_meter, place, synchronize
from nanosq.hardware import Hardware


class Case(NamedTuple):
    loss: str
    method: str


@dataclass(frozen=True)
class Problem:
    tokens: int
    width: int
    vocabulary: int
    hardware: Hardware

    def __str__(self) -> str:
        return (
            f"N={self.tokens:,} tokens, D={self.width}, V={self.vocabulary:,}, {self.hardware}, "
            f"{place(self.hardware)}, torch {torch.__version__}"
        )

    def inputs(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
        """hidden_ND as a final layer norm leaves it, weight_VD as GPT-2 is initialised, targets_N."""
        generator = torch.Generator().manual_seed(0)
        hidden_ND = F.layer_norm(torch.randn(self.tokens, self.width, generator=generator), (self.width,))
        weight_VD = torch.randn(self.vocabulary, self.width, generator=generator) * 0.02
        targets_N = torch.randint(self.vocabulary, (self.tokens,), generator=generator)
        device = self.hardware.device
        leaves = (t.to(device, dtype).requires_grad_() for t in (hidden_ND, weight_VD))
        return (*leaves, targets_N.to(device))  # type: ignore[return-value]


def run_pass(case: Case, problem: Problem, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The objective; gradients are left in the inputs."""
    hidden_ND, weight_VD, targets_N = inputs
    hidden_ND.grad = weight_VD.grad = None
    method = methods(case.loss, problem.hardware.device.type)[case.method]
    with problem.hardware.autocast():
        objective = method(LOSSES[case.loss], hidden_ND, weight_VD, targets_N)
    objective.backward()
    synchronize(problem.hardware.device)
    return objective.detach()


def seconds(cases: Iterable[Callable[[], object]], rounds: int) -> list[float]:
    """Median time of each case, after a round that is not counted."""
    cases = list(cases)
    times: list[list[float]] = [[] for _ in cases]
    for _ in tqdm(range(rounds + 1), desc="timing", unit="round", disable=not sys.stderr.isatty()):
        for case, its_times in zip(cases, times, strict=True):
            begin = time.perf_counter()
            case()
            its_times.append(time.perf_counter() - begin)
    return [statistics.median(its_times[1:]) for its_times in times]


def memory_and_time(case: Case, problem: Problem, rounds: int = 0) -> tuple[int, float]:
    """Bytes that a pass takes at its peak beyond what was there, and median seconds; for a process of its own."""
    if problem.hardware.device.type == "cpu":
        limit_memory()
    small = replace(problem, tokens=64)
    run_pass(case, small, small.inputs())  # loads libraries, compiles
    inputs = problem.inputs()
    peak = memory_meter(problem.hardware.device)
    run_pass(case, problem, inputs)
    bytes_ = peak()
    return bytes_, seconds([partial(run_pass, case, problem, inputs)], rounds)[0] if rounds else 0.0


def alone(case: Case, problem: Problem, rounds: int = 0) -> tuple[int, float] | None:
    """`memory_and_time` in a fresh process; None where the machine's memory does not suffice."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(memory_and_time, case, problem, rounds).result()
        except RuntimeError as error:
            if is_out_of_memory(error):
                return None
            raise
