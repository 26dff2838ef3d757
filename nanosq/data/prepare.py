"""Source + tokenizer -> the files of a corpus: on all cores, in bounded memory, going on where it was killed.

The text is encoded once, and the ids written down; a vocabulary is cut by rewriting these. Until all is done, the
folder has another in it, `work`, with the ids of each split, a row for each of its documents, and its progress: how
much of them is sure to be on the disk.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from nanosq.data import cache
from nanosq.data import corpus_key as keys
from nanosq.data.sources import SPLITS, Document, Source
from nanosq.data.tokenizers import Tokenizer

logger = logging.getLogger(__name__)

ORDER = ("test", "val", "train")  # an evaluation keeps its documents, training loses those that are also in one
TOKENIZER = "tokenizer.json"
CHUNK = 1 << 20  # characters or tokens worked on at a time
MOST_THREADS = 16  # as many as one that reads can keep busy
SAVE_EVERY = 1.0  # seconds of work that a kill may cost
BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
ROW = np.dtype([("n_bytes", np.int64), ("log_probability", np.float64), ("fingerprint", np.uint64)])


@dataclass
class Progress:
    """How much of a split is on the disk."""

    read: int = 0  # documents of the source, whatever became of them
    left_out: int = 0  # of those, the ones that a split before has
    kept: int = 0
    tokens: int = 0
    whole: bool = False


class Batch(NamedTuple):
    texts: list[str]
    rows: np.ndarray  # (len(texts),) of ROW
    read: int  # as in Progress, by the end of the batch
    left_out: int
    part: float  # Document.progress at the end of the batch


def write(folder: Path, source: Source, tokenizer: Tokenizer, facts: dict[str, Any]) -> None:
    """All files of a corpus, and a manifest of them with these facts. ValueError where a split has no document."""
    begin = time.perf_counter()
    work = folder / "work"
    if not (folder / cache.MANIFEST).exists():
        work.mkdir(exist_ok=True)
        name = keys.function(source).__name__
        for split in ORDER:
            _encode(work, split, source, tokenizer, name)
        narrowed = tokenizer.narrow(_counts(work / "train.ids", tokenizer))
        splits = {split: _finish(folder, split, tokenizer, narrowed) for split in SPLITS}
        (folder / TOKENIZER).write_text(json.dumps(narrowed.state()), encoding="utf-8")
        cache.sign(folder, {**facts, "vocab_size": narrowed.vocab_size, "splits": splits})
        tokens = ", ".join(f"{split} {splits[split]['tokens']:,}" for split in SPLITS)
        megabytes = sum(split["bytes"] for split in splits.values()) / 1e6
        seconds = time.perf_counter() - begin
        logger.info(
            f"{name}: tokens {tokens}; vocabulary {narrowed.vocab_size:,}; "
            f"{megabytes:.1f} MB of text in {seconds:.1f} s"
        )
    if work.exists():
        shutil.rmtree(work)


def dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    """Of ids in files."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)


def _encode(work: Path, split: str, source: Source, tokenizer: Tokenizer, name: str) -> None:
    """Write ids and rows of a split. Its documents are those that no split before it has."""
    journal = work / f"{split}.json"
    done = _progress(work, split, dtype(tokenizer).itemsize)
    if done.whole:
        return
    elsewhere = "val or test" if split == "train" else "test"
    others: set[int] = set()
    for other in ORDER[: ORDER.index(split)]:
        others.update(np.fromfile(work / f"{other}.rows", ROW)["fingerprint"].tolist())
    with (
        _opened(work / f"{split}.ids", done.tokens * dtype(tokenizer).itemsize) as ids_file,
        _opened(work / f"{split}.rows", done.kept * ROW.itemsize) as rows_file,
        tqdm(desc=f"{name} {split}", total=1.0, bar_format=BAR, leave=False, disable=None) as bar,
    ):
        resumed, saved, n_bytes = done.read > 0, time.monotonic(), 0
        batches = _batches(islice(source(split), done.read, None), others, done)
        for batch, ids in _encoded(batches, tokenizer):
            ids_file.write(ids.tobytes())  # not tofile, which does not tell when the disk is full
            rows_file.write(batch.rows.tobytes())
            done = Progress(batch.read, batch.left_out, done.kept + len(batch.rows), done.tokens + len(ids))
            n_bytes += int(batch.rows["n_bytes"].sum())
            if resumed and not math.isnan(batch.part):  # what an earlier process has done is not of this one's speed
                bar.initial = bar.n = bar.last_print_n = batch.part
                resumed = False
            _show(bar, batch.part, done.kept, n_bytes)
            if time.monotonic() - saved > SAVE_EVERY:
                _save(journal, done, ids_file, rows_file)
                saved = time.monotonic()
        if not done.kept:
            all_out = f"all {done.left_out:,} of its documents occur in {elsewhere} too"
            why = all_out if done.left_out else "the source yields none"
            raise ValueError(f"{name}: no document for the {split} split; {why}")
        done.whole = True
        _save(journal, done, ids_file, rows_file)
    if done.left_out:
        total = done.left_out + done.kept
        logger.info(f"{name}: {done.left_out:,} of {total:,} documents left out of {split}: also in {elsewhere}")


