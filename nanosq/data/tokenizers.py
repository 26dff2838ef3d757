"""Text <-> ids: GPT-2's byte pair encoding, the same cut to a smaller vocabulary, and bytes.

A cut vocabulary keeps the order of GPT-2's (nanosq/data/bpe.py) and closes the gaps.
"""

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from nanosq.data import bpe
from nanosq.data.bpe import END_OF_TEXT, GPT2_SIZE, N_BYTES


class Tokenizer(Protocol):
    """Every string comes back whole: `decode(encode([text])[0]) == text`."""

    @property
    def vocab_size(self) -> int:
        """Ids are below it. Includes padding: ids that never occur."""

    @property
    def end_of_text(self) -> int:
        """Separates documents. `encode` never yields it: a text that spells <|endoftext|> is text."""

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Ids of each text. ValueError for a lone surrogate, which no UTF-8 can hold."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of any ids below vocab_size: what is not UTF-8 becomes U+FFFD, padding nothing."""

    def narrow(self, counts_V: np.ndarray) -> "Tokenizer":
        """The tokenizer to train with, given how often each id occurs in the training split; self where none is cut."""

    def respell(self, ids: np.ndarray) -> np.ndarray:
        """Ids of the tokenizer that this one was narrowed from, as ids of this one."""

    def state(self) -> dict[str, Any]:
        """Plain values and lists from which `load` makes an equal tokenizer."""


def load(state: dict[str, Any]) -> Tokenizer:
    """The tokenizer whose `state()` this is."""
    settings = dict(state)
    kinds = {kind.__name__: kind for kind in (GPT2, CutGPT2, ByteLevel)}
    try:
        return kinds[settings.pop("kind")](**settings)
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is not the state of a tokenizer: {str(state)[:80]}") from error


def gpt2(*, vocabulary: str | int = "full", pad_to: int | None = None) -> Tokenizer:
    """GPT-2's tokenizer.

    vocabulary: "full" (50,257, tiktoken's ids), "used" (what occurs in the training split) or a number: at most that
    many, the most common of what occurs. Every vocabulary holds the 256 bytes and the end of text; a token that was
    cut is spelled with its bytes, so that no text is lost.
    pad_to: vocab_size to fill up to, with ids that never occur (50,304 is a multiple of 128). They are classes like
        any other and enter every loss, as they did in the report: nothing is padded unless this asks for it.
    """
    return GPT2(vocabulary, pad_to)


def byte_level(*, pad_to: int | None = None) -> Tokenizer:
    """UTF-8 bytes and the end of text: vocab_size 257, or `pad_to`."""
    return ByteLevel(pad_to)


@dataclass(frozen=True)
class GPT2:
    """The full vocabulary; `vocabulary` says what `narrow` will leave of it."""

    vocabulary: str | int = "full"
    pad_to: int | None = None

    def __post_init__(self) -> None:
        smallest = {"full": GPT2_SIZE, "used": N_BYTES + 1}.get(str(self.vocabulary), self.vocabulary)
        if isinstance(smallest, str) or not N_BYTES < smallest <= GPT2_SIZE:
            raise ValueError(
                f"data.tokenizer.vocabulary must be full, used or a number from {N_BYTES + 1} (all bytes and the end "
                f"of text) to {GPT2_SIZE}, not {self.vocabulary!r}"
            )
        # A number is an upper bound, and the padding must hold where it is reached.
        _padded(smallest, self.pad_to)

    @property
    def vocab_size(self) -> int:
        return _padded(GPT2_SIZE, self.pad_to if self.vocabulary == "full" else None)

    @property
    def end_of_text(self) -> int:
        return GPT2_SIZE - 1

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return bpe.encode(texts)

    def decode(self, ids: Sequence[int]) -> str:
        return _join(ids, bpe.spellings(), self.vocab_size)

    def narrow(self, counts_V: np.ndarray) -> Tokenizer:
        if self.vocabulary == "full":
            return self
        most_common = np.argsort(-counts_V[N_BYTES : GPT2_SIZE - 1], kind="stable") + N_BYTES
        kept = most_common[counts_V[most_common] > 0]
        if isinstance(self.vocabulary, int):
            kept = kept[: self.vocabulary - N_BYTES - 1]
        return CutGPT2(tuple(np.sort(kept).tolist()), self.pad_to)

    def respell(self, ids: np.ndarray) -> np.ndarray:
        return ids

    def state(self) -> dict[str, Any]:
        return {"kind": "GPT2", **asdict(self)}


