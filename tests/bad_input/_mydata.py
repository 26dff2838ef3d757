"""Sources and tokenizers of a user that break their contract. The cases of components.py copy it."""

from pathlib import Path

import numpy as np

from nanosq.data.sources import Document
from nanosq.data.tokenizers import Tokenizer


def documents(split, **_):
    for i in range(40):
        yield Document(f"{split} {i}")


def raises(split, **_):
    yield from documents(split)
    raise KeyError(split)


def raises_at_once(split, **_):
    Path("missing.txt").read_text()


def no_texts(split, **_):
    yield from ()


def yields_bytes(split, **_):
    yield b"once upon a time"


def yields_none(split, **_):
    yield None


def yields_numbers(split, **_):
    yield from range(100)


def yields_texts(split, **_):
    yield from (f"{split} {i}" for i in range(100))


def yields_halves(split, **_):
    yield Document("a lone \ud800 surrogate")


def returns_none(split, **_):
    pass


def returns_number(split, **_):
    return 7


def own_tokenizer(**_):
    return b"tokenizer"


class OwnTokenizer(Tokenizer):
    end_of_text = 7
    spellings = [b"a"] * 7

    def __init__(self, pad_to):
        self.pad_to = pad_to

    def encode(self, texts):
        return [np.zeros(3, np.uint32) for _ in texts]

    def state(self):
        return {"kind": "mine"}


def broken_tokenizer(**_):
    return {}["tokenizer"]
