"""Source + tokenizer -> cached, memory-mapped token files."""

import json
import logging
import math
import time
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nanosq.data import cache, tokenizers
from nanosq.data.sources import SPLITS, Document, Source, fingerprint
from nanosq.data.tokenizers import Tokenizer

logger = logging.getLogger(__name__)

FORMAT = 1  # of the files; part of the key of the cache
CHUNK = 1 << 20  # characters or tokens worked on at a time


@dataclass(frozen=True)
class Split:
    """The documents of a split as one row of tokens: EOT document EOT document EOT ... document EOT.

    Document i predicts tokens[starts[i] + 1 : starts[i + 1] + 1], its closing EOT included, from
    tokens[starts[i] : starts[i + 1]].
    """

    tokens: np.ndarray  # memmap, uint16, or uint32 where vocab_size > 65,536
    starts: np.ndarray  # (n_documents + 1,) int64: the EOT before each document, and the last EOT
    document_bytes: np.ndarray  # (n_documents,) int64: UTF-8 bytes of the text of each document
    n_bytes: int  # their sum; separators are not counted
    log_probability: float  # nats, summed over the documents; nan where the source does not know it


@dataclass(frozen=True)
class Corpus:
    train: Split
    val: Split
    test: Split
    tokenizer: Tokenizer


def prepare(source: Source, tokenizer: Tokenizer, *, cache_dir: str | Path) -> Corpus:
    """The corpus of a source, from the cache or made now.

    The splits share no document: what occurs in test is left out of val, what occurs in either out of train. Whatever
    goes wrong, the cache holds whole corpora only. Processes that start together prepare once.
    ValueError where the source says so, or has no document for a split.
    """
    folder = _folder(source, tokenizer, cache_dir)
    cache.fill(folder, lambda temporary: _write(temporary, source, tokenizer, cache.function(source).__name__))
    return _load(folder)


def check(source: Source, tokenizer: Tokenizer, *, cache_dir: str | Path) -> None:
    """ValueError where a corpus that is not in the cache yet cannot be begun: no such file, no network."""
    if not _folder(source, tokenizer, cache_dir).exists():
        next(iter(source("test")), None)


def _folder(source: Source, tokenizer: Tokenizer, cache_dir: str | Path) -> Path:
    name = cache.function(source).__name__
    return Path(cache_dir) / f"{name}-{cache.key(source, tokenizer, FORMAT)}"


def _write(folder: Path, source: Source, tokenizer: Tokenizer, name: str) -> None:
    """All files of a corpus. The text is encoded once: a vocabulary is cut by rewriting the ids."""
    begin = time.perf_counter()
    owner: dict[int, str] = {}
    splits: dict[str, dict[str, Any]] = {}
    for split in ("test", "val", "train"):  # an evaluation keeps its documents, training loses them
        with tqdm(desc=f"{name} {split}", unit="B", unit_scale=True, leave=False, disable=None) as progress:
            documents = _own(source(split), split, owner, name)
            sizes, log_probability, counts_V = _encode(documents, tokenizer, folder / f"{split}.ids", progress)
        np.save(folder / f"{split}.bytes.npy", sizes)
        known = None if math.isnan(log_probability) else log_probability  # JSON has no nan
        splits[split] = {"n_bytes": int(sizes.sum()), "log_probability": known}

    narrowed = tokenizer.narrow(counts_V)
    for split in SPLITS:
        ids = np.memmap(folder / f"{split}.ids", dtype=_dtype(tokenizer), mode="r")
        starts, splits[split]["n_tokens"] = _rewrite(ids, narrowed, folder / f"{split}.tokens")
        np.save(folder / f"{split}.starts.npy", starts)
        (folder / f"{split}.ids").unlink()
    record = {"tokenizer": narrowed.state(), "splits": splits}
    (folder / "corpus.json").write_text(json.dumps(record), encoding="utf-8")

    seconds, megabytes = time.perf_counter() - begin, sum(record["n_bytes"] for record in splits.values()) / 1e6
    tokens = ", ".join(f"{split} {splits[split]['n_tokens']:,}" for split in SPLITS)
    logger.info(
        f"{name}: tokens {tokens}; vocabulary {narrowed.vocab_size:,}; "
        f"{megabytes:.1f} MB in {seconds:.1f} s ({megabytes / seconds:.1f} MB/s)"
    )


