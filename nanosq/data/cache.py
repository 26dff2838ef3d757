"""A directory of whole results, each made once: its lock, its all-or-nothing write, its manifest with checksums."""

import functools
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"


def fill(folder: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a directory that becomes `folder`, unless `folder` is there already and undamaged.

    Processes that start together call it once. `write` finds what an earlier call had written before it was killed
    or failed; where it raises ValueError of its own accord, nothing is left.
    """
    if folder.exists() and damage(folder) is None:
        return
    with alone(folder):
        if folder.exists():
            if (what := damage(folder)) is None:
                return
            logger.warning(f"{folder} is damaged ({what}): preparing it again")
            remove(folder)
        partial = unfinished(folder)
        partial.mkdir(exist_ok=True)
        try:
            write(partial)
        except ValueError as error:
            # Of what was given, which will be other than it is; but for a disk or network that failed for once.
            if getattr(error.__cause__, "errno", None) is None:
                shutil.rmtree(partial)
            raise
        partial.rename(folder)


def unfinished(folder: Path) -> Path:
    """The directory in which `folder` is made."""
    return folder.with_name(f".{folder.name}{UNFINISHED}")


def folders(directory: Path) -> list[Path]:
    """What `fill` has made in a directory, finished or begun, by their keys."""
    name = "?*-" + "[0-9a-f]" * 16
    begun = (path.with_name(path.name[1:].removesuffix(UNFINISHED)) for path in directory.glob(f".{name}{UNFINISHED}"))
    return sorted({*directory.glob(name), *begun})


def remove(folder: Path) -> None:
    """Delete what `fill` has made, finished or begun."""
    for place in (folder, unfinished(folder)):
        if place.exists():
            shutil.rmtree(place)


@contextmanager
def alone(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Only one process at a time is in here for the same folder. Leaves no lock, nor a directory made for it.

    filelock.Timeout where another one is, and this one is not to wait.
    """
    existed = folder.parent.exists()
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
    try:
        while not lock.is_locked:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # another process has just removed the directory
                try:
                    lock.acquire()
                except Timeout:
                    if not wait:
                        raise
                    logger.info(f"another process prepares {folder}; waiting for it")
                    lock.acquire(timeout=-1)
    except Timeout:
        raise
    except OSError as error:
        raise ValueError(
            f"cannot write to the cache directory {folder.parent} ({error.strerror}); set cache_dir=DIR"
        ) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: filelock notices a lock that lost its name
        lock.release()
        if not existed:
            with suppress(OSError):  # it holds something by now
                folder.parent.rmdir()


def sign(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest: the facts, and size and checksum of every file that lies in the folder."""
    partial = folder / f"{MANIFEST}.partial"
    partial.unlink(missing_ok=True)  # of a process that was killed
    contents = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST
    }
    partial.write_text(json.dumps({**facts, "files": contents}, indent=1), encoding="utf-8")
    partial.replace(folder / MANIFEST)


def manifest(folder: Path) -> dict[str, Any]:
    """What `sign` wrote. ValueError where it cannot be read."""
    try:
        record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
            raise ValueError("it lists no files")
        return record
    except (OSError, ValueError) as error:
        raise ValueError(f"{MANIFEST}: {error}") from error


def damage(folder: Path) -> str | None:
    """The first file that is not what the manifest says, and why; None where all are. Reads each of them whole."""
    try:
        for name, facts in manifest(folder)["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if (size := path.stat().st_size) != facts["bytes"]:
                return f"{name} has {size:,} bytes, not {facts['bytes']:,}"
            if _sha256(path) != facts["sha256"]:
                return f"{name} has another checksum"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return str(error)
    return None


def _sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_of(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.cache  # a sweep asks for the same corpus in each trial
def _sha256_of(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
