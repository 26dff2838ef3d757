"""Journals of runs: a run writes what it records to a journal first, and the journal is delivered to the store.

A journal is a folder in the checkpoint folder of the run, which the process that uses it holds with a lock:

records.jsonl   one record in each line; lines are only added
best.pt, ...    the files that the run keeps (hard links, so that a new run in the checkpoint folder leaves them alone)

A record has one of the kinds start, metrics, summary, tags, text, model, file and end, which are of the run; or
delivered, which says how much of the file which run of the store has received.
"""

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from nanosq.filesystem import writing
from nanosq.tracking.location import moved_along

SETTING = "checkpoint_dir"  # of the folder that journals lie in
PREFIX = "journal-"
RECORDS = "records.jsonl"
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Delivered:
    """How much of a journal the store has received."""

    run_id: str = ""  # of the store; empty: the run has not been created
    position: int = 0  # bytes


class Journal:
    """The journal of one run.

    Its methods raise a FileError if they cannot write.

    Args:
        folder: Its folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / RECORDS
        self.start: Record = {}  # the last record of this kind
        self.tags: dict[str, str] = {}
        self.metrics: dict[str, float] = {}  # of the result
        self.status = ""  # how the run has ended; empty while it runs, and after a kill
        self.delivered = Delivered()
        self._time = 0  # of the last record
        for record, _ in self._read(0):
            self._note(record)

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Create a journal in a checkpoint folder."""
        path = folder / f"{PREFIX}{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
        with writing(path, SETTING):
            path.mkdir(parents=True)
        return cls(path)

    @property
    def id(self) -> str:
        """The same for no other journal."""
        return self.folder.name.removeprefix(PREFIX)

    def has_result(self, tags: Mapping[str, str]) -> bool:
        """Return whether the run has finished, with these tags."""
        return self.status == "FINISHED" and tags.items() <= self.tags.items()

    def is_for(self, address: str, experiment: str) -> bool:
        """Return whether the run is to be recorded at an address (nanosq/tracking/location.py), in an experiment."""
        return (self.address, self.start["experiment"]) == (address, experiment)

    @property
    def address(self) -> str:
        """The address of its store, which may have been moved or copied together with the journal."""
        present = self.folder.resolve()
        return moved_along(self.start["uri"], Path(self.start.get("folder", present)), present)

    def record(self, kind: str, **content: Any) -> None:
        """Add a record of the run. Its time, in milliseconds since 1970, is later than that of all others."""
        self._append({"kind": kind, "time": max(int(time.time() * 1000), self._time + 1), **content})

    def note_delivery(self, run_id: str, position: int) -> None:
        """Note how much of the journal a run of the store has received."""
        self._append({"kind": "delivered", "run_id": run_id, "position": position})

    def _append(self, record: Record) -> None:
        # One write for each record, since the training and the delivery add records at the same time. It begins a new
        # line, in case the last record is incomplete, because its process was killed.
        line = b"\n" + json.dumps(record).encode() + b"\n"
        with writing(self._path, SETTING), self._path.open("ab", buffering=0) as file:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._note(record)

    def keep(self, file: Path) -> None:
        """Keep the present content of a file of the checkpoint folder, under its name."""
        kept = self.folder / file.name
        with writing(kept, SETTING):
            kept.unlink(missing_ok=True)
            try:
                os.link(file, kept)
            except OSError:  # the file system has no hard links
                shutil.copyfile(file, kept)

    def flush(self) -> None:
        """Write the records to the disk, so that they survive a power failure."""
        with writing(self._path, SETTING), self._path.open("ab") as file:
            os.fsync(file.fileno())

    def pending(self) -> Iterator[tuple[Record, int]]:
        """Yield the records of the run that the store has not received, each with the position after it."""
        for record, position in self._read(self.delivered.position):
            if record["kind"] != "delivered":
                yield record, position

    def delete(self) -> None:
        """Delete the journal and its files."""
        with writing(self.folder, SETTING):
            shutil.rmtree(self.folder)

    def _read(self, position: int) -> Iterator[tuple[Record, int]]:
        with suppress(FileNotFoundError), self._path.open("rb") as file:  # a new journal, or one that was delivered
            file.seek(position)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written
                    return
                position += len(line)
                try:
                    record = json.loads(line)
                except ValueError:  # an empty line, or an incomplete one of a process that was killed
                    continue
                yield record, position

    def _note(self, record: Record) -> None:
        if "time" in record:
            self._time = record["time"]
        match record["kind"]:
            case "start":
                self.start, self.status = record, ""
                self.tags |= record["tags"]
            case "tags":
                self.tags |= record["tags"]
            case "summary":
                self.metrics = dict(record["metrics"])
            case "end":
                self.status = record["status"]
            case "delivered":
                self.delivered = Delivered(record["run_id"], record["position"])


def undelivered(folder: Path) -> list[Journal]:
    """Return the journals below a folder, or that which it is: what stores have not received, the oldest first."""
    paths = [folder] if folder.name.startswith(PREFIX) else folder.rglob(f"{PREFIX}*")
    found = [Journal(path) for path in sorted(paths, key=lambda path: path.name) if path.is_dir()]
    return [journal for journal in found if journal.start]  # else its process was killed before the first record
