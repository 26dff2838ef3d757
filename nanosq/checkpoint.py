"""Checkpoints: written completely or not at all, and read without executing anything.

The checkpoint folder of a run holds these files:

last.pt      the state of the last checkpoint, to resume the run from
best.pt      the weights that are the run's model
final.pt     the last.pt of a finished run with `train.keep_last`, unless the tracking store keeps it
previous.pt  the last.pt of an interrupted run of other code or text; a new run has taken its place
"""

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nanosq.filesystem import PARTIAL, atomic_write, file_lock
from nanosq.train import TrainState

FORMAT = "nanosq-4"
RUN_ID = re.compile("[0-9a-f]{32}")  # an id of MLflow


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Folder that this process holds with `exclusive`.
        facts: Plain values that every checkpoint holds: architecture, settings, config_hash, run_id, tokenizer, splits,
            precision.
    """

    folder: Path
    facts: Mapping[str, Any]

    def save_last(self, state: TrainState) -> None:
        """Save everything that training changes."""
        save(self.folder / "last.pt", {**self.facts, **state.snapshot()})

    def save_best(self, state: TrainState) -> None:
        """Save the weights."""
        save(self.folder / "best.pt", {**self.facts, "model": state.model.state_dict()})


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values. At any moment the file is the old one or the complete new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        torch.save({"format": FORMAT, **content}, file)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        ValueError: The file is missing, damaged, no checkpoint, or of another version of nanosq.
    """
    if not Path(path).is_file():
        raise ValueError(f"no checkpoint at {path}")
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles that it will refuse
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the unpickler raises errors of many kinds for a file that is no checkpoint
        raise ValueError(f"{path} is not a checkpoint of nanosq, or is damaged") from error
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, str) and found.startswith("nanosq-") and found != FORMAT:
        raise ValueError(
            f"{path} was written by another version of nanosq and cannot be read; resume=never starts a new run"
        )
    if found != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of nanosq")
    return dict(content)


@contextmanager
def exclusive(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Create a checkpoint folder and hold it for this process alone.

    Afterwards an empty folder is deleted, and so are incomplete files of processes that were killed.

    Raises:
        ValueError: Another process holds the folder and `wait` is false.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    message = f"another process is training this very configuration in {folder}"
    with ExitStack() as stack:
        try:
            stack.enter_context(
                file_lock(folder.with_name(f".{folder.name}.lock"), wait=wait, waiting=f"{message}: waiting")
            )
        except TimeoutError as error:
            raise ValueError(f"{message}: wait for it, or set another checkpoint_dir") from error
        folder.mkdir(exist_ok=True)
        try:
            yield
        finally:
            for partial in folder.glob(f"*{PARTIAL}"):
                partial.unlink()
            with suppress(OSError):  # the folder is not empty
                folder.rmdir()


def clear(folder: Path, *, keep_previous: bool = False) -> None:
    """Delete the checkpoints of an earlier run. With `keep_previous`, its last.pt becomes previous.pt."""
    if keep_previous:
        (folder / "last.pt").replace(folder / "previous.pt")
    for name in ("last.pt", "best.pt", "final.pt"):
        (folder / name).unlink(missing_ok=True)


def finish(folder: Path, *, kept: Collection[Path], keep_last: bool) -> None:
    """Delete the checkpoints of a finished run that are not needed any more.

    Args:
        folder: Checkpoint folder of the run.
        kept: Files that the tracking store has a copy of.
        keep_last: Whether last.pt, if it is not in `kept`, becomes final.pt, so that the run is not resumed by itself.
    """
    last = folder / "last.pt"
    if keep_last and last.exists() and last not in kept:
        last.replace(folder / "final.pt")
    for path in (*kept, last, folder / "previous.pt"):
        path.unlink(missing_ok=True)


def find(run_id: str, folder: Path) -> Path | None:
    """Return the last checkpoint of an interrupted run in a folder of `folder`, or None."""
    for path in sorted((*folder.glob("*/last.pt"), *folder.glob("*/previous.pt"))):
        with suppress(ValueError):  # a damaged checkpoint of another run
            if load(path)["run_id"] == run_id:
                return path
    return None
