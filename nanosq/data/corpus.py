"""Source + tokenizer -> cached, memory-mapped token files."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nanosq.data import cache, tokenizers
from nanosq.data import corpus_key as keys
from nanosq.data import prepare as preparation
from nanosq.data.sources import Source
from nanosq.data.tokenizers import Tokenizer

# Part of the key of the cache. Rises with every change of what is in the files, unfinished ones included, or of what
# nanosq/data/files.py reads out of a text: the key knows the code of a source's own file alone.
FORMAT = 2


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

    The splits share no document: what occurs in test is left out of val, what occurs in either out of train. The cache
    holds whole corpora only, and one that was damaged since is made again. Processes that start together prepare once;
    where one is killed, the next goes on.
    ValueError where the source says so, or has no document for a split.
    """
    facts = keys.facts(source, tokenizer, FORMAT)
    folder = _folder(facts, source, cache_dir)
    cache.fill(folder, lambda partial: preparation.write(partial, source, tokenizer, facts))
    return _load(folder)


def check(source: Source, tokenizer: Tokenizer, *, cache_dir: str | Path) -> None:
    """ValueError where a corpus that is not in the cache yet cannot be begun: no such file, no network."""
    if not _folder(keys.facts(source, tokenizer, FORMAT), source, cache_dir).exists():
        next(iter(source("test")), None)


def _folder(facts: dict[str, Any], source: Source, cache_dir: str | Path) -> Path:
    return Path(cache_dir) / f"{keys.function(source).__name__}-{keys.key(facts)}"


def _load(folder: Path) -> Corpus:
    splits = cache.manifest(folder)["splits"]
    tokenizer = tokenizers.load(json.loads((folder / preparation.TOKENIZER).read_text(encoding="utf-8")))

    def split(name: str) -> Split:
        known = splits[name]["log_probability"]
        return Split(
            tokens=np.memmap(folder / f"{name}.tokens", dtype=preparation.dtype(tokenizer), mode="r"),
            starts=np.fromfile(folder / f"{name}.starts", np.int64),
            document_bytes=np.fromfile(folder / f"{name}.bytes", np.int64),
            n_bytes=splits[name]["bytes"],
            log_probability=math.nan if known is None else known,
        )

    return Corpus(train=split("train"), val=split("val"), test=split("test"), tokenizer=tokenizer)
