"""Device, precision and compilation: what the user asked for, or what the machine is good at."""

import ctypes
import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Self

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# On a GPU, compiling takes about a minute and saves about a third: it is repaid by a run of a few minutes, here at
# 1e14 FLOP a second. On a CPU it saves 3 % at most: `python -m analysis.benchmark_training --compile`.
FLOPS_THAT_REPAY_COMPILING = 2e16


@dataclass(frozen=True)
class Hardware:
    """Where and how a model runs."""

    device: torch.device
    precision: str = "fp32"  # of matrix products; weights are float32 always
    compile: bool = False

    @classmethod
    def pick(cls, *, device: str, precision: str, compile: bool | str, n_flops: float = 0.0) -> Self:
        """Resolve `auto`: the first GPU, half precision where it is multiplied fast, compiled where that is repaid.

        n_flops: floating-point operations of the whole run, from which `compile=auto` is decided.

        ValueError for a device that is not there or a word that is none of the choices.
        """
        place = _device(device)
        if precision == "auto":
            precision = _fast_precision(place)
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision}: choose auto, {', '.join(PRECISIONS)}")
        if compile == "auto":
            compile = place.type == "cuda" and n_flops >= FLOPS_THAT_REPAY_COMPILING
        elif not isinstance(compile, bool):
            raise ValueError(f"compile={compile}: choose auto, true or false")
        return cls(place, precision, compile)

    def __str__(self) -> str:
        return f"{self.device} {self.precision}{' compiled' if self.compile else ''}"

    def autocast(self) -> AbstractContextManager[None]:
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps the gradients of fp16 within its range: Micikevicius et al. 2018, arXiv 1710.03740; else inactive."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    @property
    def peak_flops(self) -> float:
        """Floating-point operations a second of one large matrix product: the measured peak that MFU is a part of."""
        return _peak_flops(self.device, PRECISIONS[self.precision])


def keep_freed_memory() -> None:
    """Have glibc's malloc keep what was freed for the next tensor instead of returning it to the kernel.

    A training step frees gigabytes and asks for them again at once, and the kernel zeroes every page it gives: 10 % of
    a step of GPT-2 on a CPU. M_MMAP_MAX and M_TRIM_THRESHOLD in mallopt(3); elsewhere this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, -1)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun: a GPU for each process
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={name} is not available here: {str(error).splitlines()[0]}") from error
    return device


def _fast_precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        if any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16")):
            return "bf16"
    return "fp32"


@cache
def _peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    size = 8192 if device.type == "cuda" else 1024  # milliseconds on either
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    best = 0.0
    for _ in range(10):
        begin = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for the device
        best = max(best, 2 * size**3 / (time.perf_counter() - begin))
    return best
