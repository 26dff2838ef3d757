"""What the benchmarks share: memory, names of machines, result files."""

import csv
import ctypes
import resource
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from analysis.benchmarks.lib.proc import kibibytes
from nanosq.hardware import Hardware

MIB = 2**20


def place(hardware: Hardware) -> str:
    """Which GPU, or how many threads of a CPU."""
    if hardware.device.type == "cuda":
        return torch.cuda.get_device_name(hardware.device)
    return f"{torch.get_num_threads()} threads"


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_meter(device: torch.device) -> Callable[[], int]:
    """Begin to watch; the function returned tells by how many bytes this process has grown since, at its peak.

    On a CPU that is resident memory, on a GPU what PyTorch has allocated there.
    """
    if device.type != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        return lambda: torch.cuda.max_memory_allocated(device) - before
    ctypes.CDLL(None).malloc_trim(0)  # what was left in the heap would be used again, and not counted
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on: proc(5)
    before = kibibytes("self/status", "VmRSS")
    return lambda: 1024 * (kibibytes("self/status", "VmHWM") - before)


def available_memory(device: torch.device) -> int:
    """Bytes that can still be allocated."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 1024 * kibibytes("meminfo", "MemAvailable")


def limit_memory() -> None:
    """From here on an allocation that the machine cannot hold fails, and nothing is killed."""
    limit = kibibytes("self/status", "VmSize") + kibibytes("meminfo", "MemAvailable")
    resource.setrlimit(resource.RLIMIT_AS, (1024 * limit, resource.RLIM_INFINITY))


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def write(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """A CSV file, in a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
