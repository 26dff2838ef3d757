"""Documents out of files: plain text and .jsonl, also compressed, .parquet, and the .arrow of Hugging Face's cache."""

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
ROWS_AT_ONCE = 1000


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


def has_rows(path: Path) -> bool:
    """Whether a document of the file is a row, and not what stands between two separators."""
    return _format(path) in ROWS


def read(path: Path, separator: str, column: str) -> Iterator[tuple[str, float]]:
    """The documents of a file, cleaned, each with the part of the file that has been read by then, up to 1.

    `separator` cuts plain text (empty: it is cut into passages), `column` is where rows hold their text. A row without
    text is an empty document; what is empty in plain text is none.
    ValueError in one line where the file cannot be read or holds no document.
    """
    rows = ROWS.get(_format(path))
    found = False
    with _named_in_errors(path):
        for part, raws in rows(path, column) if rows else _plain(path, separator):
            for raw in raws:
                document = clean(raw)
                found = found or bool(document)
                if document or rows:
                    yield document, part
    if not found:
        raise ValueError(f"{path} holds no document, only white space or separators")


def holds(path: Path, text: str) -> bool:
    """Whether a plain text file contains `text`; False for files of rows."""
    if has_rows(path):
        return False
    with _named_in_errors(path):
        tail = ""
        for _, chunk in _chunks(path):
            if text in tail + chunk:
                return True
            tail = (tail + chunk)[-len(text) :]
    return False


def clean(document: str) -> str:
    """The text with line ends as \\n and without white space around it."""
    return document.replace("\r\n", "\n").replace("\r", "\n").strip()


def _plain(path: Path, separator: str) -> Iterator[tuple[float, list[str]]]:
    rest = ""
    for part, chunk in _chunks(path):
        *documents, rest = (rest + chunk).split(separator) if separator else _passages(rest + chunk)
        yield part, documents
    yield 1.0, [rest]


def _chunks(path: Path) -> Iterator[tuple[float, str]]:
    with _opened(path) as (file, part):
        while chunk := file.read(CHUNK):
            yield part(), chunk


def _passages(text: str) -> Iterator[str]:
    begin = 0
    while len(text) - begin > PASSAGE:
        limit = begin + PASSAGE
        breaks = (text.rfind(mark, begin + 1, limit) for mark in ("\n\n", "\n", " "))
        end = next((found for found in breaks if found > 0), limit)
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _jsonl(path: Path, column: str) -> Iterator[tuple[float, list[str]]]:
    with _opened(path) as (file, part):
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
            yield part(), [text]


def _parquet(path: Path, column: str) -> Iterator[tuple[float, list[str]]]:
    import pyarrow.parquet  # type: ignore[import-untyped]

    # Not read ahead: what has been would be kept until the last row.
    with _arrow_errors(path), pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
        _check_column(path, file.schema_arrow, column)
        n, n_rows = 0, file.metadata.num_rows
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=[column]):
            n += len(batch)
            yield n / n_rows, [text or "" for text in batch.column(0).to_pylist()]


def _arrow(path: Path, column: str) -> Iterator[tuple[float, list[str]]]:
    import pyarrow

    size = path.stat().st_size
    # Not mapped into memory, where all that has been read of it would count as used.
    with _arrow_errors(path), pyarrow.OSFile(str(path)) as file, pyarrow.ipc.open_stream(file) as batches:
        _check_column(path, batches.schema, column)
        for batch in batches:
            yield file.tell() / size, [text or "" for text in batch.column(column).to_pylist()]


def _check_column(path: Path, schema: Any, column: str) -> None:
    import pyarrow

    if column not in schema.names:
        raise ValueError(f"{path} has no column {column!r}, only {', '.join(schema.names)}; set data.source.column")
    kind = schema.field(column).type
    if kind not in (pyarrow.string(), pyarrow.large_string()):
        raise ValueError(f"{path}: column {column!r} is not text but {kind}; set data.source.column")


@contextmanager
def _arrow_errors(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from error


def _open_zst(file: IO[bytes]) -> Any:
    import pyarrow  # not zstandard, which takes a file that was cut short for a whole one

    return pyarrow.input_stream(file, compression="zstd")


Rows = Callable[[Path, str], Iterator[tuple[float, list[str]]]]
ROWS: dict[str, Rows] = {".jsonl": _jsonl, ".parquet": _parquet, ".arrow": _arrow}
COMPRESSED: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zst,
}
UNREADABLE = {".json", ".csv", ".tsv", ".zip", ".tar", ".tgz", ".pdf", ".docx", ".epub"}


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def _opened(path: Path) -> Iterator[tuple[TextIO, Callable[[], float]]]:
    """The text of a file, and a function that tells which part of the file has been read."""
    size = path.stat().st_size
    decompressed = COMPRESSED.get(path.suffix.lower())
    with path.open("rb") as raw:
        # Windows puts a byte order mark in front.
        yield (
            io.TextIOWrapper(decompressed(raw) if decompressed else raw, encoding="utf-8-sig"),
            (lambda: raw.tell() / size),
        )


@contextmanager
def _named_in_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"{path} is not UTF-8 text (byte 0x{byte:02x}); convert it, e.g. with iconv") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
