"""Documents out of files: plain text, .jsonl and .parquet, also compressed."""

import bz2
import glob
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

PASSAGE = 2048  # characters: most of what a small model can see at once
CHUNK = 1 << 20  # characters read at a time


def named(name: str) -> list[Path]:
    """The files that a path, a directory (all below it) or a glob names, in order; empty where it names none."""
    path = Path(name).expanduser()
    with suppress(OSError):  # a text too long for a path
        if path.is_file():
            return [path]
        below = path.rglob("*") if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207
        return sorted(file for file in below if file.is_file())
    return []


def check(path: Path) -> None:
    """ValueError where the file is empty or of a format that would be read as plain text by mistake."""
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    if (suffix := _format(path)) in UNREADABLE:
        raise ValueError(f"cannot read {suffix} files ({path}); give plain text, .jsonl or .parquet")


def read(path: Path, separator: str, column: str) -> Iterator[str]:
    """The documents of a file, cleaned, without the empty ones.

    `separator` cuts plain text (empty: it is cut into passages), `column` is where rows hold their text.
    ValueError in one line where the file cannot be read or holds no document.
    """
    rows = ROWS.get(_format(path))
    n = 0
    with _named_in_errors(path):
        for raw in rows(path, column) if rows else _plain(path, separator):
            if document := clean(raw):
                n += 1
                yield document
    if n == 0:
        raise ValueError(f"{path} holds no document, only white space or separators")


def holds(path: Path, text: str) -> bool:
    """Whether a plain text file contains `text`; False for files of rows."""
    if _format(path) in ROWS:
        return False
    with _named_in_errors(path), _open(path) as file:
        tail = ""
        while chunk := file.read(CHUNK):
            if text in tail + chunk:
                return True
            tail = (tail + chunk)[-len(text) :]
    return False


def clean(document: str) -> str:
    """The text with line ends as \\n and without white space around it."""
    return document.replace("\r\n", "\n").replace("\r", "\n").strip()


def _plain(path: Path, separator: str) -> Iterator[str]:
    rest = ""
    with _open(path) as file:
        while chunk := file.read(CHUNK):
            *documents, rest = (rest + chunk).split(separator) if separator else _passages(rest + chunk)
            yield from documents
    yield rest


def _passages(text: str) -> Iterator[str]:
    begin = 0
    while len(text) - begin > PASSAGE:
        limit = begin + PASSAGE
        breaks = (text.rfind(mark, begin + 1, limit) for mark in ("\n\n", "\n", " "))
        end = next((found for found in breaks if found > 0), limit)
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _jsonl(path: Path, column: str) -> Iterator[str]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if line.isspace():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: not an object with a key {column!r}")
            if column not in row:
                raise ValueError(f"{path}, line {number}: no {column!r} in {', '.join(row)}; set data.source.column")
            text = row[column]
            if not isinstance(text, str):
                raise ValueError(f"{path}, line {number}: {column!r} is not text; set data.source.column")
            if any("\ud800" <= character <= "\udfff" for character in (() if text.isascii() else text)):
                raise ValueError(f"{path}, line {number}: {column!r} has half of a surrogate pair, which is not text")
            yield text


def _parquet(path: Path, column: str) -> Iterator[str]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise ValueError(f"{path} has no column {column!r}, only {', '.join(names)}; set data.source.column")
            kind = file.schema_arrow.field(column).type
            if kind not in (pyarrow.string(), pyarrow.large_string()):
                raise ValueError(f"{path}: column {column!r} is not text but {kind}; set data.source.column")
            for batch in file.iter_batches(batch_size=1000, columns=[column]):
                yield from filter(None, batch.column(0).to_pylist())
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from error


def _open_zst(path: Path) -> Any:
    import pyarrow  # not zstandard, which takes a file that was cut short for a whole one

    return pyarrow.input_stream(str(path), compression="zstd")


ROWS: dict[str, Callable[[Path, str], Iterator[str]]] = {".jsonl": _jsonl, ".parquet": _parquet}
COMPRESSED: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _open_zst}
UNREADABLE = {".json", ".csv", ".tsv", ".zip", ".tar", ".tgz", ".arrow", ".pdf", ".docx", ".epub"}


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _open(path: Path) -> TextIO:
    compressed = COMPRESSED.get(path.suffix.lower())
    raw: IO[bytes] = compressed(path) if compressed else path.open("rb")
    return io.TextIOWrapper(raw, encoding="utf-8-sig")  # Windows puts a byte order mark in front


@contextmanager
def _named_in_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"{path} is not UTF-8 text (byte 0x{byte:02x}); convert it, e.g. with iconv") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