def _own(documents: Iterable[Document], split: str, owner: dict[int, str], name: str) -> Iterator[Document]:
    """The documents of a split that no split before it has; `owner` maps the hash of a text to its split."""
    claim = owner.get if split == "train" else owner.setdefault
    kept = left_out = 0
    for document in documents:
        if not document.text:
            continue
        if claim(fingerprint(document.text), split) == split:
            kept += 1
            yield document
        else:
            left_out += 1
    others = "val or test" if split == "train" else "test"
    if not kept:
        why = f"all {left_out:,} of its documents occur in {others} too" if left_out else "the source yields none"
        raise ValueError(f"{name}: no document for the {split} split; {why}")
    if left_out:
        logger.info(f"{name}: {left_out:,} of {left_out + kept:,} documents left out of {split}: also in {others}")


def _encode(
    documents: Iterable[Document], tokenizer: Tokenizer, path: Path, progress: "tqdm[Any]"
) -> tuple[np.ndarray, float, np.ndarray]:
    """Write the ids of the documents. Returns their sizes in bytes, their log-probability, and how often each id is."""
    sizes, log_probabilities = array("q"), array("d")
    counts_V = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    end = np.array([tokenizer.end_of_text])
    with path.open("wb") as file:
        end.astype(_dtype(tokenizer)).tofile(file)
        for batch in _batches(documents):
            ids = np.concatenate([part for each in tokenizer.encode([d.text for d in batch]) for part in (each, end)])
            counts_V += np.bincount(ids, minlength=tokenizer.vocab_size)
            ids.astype(_dtype(tokenizer)).tofile(file)
            n_bytes = [len(document.text.encode()) for document in batch]
            sizes.extend(n_bytes)
            log_probabilities.extend(document.log_probability for document in batch)
            progress.update(sum(n_bytes))
    return np.frombuffer(sizes, dtype=np.int64), math.fsum(log_probabilities), counts_V


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= CHUNK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _rewrite(ids: np.ndarray, tokenizer: Tokenizer, path: Path) -> tuple[np.ndarray, int]:
    """Write ids as ids of a narrowed tokenizer. Returns where the ends of text are, and the number of tokens."""
    starts, n = [], 0
    with path.open("wb") as file:
        for at in range(0, len(ids), CHUNK):
            tokens = tokenizer.respell(ids[at : at + CHUNK]).astype(_dtype(tokenizer))
            tokens.tofile(file)
            starts.append(np.flatnonzero(tokens == tokenizer.end_of_text) + n)
            n += len(tokens)
    return np.concatenate(starts), n


def _load(folder: Path) -> Corpus:
    record = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    tokenizer = tokenizers.load(record["tokenizer"])

    def split(name: str) -> Split:
        facts = record["splits"][name]
        tokens = np.memmap(folder / f"{name}.tokens", dtype=_dtype(tokenizer), mode="r")
        if len(tokens) != facts["n_tokens"]:
            raise ValueError(f"{folder / name}.tokens is damaged; delete {folder}")
        known = facts["log_probability"]
        return Split(
            tokens=tokens,
            starts=np.load(folder / f"{name}.starts.npy"),
            document_bytes=np.load(folder / f"{name}.bytes.npy"),
            n_bytes=facts["n_bytes"],
            log_probability=math.nan if known is None else known,
        )

    return Corpus(train=split("train"), val=split("val"), test=split("test"), tokenizer=tokenizer)


def _dtype(tokenizer: Tokenizer) -> type[np.unsignedinteger[Any]]:
    return np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
