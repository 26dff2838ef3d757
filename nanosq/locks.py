"""Locks that belong to a database: held by one process on whatever host, and free as soon as that process is gone."""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlparse

from filelock import FileLock

SQLITE = "sqlite:///"


def lockable(url: str) -> bool:
    """Whether there are locks for this kind of database: SQLite and PostgreSQL."""
    return url.startswith(SQLITE) or urlparse(url).scheme.split("+")[0] == "postgresql"


def lock(url: str, name: str = "", *, wait: bool = True) -> AbstractContextManager[object]:
    """Hold the lock `name` of a database; TimeoutError where another process has it and `wait` is false."""
    if url.startswith(SQLITE):
        return _file(Path(url.removeprefix(SQLITE)), name, wait)
    return _advisory(url, name, wait)


@contextmanager
def _file(database: Path, name: str, wait: bool) -> Iterator[None]:
    suffix = f".{_digest(name).hex()[:12]}" if name else ""
    held = FileLock(database.with_name(f"{database.name}{suffix}.lock"), blocking=wait)
    with held:
        try:
            yield
        finally:
            if name:  # one of many; filelock notices a lock that lost its name while it waited
                Path(held.lock_file).unlink(missing_ok=True)


@contextmanager
def _advisory(url: str, name: str, wait: bool) -> Iterator[None]:
    """A lock of a PostgreSQL session, which ends with the process."""
    from sqlalchemy import NullPool, create_engine, text

    key = {"key": int.from_bytes(_digest(name)[:8], "big", signed=True)}
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")  # no transaction stays open
    with engine.connect() as connection:
        if wait:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
        elif not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), key):
            raise TimeoutError(f"another process holds {name!r}")
        yield


def _digest(name: str) -> bytes:
    return hashlib.sha256(f"nanosq {name}".encode()).digest()
