"""Device, precision and compilation: what the user asked for, or what the machine is good at."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Hardware:
    """Where and how a model runs."""

    device: torch.device
    precision: str = "fp32"  # of matrix products; weights are float32 always
    compile: bool = False

    @classmethod
    def pick(cls, *, device: str, precision: str, compile: bool | str) -> Self:
        """Resolve `auto`: the first GPU, bf16 where it is multiplied fast, compiled on a GPU.

        ValueError for a device that is not there or a word that is none of the choices.
        """
        place = _device(device)
        if precision == "auto":
            precision = "bf16" if _multiplies_bfloat16_fast(place) else "fp32"
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision}: choose auto, {' or '.join(PRECISIONS)}")
        if compile == "auto":
            # On a CPU the compiler takes longer than most runs that a CPU is asked to do.
            compile = place.type == "cuda"
        if not isinstance(compile, bool):
            raise ValueError(f"compile={compile}: choose auto, true or false")
        return cls(place, precision, compile)

    def __str__(self) -> str:
        return f"{self.device} {self.precision}{' compiled' if self.compile else ''}"

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
