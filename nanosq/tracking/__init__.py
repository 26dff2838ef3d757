"""Tracking of runs: a store finds and starts runs, and a run records what one training reports."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, Self

from nanosq.result import Result


class Run(AbstractContextManager["Run"], Protocol):
    """One run of a store. The end of its `with` block sets how the run ended."""

    run_id: str  # empty where nothing is recorded, as are the two links
    link: str  # to the page of the run
    table: str  # link to the page of all runs

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of a step."""

    def tag(self, **tags: str) -> None:
        """Set tags."""

    def text(self, text: str, file: str) -> None:
        """Store a text as the artifact `file`."""

    def flush(self) -> None:
        """Write what is buffered to the store."""

    def keep(self, path: Path, folder: str) -> bool:
        """Copy a file into a folder of the artifacts. Return whether it is stored there."""


class Store(Protocol):
    """A tracking store. Its methods raise a ValueError where the store cannot be used."""

    def find(self, tags: Mapping[str, str]) -> Result | None:
        """Return the result of the last finished run that has these tags, or None."""

    def weights(self, run_id: str) -> Path:
        """Return a local file with the weights of the best step of a run."""

    def start(
        self,
        name: str,
        *,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        run_id: str = "",
        is_new: bool = False,
    ) -> Run:
        """Start a run, or resume one.

        Args:
            name: Name of the run.
            params: Parameters by name; None values are left out.
            tags: Tags by name. The tag "checkpoints" names a folder that this process holds a lock on.
            run_id: Run to resume, if the store still has it.
            is_new: Whether to start a new run in any case.
        """


class NoRun:
    """A run that records nothing."""

    run_id = link = table = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def tag(self, **tags: str) -> None:
        """Do nothing."""

    def text(self, text: str, file: str) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def keep(self, path: Path, folder: str) -> bool:
        """Return False: the file is not stored."""
        return False


class NoStore:
    """A store that holds no runs: `tracking=none`."""

    def find(self, tags: Mapping[str, str]) -> None:
        """Return None."""

    def weights(self, run_id: str) -> Path:
        """Raise a ValueError."""
        raise ValueError(f"tracking=none has no run {run_id}: give the path of a checkpoint")

    def start(self, name: str, **_: object) -> NoRun:
        """Return a run that records nothing."""
        return NoRun()
