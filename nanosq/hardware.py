"""Device, precision and compilation: what the user asked for, or what the machine is good at."""

import os
import shutil
import sysconfig
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

# On a CPU a compiled loss saves between 0.1 ns (cross-entropy) and 1 ns a logit, and compiling takes about 10 s:
# `python -m analysis.benchmark_loss`.
LOGITS_THAT_REPAY_COMPILING = 10**11


@dataclass(frozen=True)
class Hardware:
    """Where and how a model runs."""

    device: torch.device
    precision: str = "fp32"  # of matrix products; weights are float32 always
    compile: bool = False  # the model
    compile_loss: bool = False

    @classmethod
    def pick(cls, *, device: str, precision: str, compile: bool | str, n_logits: int = 0) -> Self:
        """Resolve `auto`: the first GPU, bf16 where it is multiplied fast, compiled on a GPU.

        On a CPU the compiler takes longer than most runs that a CPU is asked to do. The loss alone is compiled where
        the run has so many logits, `n_logits`, that it pays.

        ValueError for a device that is not there or a word that is none of the choices.
        """
        place = _device(device)
        if precision == "auto":
            precision = "bf16" if _multiplies_bfloat16_fast(place) else "fp32"
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision}: choose auto, {' or '.join(PRECISIONS)}")
        if compile == "auto":
            compile = place.type == "cuda"
            repaid = place.type == "cpu" and n_logits >= LOGITS_THAT_REPAY_COMPILING and _has_compiler()
            compile_loss = compile or repaid
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


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={name} is not available here: {str(error).splitlines()[0]}") from error
    return device


def _multiplies_bfloat16_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    return False


def _has_compiler() -> bool:
    """Whether torch.compile can build for the CPU: a C++ compiler, and the headers of Python."""
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return shutil.which(os.environ.get("CXX", "g++")) is not None and headers.exists()
