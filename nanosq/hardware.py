"""Device, precision and compilation: as the user asks, or chosen for the machine."""

import ctypes
import logging
import math
import os
import textwrap
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Self

import torch

from nanosq import memory
from nanosq.head import COMPILED_TILE_LOGITS, head_loss
from nanosq.losses import Loss, cross_entropy
from nanosq.threads import Waiting
from nanosq.token_scores import token_scores

logger = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# On a GPU, compiling takes about a minute and saves a third of the time: some minutes at 1e14
# FLOP/s repay it.
# On a CPU, compiling the model saves almost nothing (`analysis.benchmarks.training --compile`). Compiling the loss
# takes 4 to 14 s there and saves 0.5 to 1.5 ns for each logit (`analysis.benchmarks.loss`).
FLOPS_THAT_REPAY_COMPILING = 2e16
LOGITS_THAT_REPAY_COMPILING_THE_LOSS = 3e10


@dataclass(frozen=True)
class Hardware:
    """Device, precision and compilation of a run."""

    device: torch.device
    precision: str = "fp32"  # of matrix products; weights are always float32
    compile: bool = False  # whether to compile the model
    compile_loss: bool = False

    @classmethod
    def pick(
        cls,
        *,
        device: str,
        precision: str,
        compile: bool | str,
        loss: Loss = cross_entropy,
        n_flops: float = 0.0,
        n_logits: float = 0.0,
        n_tokens: int = 2,
        n_classes: int = 8,
    ) -> Self:
        """Resolve "auto": the first GPU, half precision if the hardware is fast with it, compiled if the run is long.

        Args:
            device: Name of a device, or "auto".
            precision: One of `PRECISIONS`, or "auto".
            compile: True, False or "auto".
            loss: The loss, to try whether it can be compiled.
            n_flops: Floating-point operations of the whole run, for `compile=auto`.
            n_logits: Logits of the whole run, for `compile=auto`; 0 if compiling the loss saves no time.
            n_tokens: Tokens of a batch, to try whether the loss can be compiled.
            n_classes: Size of the vocabulary, for the same.

        Raises:
            ValueError: The device is not available, a value is unknown, or compiling is asked for and does not work.
        """
        torch_device = _device(device)
        if precision == "auto":
            precision = _fast_precision(torch_device)
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision}: choose auto, {', '.join(PRECISIONS)}")
        if compile != "auto" and not isinstance(compile, bool):
            raise ValueError(f"compile={compile}: choose auto, true or false")
        model, loss_too = compile is True, compile is True
        if compile == "auto":
            model = torch_device.type == "cuda" and n_flops >= FLOPS_THAT_REPAY_COMPILING
            loss_too = model or (torch_device.type == "cpu" and n_logits >= LOGITS_THAT_REPAY_COMPILING_THE_LOSS)
        chosen = cls(torch_device, precision, model, loss_too)
        if loss_too and (failure := _compile_failure(chosen, loss, n_tokens, n_classes)):
            if compile is True:
                raise ValueError(f"compile=true: the loss cannot be compiled, use compile=false: {failure}")
            if os.environ.get("RANK", "0") == "0":
                logger.warning("compile=auto: nothing is compiled, because %s", failure)
            return cls(torch_device, precision)
        return chosen

    def __str__(self) -> str:
        compiled = " compiled" if self.compile else " loss compiled" if self.compile_loss else ""
        return f"{self.device} {self.precision}{compiled}"

    def autocast(self) -> AbstractContextManager[None]:
        """Compute matrix products in the precision of this run."""
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """Return a scaler that keeps fp16 gradients in range (arXiv 1710.03740). Other precisions need none."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    @property
    def matmul_dtype(self) -> torch.dtype:
        """Type of matrix products."""
        return PRECISIONS[self.precision]

    def memory(self) -> float:
        """Return the bytes of memory of the device, whether they are free or not."""
        return float(torch.cuda.mem_get_info(self.device)[1]) if self.device.type == "cuda" else memory.total()

    def waiting(self) -> AbstractContextManager[object]:
        """Let the threads of a CPU wait for each other as is best beside other programs."""
        return Waiting() if self.device.type == "cpu" else nullcontext()

    @property
    def reads_are_free(self) -> bool:
        """True if reading a value does not make the program wait for the device."""
        return self.device.type == "cpu"

    @property
    def peak_flops(self) -> float:
        """Floating-point operations per second of a large matrix product, measured: the peak that MFU refers to."""
        return _peak_flops(self.device, PRECISIONS[self.precision], torch.get_num_threads())


def prepare_memory() -> None:
    """Use the memory of a CPU fast, and let an allocation that is too large fail."""
    keep_freed_memory()
    memory.limit_to_free()


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next tensor instead of returning it to the kernel.

    A training step frees gigabytes and allocates them again at once, and the kernel sets every new page to zero. This
    takes 10 % of a step of GPT-2 on a CPU. See M_MMAP_MAX and M_TRIM_THRESHOLD in mallopt(3). Without glibc, nothing
    changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, -1)


def round_robin_device(number: int) -> str:
    """Return the device of the job with this number among several that run side by side: each GPU in turn."""
    n_gpus = torch.cuda.device_count()
    return f"cuda:{number % n_gpus}" if n_gpus else "auto"


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun: one GPU for each process
        if int(os.environ["LOCAL_WORLD_SIZE"]) > torch.cuda.device_count():
            raise ValueError(
                f"device=cuda: torchrun started more processes than this machine has GPUs, {torch.cuda.device_count()}"
            )
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


def _compile_failure(hardware: Hardware, loss: Loss, n_tokens: int, n_classes: int) -> str:
    """Return why torch.compile fails with a loss of this size, or an empty text.

    A compiler or Triton may be missing or broken, a folder not writable, a cached result damaged, and a loss of the
    user may use what torch.compile cannot trace. All of them show at the first call.
    """
    n_tokens = max(1, min(n_tokens, COMPILED_TILE_LOGITS // n_classes))
    hidden_ND = torch.ones(n_tokens, 4, device=hardware.device)
    weight_VD = torch.ones(n_classes, 4, device=hardware.device, requires_grad=True)
    targets_N = torch.zeros(n_tokens, dtype=torch.long, device=hardware.device)
    try:
        torch.compiler.reset()  # a function is compiled in eight versions at most, over all trials of a sweep
        with hardware.autocast():
            head_loss(loss, hidden_ND, weight_VD, targets_N, compile=True)[0].backward()
            token_scores(loss, hidden_ND, weight_VD, targets_N, compile=True)
    except Exception as error:  # of any kind: the loss itself has been tried without compiling
        text = str(error) or type(error).__name__
        of_compiler = (line for line in text.splitlines() if " error: " in line)
        return textwrap.shorten(next(of_compiler, text.split("\n\n")[0]), 300, placeholder=" ...")
    return ""


@cache
def _peak_flops(device: torch.device, dtype: torch.dtype, n_threads: int) -> float:
    size = 8192 if device.type == "cuda" else 1024  # milliseconds on either
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    first = begin = time.perf_counter()
    fastest = math.inf
    while begin - first < 0.1:
        float((matrix @ matrix)[0, 0])  # waits for the device
        begin, last = time.perf_counter(), begin
        fastest = min(fastest, begin - last)
    return 2 * size**3 / fastest
