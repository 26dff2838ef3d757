"""What a run leaves beside its scores, for analysis to read: each story of a split, and each bin of confidence."""

import csv
import io
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from nanosq.data.corpus import Split
from nanosq.data.tokenizers import Tokenizer

EXTREMES = 10  # stories of the lowest and of the highest perplexity whose text is written down
LONGEST = 2000  # characters of it


def stories_csv(split: Split, tokenizer: Tokenizer, document_nll_S: Tensor) -> str:
    """A line for each story: its number, tokens (its end of text included), UTF-8 bytes, nats summed over its tokens.

    The text stands beside the stories that the model finds easiest and hardest by their nats a token.
    """
    nll_S = document_nll_S.numpy()
    tokens_S = np.diff(split.starts)
    order = np.argsort(nll_S / tokens_S, kind="stable").tolist()
    shown = {*order[:EXTREMES], *order[-EXTREMES:]}

    def text(story: int) -> str:
        begin, end = split.starts[story : story + 2]
        return tokenizer.decode(split.tokens[begin + 1 : min(end, begin + 1 + LONGEST)].tolist())[:LONGEST]

    columns = zip(tokens_S.tolist(), split.document_bytes.tolist(), nll_S.tolist(), strict=True)
    rows = ((i, *column, text(i) if i in shown else "") for i, column in enumerate(columns))
    return _csv(("story", "tokens", "bytes", "nll", "text"), rows)


def calibration_csv(bins: Tensor) -> str:
    """A line for each bin of confidence: its tokens, how many were predicted correctly, their summed confidence."""
    n_tokens, correct, confidence = bins.tolist()
    return _csv(("tokens", "correct", "confidence"), zip(n_tokens, correct, confidence, strict=True))


def _csv(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()
