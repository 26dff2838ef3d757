"""Checkpoints: written whole or not at all, and read without executing anything."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from nanosq.filesystem import PARTIAL, atomic_write, file_lock

logger = logging.getLogger(__name__)

FORMAT = "nanosq-3"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; the file is the old one or the new one whenever the plug is pulled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; ValueError where there is none or where it is damaged."""
    if not Path(path).is_file():
        raise ValueError(f"no checkpoint at {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever the unpickler makes of bytes that are none of a checkpoint's
        raise ValueError(f"{path} is not a checkpoint of nanosq, or is damaged") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of nanosq")
    return state


@contextmanager
def exclusive(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Make the folder of a run's checkpoints, for this process alone.

    Where another has it, ValueError, or a wait until that has ended.

    Where nothing is kept in it, it is gone afterwards, as is what a process that was killed had not written whole.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    try:
        with file_lock(lock, wait=wait, waiting="another process trains this configuration: waiting until it ends"):
            folder.mkdir(exist_ok=True)
            try:
                yield
            finally:
                for partial in folder.glob(f"*{PARTIAL}"):
                    partial.unlink()
                with suppress(OSError):
                    folder.rmdir()
    except TimeoutError as error:
        raise ValueError(f"another process is training this very configuration: it has {folder}") from error