def _progress(work: Path, split: str, itemsize: int) -> Progress:
    """What the journal says; nothing where it is not to be read, or the files have less than it says."""
    try:
        done = Progress(**json.loads((work / f"{split}.json").read_text()))
        sizes = [(work / f"{split}.{kind}").stat().st_size for kind in ("ids", "rows")]
    except (OSError, ValueError, TypeError):
        return Progress()
    whole = sizes[0] >= done.tokens * itemsize and sizes[1] >= done.kept * ROW.itemsize
    return done if whole else Progress()


def _save(journal: Path, done: Progress, *files: IO[bytes]) -> None:
    """Write the journal, once what it speaks of is on the disk."""
    partial = journal.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(done)))
    with partial.open("rb") as written:
        for file in (*files, written):
            file.flush()
            os.fsync(file.fileno())
    partial.replace(journal)


def _opened(path: Path, size: int) -> IO[bytes]:
    """The file, to be written on from this size."""
    file = path.open("r+b" if path.exists() else "wb")
    file.truncate(size)
    file.seek(size)
    return file


def _batches(documents: Iterable[Document], others: set[int], done: Progress) -> Iterator[Batch]:
    """The documents that are not empty and not among the others, about CHUNK characters at a time."""
    read, left_out, part = done.read, done.left_out, math.nan
    texts: list[str] = []
    rows: list[tuple[int, float, int]] = []
    size = 0
    for text, log_probability, part in documents:
        read += 1
        if not text:
            continue
        spelling = text.encode()
        mark = int.from_bytes(hashlib.blake2b(spelling, digest_size=8).digest())
        if mark in others:
            left_out += 1
            continue
        texts.append(text)
        rows.append((len(spelling), log_probability, mark))
        size += len(text)
        if size >= CHUNK:
            yield Batch(texts, np.array(rows, ROW), read, left_out, part)
            texts, rows, size = [], [], 0
    yield Batch(texts, np.array(rows, ROW), read, left_out, part)


def _encoded(batches: Iterable[Batch], tokenizer: Tokenizer) -> Iterator[tuple[Batch, np.ndarray]]:
    """Each batch with its ids, an end of text after each document.

    In threads, since tiktoken works outside of Python's lock.
    """
    from joblib import cpu_count  # knows the limits of containers

    end = np.array([tokenizer.end_of_text], np.uint32)

    def encode(texts: list[str]) -> np.ndarray:
        parts = [part for ids in tokenizer.encode(texts) for part in (ids, end)]
        return np.concatenate(parts).astype(dtype(tokenizer)) if parts else np.empty(0, dtype(tokenizer))

    n_threads = min(cpu_count(), MOST_THREADS)
    tokenizer.encode([""])  # what it loads, it loads once
    upcoming: deque[tuple[Batch, Future[np.ndarray]]] = deque()
    with ThreadPoolExecutor(n_threads) as threads:
        for batch in batches:
            upcoming.append((batch, threads.submit(encode, batch.texts)))
            if len(upcoming) > 2 * n_threads:
                batch, ids = upcoming.popleft()
                yield batch, ids.result()
        for batch, ids in upcoming:
            yield batch, ids.result()


def _show(bar: "tqdm[Any]", part: float, n_documents: int, n_bytes: int) -> None:
    speed = n_bytes / 1e6 / max(bar.format_dict["elapsed"], 1e-9)
    bar.set_postfix_str(f"{n_documents:,} documents, {speed:.1f} MB/s", refresh=False)
    if math.isnan(part):
        bar.bar_format = "{desc} {elapsed}{postfix}"
        bar.update(0)
    else:
        bar.update(part - bar.n)


def _pieces(path: Path, tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    # Read, not mapped into memory, where all that has been read would count as used.
    with path.open("rb") as file:
        while len(ids := np.fromfile(file, dtype(tokenizer), CHUNK)):
            yield ids


def _counts(path: Path, tokenizer: Tokenizer) -> np.ndarray:
    counts_V = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for ids in _pieces(path, tokenizer):
        counts_V += np.bincount(ids, minlength=tokenizer.vocab_size)
    return counts_V


def _finish(folder: Path, split: str, tokenizer: Tokenizer, narrowed: Tokenizer) -> dict[str, Any]:
    """Write the files of a split, its ids those of the narrowed tokenizer. Returns what is to be known of it."""
    end = np.array([narrowed.end_of_text], dtype(narrowed))
    starts, n = [np.zeros(1, np.int64)], 1
    with (folder / f"{split}.tokens").open("wb") as file:
        file.write(end.tobytes())
        for ids in _pieces(folder / "work" / f"{split}.ids", tokenizer):
            tokens = narrowed.respell(ids).astype(dtype(narrowed))
            file.write(tokens.tobytes())
            starts.append(np.flatnonzero(tokens == end) + n)
            n += len(tokens)
    rows = np.fromfile(folder / "work" / f"{split}.rows", ROW)
    (folder / f"{split}.starts").write_bytes(np.concatenate(starts).tobytes())
    (folder / f"{split}.bytes").write_bytes(rows["n_bytes"].tobytes())
    log_probability = math.fsum(rows["log_probability"])
    return {
        "documents": len(rows),
        "tokens": n,
        "bytes": int(rows["n_bytes"].sum()),
        "log_probability": None if math.isnan(log_probability) else log_probability,  # JSON has no nan
    }