@dataclass(frozen=True)
class CutGPT2:
    """The 256 bytes, some of the merged tokens (`merged`: their GPT-2 ids, ascending), the end of text."""

    merged: Sequence[int]
    pad_to: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "merged", tuple(self.merged))  # a list where it comes from a state
        _padded(self.end_of_text + 1, self.pad_to)

    @property
    def vocab_size(self) -> int:
        return _padded(self.end_of_text + 1, self.pad_to)

    @property
    def end_of_text(self) -> int:
        return N_BYTES + len(self.merged)

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return [self.respell(ids) for ids in bpe.encode(texts)]

    def decode(self, ids: Sequence[int]) -> str:
        return _join(ids, self._spellings, self.vocab_size)

    def narrow(self, counts_V: np.ndarray) -> Tokenizer:
        return self

    def respell(self, ids: np.ndarray) -> np.ndarray:
        begins, lengths, spelled = self._table
        n = lengths[ids]
        ends = np.cumsum(n)
        total = int(ends[-1]) if len(ends) else 0
        return spelled[np.arange(total) + np.repeat(begins[ids] - (ends - n), n)]

    def state(self) -> dict[str, Any]:
        return {"kind": "CutGPT2", "merged": list(self.merged), "pad_to": self.pad_to}

    @functools.cached_property
    def _kept(self) -> list[int]:
        return [*range(N_BYTES), *self.merged, GPT2_SIZE - 1]

    @functools.cached_property
    def _spellings(self) -> list[bytes]:
        return [bpe.spellings()[i] for i in self._kept]

    @functools.cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each id of GPT-2: where its spelling begins, how long it is; and all spellings in a row."""
        new = {old: i for i, old in enumerate(self._kept)}
        of_byte = {spelling: i for i, spelling in enumerate(bpe.spellings()[:N_BYTES])}
        rows = [
            [new[old]] if old in new else [of_byte[spelling[i : i + 1]] for i in range(len(spelling))]
            for old, spelling in enumerate(bpe.spellings())
        ]
        lengths = np.array([len(row) for row in rows])
        spelled = np.array([i for row in rows for i in row], dtype=np.uint32)
        return np.cumsum(lengths) - lengths, lengths, spelled


@dataclass(frozen=True)
class ByteLevel:
    """UTF-8 bytes as ids 0..255, the end of text as 256."""

    pad_to: int | None = None

    def __post_init__(self) -> None:
        _padded(N_BYTES + 1, self.pad_to)

    @property
    def vocab_size(self) -> int:
        return _padded(N_BYTES + 1, self.pad_to)

    @property
    def end_of_text(self) -> int:
        return N_BYTES

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return [np.frombuffer(bpe.utf8(text), dtype=np.uint8).astype(np.uint32) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return _join(ids, [*(bytes([byte]) for byte in range(N_BYTES)), END_OF_TEXT.encode()], self.vocab_size)

    def narrow(self, counts_V: np.ndarray) -> Tokenizer:
        return self

    def respell(self, ids: np.ndarray) -> np.ndarray:
        return ids

    def state(self) -> dict[str, Any]:
        return {"kind": "ByteLevel", "pad_to": self.pad_to}


def _padded(size: int, pad_to: int | None) -> int:
    if pad_to is not None and pad_to < size:
        raise ValueError(f"data.tokenizer.pad_to is {pad_to}, less than the {size} tokens of the vocabulary")
    return pad_to or size


def _join(ids: Sequence[int], spellings: list[bytes], vocab_size: int) -> str:
    plain = np.asarray(ids, dtype=np.int64).tolist()
    if plain and (min(plain) < 0 or max(plain) >= vocab_size):
        raise ValueError(f"ids must lie in 0..{vocab_size - 1}")
    return b"".join(spellings[i] for i in plain if i < len(spellings)).decode(errors="replace")
