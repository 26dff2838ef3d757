"""The cache directory of corpora: locks, all-or-nothing writes, and manifests with checksums."""

import functools
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from nanosq.filesystem import atomic_write, file_lock

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"


def fill(folder: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with an empty directory that becomes `folder`, unless `folder` exists and is undamaged.

    Processes that start together call `write` once. If `write` raises, its directory is deleted. If the process is
    killed, the next call starts over.
    """
    if folder.exists() and damage(folder) is None:
        return
    with lock(folder):
        if folder.exists():
            if (problem := damage(folder)) is None:
                return
            logger.warning(f"{folder} is damaged ({problem}): preparing it again")
        remove(folder)
        partial = unfinished(folder)
        partial.mkdir()
        try:
            write(partial)
        except BaseException:
            shutil.rmtree(partial)
            raise
        partial.rename(folder)


def unfinished(folder: Path) -> Path:
    """Return the directory that becomes `folder` at the end of `fill`."""
    return folder.with_name(f".{folder.name}{UNFINISHED}")


def folders(directory: Path) -> list[Path]:
    """Return the sorted folders of the corpora in a cache directory, also of those that are unfinished."""
    name = "?*-" + "[0-9a-f]" * 16
    begun = (path.with_name(path.name[1:].removesuffix(UNFINISHED)) for path in directory.glob(f".{name}{UNFINISHED}"))
    return sorted({*directory.glob(name), *begun})


def remove(folder: Path) -> None:
    """Delete a corpus, finished or not. The caller holds its lock."""
    for path in (folder, unfinished(folder)):
        if path.exists():
            shutil.rmtree(path)


@contextmanager
def lock(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a corpus. Create the cache directory if necessary, and delete it again if it stays empty.

    Raises:
        TimeoutError: Another process holds the lock and `wait` is false.
        ValueError: The directory cannot be written to.
    """
    directory = folder.parent
    with ExitStack() as stack:
        try:
            if not directory.exists():
                stack.callback(_remove_if_empty, directory)
                directory.mkdir(parents=True, exist_ok=True)
            waiting = f"another process prepares {folder}; waiting for it"
            stack.enter_context(file_lock(folder.with_name(f".{folder.name}.lock"), wait=wait, waiting=waiting))
        except TimeoutError:
            raise
        except OSError as error:
            raise ValueError(
                f"cannot write to the cache directory {directory} ({error.strerror}); set cache_dir=DIR"
            ) from error
        yield


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def sign(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest: the facts, and the size and checksum of every file in the folder."""
    contents = {
        path.name: {"bytes": path.stat().st_size, "sha256": checksum(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    with atomic_write(folder / MANIFEST) as file:
        file.write(json.dumps({**facts, "files": contents}, indent=1).encode())


def manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest that `sign` wrote.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
            raise ValueError("it lists no files")
        return record
    except (OSError, ValueError) as error:
        raise ValueError(f"{MANIFEST}: {error}") from error


def damage(folder: Path) -> str | None:
    """Return what is wrong with the first damaged file, or None if all files match the manifest."""
    try:
        for name, facts in manifest(folder)["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if (size := path.stat().st_size) != facts["bytes"]:
                return f"{name} has {size:,} bytes, not {facts['bytes']:,}"
            if checksum(path) != facts["sha256"]:
                return f"{name} has another checksum"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return str(error)
    return None


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file. A file that has not changed is read once."""
    status = path.stat()
    return _sha256_of_state(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@functools.cache  # the trials of a sweep in one process use the same corpus
def _sha256_of_state(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
