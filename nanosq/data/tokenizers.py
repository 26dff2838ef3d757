"""Tokenizers: GPT-2's byte pair encoding, the same with a smaller vocabulary, and bytes.

A smaller vocabulary is a part of GPT-2's tokens (nanosq/data/kept_tokens.py), in their order.
"""
# ruff: noqa: D102  the methods are documented once, in Tokenizer

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from nanosq.data import bpe, kept_tokens
from nanosq.data.bpe import END_OF_TEXT, GPT2_SIZE, N_BYTES


class Tokenizer(ABC):
    """A mapping between text and ids. Those of this module lose nothing: `decode(encode([text])[0]) == text`."""

    pad_to: int | None
    may_lose_text: ClassVar[bool] = False  # whether the text of ids may differ from the text that was encoded

    @property
    def n_ids(self) -> int:
        """The number of ids without padding. Padding has the ids behind them."""
        return self.end_of_text + 1

    @property
    def vocab_size(self) -> int:
        """The number of ids, including padding: ids that never occur."""
        return _padded(self.n_ids, self.pad_to)

    @property
    @abstractmethod
    def end_of_text(self) -> int:
        """The id between documents. `encode` must not return it, not even for the text <|endoftext|>."""

    @property
    @abstractmethod
    def spellings(self) -> list[bytes]:
        """The bytes of each id alone, without padding."""

    @abstractmethod
    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Return the ids of each text. Raise ValueError for half of a surrogate pair, which UTF-8 cannot encode."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids below vocab_size. Invalid UTF-8 becomes U+FFFD, and padding becomes nothing."""
        spellings = self.spellings
        return b"".join(spellings[i] for i in self.checked(ids) if i < len(spellings)).decode(errors="replace")

    def checked(self, ids: Sequence[int]) -> list[int]:
        """Return ids as plain integers. Raise ValueError if one is negative or not below vocab_size."""
        plain = np.asarray(ids, dtype=np.int64).tolist()
        if plain and (min(plain) < 0 or max(plain) >= self.vocab_size):
            raise ValueError(f"ids must lie in 0..{self.vocab_size - 1}")
        return plain

    def fit_vocabulary(self, documents: Iterable[np.ndarray]) -> "Tokenizer":
        """Return the tokenizer to train with, which is `self` if no id is removed.

        Args:
            documents: The ids of the training split, in arrays of whole documents with an end of text after each.
        """
        return self

    def remap(self, documents: np.ndarray) -> np.ndarray:
        """Return the ids of documents, given by their ids in the tokenizer before `fit_vocabulary`.

        Args:
            documents: Ids of whole documents with an end of text after each.
        """
        return documents

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return plain values and lists from which `load` makes an equal tokenizer."""


def load(state: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer that has this `state()`."""
    from nanosq.huggingface.other_tokenizer import HuggingFaceTokenizer  # which imports this module

    settings = dict(state)
    kinds = {kind.__name__: kind for kind in (GPT2, CutGPT2, ByteLevel, HuggingFaceTokenizer)}
    try:
        return kinds[settings.pop("kind")](**settings)
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is not the state of a tokenizer: {str(state)[:80]}") from error


def gpt2(*, vocabulary: str | int = "full", pad_to: int | None = None) -> Tokenizer:
    """Return GPT-2's tokenizer.

    Args:
        vocabulary: "full" (50,257, tiktoken's ids), "used" (the tokens that occur in the training split), or a number:
            at most that many, the most common ones that occur. Both have also the tokens that these are merged from,
            where they are needed. Every vocabulary has the 256 bytes and the end of text, so that no text is lost.
        pad_to: Increase vocab_size to this number, with ids that never occur (50,304 is a multiple of 128). They are
            classes like any other and enter every loss, as they did in the student report. None: no padding.
    """
    return GPT2(vocabulary, pad_to)


def byte_level(*, pad_to: int | None = None) -> Tokenizer:
    """Return a tokenizer of UTF-8 bytes and the end of text: vocab_size is 257, or `pad_to`."""
    return ByteLevel(pad_to)


