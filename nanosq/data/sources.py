"""Sources of text. A source is a generator function of the split; Hydra makes it a partial."""

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from nanosq.data import hub, readers
from nanosq.filesystem import file_digest
from nanosq.ranges import Share

SPLITS = ("train", "val", "test")
SEPARATOR, COLUMN = "<|endoftext|>", "text"
SETTINGS = "data.source."  # how the names of settings begin in messages


class Document(NamedTuple):
    """One text and, if its source knows it, the log-probability of the text."""

    text: str
    log_probability: float = math.nan  # exact, in nats


# A function from a split to its documents: the same ones, in the same order, at every call.
Source = Callable[[str], Iterable[Document]]


def text(
    split: str,
    *,
    train: str | list[str],
    val: str | list[str] | None = None,
    test: str | list[str] | None = None,
    separator: str = SEPARATOR,
    column: str = COLUMN,
    val_fraction: Share = 0.05,
    test_fraction: Share = 0.05,
) -> Iterator[Document]:
    r"""Yield documents from your own files.

    Plain text (UTF-8) is cut at every separator. A file that does not contain the separator is cut into passages of at
    most `readers.PASSAGE` characters, preferably at a blank line, else at a line end, else at a space. In `.jsonl`,
    `.parquet` and `.arrow` files each row is a document. Plain text and `.jsonl` may be compressed: .gz, .bz2, .xz,
    .zst. Surrounding white space is removed, \r\n and \r become \n, and empty documents are skipped.

    Without files for val or test, a fraction of the documents of train is cut off by a hash of their text. So the same
    document is always in the same split, whatever the other files and their names and order, and so are its duplicates.
    Where a file is cut into passages, an edit also moves the passages after it.

    Args:
        split: "train", "val" or "test".
        train: A path, a glob, or a list of them.
        val: The same, or None to cut val from train.
        test: The same, or None to cut test from train.
        separator: The text between two documents of plain text. The characters \n in it stand for a line end:
            `separator=\n` makes each line a document.
        column: The column or key that holds the text of a row.
        val_fraction: The share of train that becomes val.
        test_fraction: The share of train that becomes test.

    Raises:
        ValueError: The message names the file, and the line or the key, that has to change.
    """
    paths = {"train": find("train", train)}
    paths |= {name: find(name, names) for name, names in (("val", val), ("test", test)) if names}
    origin = split if split in paths else "train"
    files = paths[origin]
    if len(files) > 1:  # in an order that their names do not change, because training depends on the order
        files = sorted(files, key=file_digest)
    documents = _not_empty(read(files, separator, column))
    if origin == "train":
        fractions = {"test": test_fraction, "val": val_fraction}
        documents = _cut(documents, split, {name: share for name, share in fractions.items() if name not in paths})
    yield from documents


def tinystories(
    split: str,
    *,
    path: str | None = None,
    revision: str = "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64",
    splits: Literal["published", "report"] = "published",
    val_fraction: Share = 0.01,
) -> Iterator[Document]:
    """Yield documents of roneneldan/TinyStories (Eldan and Li 2023, https://arxiv.org/abs/2305.07759).

    Args:
        split: "train", "val" or "test". Test is the published validation split; val is cut from the published training
            split.
        path: A copy of the dataset's repository, or a directory with files of any format of `text` that have "train"
            and "valid" in their names. None: Hugging Face's cache, else a download from its hub.
        revision: Commit of the repository on the hub.
        splits: How val is cut. "published": a fraction, by a hash of the text as in `text`. "report": the
            rows that the student report evaluated on, and called test (`report_rows`).
        val_fraction: The fraction for "published".

    Raises:
        ValueError: Neither the hub nor a cached copy can be reached, or `path` lacks files.
    """
    folder = Path(path).expanduser() if path is not None else hub.download(revision)
    paths = find("path", _published(folder, "valid" if split == "test" else "train"))
    if splits == "report" and not all(map(readers.has_rows, paths)):
        raise ValueError("data.source.splits=report takes rows by their number: give the published parquet files")

    def rows() -> Iterator[Document]:
        return read(paths, SEPARATOR, COLUMN)

    if split == "test":
        yield from _not_empty(rows())
    elif splits == "published":
        yield from _cut(_not_empty(rows()), split, {"val": val_fraction})
    else:
        is_val = report_rows(sum(1 for _ in rows()))
        yield from _not_empty(row for row, in_val in zip(rows(), is_val, strict=True) if in_val == (split == "val"))


