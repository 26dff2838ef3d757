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
from nanosq.own_code import own_files


def key(facts: Mapping[str, Any]) -> str:
    """Return sixteen hexadecimal digits that change with any of the facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def facts(source: Source, tokenizer: Tokenizer, version: int) -> dict[str, Any]:
    """Return all that determines a corpus: the function of the source, its code, arguments and files; the tokenizer.

    Raises:
        ValueError: The arguments do not fit the function, or are no plain values.
    """
    function = source_function(source)
    literals = _literal_arguments(function)
    facts_of_arguments = {
        name: value if name in literals else _fact(name, value) for name, value in _arguments(source).items()
    }
    return {
        "format": version,
        "source": f"{function.__module__}.{function.__qualname__}",
        "code": hashlib.sha256(_code(function).encode()).hexdigest(),
        "arguments": facts_of_arguments,
        "tokenizer": tokenizer.state(),
    }


def names(source: Source) -> dict[str, list[str]]:
    """Return the paths and globs, made absolute, by which each argument of a source names its files."""
    literals = _literal_arguments(source_function(source))
    found = {name: _names(value) for name, value in _arguments(source).items() if name not in literals}
    return {name: patterns for name, patterns in found.items() if patterns}


def source_function(source: Source) -> Callable[..., Any]:
    """Return the function of a source, which may be a partial."""
    return source.func if isinstance(source, functools.partial) else source


def _arguments(source: Source) -> dict[str, Any]:
    """Return all arguments of a source but the split, also its defaults."""
    function = source_function(source)
    split = object()  # stands for any split
    positional, keywords = (source.args, source.keywords) if isinstance(source, functools.partial) else ((), {})
    try:
        bound = inspect.signature(function).bind(*positional, split, **keywords)
    except TypeError as error:
        raise ValueError(f"data.source: {function.__qualname__}: {error}") from error
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if value is not split}


def _literal_arguments(function: Callable[..., Any]) -> set[str]:
    """Return the arguments of type Literal, which never name a file."""
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # of a type that is only imported for the type checker
        return set()
    return {name for name, hint in hints.items() if typing.get_origin(hint) is typing.Literal}


def _code(function: Callable[..., Any]) -> str:
    """Return the text of the whole file, since a source may call other functions; in a notebook, of the function.

    The modules of the user that the file imports follow: a change of them changes the documents, too.
    """
    try:
        file = Path(inspect.getfile(function))
        if not file.exists():
            return inspect.getsource(function)
        imported = {name: path for name, path in own_files([function.__module__]).items() if path != file.resolve()}
        code = [file.read_text(encoding="utf-8", errors="replace")]
        for name in sorted(imported):
            code += [name, imported[name].read_text(encoding="utf-8", errors="replace")]
        return "\0".join(code)
    except (OSError, TypeError) as error:
        raise ValueError(f"data.source: the code of {function.__qualname__} must be in a file") from error


def _fact(name: str, value: Any) -> Any:
    """Return a plain value that changes when the argument changes, or a file that it names.

    The time of the last change of status (ctime) reveals an edit that keeps the size and restores the time of
    modification, as `cp -p` and `rsync -t` do.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | os.PathLike):
        statuses = {str(path.resolve()): path.stat() for path in _matching_files(value)}
        return {path: [s.st_size, s.st_mtime_ns, s.st_ctime_ns] for path, s in statuses.items()} or os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _fact(name, child) for key, child in value.items()}
    if isinstance(value, Sequence):
        return [_fact(name, child) for child in value]
    raise ValueError(f"data.source.{name} is a {type(value).__name__}; give a text, a number, or a list or map of them")


def _names(value: Any) -> list[str]:
    if isinstance(value, str | os.PathLike):
        return [str(Path(value).expanduser().absolute())] if _matching_files(value) else []
    return [name for child in value for name in _names(child)] if isinstance(value, Sequence) else []


def _matching_files(name: str | os.PathLike[str]) -> list[Path]:
    # The name of a file has a letter or digit in it. The separator *** would match every file as a glob.
    text = os.fspath(name)
    return readers.matching_files(text) if any(map(str.isalnum, text)) else []
