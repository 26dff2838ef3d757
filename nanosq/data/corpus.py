"""A corpus: the memory-mapped tokens of three splits, prepared once from a source and a tokenizer."""

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nanosq.data import cache, corpus_key, tokenizers
from nanosq.data.documents import documents
from nanosq.data.prepare import TOKENIZER_FILE, token_dtype, write_corpus
from nanosq.data.sources import Source
from nanosq.data.tokenizers import Tokenizer
from nanosq.filesystem import check_folder

# Part of the key of the cache, which otherwise only knows the code of a source's own file. Raise it with every change
# of what is in the files of a corpus, or of what nanosq/data/readers.py reads out of a text.
FORMAT = 5


@dataclass(frozen=True)
class Split:
    """The documents of a split as one sequence of tokens: EOT document EOT document EOT ... document EOT.

    Document i predicts tokens[starts[i] + 1 : starts[i + 1] + 1], with its closing EOT, from
    tokens[starts[i] : starts[i + 1]].
    """

    tokens: np.ndarray  # memmap, uint16, or uint32 if vocab_size > 65,536
    starts: np.ndarray  # (n_documents + 1,) int64: the EOT before each document, and the last EOT
    document_bytes: np.ndarray  # (n_documents,) int64: UTF-8 bytes of the text of each document
    n_bytes: int  # their sum; separators are not counted
    log_probability: float  # nats, summed over the documents; nan if the source does not know it
    digest: str = ""  # of the texts of the documents, whatever the tokenizer


@dataclass(frozen=True)
class Corpus:
    """Three splits that share no document, and the tokenizer of their tokens."""

    train: Split
    val: Split
    test: Split
    tokenizer: Tokenizer


def prepare(source: Source, tokenizer: Tokenizer, *, cache_dir: str | Path) -> Corpus:
    """Return the corpus of a source, from the cache or prepared now.

    A document of test is left out of val, and a document of either out of train. The cache holds complete corpora
    only. A damaged corpus is prepared again. Processes that start together prepare once.

    Raises:
        ValueError: The source raised it, or has no document for a split.
    """
    facts = corpus_key.facts(source, tokenizer, FORMAT)
    folder = _folder(facts, source, cache_dir)
    cache.fill(folder, lambda partial: write_corpus(partial, source, tokenizer, facts))
    return load(folder)


def check(source: Source, tokenizer: Tokenizer, *, cache_dir: str | Path) -> None:
    """Raise ValueError if a corpus that is not in the cache cannot be prepared: no such file, no network, no folder."""
    if not _folder(corpus_key.facts(source, tokenizer, FORMAT), source, cache_dir).exists():
        check_folder("cache_dir", Path(cache_dir))
        next(documents(source, "test"), None)


def check_size(source: Source, tokenizer: Tokenizer, *, cache_dir: str | Path, n_tokens: int) -> None:
    """Raise ValueError if the training split of a corpus that is not in the cache cannot have this number of tokens.

    A text has at most as many tokens as bytes. Only the first documents are read.
    """
    if _folder(corpus_key.facts(source, tokenizer, FORMAT), source, cache_dir).exists():
        return
    most = 1
    for document in documents(source, "train"):
        most += len(document.text.encode()) + 1
        if most >= n_tokens:
            return
    raise ValueError(
        f"the training split has at most {most:,} tokens, and a window takes model.block_size + 1 = {n_tokens:,}: "
        "lower model.block_size or give more text"
    )


def _folder(facts: dict[str, Any], source: Source, cache_dir: str | Path) -> Path:
    return Path(cache_dir) / f"{corpus_key.source_function(source).__name__}-{corpus_key.key(facts)}"


def load(folder: Path) -> Corpus:
    """Return the corpus in a folder of the cache."""
    splits = cache.manifest(folder)["splits"]
    tokenizer = _tokenizer((folder / TOKENIZER_FILE).read_text(encoding="utf-8"))

    def load_split(name: str) -> Split:
        log_probability = splits[name]["log_probability"]
        return Split(
            tokens=np.memmap(folder / f"{name}.tokens", dtype=token_dtype(tokenizer), mode="r"),
            starts=np.fromfile(folder / f"{name}.starts", np.int64),
            document_bytes=np.fromfile(folder / f"{name}.bytes", np.int64),
            n_bytes=splits[name]["bytes"],
            log_probability=math.nan if log_probability is None else log_probability,
            digest=splits[name]["digest"],
        )

    return Corpus(train=load_split("train"), val=load_split("val"), test=load_split("test"), tokenizer=tokenizer)


@functools.lru_cache(maxsize=1)  # the trials of a sweep share the tables of their tokenizer
def _tokenizer(state: str) -> Tokenizer:
    return tokenizers.load(json.loads(state))