def report_rows(n: int) -> np.ndarray:
    """Return an array (n,) of booleans: whether the student report used a row for evaluation.

    The report used the split of nanoGPT's data/openwebtext/prepare.py.
    """
    from datasets import Dataset

    numbers = Dataset.from_dict({"row": np.arange(n)})
    halves = numbers.train_test_split(test_size=0.0005, seed=2357, shuffle=True, keep_in_memory=True)
    is_evaluated = np.zeros(n, dtype=bool)
    is_evaluated[halves["test"]["row"][:]] = True
    return is_evaluated


def read(paths: Iterable[Path], separator: str, column: str, *, settings: str = SETTINGS) -> Iterator[Document]:
    """Yield the documents of files. A row without text is an empty document.

    Args:
        paths: The files.
        separator: The text between two documents of plain text, as for `text`.
        column: The column or key that holds the text of a row.
        settings: How the names of settings begin in messages.

    Raises:
        ValueError: A file cannot be read, or the separator is empty.
    """
    separator = separator.replace("\\n", "\n")
    if not separator:
        raise ValueError(rf"{settings}separator is empty: give what stands between documents, e.g. \n\n")
    try:
        for path in paths:
            yield from map(Document, readers.read(path, separator, column))
    except readers.ColumnError as error:
        raise ValueError(f"{error}; set {settings}column") from error


def _not_empty(documents: Iterable[Document]) -> Iterator[Document]:
    return (document for document in documents if document.text)


def _cut(documents: Iterable[Document], split: str, fractions: Mapping[str, float]) -> Iterator[Document]:
    """Yield the documents of `split`, if each split in `fractions` gets its fraction and train the rest."""
    settings = ", ".join(f"data.source.{name}_fraction={fraction}" for name, fraction in fractions.items())
    if sum(fractions.values()) >= 1:
        raise ValueError(f"{settings}: fractions must be together below 1")
    n = n_yielded = 0
    for document in documents:
        n += 1
        position = zlib.crc32(document.text.encode()) / 2**32  # in [0, 1), which is divided among the splits
        assigned = "train"
        for name, fraction in fractions.items():
            if 0 <= position < fraction:
                assigned = name
            position -= fraction
        if assigned == split:
            n_yielded += 1
            yield document
    if not n_yielded:
        raise ValueError(f"none of the {n} documents falls to the {split} split; give more text, or set {settings}")


def find(key: str, names: str | Iterable[str], *, settings: str = SETTINGS) -> list[Path]:
    """Return the files that paths and globs name, in their order. Links to the same file count once.

    Args:
        key: Name of the setting that gives them.
        names: The paths and globs.
        settings: How the names of settings begin in messages.

    Raises:
        ValueError: There is no such file, or one is a directory, empty or of a format that cannot be read.
    """
    key = f"{settings}{key}"
    paths: dict[Path, Path] = {}  # by the file that a link leads to
    for name in [names] if isinstance(names, str) else names:
        if Path(name).expanduser().is_dir():
            raise ValueError(f"{key}: {name or '.'} is a directory; name files in it, e.g. {Path(name) / '*.txt'}")
        if not (matches := readers.matching_files(name)):
            raise ValueError(f"{key}: there is no file {name}")
        for path in matches:
            paths.setdefault(path.resolve(), path)
    if not paths:
        raise ValueError(f"{key} is an empty list; give it at least one file")
    for path in paths.values():
        readers.check_file(path)
    return list(paths.values())


def _published(folder: Path, word: str) -> list[str]:
    """Return the files of a published split. The repository has it as parquet, as text, and in a second version."""
    if not folder.is_dir():
        raise ValueError(f"data.source.path: there is no directory {folder}")
    for pattern in (f"{word}*.parquet", f"TinyStories-{word}*.txt*", f"*{word}*"):
        if paths := sorted(str(path) for path in folder.rglob(pattern) if path.is_file()):
            return paths
    raise ValueError(f"data.source.path: no file in {folder} has {word!r} in its name")
