"""Readers of text files: plain text and JSON lines, also compressed; .parquet and .arrow through `datasets`."""

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
from tempfile import TemporaryDirectory
from typing import IO, Any, TextIO

PASSAGE = 2048  # characters: most of what a small model can see at once
CHUNK = 1 << 20  # characters read at a time
N_ROWS = 500  # rows read at a time; with more, `datasets` takes more memory and no less time


class ColumnError(ValueError):
    """The column that should hold the text of the rows is missing or holds something else."""


def matching_files(pattern: str) -> list[Path]:
    """Return the sorted files that a path, a directory (with all below it) or a glob names."""
    path = Path(pattern).expanduser()
    with suppress(OSError):  # a text that is too long for a path
        if path.is_file():
            return [path]
        paths = path.rglob("*") if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207
        return sorted(path for path in paths if path.is_file())
    return []


def check_file(path: Path) -> None:
    """Raise ValueError if a file is empty or has a format that would be read as plain text by mistake."""
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    if (suffix := _format(path)) in UNREADABLE:
        raise ValueError(f"cannot read {suffix} files ({path}); give plain text, .jsonl or .parquet")


def has_rows(path: Path) -> bool:
    """Return whether the documents of a file are rows, and not the text between separators."""
    return _format(path) in ROW_READERS


def is_cut(path: Path, separator: str) -> bool:
    """Return whether a file is plain text that is cut into passages, because it has no separator."""
    return not has_rows(path) and not _contains(path, separator)


def read(path: Path, separator: str, column: str) -> Iterator[str]:
    """Yield the documents of a file, without surrounding white space.

    A row without text is an empty document, so that rows keep their numbers. Plain text has no empty documents.

    Args:
        path: The file.
        separator: The text between the documents of plain text. A file without it is cut into passages.
        column: The column or key that holds the text of a row.

    Raises:
        ColumnError: A row has no text in this column.
        ValueError: The file cannot be read, or it holds no document.
    """
    read_rows = ROW_READERS.get(_format(path))
    is_blank = True
    with _errors_name(path):
        for text in read_rows(path, column) if read_rows else _read_plain(path, separator):
            document = clean(text)
            is_blank = is_blank and not document
            if document or read_rows:
                yield document
    if is_blank:
        raise ValueError(f"{path} holds no document, only white space or separators")


def clean(text: str) -> str:
    r"""Return a text as a document: without surrounding white space, and with \n at the end of its lines."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _read_plain(path: Path, separator: str) -> Iterator[str]:
    # Each file decides for itself: otherwise a new file would change the documents of those that were there.
    is_separated = _contains(path, separator)
    rest = ""
    for chunk in _chunks(path):
        *documents, rest = (rest + chunk).split(separator) if is_separated else _passages(rest + chunk)
        yield from documents
    yield rest


def _contains(path: Path, text: str) -> bool:
    tail = ""
    for chunk in _chunks(path):
        if text in tail + chunk:
            return True
        tail = (tail + chunk)[-len(text) :]
    return False


def _chunks(path: Path) -> Iterator[str]:
    with _open_text(path) as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _passages(text: str) -> Iterator[str]:
    """Cut a text into passages: at a blank line, else at the end of a line, else at a space, else anywhere."""
    begin = 0
    while len(text) - begin > PASSAGE:
        limit = begin + PASSAGE
        breaks = (text.rfind(mark, begin + 1, limit) for mark in ("\n\n", "\n", " "))
        end = next((position for position in breaks if position > 0), limit)
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _read_jsonl(path: Path, column: str) -> Iterator[str]:
    """Yield the texts of JSON lines.

    Not through `datasets` (5.2): it takes the types of all columns from the first 10 MB, and then fails on a file in
    which another column changes its type or gains a key. It also reads no .zst.
    """
    with _open_text(path) as file:
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
                raise ColumnError(f"{path}, line {number}: no {column!r} in {', '.join(row)}")
            text = row[column]
            if not isinstance(text, str):
                raise ColumnError(f"{path}, line {number}: {column!r} is not text")
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError(f"{path}, line {number}: {column!r} has half of a surrogate pair, which is not text")
            yield text


def _read_parquet(path: Path, column: str) -> Iterator[str]:
    import pyarrow.dataset  # type: ignore[import-untyped]

    # Both options save memory: by default a batch is a row group, and read-ahead data is kept until the last row.
    options = pyarrow.dataset.ParquetFragmentScanOptions(pre_buffer=False)
    return _read_rows("parquet", path, column, batch_size=N_ROWS, fragment_scan_options=options)


def _read_arrow(path: Path, column: str) -> Iterator[str]:
    return _read_rows("arrow", path, column)


def _read_rows(builder: str, path: Path, column: str, **options: Any) -> Iterator[str]:
    """Yield a column of a file through `datasets`, streamed: without a copy in its cache or a memory-mapped file.

    Preparing 500 MB of parquet takes 570 MB of memory, of which 300 MB are the imports of `datasets` and torch, and
    runs at 39 MB/s on two cores. With pyarrow alone it was 240 MB and 44 MB/s (analysis/benchmarks/data.py).
    """
    import datasets
    import pyarrow

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it logs each error that it raises
    try:
        with TemporaryDirectory() as directory:  # for lock files, which it leaves in its cache otherwise
            options |= {"data_files": [str(path)], "split": "train", "streaming": True, "cache_dir": directory}
            rows = datasets.load_dataset(builder, **options)
        if column not in rows.features:
            names = ", ".join(rows.features)
            raise ColumnError(f"{path} has no column {column!r}, only {names}")
        kind = getattr(rows.features[column], "dtype", "not a plain value")
        if kind not in ("string", "large_string"):
            raise ColumnError(f"{path}: column {column!r} is not text but {kind}")
        for table in rows.reshard().select_columns(column).with_format("arrow").iter(batch_size=N_ROWS):
            yield from (text or "" for text in table.column(column).to_pylist())
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from error


def _open_zst(file: IO[bytes]) -> Any:
    import pyarrow  # not zstandard, which accepts a truncated file

    return pyarrow.input_stream(file, compression="zstd")


ROW_READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
}
DECOMPRESSORS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zst,
}
UNREADABLE = {".json", ".csv", ".tsv", ".zip", ".tar", ".tgz", ".pdf", ".docx", ".epub"}


def _format(path: Path) -> str:
    """Return the suffix of a file without that of a compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in DECOMPRESSORS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    decompress = DECOMPRESSORS.get(path.suffix.lower())
    with path.open("rb") as raw:
        # utf-8-sig: programs for Windows write a byte order mark first.
        yield io.TextIOWrapper(decompress(raw) if decompress else raw, encoding="utf-8-sig")


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Raise errors of a file as ValueError that names the file."""
    try:
        yield
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"{path} is not UTF-8 text (byte 0x{byte:02x}); convert it, e.g. with iconv") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
