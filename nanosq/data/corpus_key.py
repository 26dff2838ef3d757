"""The key of a corpus in the cache: a hash of everything that determines the corpus."""

import functools
import hashlib
import inspect
import json
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nanosq.data import readers
from nanosq.data.sources import Source
from nanosq.data.tokenizers import Tokenizer


def key(facts: Mapping[str, Any]) -> str:
    """Return sixteen hexadecimal digits that change with any of the facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def facts(source: Source, tokenizer: Tokenizer, version: int) -> dict[str, Any]:
    """Return all that determines a corpus: the function of the source, its code, arguments and files; the tokenizer.

    Raises:
        ValueError: The arguments do not fit the function, or are no plain values.
    """
    function = source_function(source)
    split = object()  # stands for any split
    positional, keywords = (source.args, source.keywords) if isinstance(source, functools.partial) else ((), {})
    try:
        bound = inspect.signature(function).bind(*positional, split, **keywords)
    except TypeError as error:
        raise ValueError(f"data.source: {function.__qualname__}: {error}") from error
    bound.apply_defaults()
    arguments = {name: value for name, value in bound.arguments.items() if value is not split}
    literals = _literal_arguments(function)
    return {
        "format": version,
        "source": f"{function.__module__}.{function.__qualname__}",
        "code": hashlib.sha256(_code(function).encode()).hexdigest(),
        "arguments": {name: value if name in literals else _fact(name, value) for name, value in arguments.items()},
        "tokenizer": tokenizer.state(),
    }


def source_function(source: Source) -> Callable[..., Any]:
    """Return the function of a source, which may be a partial."""
    return source.func if isinstance(source, functools.partial) else source


def _literal_arguments(function: Callable[..., Any]) -> set[str]:
    """Return the arguments of type Literal, which never name a file."""
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # of a type that is only imported for the type checker
        return set()
    return {name for name, hint in hints.items() if typing.get_origin(hint) is typing.Literal}


def _code(function: Callable[..., Any]) -> str:
    """Return the text of the whole file, since a source may call other functions; in a notebook, of the function."""
    try:
        file = Path(inspect.getfile(function))
        return file.read_text(encoding="utf-8") if file.exists() else inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise ValueError(f"data.source: the code of {function.__qualname__} must be in a file") from error


def _fact(name: str, value: Any) -> Any:
    """Return a plain value that changes when the argument changes, or a file that it names."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | os.PathLike):
        # The name of a file has a letter or digit in it. The separator *** would match every file as a glob.
        text = os.fspath(value)
        files = readers.matching_files(text) if any(map(str.isalnum, text)) else []
        return [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files] or text
    if isinstance(value, Mapping):
        return {str(key): _fact(name, child) for key, child in value.items()}
    if isinstance(value, Sequence):
        return [_fact(name, child) for child in value]
    raise ValueError(f"data.source.{name} is a {type(value).__name__}; the cache needs plain values and lists")
