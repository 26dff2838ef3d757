"""A tokenizer from a file tokenizer.json that is none of ours."""
# ruff: noqa: D102  the methods are documented once, in Tokenizer

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nanosq.data import bpe
from nanosq.data.tokenizers import Tokenizer
from nanosq.huggingface.extra import needs_extra

if TYPE_CHECKING:
    import tokenizers


@dataclass(frozen=True)
class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer of the library `tokenizers`. Whether it loses text, as one for lower case does, is up to its file."""

    json: str  # the text of tokenizer.json
    end: int  # the id between documents
    pad_to: int  # number of rows of the embedding, which may be more than it has ids
    may_lose_text: ClassVar[bool] = True

    @functools.cached_property
    def n_ids(self) -> int:
        return number_of_ids(self.library_tokenizer)

    @property
    def end_of_text(self) -> int:
        return self.end

    @property
    def spellings(self) -> list[bytes]:
        """The text of each id alone: a part of a character is U+FFFD, and a part of a word may have its mark."""
        return [self.decode([i]).encode() for i in range(self.n_ids)]

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        for text in texts:
            bpe.utf8(text)  # the library's own error names neither the text nor the problem
        with _errors_as("the tokenizer cannot encode this text"):
            encoded = self.library_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(text.ids, dtype=np.uint32) for text in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        plain = self.checked(ids)
        with _errors_as("the tokenizer cannot decode these ids"):
            return self.library_tokenizer.decode(plain, skip_special_tokens=False)

    def state(self) -> dict[str, Any]:
        return {"kind": "HuggingFaceTokenizer", "json": self.json, "end": self.end, "pad_to": self.pad_to}

    @functools.cached_property
    def library_tokenizer(self) -> "tokenizers.Tokenizer":
        """The tokenizer as the library has it, without limits of the length."""
        tokenizer = parse(self.json)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # as ordinary text, which all our tokenizers do
        return tokenizer


def parse(text: str) -> "tokenizers.Tokenizer":
    """Return the tokenizer of the text of a tokenizer.json.

    Raises:
        ValueError: It is damaged, or of another version of the library.
    """
    with needs_extra():
        from tokenizers import Tokenizer as LibraryTokenizer
    with _errors_as("this tokenizer.json cannot be read"):
        return LibraryTokenizer.from_str(text)


def number_of_ids(tokenizer: "tokenizers.Tokenizer") -> int:
    """Return the largest id plus one: ids may have gaps."""
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)


@contextmanager
def _errors_as(problem: str) -> Iterator[None]:
    """Turn any error of the library in the block, which has no class of its own, into a ValueError of one line."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{problem}: {' '.join(str(error).split())}") from error
