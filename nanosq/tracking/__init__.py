"""Tracking of runs: a store finds and starts runs, and a run records what one training reports.

The classes here record nothing (`tracking=none`). A tracking store is a subclass of each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nanosq.result import Result

if TYPE_CHECKING:
    from nanosq.tracking.journal import Journal


@dataclass(frozen=True)
class RecordedData:
    """The text of a run: its name, a hash, where it comes from, and its size."""

    name: str
    digest: str
    source: Mapping[str, Any]  # parameters by name
    profile: Mapping[str, Any]


class Run:
    """One run of a store. The end of its `with` block sets how the run ended."""

    run_id = ""  # empty until the store has the run
    link = ""  # to the page of the run
    table = ""  # link to a table of all runs
    charts = ""  # link to the curves of all runs
    unrecorded = ""  # after the end: the folder of the journal that the store has not received, if there is one

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of a step."""

    def tag(self, **tags: str) -> None:
        """Set tags."""

    def text(self, text: str, file: str) -> None:
        """Store a text as the artifact `file`."""

    def summarize(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the metrics of the result: they become the last values of the run. Its curves stay as they are."""

    def model(self, name: str, weights: Path, *, step: int) -> None:
        """Record the run's model. The scores that `summarize` records afterwards are those of this model.

        Args:
            name: Name for people.
            weights: The file of its weights, best.pt. It is read at the end of the run.
            step: Number of training steps after which it had these weights.
        """

    def flush(self) -> None:
        """Make sure that nothing that was recorded can be lost."""

    def keep(self, path: Path, folder: str) -> bool:
        """Copy a file into a folder of the artifacts. Return whether it is stored there."""
        return False


class Store:
    """A tracking store. Its methods raise a ValueError if the store cannot be used."""

    def check(self) -> None:
        """Check, without writing anything, that runs can be recorded."""

    def find(self, tags: Mapping[str, str], folder: Path | None = None) -> Result | None:
        """Return the result of the last finished run that has these tags, or None.

        Args:
            tags: The tags.
            folder: Checkpoint folder that this process holds. What earlier runs have left there is delivered first, and
                found there if the store cannot be reached.
        """
        return None

    def undelivered(self, folder: Path) -> "list[Journal]":
        """Return the journals in a folder or below it that are for this store, the oldest first."""
        return []

    def deliver(self, journal: "Journal") -> str:
        """Deliver a journal in a checkpoint folder, which this process holds, and delete it.

        Returns:
            The link to the run.
        """
        raise ValueError("tracking=none records no runs")

    def parameters(self, run_id: str) -> Mapping[str, str]:
        """Return the parameters of a run, as texts by their name."""
        raise ValueError(f"tracking=none has no run {run_id}")

    def facts(self, run_id: str) -> tuple[Mapping[str, str], Mapping[str, float]]:
        """Return the tags and the last values of the metrics of a run, by name."""
        raise ValueError(f"tracking=none has no run {run_id}")

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Return the steps and values of a metric, in the order in which a run has recorded them."""
        raise ValueError(f"tracking=none has no run {run_id}")

    def checkpoint(self, run_id: str, file: str) -> Path:
        """Return a local copy of a checkpoint that a run has kept: best.pt or last.pt."""
        raise ValueError(f"tracking=none has no run {run_id}: give the path of a checkpoint")

    def start(
        self,
        name: str,
        *,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        data: RecordedData | None = None,
        run_id: str = "",
        is_new: bool = False,
        folder: Path | None = None,
    ) -> Run:
        """Start a run, or resume one.

        Args:
            name: Name of the run. A name that is not unique is made unique. A resumed run keeps its name.
            params: Parameters by name; None values are left out.
            tags: Tags by name. The tag "checkpoints" names the checkpoint folder, for other machines too.
            data: The text that it is trained on.
            run_id: Run to resume, if the store still has it.
            is_new: Whether to start a new run in any case.
            folder: Checkpoint folder that this process holds. It keeps what the store has not received.
        """
        return Run()
