"""Memory of this process and of the machine, as Linux and PyTorch report it.

Functions import PyTorch only if they need it, because a process that imports PyTorch is larger by that.
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MIB = 2**20


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes."""
    return _read_bytes("self/status", "VmHWM")


def memory_meter(device: torch.device) -> Callable[[], int]:
    """Return a function that tells by how many bytes this process has grown since now, at its peak.

    On a CPU this is resident memory, on a GPU it is what PyTorch has allocated there.
    """
    if device.type != "cpu":
        from torch import cuda

        cuda.reset_peak_memory_stats(device)
        allocated = cuda.memory_allocated(device)
        return lambda: cuda.max_memory_allocated(device) - allocated
    ctypes.CDLL(None).malloc_trim(0)  # free memory that is left in the heap would be reused, and not counted
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak: proc(5)
    resident = _read_bytes("self/status", "VmRSS")
    return lambda: peak_memory() - resident


def limit_memory() -> None:
    """Let an allocation fail that does not fit into the machine's memory; otherwise the kernel kills a process."""
    limit = _read_bytes("self/status", "VmSize") + _read_bytes("meminfo", "MemAvailable")
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _read_bytes(file: str, key: str) -> int:
    """Return the value of a line `key: 123 kB` in a file below /proc."""
    lines = Path("/proc", file).read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