@dataclass(frozen=True)
class GPT2(Tokenizer):
    """GPT-2's tokenizer with the full vocabulary; `vocabulary` says what `fit_vocabulary` keeps of it."""

    vocabulary: str | int = "full"
    pad_to: int | None = None

    def __post_init__(self) -> None:
        smallest = {"full": GPT2_SIZE, "used": N_BYTES + 1}.get(str(self.vocabulary), self.vocabulary)
        if isinstance(smallest, str) or not N_BYTES < smallest <= GPT2_SIZE:
            raise ValueError(
                f"data.tokenizer.vocabulary must be full, used or a number from {N_BYTES + 1} (all bytes and the end "
                f"of text) to {GPT2_SIZE}, not {self.vocabulary!r}"
            )
        _padded(smallest, self.pad_to)  # the number is an upper bound: the padding must suffice if it is reached

    @property
    def vocab_size(self) -> int:
        return _padded(GPT2_SIZE, self.pad_to if self.vocabulary == "full" else None)

    @property
    def end_of_text(self) -> int:
        return GPT2_SIZE - 1

    @property
    def spellings(self) -> list[bytes]:
        return bpe.spellings()

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return bpe.gpt2().encode(texts)

    def fit_vocabulary(self, documents: Iterable[np.ndarray]) -> Tokenizer:
        if self.vocabulary == "full":
            return self
        n_merged = self.vocabulary - N_BYTES - 1 if isinstance(self.vocabulary, int) else None
        return CutGPT2(kept_tokens.most_common(documents, n_merged), self.pad_to)

    def state(self) -> dict[str, Any]:
        return {"kind": "GPT2", **asdict(self)}


@dataclass(frozen=True)
class CutGPT2(Tokenizer):
    """Byte pair encoding with a part of GPT-2's tokens: the bytes, some merged tokens, the end of text."""

    merged: Sequence[int]  # GPT-2 ids of the merged tokens, ascending
    pad_to: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "merged", tuple(self.merged))  # it is a list in a state
        _padded(self.end_of_text + 1, self.pad_to)

    @property
    def end_of_text(self) -> int:
        return N_BYTES + len(self.merged)

    @functools.cached_property
    def spellings(self) -> list[bytes]:
        return [bpe.spellings()[i] for i in self._kept]

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return self._encoding.encode(texts)

    def remap(self, documents: np.ndarray) -> np.ndarray:
        # Most documents have the same tokens as in GPT-2. Any other one is encoded again.
        new_ids, is_safe_part = self._tables
        is_safe = np.where(kept_tokens.may_be_part(documents), is_safe_part[documents], new_ids[documents] >= 0)
        ends = np.flatnonzero(documents == GPT2_SIZE - 1)
        changed = np.unique(np.searchsorted(ends, np.flatnonzero(~is_safe))).tolist()
        if not changed:
            return new_ids[documents]
        pieces = np.split(documents, ends[:-1] + 1)
        texts = [bpe.gpt2().exact.decode(pieces[i][:-1].tolist()) for i in changed]
        pieces = [new_ids[ids] for ids in pieces]
        for i, ids in zip(changed, self.encode(texts), strict=True):
            pieces[i] = np.append(ids, self.end_of_text)
        return np.concatenate(pieces)

    def state(self) -> dict[str, Any]:
        return {"kind": "CutGPT2", "merged": list(self.merged), "pad_to": self.pad_to}

    @property
    def _kept(self) -> list[int]:
        return [*range(N_BYTES), *self.merged, GPT2_SIZE - 1]

    @functools.cached_property
    def _encoding(self) -> bpe.BytePairEncoding:
        return bpe.BytePairEncoding(self.spellings)

    @functools.cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Two arrays (GPT2_SIZE,): the new id of each GPT-2 id or -1, and whether it is reached by merges too."""
        new_ids, kept = np.full(GPT2_SIZE, -1, np.int32), {*self._kept}
        new_ids[self._kept] = np.arange(len(kept))
        is_reached = np.zeros(GPT2_SIZE, bool)
        is_reached[[i for i in self._kept[:-1] if kept_tokens.ancestors(i) <= kept]] = True
        return new_ids, is_reached


@dataclass(frozen=True)
class ByteLevel(Tokenizer):
    """A tokenizer whose ids 0..255 are the UTF-8 bytes and 256 is the end of text."""

    pad_to: int | None = None

    def __post_init__(self) -> None:
        _padded(N_BYTES + 1, self.pad_to)

    @property
    def end_of_text(self) -> int:
        return N_BYTES

    @functools.cached_property
    def spellings(self) -> list[bytes]:
        return [*(bytes([byte]) for byte in range(N_BYTES)), END_OF_TEXT.encode()]

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return [np.frombuffer(bpe.utf8(text), dtype=np.uint8).astype(np.uint32) for text in texts]

    def state(self) -> dict[str, Any]:
        return {"kind": "ByteLevel", "pad_to": self.pad_to}


def _padded(size: int, pad_to: int | None) -> int:
    if pad_to is not None and pad_to < size:
        raise ValueError(f"data.tokenizer.pad_to is {pad_to}, less than the {size} tokens of the vocabulary")
    return pad_to or size
