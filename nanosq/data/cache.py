"""The cache directory of corpora: locks, all-or-nothing writes, and manifests with checksums."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from nanosq.filesystem import atomic_write, file_digest, file_lock, writing

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"
SETTING = "cache_dir"


def fill(folder: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with an empty directory that becomes `folder`, unless `folder` exists and is undamaged.

    Processes that start together call `write` once. If `write` raises, its directory is deleted. If the process is
    killed, the next call starts over.

    Raises:
        FileError: The directory cannot be written to.
    """
    if folder.exists() and damage(folder) is None:
        return
    with lock(folder):
        if folder.exists():
            if (problem := damage(folder)) is None:
                return
            logger.warning(f"{folder} is damaged ({problem}): preparing it again")
        partial = unfinished(folder)
        with writing(folder, SETTING, reads=True):
            remove(folder)
            partial.mkdir()
            try:
                write(partial)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
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
        FileError: The directory cannot be written to.
    """
    directory = folder.parent
    waiting = f"another process prepares {folder}; waiting for it"
    with ExitStack() as stack:
        with writing(directory, SETTING):
            if not directory.exists():
                stack.callback(_remove_if_empty, directory)
                directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(file_lock(folder.with_name(f".{folder.name}.lock"), wait=wait, waiting=waiting))
        yield


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def sign(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest: the facts, the size and checksum of every file in the folder, and its own checksum."""
    contents = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    record = json.loads(json.dumps({**facts, "files": contents}))  # as it is read: with texts as keys
    with atomic_write(folder / MANIFEST) as file:
        file.write(json.dumps({**record, "sha256": _digest(record)}, indent=1).encode())


def manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest that `sign` wrote.

    Raises:
        ValueError: It cannot be read, or is damaged.
    """
    try:
        record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{MANIFEST}: {error}") from error
    if not isinstance(record, dict) or record.pop("sha256", "") != _digest(record):
        raise ValueError(f"{MANIFEST} has another checksum")
    return record


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def damage(folder: Path) -> str | None:
    """Return what is wrong with the first damaged file, or None if all files match the manifest."""
    try:
        for name, facts in manifest(folder)["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if (size := path.stat().st_size) != facts["bytes"]:
                return f"{name} has {size:,} bytes, not {facts['bytes']:,}"
            if file_digest(path) != facts["sha256"]:
                return f"{name} has another checksum"
    except (OSError, ValueError) as error:
        return str(error)
    return None
