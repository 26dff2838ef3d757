"""Where text comes from. A source is a generator function of the split; Hydra makes it a partial."""

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from nanosq.data import files, hub

SPLITS = ("train", "val", "test")
REPORT_SHARE, REPORT_SEED = 0.0005, 2357  # nanoGPT's data/openwebtext/prepare.py


class Document(NamedTuple):
    """One text and, where its source knows them, two numbers about it."""

    text: str
    log_probability: float = math.nan  # exact, in nats
    progress: float = math.nan  # of all that the source reads for the split, the part read by now; up to 1


# From a split to its documents, the same ones in the same order whenever it is asked: a preparation that was cut short
# leaves out as many as it has.
Source = Callable[[str], Iterable[Document]]


def text(
    split: str,
    *,
    train: str | list[str],
    val: str | list[str] | None = None,
    test: str | list[str] | None = None,
    separator: str = "<|endoftext|>",
    column: str = "text",
    val_fraction: float = 0.05,
    test_fraction: float = 0.05,
) -> Iterator[Document]:
    r"""Documents from files of your own: a path, a glob or a list of them for each split.

    Plain text (UTF-8) is cut at every `separator` (\n in it is a line end: `separator=\n` makes each line a document).
    Where the separator occurs in none of the plain text files, they are cut into passages of at most `files.PASSAGE`
    characters, preferably at a blank line, else at a line end, else at a space. `.jsonl` and `.parquet` hold a document
    in `column` of each row. All but parquet may be compressed: .gz, .bz2, .xz, .zst. Every document is stripped of
    surrounding white space, \r\n and \r become \n, and what is empty is skipped.

    Without files for val or test, that fraction of the documents is cut from train by a hash of their text: the same
    document lands on the same side whatever the order of the files, and so do its duplicates.
    ValueError names the file, and the line or the key, that has to change.
    """
    paths = {"train": _find("train", train)}
    paths |= {name: _find(name, names) for name, names in (("val", val), ("test", test)) if names}
    separator = separator.replace("\\n", "\n")
    if not separator:
        raise ValueError(r"data.source.separator is empty: give what stands between documents, e.g. \n\n")
    if not any(files.holds(path, separator) for each in paths.values() for path in each):
        separator = ""

    own = split if split in paths else "train"
    documents = _not_empty(_read(paths[own], separator, column))
    if own == "train":
        shares = {"test": test_fraction, "val": val_fraction}
        documents = _cut(documents, split, {name: share for name, share in shares.items() if name not in paths})
    yield from documents


def tinystories(
    split: str,
    *,
    path: str | None = None,
    revision: str = "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64",
    splits: Literal["published", "report"] = "published",
    val_fraction: float = 0.01,
) -> Iterator[Document]:
    """roneneldan/TinyStories (Eldan & Li 2023): a revision on the Hugging Face hub, or the directory `path`.

    What the hub gave once is read from Hugging Face's cache, without network. The directory may be a copy of the
    dataset's repository, or hold files of any format of `text` that have "train" and "valid" in their names.
    splits: test is the published validation split. val comes from the published training split: "published" cuts
    `val_fraction` of it as `text` does; "report" takes the rows that the report did, which it calls test:
    train_test_split(test_size=0.0005, seed=2357, shuffle=True) of Hugging Face's datasets.
    ValueError says what to set where neither the hub nor a cached copy is in reach.
    """
    folder = Path(path).expanduser() if path is not None else hub.tinystories(revision)
    paths = _find("path", _published(folder, "valid" if split == "test" else "train"))
    if splits == "report" and not all(map(files.has_rows, paths)):
        raise ValueError("data.source.splits=report takes rows by their number: give the published parquet files")
    rows = partial(_read, paths, separator="<|endoftext|>", column="text")
    if split == "test":
        yield from _not_empty(rows())
    elif splits == "published":
        yield from _cut(_not_empty(rows()), split, {"val": val_fraction})
    else:
        held_out = report_rows(sum(1 for _ in rows()))
        yield from _not_empty(row for row, out in zip(rows(), held_out, strict=True) if out == (split == "val"))


def report_rows(n: int) -> np.ndarray:
    """Which of n rows the report held out: train_test_split of Hugging Face's datasets, with its numbers. (n,) bool."""
    held_out = np.zeros(n, dtype=bool)
    shuffled = np.random.default_rng(REPORT_SEED).permutation(n)
    held_out[shuffled[: math.ceil(REPORT_SHARE * n)]] = True
    return held_out


def _read(paths: list[Path], separator: str, column: str) -> Iterator[Document]:
    total = sum(path.stat().st_size for path in paths)
    before = 0
    for path in paths:
        size = path.stat().st_size
        for text, part in files.read(path, separator, column):
            yield Document(text, progress=(before + part * size) / total)
        before += size


def _not_empty(documents: Iterable[Document]) -> Iterator[Document]:
    return (document for document in documents if document.text)


def _cut(documents: Iterable[Document], split: str, shares: Mapping[str, float]) -> Iterator[Document]:
    """Those of the documents that fall to `split`, where each split in `shares` gets its share and train the rest."""
    given = ", ".join(f"data.source.{name}_fraction={share}" for name, share in shares.items())
    if any(share <= 0 for share in shares.values()) or sum(shares.values()) >= 1:
        raise ValueError(f"{given}: fractions must be above 0 and together below 1")
    n = found = 0
    for document in documents:
        n += 1
        position = zlib.crc32(document.text.encode()) / 2**32
        side = "train"
        for name, share in shares.items():
            if 0 <= position < share:
                side = name
            position -= share
        if side == split:
            found += 1
            yield document
    if not found:
        raise ValueError(f"none of the {n} documents falls to the {split} split; give more text, or set {given}")


def _find(split: str, names: str | Iterable[str]) -> list[Path]:
    key = f"data.source.{split}"
    found: dict[Path, None] = {}  # keeps the order, drops what overlapping globs name twice
    for name in [names] if isinstance(names, str) else names:
        if Path(name).expanduser().is_dir():
            raise ValueError(f"{key}: {name or '.'} is a directory; name files in it, e.g. {Path(name) / '*.txt'}")
        if not (named := files.named(name)):
            raise ValueError(f"{key}: there is no file {name}")
        found |= dict.fromkeys(named)
    if not found:
        raise ValueError(f"{key} names no file")
    for path in found:
        files.check(path)
    return list(found)


def _published(folder: Path, word: str) -> list[str]:
    """The files of one published split: the repository holds it as parquet, as text, and in a second version."""
    if not folder.is_dir():
        raise ValueError(f"data.source.path: there is no directory {folder}")
    for pattern in (f"{word}*.parquet", f"TinyStories-{word}*.txt*", f"*{word}*"):
        if found := sorted(str(path) for path in folder.rglob(pattern) if path.is_file()):
            return found
    raise ValueError(f"data.source.path: no file in {folder} has {word!r} in its name")
