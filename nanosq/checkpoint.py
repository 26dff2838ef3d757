"""Checkpoints: written completely or not at all, read without executing anything, and resumed from.

A run keeps two files in its checkpoint folder: last.pt, to resume from, and best.pt, the weights of its best step.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nanosq.filesystem import PARTIAL, atomic_write, file_lock
from nanosq.train import Progress, TrainState

FORMAT = "nanosq-3"
RUN_ID = re.compile("[0-9a-f]{32}")  # an id of MLflow


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Folder that this process holds with `exclusive`.
        facts: Plain values that every checkpoint holds: architecture, settings, config_hash, run_id, tokenizer, splits.
    """

    folder: Path
    facts: Mapping[str, Any]

    def save_last(self, state: TrainState) -> None:
        """Save everything that training changes."""
        save(self.folder / "last.pt", {**self.facts, **state.snapshot()})

    def save_best(self, state: TrainState) -> None:
        """Save the weights."""
        save(self.folder / "best.pt", {**self.facts, "model": state.model.state_dict()})


@dataclass(frozen=True)
class Origin:
    """The recorded run that training continues, if there is one."""

    is_new: bool = True
    run_id: str = ""  # of the run that is resumed, if it was recorded
    resumed_from: str | None = None  # id of another run, whose state this run starts with


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


def clear(folder: Path) -> None:
    """Delete the checkpoints of an earlier run."""
    for name in ("last.pt", "best.pt"):
        (folder / name).unlink(missing_ok=True)


def find(resume: str, folder: Path) -> Path | None:
    """Return the checkpoint to resume from, or None for a new run.

    Args:
        resume: "auto", the last checkpoint of this run, if it has one; "never"; the path of a checkpoint; or the MLflow
            id of a run that left a checkpoint beside `folder`.
        folder: Checkpoint folder of this run.

    Raises:
        ValueError: No checkpoint of the given id exists.
    """
    last = folder / "last.pt"
    if resume == "never" or (resume == "auto" and not last.exists()):
        return None
    if resume == "auto":
        return last
    if not RUN_ID.fullmatch(resume):
        return Path(resume)
    for path in sorted(folder.parent.glob("*/last.pt")):
        with suppress(ValueError):  # a damaged checkpoint of another run
            if load(path)["run_id"] == resume:
                return path
    raise ValueError(f"run {resume} left no checkpoint in {folder.parent}: init_from={resume} starts from its weights")


def resume(state: TrainState, path: Path, *, facts: Mapping[str, Any], max_steps: int, folder: Path) -> Origin:
    """Restore the state of a checkpoint.

    Args:
        state: State to restore into.
        path: The checkpoint.
        facts: The facts of this run, as in `Checkpoints`.
        max_steps: Number of steps of this run.
        folder: Checkpoint folder of this run.

    Raises:
        ValueError: The checkpoint is of another text, model or optimizer, or of more than `max_steps` steps.
    """
    saved = load(path)
    _check_same(path, saved, facts, ("tokenizer", "splits"))
    state.restore(saved)
    if state.progress.step > max_steps:
        raise ValueError(
            f"{path} is at step {state.progress.step}, and train.max_steps={max_steps}: raise train.max_steps"
        )
    if saved["config_hash"] != facts["config_hash"]:  # for example a longer run: it has a best step of its own
        state.progress = Progress(step=state.progress.step)
        return Origin(resumed_from=saved["run_id"])
    if not (folder / "best.pt").exists():
        state.progress.best_perplexity = math.inf
    return Origin(is_new=False, run_id=saved["run_id"])


def load_weights(state: TrainState, path: Path, *, facts: Mapping[str, Any]) -> None:
    """Restore the weights of a checkpoint and nothing else.

    Raises:
        ValueError: The checkpoint is of another model or vocabulary.
    """
    saved = load(path)
    _check_same(path, saved, facts, ("tokenizer",))
    state.restore_weights(saved)


def _check_same(path: Path, saved: Mapping[str, Any], facts: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        if saved[key] != facts[key]:
            raise ValueError(f"{path} was trained on another text (its {key} differ): use the same data settings")
