"""Atomic writes of files, and locks on files and databases that are released when their process ends."""

import functools
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from urllib.parse import urlparse

from filelock import FileLock, Timeout

from nanosq.errors import OF_WRITING, FileError, InputError, make_writable

logger = logging.getLogger(__name__)

PARTIAL = ".partial"  # suffix of a file that is being written
SQLITE = "sqlite:///"
LONGEST_NAME = 255  # bytes of a file name in the usual file systems
SHORTENED = 200  # bytes to which `file_name` shortens a name, so that a suffix has room
UNSAFE = re.compile(r"[^\w.-]|^\.+$")  # in a file name


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces `path` when the block ends.

    At any moment `path` is the old file or the complete new one. If the block raises, the old file stays. The block can
    read what it has written.
    """
    partial = path.with_name(f"{path.name}{PARTIAL}")
    try:
        with partial.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a write that fails has none
        raise
    finally:
        partial.unlink(missing_ok=True)


def checked_name(key: str, name: str) -> str:
    """Return a name of the configuration that becomes the name of a file or folder, if it stays in its folder.

    Args:
        key: The setting, for the message.
        name: Its value.

    Raises:
        InputError: The name is empty, "." or "..", too long, or has a path separator or a control character.
    """
    if name in ("", ".", ".."):
        problem = "is no name"
    elif wrong := [character for character in name if character in "/\\" or not character.isprintable()]:
        problem = f"contains {wrong[0]!r}"
    elif len(name.encode()) > LONGEST_NAME:
        problem = f"is longer than {LONGEST_NAME} bytes"
    else:
        return name
    raise InputError(f"{key}={name[:40]!r} {problem}: it names files, so use letters, digits, '-', '_' and '.'")


def file_name(text: str) -> str:
    """Return a text as the name of a file: without characters that a path or an override cannot have, and not too long.

    A long text keeps its beginning and a hash, so that different texts have different names.
    """
    name = UNSAFE.sub("_", text)
    if len(name.encode()) <= SHORTENED:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name.encode()[: SHORTENED - 9].decode(errors='ignore')}-{digest}"


def check_folder(key: str, folder: Path) -> None:
    """Raise InputError that names a setting if `check_creatable` refuses the folder that the setting names."""
    try:
        check_creatable(folder)
    except ValueError as error:
        raise InputError(f"{key}: {error}") from error


def check_creatable(folder: Path) -> None:
    """Raise ValueError if files cannot be written into a folder, which is created when the first one is."""
    try:
        for place in (folder, *folder.absolute().parents):
            with suppress(FileNotFoundError, NotADirectoryError):
                place.lstat()
                break
        if place.exists() and not place.is_dir():
            raise ValueError(f"cannot write {folder}: {place} is not a folder")
        _try(place)
    except OSError as error:
        raise ValueError(f"cannot write {folder}: {error.strerror}") from error


@contextmanager
def writing(path: Path, setting: str, *, reads: bool = False) -> Iterator[None]:
    """Name the path and the setting of its folder in an error of the block, which writes files.

    Args:
        path: The file or folder.
        setting: The setting.
        reads: Whether the block reads other files too, whose errors are not changed.

    Raises:
        FileError: The block cannot write.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, TimeoutError) or (reads and error.errno not in OF_WRITING):  # the first is of a lock
            raise
        advice = f"{make_writable(error)}, or set {setting}=DIR"
        raise FileError(f"cannot write {path} ({error.strerror or error}): {advice}") from error


def write_text(path: Path, text: str, setting: str) -> None:
    """Write a text file, completely or not at all, and create its folder. `setting` is that of the folder.

    Raises:
        FileError: It cannot be written.
    """
    with writing(path, setting):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(text.encode())


def check_writable(path: Path) -> None:
    """Raise ValueError if `atomic_write` cannot write a file: it is no regular file, or its folder takes no files."""
    try:
        if path.is_dir():
            raise ValueError(f"{path} is a folder: give the name of a file")
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is not a regular file: give the name of another one")
        if not path.parent.is_dir():
            raise ValueError(f"cannot write {path}: there is no folder {path.parent}")
        _try(path.parent)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from error


def _try(folder: Path) -> None:
    """Raise the OSError of a new file in a folder. Permissions alone do not tell whether it is possible."""
    with TemporaryFile(dir=folder):
        pass


def file_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file in hexadecimal digits. A file that has not changed is read once."""
    status = path.stat()
    return _digest_of_state(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@functools.cache
def _digest_of_state(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def file_lock(path: Path, *, wait: bool = True, waiting: str = "") -> Iterator[None]:
    """Hold the lock file `path`, which is deleted afterwards.

    Args:
        path: The lock file. Its directory must exist.
        wait: Whether to wait while another process holds the lock.
        waiting: Message to log once before waiting.

    Raises:
        TimeoutError: Another process holds the lock and `wait` is false.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise
        if waiting:
            logger.info(waiting)
        lock.acquire()
    try:
        yield
    finally:
        # Deleted while it is held: filelock notices that a lock file it waited for was deleted, and tries again.
        with suppress(OSError):  # the disk has become read-only
            path.unlink(missing_ok=True)
        lock.release()


def has_locks(url: str) -> bool:
    """Return whether `database_lock` supports the database of this URL: SQLite or PostgreSQL."""
    return url.startswith(SQLITE) or urlparse(url).scheme.split("+")[0] == "postgresql"


def database_lock(url: str, name: str = "", *, wait: bool = True) -> AbstractContextManager[None]:
    """Hold the lock `name` of a database.

    A lock file beside a SQLite database; an advisory lock of a PostgreSQL session, which ends with the process.

    Raises:
        TimeoutError: Another process holds the lock and `wait` is false.
    """
    if url.startswith(SQLITE):
        database = Path(url.removeprefix(SQLITE))
        suffix = f".{_digest(name).hex()[:12]}" if name else ""
        return file_lock(database.with_name(f"{database.name}{suffix}.lock"), wait=wait)
    return _advisory_lock(url, name, wait)


def limit_connecting() -> None:
    """Let a PostgreSQL server that does not answer be an error after 5 seconds; by default it is after two minutes.

    A user who sets the variable keeps that value.
    """
    os.environ.setdefault("PGCONNECT_TIMEOUT", "5")


@contextmanager
def _advisory_lock(url: str, name: str, wait: bool) -> Iterator[None]:
    from sqlalchemy import NullPool, create_engine, text

    key = {"key": int.from_bytes(_digest(name)[:8], "big", signed=True)}
    limit_connecting()
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")  # no transaction stays open
    with engine.connect() as connection:
        if wait:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
        elif not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), key):
            raise TimeoutError(f"another process holds {name!r}")
        yield


def _digest(name: str) -> bytes:
    return hashlib.sha256(f"nanosq {name}".encode()).digest()
