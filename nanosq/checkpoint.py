"""Checkpoints: written completely or not at all, and read without executing anything.

A checkpoint is a file of torch.save with a checksum behind it, which torch.load ignores.

The checkpoint folder of a run holds these files:

last.pt      the state of the last checkpoint, to resume the run from
best.pt      the weights that are the run's model
final.pt     the last.pt of a finished run with `train.keep_last`, unless the tracking store keeps it
previous.pt  the last.pt of an interrupted run of other code or text; a new run has taken its place
"""

import re
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from nanosq.errors import FileError, is_out_of_memory
from nanosq.filesystem import PARTIAL, atomic_write, file_lock, writing
from nanosq.train import TrainState

FORMAT = "nanosq-5"
SETTING = "checkpoint_dir"
ADVICE = "name another one"
ADVICE_FOR_STATES = f"{ADVICE}, or start a new run with resume=never"
CHECKSUM = len("crc32=00000000")  # bytes at the end of a file
CHUNK = 1 << 20  # bytes read at a time
RUN_ID = re.compile("[0-9a-f]{32}")  # an id of MLflow

# Keys that readers need, and the types of their values.
WEIGHTS = {"settings": dict, "architecture": dict, "tokenizer": dict, "model": dict}
STATE = {
    **WEIGHTS,
    **dict.fromkeys(("optimizer", "scaler", "progress"), dict),
    **{"config_hash": str, "run_id": str, "splits": list},
}


class HeldError(ValueError):
    """Another process holds a checkpoint folder."""


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

    def restore_best(self, state: TrainState) -> None:
        """Restore the weights of `save_best`.

        Raises:
            FileError: The file was deleted or damaged during training.
        """
        try:
            state.restore_weights(load(self.folder / "best.pt", WEIGHTS))
        except ValueError as error:
            raise FileError(f"{error}; the same command goes on without it") from error


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values. At any moment the file is the old one or the complete new one.

    Raises:
        FileError: The file cannot be written.
    """
    with writing(path, SETTING):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            try:
                torch.save({"format": FORMAT, **content}, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # an error of `file`, which PyTorch hides
                    raise error.__context__ from None
                raise
            file.write(_checksum(file, file.tell()))


def load(path: str | Path, needs: Mapping[str, type] | None = None) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Args:
        path: The file.
        needs: Keys that it must have, and the types of their values, such as WEIGHTS.

    Raises:
        ValueError: The file is missing, damaged, no checkpoint, of another version of nanosq, or lacks a key.
    """
    if not Path(path).is_file():
        raise ValueError(f"no checkpoint at {path}")
    advice = ADVICE_FOR_STATES if needs is STATE else ADVICE
    content, is_intact = _read(Path(path), advice)
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, str) and found.startswith("nanosq-") and found != FORMAT:
        raise ValueError(f"{path} was written by another version of nanosq and cannot be read: {advice}")
    if found != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of nanosq: {advice}")
    if not is_intact:
        raise ValueError(f"{path} is damaged, because its checksum is wrong: {advice}")
    if needs is STATE and "optimizer" not in content:
        raise ValueError(f"{path} holds only weights: init_from={path} starts from them")
    for key, kind in (needs or {}).items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"{path} is not a whole checkpoint, because its {key} is missing: {advice}")
    return dict(content)


def _read(path: Path, advice: str) -> tuple[Any, bool]:
    """Return what a file of torch.save holds, and whether its checksum is right. An error ends with `advice`."""
    with path.open("rb") as file:
        size = max(0, path.stat().st_size - CHECKSUM)
        is_intact = _checksum(file, size) == file.read()
        file.seek(0)
        try:
            with warnings.catch_warnings(action="ignore"):  # about pickles that it will refuse
                return torch.load(file, map_location="cpu", weights_only=True), is_intact
        except Exception as error:  # the unpickler raises errors of many kinds for a file that is no checkpoint
            if is_intact and is_out_of_memory(error):
                raise
            raise ValueError(f"{path} is not a checkpoint of nanosq, or is damaged: {advice}") from error


def _checksum(file: IO[bytes], size: int) -> bytes:
    """Return the checksum of the first `size` bytes of a file. Afterwards, the file is at their end."""
    file.seek(0)
    value = 0
    for start in range(0, size, CHUNK):
        value = zlib.crc32(file.read(min(CHUNK, size - start)), value)
    return f"crc32={value:08x}".encode()


@contextmanager
def exclusive(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Create a checkpoint folder and hold it for this process alone.

    Afterwards an empty folder is deleted, and so are incomplete files of processes that were killed.

    Raises:
        HeldError: Another process holds the folder and `wait` is false.
        FileError: The folder cannot be created.
    """
    message = f"another process is training this very configuration in {folder}"
    lock = file_lock(folder.with_name(f".{folder.name}.lock"), wait=wait, waiting=f"{message}: waiting")
    with ExitStack() as stack:
        with writing(folder, SETTING):
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(lock)
            except TimeoutError as error:
                raise HeldError(f"{message}: wait for it, or set another {SETTING}") from error
            folder.mkdir(exist_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):  # the folder is not empty, or has become read-only
                for partial in folder.glob(f"*{PARTIAL}"):
                    partial.unlink()
                folder.rmdir()


def clear(folder: Path, *, keep_previous: bool = False) -> None:
    """Delete the checkpoints of an earlier run. With `keep_previous`, its last.pt becomes previous.pt.

    Raises:
        FileError: They cannot be deleted.
    """
    with writing(folder, SETTING):
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

    Raises:
        FileError: They cannot be deleted.
    """
    last = folder / "last.pt"
    with writing(folder, SETTING):
        if keep_last and last.exists() and last not in kept:
            last.replace(folder / "final.pt")
        for path in (*kept, last, folder / "previous.pt"):
            path.unlink(missing_ok=True)


def find(run_id: str, folder: Path) -> Path | None:
    """Return the last checkpoint of an interrupted run in a folder of `folder`, or None."""
    for path in sorted((*folder.glob("*/last.pt"), *folder.glob("*/previous.pt"))):
        with suppress(ValueError):  # a damaged checkpoint of another run
            if load(path, {"run_id": str})["run_id"] == run_id:
                return path
    return None
