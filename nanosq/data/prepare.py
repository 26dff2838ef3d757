"""The preparation of a corpus: source and tokenizer -> token files, on all cores and in bounded memory.

The text is encoded with the whole vocabulary. Once the training split is encoded, the vocabulary is fitted to it, and
the ids in the files are mapped to the new ones.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from nanosq.data import bpe, cache, corpus_key
from nanosq.data.ahead import map_on_all_cores
from nanosq.data.changes import changed_texts
from nanosq.data.documents import documents
from nanosq.data.sources import SPLITS, Document, Source
from nanosq.data.tokenizers import Tokenizer

logger = logging.getLogger(__name__)

ORDER = ("test", "val", "train")  # an evaluation keeps its documents; training loses those that are also in one
TOKENIZER_FILE = "tokenizer.json"
CHUNK = 1 << 20  # characters processed at a time
TOKENS = 1 << 17  # tokens processed at a time: several times as many bytes as characters of a text
ROW = np.dtype([("n_bytes", np.int64), ("log_probability", np.float64), ("fingerprint", np.uint64)])


class Batch(NamedTuple):
    """Some documents of a split, with a row of numbers for each."""

    texts: list[str]
    rows: np.ndarray  # (len(texts),) of ROW
    n_left_out: int  # documents between them that occur in an earlier split


def write_corpus(folder: Path, source: Source, tokenizer: Tokenizer, facts: dict[str, Any]) -> None:
    """Write all files of a corpus into an empty folder, and a manifest of them with these facts.

    Raises:
        ValueError: A split has no document.
    """
    begin = time.perf_counter()
    name = corpus_key.source_function(source).__name__
    rows: dict[str, np.ndarray] = {}
    for split in ORDER:
        rows[split] = _encode_split(folder, split, source, tokenizer, name, list(rows.values()))
    fitted = tokenizer.fit_vocabulary(_read_documents(_ids_file(folder, "train"), tokenizer))
    splits = {split: _finish_split(folder, split, rows[split], tokenizer, fitted) for split in SPLITS}
    (folder / TOKENIZER_FILE).write_text(json.dumps(fitted.state()), encoding="utf-8")
    names = corpus_key.names(source)
    record = {**facts, "names": names, "vocab_size": fitted.vocab_size, "splits": splits}
    cache.sign(folder, record)
    tokens = ", ".join(f"{split} {splits[split]['tokens']:,}" for split in SPLITS)
    megabytes = sum(split["bytes"] for split in splits.values()) / 1e6
    seconds = time.perf_counter() - begin
    logger.info(
        f"{name}: tokens {tokens}; vocabulary {fitted.vocab_size:,}; {megabytes:.1f} MB of text in {seconds:.1f} s"
    )
    for message in changed_texts(folder.parent, record):
        logger.warning(message)


def digest(rows: np.ndarray) -> str:
    """Return a digest of the texts of documents from their rows of ROW."""
    return hashlib.sha256(rows["fingerprint"].tobytes()).hexdigest()


def token_dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    """Return the type of token ids in files."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)


def _ids_file(folder: Path, split: str) -> Path:
    """Return the temporary file with the ids of a split in the whole vocabulary."""
    return folder / f"{split}.ids"


def _encode_split(
    folder: Path, split: str, source: Source, tokenizer: Tokenizer, name: str, earlier: list[np.ndarray]
) -> np.ndarray:
    """Write the ids of a split, without the documents of earlier splits. Return its rows (n_documents,) of ROW."""
    seen = {fingerprint for rows in earlier for fingerprint in rows["fingerprint"].tolist()}
    rows: list[np.ndarray] = []
    n_left_out = 0
    with (
        _ids_file(folder, split).open("wb") as file,
        tqdm(desc=f"{name} {split}", unit="B", unit_scale=True, leave=False, disable=None) as bar,
    ):
        for batch, ids in encode(documents(source, split), tokenizer, seen):
            file.write(ids.tobytes())  # not tofile, which does not report a full disk
            rows.append(batch.rows)
            n_left_out += batch.n_left_out
            bar.update(int(batch.rows["n_bytes"].sum()))
    all_rows = np.concatenate(rows)
    elsewhere = "val or test" if split == "train" else "test"
    if not len(all_rows):
        all_out = f"all {n_left_out:,} that data.source gives are in {elsewhere} too; give other texts"
        reason = all_out if n_left_out else "data.source gives none; change its settings"
        raise ValueError(f"{name}: no document is left for {split}: {reason}")
    if n_left_out:
        total = n_left_out + len(all_rows)
        logger.info(f"{name}: left {n_left_out:,} of {total:,} documents out of {split}: they are in {elsewhere} too")
    return all_rows


