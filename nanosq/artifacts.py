"""Tables of scores in the format CSV: of each story or document of a split, and of each bin of confidence."""

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

from nanosq.data.corpus import Split
from nanosq.data.texts import DocumentPlace
from nanosq.data.tokenizers import Tokenizer
from nanosq.evaluation import Evaluation

N_EXTREMES = 10  # stories of the lowest and of the highest perplexity that are stored with their text
MAX_CHARACTERS = 2000  # of such a text


def stories_csv(split: Split, tokenizer: Tokenizer, document_nll_S: Tensor) -> str:
    """Return a row for each story: its number, tokens with the end of text, UTF-8 bytes, nats summed over its tokens.

    The stories with the fewest and the most nats per token have their text in the row.
    """
    nll_S = document_nll_S.numpy()
    tokens_S = np.diff(split.starts)
    order = np.argsort(nll_S / tokens_S, kind="stable").tolist()
    with_text = {*order[:N_EXTREMES], *order[-N_EXTREMES:]}

    def text(story: int) -> str:
        begin, end = split.starts[story : story + 2]
        return tokenizer.decode(split.tokens[begin + 1 : min(end, begin + 1 + MAX_CHARACTERS)].tolist())[
            :MAX_CHARACTERS
        ]

    columns = zip(tokens_S.tolist(), split.document_bytes.tolist(), nll_S.tolist(), strict=True)
    rows = ((i, *column, text(i) if i in with_text else "") for i, column in enumerate(columns))
    return _csv(("story", "tokens", "bytes", "nll", "text"), rows)


def documents_csv(
    split: Split, places: Sequence[DocumentPlace], evaluation: Evaluation, *, loses_text: bool = False
) -> str:
    """Return a row for each document of files. Its nll is summed over its tokens, of which the end of text is one.

    If the tokenizer loses text, the bits per byte are not a number.
    """
    header = ("file", "number", "tokens", "bytes", "nll", "nll_per_token", "perplexity", "bits_per_byte", "accuracy")
    tokens_S, bytes_S = np.diff(split.starts), split.document_bytes
    nll_S, correct_S = evaluation.document_nll.numpy(), evaluation.document_correct.numpy()
    mean_S, bits_S = nll_S / tokens_S, np.where(loses_text, np.nan, nll_S / np.log(2))
    with np.errstate(over="ignore"):
        columns = tokens_S, bytes_S, nll_S, mean_S, np.exp(mean_S), bits_S / bytes_S, correct_S / tokens_S
    rows = zip(places, *(column.tolist() for column in columns), strict=True)
    return _csv((*header, "text"), ((place.file, place.number, *numbers, place.beginning) for place, *numbers in rows))


def calibration_csv(bins: Tensor) -> str:
    """Return a row for each bin of confidence: its tokens, correct tokens and summed confidence."""
    n_tokens, correct, confidence = bins.tolist()
    return _csv(("tokens", "correct", "confidence"), zip(n_tokens, correct, confidence, strict=True))


def _csv(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()
