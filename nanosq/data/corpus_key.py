"""What determines a corpus, and the key that its place in the cache is named by."""

import functools
import hashlib
import inspect
import json
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nanosq.data import files
from nanosq.data.sources import Source
from nanosq.data.tokenizers import Tokenizer


def function(source: Source) -> Callable[..., Any]:
    return source.func if isinstance(source, functools.partial) else source


def facts(source: Source, tokenizer: Tokenizer, version: int) -> dict[str, Any]:
    """All that determines a corpus: the source's function, its code, arguments and their files; the tokenizer."""
    target = function(source)
    split = object()  # stands for any
    positional, keywords = (source.args, source.keywords) if isinstance(source, functools.partial) else ((), {})
    try:
        bound = inspect.signature(target).bind(*positional, split, **keywords)
    except TypeError as error:
        raise ValueError(f"data.source: {target.__qualname__}: {error}") from error
    bound.apply_defaults()
    arguments = {name: value for name, value in bound.arguments.items() if value is not split}
    chosen = _choices(target)
    return {
        "format": version,
        "source": f"{target.__module__}.{target.__qualname__}",
        "code": hashlib.sha256(_code(target).encode()).hexdigest(),
        "arguments": {name: value if name in chosen else _fact(name, value) for name, value in arguments.items()},
        "tokenizer": tokenizer.state(),
    }


def _choices(function: Callable[..., Any]) -> set[str]:
    """Its arguments that are one of some words, and never the name of a file."""
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # of a type that is imported for the type checker alone
        return set()
    return {name for name, hint in hints.items() if typing.get_origin(hint) is typing.Literal}


def key(facts: Mapping[str, Any]) -> str:
    """Sixteen hex digits that change with any of the facts."""
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