def _batches(documents: Iterable[Document], seen: Collection[int]) -> Iterator[Batch]:
    """Yield the documents that are neither empty nor seen before, about CHUNK characters at a time."""
    texts: list[str] = []
    rows: list[tuple[int, float, int]] = []
    size = n_left_out = 0
    for text, log_probability in documents:
        if not text:
            continue
        data = bpe.utf8(text)
        fingerprint = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())
        if fingerprint in seen:
            n_left_out += 1
            continue
        texts.append(text)
        rows.append((len(data), log_probability, fingerprint))
        size += len(text)
        if size >= CHUNK:
            yield Batch(texts, np.array(rows, ROW), n_left_out)
            texts, rows, size, n_left_out = [], [], 0, 0
    yield Batch(texts, np.array(rows, ROW), n_left_out)


def encode(
    documents: Iterable[Document], tokenizer: Tokenizer, seen: Collection[int] = ()
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yield batches of documents with their ids, in which an end of text follows each document.

    Threads are enough, because tiktoken releases Python's global lock.

    Args:
        documents: The documents. Empty ones are left out.
        tokenizer: The tokenizer.
        seen: Fingerprints of further documents to leave out.

    Raises:
        ValueError: The tokenizer gives an id that is not in its vocabulary, or the end of text within a text.
    """
    end = np.array([tokenizer.end_of_text], np.uint32)
    dtype = token_dtype(tokenizer)

    def encode_batch(batch: Batch) -> tuple[Batch, np.ndarray]:
        pieces = [piece for ids in tokenizer.encode(batch.texts) for piece in (ids, end)]
        ids = np.concatenate(pieces) if pieces else end[:0]
        if ids.max(initial=0) >= tokenizer.vocab_size:
            raise ValueError(f"the tokenizer gives the id {ids.max()}, and its vocabulary has {tokenizer.vocab_size:,}")
        if np.count_nonzero(ids == end) > len(batch.texts):
            raise ValueError(f"the tokenizer gives its end of text, {end[0]}, for a part of a text")
        return batch, ids.astype(dtype)

    tokenizer.encode([""])  # loads the vocabulary before the threads start
    return map_on_all_cores(encode_batch, _batches(documents, seen))


def write_tokens(file: IO[bytes], documents: Iterable[np.ndarray], tokenizer: Tokenizer) -> np.ndarray:
    """Write the tokens of a split. Return the positions (n_documents + 1,) int64 of its ends of text.

    Args:
        file: The file.
        documents: Ids in arrays of whole documents with an end of text after each.
        tokenizer: The tokenizer of the ids.
    """
    end = np.array([tokenizer.end_of_text], token_dtype(tokenizer))
    file.write(end.tobytes())
    starts, n = [np.zeros(1, np.int64)], 1
    for ids in documents:
        tokens = ids.astype(end.dtype, copy=False)
        file.write(tokens.tobytes())  # not tofile, which does not report a full disk
        starts.append(np.flatnonzero(tokens == end) + n)
        n += len(tokens)
    return np.concatenate(starts)


def _read_documents(path: Path, tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    """Yield the ids of whole documents with an end of text after each, about TOKENS at a time."""
    rest = np.empty(0, token_dtype(tokenizer))
    # Not memory-mapped: all that has been read would count as used memory.
    with path.open("rb") as file:
        while len(ids := np.fromfile(file, rest.dtype, TOKENS)):
            ends = np.flatnonzero(ids == tokenizer.end_of_text)
            n = int(ends[-1]) + 1 if len(ends) else 0
            if n:
                yield np.concatenate([rest, ids[:n]])
            rest = ids[n:] if n else np.concatenate([rest, ids])


def _finish_split(
    folder: Path, split: str, rows: np.ndarray, tokenizer: Tokenizer, fitted: Tokenizer
) -> dict[str, Any]:
    """Write the files of a split with the ids of the fitted tokenizer. Return what the manifest says about it."""
    ids_file = _ids_file(folder, split)
    with (folder / f"{split}.tokens").open("wb") as file:
        starts = write_tokens(file, map_on_all_cores(fitted.remap, _read_documents(ids_file, tokenizer)), fitted)
    ids_file.unlink()
    (folder / f"{split}.starts").write_bytes(starts.tobytes())
    (folder / f"{split}.bytes").write_bytes(rows["n_bytes"].tobytes())
    log_probability = math.fsum(rows["log_probability"])
    return {
        "documents": len(rows),
        "tokens": int(starts[-1]) + 1,
        "bytes": int(rows["n_bytes"].sum()),
        "log_probability": None if math.isnan(log_probability) else log_probability,  # JSON has no nan
        "digest": digest(rows),
    }
