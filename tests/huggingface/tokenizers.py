"""Our tokenizers, and the exported ones of the library tokenizers."""

import random

import numpy as np

from nanosq.data import bpe, stories
from nanosq.data.tokenizers import GPT2, ByteLevel, CutGPT2, Tokenizer
from nanosq.huggingface import tokenizer as huggingface

STORIES = [document.text for document in stories.stories("train", n_train=300)]


def used(vocabulary: str | int) -> Tokenizer:
    """Return the tokenizer that training on the stories has."""
    gpt2 = GPT2(vocabulary)
    ids = [np.append(text, gpt2.end_of_text) for text in gpt2.encode(STORIES)]
    return gpt2.fit_vocabulary([np.concatenate(ids).astype(np.int64)])


def some(n: int) -> Tokenizer:
    """Return a vocabulary with random tokens, most of which cannot be merged from others."""
    return CutGPT2(sorted(random.Random(0).sample(range(bpe.N_BYTES, bpe.GPT2_SIZE - 1), n)))


OURS: dict[str, Tokenizer] = {
    "gpt2": GPT2(),
    "used": used("used"),
    "400 tokens": used(400),
    "only bytes": used(257),
    "random tokens": some(5000),
    "many tokens": some(20_000),
    "bytes": ByteLevel(),
}
THEIRS = {name: huggingface.to_huggingface(tokenizer) for name, tokenizer in OURS.items()}
for exported in THEIRS.values():
    exported.encode_special_tokens = True  # as ordinary text
