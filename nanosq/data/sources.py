"""Where text comes from. A source is a generator function of the split; Hydra makes it a partial."""

import hashlib
import math
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nanosq.data import files

if TYPE_CHECKING:
    import datasets

SPLITS = ("train", "val", "test")


class Document(NamedTuple):
    """One text and, where its source knows it, the exact log-probability of that text in nats."""

    text: str
    log_probability: float = math.nan


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
    documents: Iterator[str] = (document for path in paths[own] for document in files.read(path, separator, column))
    if own == "train":
        shares = {"test": test_fraction, "val": val_fraction}
        documents = _cut(documents, split, {name: share for name, share in shares.items() if name not in paths})
    yield from map(Document, documents)


def tinystories(split: str, *, path: str | None = None, val_fraction: float = 0.01) -> Iterator[Document]:
    """roneneldan/TinyStories (Eldan & Li 2023): from the Hugging Face hub or its cache, or from the directory `path`.

    test is the published validation split, val a fraction of the published training split, cut as `text` does. The
    directory may be a copy of the dataset's repository, or hold files of any format of `text` that have "train" and
    "valid" in their names. ValueError says how to point at it where neither the hub nor a cached copy is in reach.
    """
    if path is not None:
        train, valid = (_published(Path(path).expanduser(), word) for word in ("train", "valid"))
        yield from text(split, train=train, test=valid, val_fraction=val_fraction)
        return
    rows = _load_tinystories("validation" if split == "test" else "train")
    stories = (story for batch in rows.iter(batch_size=1000) for row in batch["text"] if (story := files.clean(row)))
    yield from map(Document, stories if split == "test" else _cut(stories, split, {"val": val_fraction}))


def fingerprint(text: str) -> int:
    """A 64-bit hash that stays the same from one process and machine to the next."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _cut(texts: Iterable[str], split: str, shares: Mapping[str, float]) -> Iterator[str]:
    """Those of the texts that fall to `split`, where each split in `shares` gets its share and train the rest."""
    given = ", ".join(f"data.source.{name}_fraction={share}" for name, share in shares.items())
    if any(share <= 0 for share in shares.values()) or sum(shares.values()) >= 1:
        raise ValueError(f"{given}: fractions must be above 0 and together below 1")
    n = found = 0
    for document in texts:
        n += 1
        position = fingerprint(document) / 2**64
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


def _load_tinystories(split: str) -> "datasets.Dataset":
    import datasets

    configured = datasets.config.HF_HUB_OFFLINE
    # Without this, `datasets` tries the hub for 20 seconds before it looks into its cache.
    datasets.config.HF_HUB_OFFLINE = offline = configured or not _reachable(datasets.config.HF_ENDPOINT)
    try:
        return datasets.load_dataset("roneneldan/TinyStories", split=split)
    except (OSError, datasets.exceptions.DatasetsError) as error:
        why = "cannot be reached and nothing is cached" if offline else f"failed: {str(error).splitlines()[0]}"
        raise ValueError(
            f"TinyStories: the Hugging Face hub {why}; give a directory with its parquet or text files "
            "(data.source.path=DIR), or train without a download (data=stories)"
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = configured


def _reachable(url: str, seconds: float = 3.0) -> bool:
    """Whether something listens there, or at the proxy on the way."""
    address = urllib.parse.urlsplit(url)
    if proxy := urllib.request.getproxies().get(address.scheme):
        address = urllib.parse.urlsplit(proxy if "://" in proxy else f"//{proxy}")
    found = threading.Event()

    def connect() -> None:
        port = address.port or (80 if address.scheme == "http" else 443)
        with suppress(OSError), socket.create_connection((address.hostname, port), timeout=seconds):
            found.set()

    # In a thread, since the look-up of a name has no timeout of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return found.is_set()
