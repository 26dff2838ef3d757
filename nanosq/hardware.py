"""Device, precision and compilation: what the user asked for, or what the machine is good at."""

import ctypes
import math
import os
import shutil
import sysconfig
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# On a GPU, compiling takes about a minute and saves about a third: a run of some minutes repays it, at 1e14 FLOP a
# second. On a CPU a compiled model is hardly faster (`analysis.benchmarks.training --compile`). A compiled loss is: it
# saves 0.5 to 1.5 ns a logit there and takes 4 to 14 s to compile (`analysis.benchmarks.loss`).
FLOPS_THAT_REPAY_COMPILING = 2e16
LOGITS_THAT_REPAY_COMPILING_THE_LOSS = 3e10


@dataclass(frozen=True)
class Hardware:
    """Where and how a model runs."""

    device: torch.device
    precision: str = "fp32"  # of matrix products; weights are float32 always
    compile: bool = False  # the model
    compile_loss: bool = False

    @classmethod
    def pick(
        cls, *, device: str, precision: str, compile: bool | str, n_flops: float = 0.0, n_logits: float = 0.0
    ) -> Self:
        """Resolve `auto`: the first GPU, half precision where it is multiplied fast, compiled where that is repaid.

        n_flops, n_logits: floating-point operations and logits of the whole run, from which `compile=auto` is decided.

        ValueError for a device that is not there or a word that is none of the choices.
        """
        place = _device(device)
        if precision == "auto":
            precision = _fast_precision(place)
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision}: choose auto, {', '.join(PRECISIONS)}")
        if compile == "auto":
            compile = place.type == "cuda" and n_flops >= FLOPS_THAT_REPAY_COMPILING
            repaid = place.type == "cpu" and n_logits >= LOGITS_THAT_REPAY_COMPILING_THE_LOSS
            compile_loss = compile or (repaid and _has_compiler())
        elif isinstance(compile, bool):
            compile_loss = compile
        else:
            raise ValueError(f"compile={compile}: choose auto, true or false")
        return cls(place, precision, compile, compile_loss)

    def __str__(self) -> str:
        compiled = " compiled" if self.compile else " loss compiled" if self.compile_loss else ""
        return f"{self.device} {self.precision}{compiled}"

    def autocast(self) -> AbstractContextManager[None]:
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps the gradients of fp16 within its range: Micikevicius et al. 2018, arXiv 1710.03740; else inactive."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    @property
    def matmul_dtype(self) -> torch.dtype:
        """Type of matrix products."""
        return PRECISIONS[self.precision]

    @property
    def reads_are_free(self) -> bool:
        """Whether reading a value does not make the program wait for the device."""
        return self.device.type == "cpu"

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


def round_robin_device(number: int) -> str:
    """The device of one of several runs side by side: the GPUs, if there are any, one after the other."""
    n_gpus = torch.cuda.device_count()
    return f"cuda:{number % n_gpus}" if n_gpus else "auto"


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun: a GPU for each process
        if int(os.environ["LOCAL_WORLD_SIZE"]) > torch.cuda.device_count():
            raise ValueError(f"device=cuda: there are {torch.cuda.device_count()} GPUs for more processes than that")
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


def _has_compiler() -> bool:
    """Whether torch.compile can build for the CPU: a C++ compiler, and the headers of Python."""
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return shutil.which(os.environ.get("CXX", "g++")) is not None and headers.exists()


@cache
def _peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    size = 8192 if device.type == "cuda" else 1024  # milliseconds on either
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    first = begin = time.perf_counter()
    fastest = math.inf
    while begin - first < 0.2:
        float((matrix @ matrix)[0, 0])  # waits for the device
        begin, last = time.perf_counter(), begin
        fastest = min(fastest, begin - last)
    return 2 * size**3 / fastest
