"""The documents of a prepared corpus as a file of text, for other programs and for `--data` of a command."""

import json
from collections.abc import Iterator
from pathlib import Path

from nanosq.data import cache, corpus, readers
from nanosq.data.sources import COLUMN, SEPARATOR, SPLITS
from nanosq.filesystem import atomic_write, check_writable
from nanosq.suggestion import closest


def check(name: str, path: Path) -> None:
    """Raise ValueError if there is no split of this name, or its documents cannot be written to a path."""
    if name not in SPLITS:
        raise ValueError(f"there is no split {name}: choose {', '.join(SPLITS)}{closest(name, SPLITS)}")
    if path.suffix not in (".txt", ".jsonl"):
        raise ValueError(f"{path}: choose a name that ends in .txt, for plain text, or in .jsonl, for JSON lines")
    check_writable(path)


def write_split(folder: Path, name: str, path: Path) -> tuple[int, int]:
    """Write the documents of a split, in their order: JSON lines into a .jsonl file, plain text into a .txt file.

    In plain text a separator follows each document.

    Args:
        folder: Folder of the corpus in the cache.
        name: "train", "val" or "test".
        path: The file.

    Returns:
        The number of documents, and how many of them have white space at an end or other line ends than a line feed,
        which are removed when a `.jsonl` file is read.

    Raises:
        ValueError: The corpus is damaged or unfinished, there is no such split or folder, or the format of the file
            cannot hold a document.
    """
    check(name, path)
    if not folder.exists():
        raise ValueError(f"{folder.name} is unfinished")
    if problem := cache.damage(folder):
        raise ValueError(f"{folder.name} is damaged: {problem}")
    n = n_changed = 0
    with atomic_write(path) as file:
        for n, text in enumerate(_texts(folder, name), start=1):
            is_changed = readers.clean(text) != text
            n_changed += is_changed
            if path.suffix == ".jsonl":
                file.write(json.dumps({COLUMN: text}, ensure_ascii=False).encode() + b"\n")
            elif is_changed or SEPARATOR in text or text.startswith("\ufeff"):
                raise ValueError(
                    f"document {n} would not be read back from plain text as it is, because it has {SEPARATOR}, a "
                    "carriage return, a byte order mark or white space at an end: choose a name that ends in .jsonl"
                )
            else:
                file.write(f"{text}\n{SEPARATOR}\n".encode())
    return n, n_changed


def _texts(folder: Path, name: str) -> Iterator[str]:
    text = corpus.load(folder)
    split = getattr(text, name)
    for begin, end in zip(split.starts[:-1], split.starts[1:], strict=True):
        yield text.tokenizer.decode(split.tokens[begin + 1 : end])
