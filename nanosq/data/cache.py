"""A directory of whole results, each made once: its key, its lock, its all-or-nothing write."""

import functools
import hashlib
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from nanosq.data import files
from nanosq.data.sources import Source
from nanosq.data.tokenizers import Tokenizer


def function(source: Source) -> Callable[..., Any]:
    return source.func if isinstance(source, functools.partial) else source


def key(source: Source, tokenizer: Tokenizer, version: int) -> str:
    """Sixteen hex digits that change with whatever determines the corpus."""
    target = function(source)
    positional, keywords = (source.args, source.keywords) if isinstance(source, functools.partial) else ((), {})
    try:
        bound = inspect.signature(target).bind(*positional, None, **keywords)
    except TypeError as error:
        raise ValueError(f"data.source: {target.__qualname__}: {error}") from error
    bound.apply_defaults()
    facts = {
        "format": version,
        "source": [target.__module__, target.__qualname__, _code(target)],
        "arguments": {name: _fact(name, value) for name, value in bound.arguments.items()},
        "tokenizer": tokenizer.state(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _code(function: Callable[..., Any]) -> str:
    """The text of its file, since a source is more than one function; in a notebook, of the function."""
    try:
        file = Path(inspect.getfile(function))
        return file.read_text(encoding="utf-8") if file.exists() else inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise ValueError(f"data.source: the code of {function.__qualname__} must stand in a file") from error


def _fact(name: str, value: Any) -> Any:
    """A plain value that changes when the argument does, or a file that it names."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | os.PathLike):
        # A name has a letter or digit in it; *** is a separator, and as a glob would match whatever lies around.
        found = files.named(os.fspath(value)) if any(map(str.isalnum, os.fspath(value))) else []
        facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in found]
        return facts or os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _fact(name, child) for key, child in value.items()}
    if isinstance(value, Sequence):
        return [_fact(name, child) for child in value]
    raise ValueError(f"data.source.{name} is a {type(value).__name__}; the cache needs plain values and lists")


def fill(folder: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary directory that becomes `folder`, unless `folder` is there already.

    Processes that start together call it once. Where it raises, nothing is left of it.
    """
    if folder.exists():
        return
    with _alone(folder):
        if not folder.exists():
            with _whole(folder) as temporary:
                write(temporary)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time is in here for the same folder. Leaves nothing that was not there before."""
    existed = folder.parent.exists()
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        while not lock.is_locked:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # another process has just removed the directory
                lock.acquire()
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


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A temporary directory that becomes `folder` in one step, or vanishes where anything is raised."""
    prefix = f".{folder.name}."
    for left in folder.parent.glob(f"{prefix}*.tmp"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
