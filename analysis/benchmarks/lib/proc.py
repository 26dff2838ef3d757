"""What Linux tells of memory; apart from the rest, since a process that imports PyTorch is larger by that."""

from pathlib import Path


def kibibytes(file: str, key: str) -> int:
    """A line of a file below /proc."""
    lines = Path("/proc", file).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def peak_memory() -> int:
    """Bytes that this process has had resident at most."""
    return 1024 * kibibytes("self/status", "VmHWM")
