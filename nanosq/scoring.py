"""The score of one text."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from nanosq.data.batches import UNSCORED, evaluation_windows
from nanosq.data.corpus import Split
from nanosq.data.tokenizers import Tokenizer
from nanosq.model import GPT


@torch.no_grad()
def mean_nll(model: GPT, tokenizer: Tokenizer, text: str) -> float:
    """Return the mean negative log-likelihood of a text in nats per token.

    The text is scored as the beginning of a document, after an end of text. All of its tokens count. The end of text
    that would close the document does not, because the text may be incomplete; in the scores of a split it counts. A
    text longer than the block is scored in overlapping windows, as a document of a split (nanosq/data/batches.py).

    Args:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        text: The text.

    Raises:
        ValueError: The text is empty.
    """
    if not text:
        raise ValueError("an empty text has no tokens to score")
    ids = np.array([tokenizer.end_of_text, *tokenizer.encode([text])[0]], dtype=np.int64)
    split = Split(ids, np.array([0, len(ids) - 1]), np.zeros(1, dtype=np.int64), 0, math.nan)
    nll, device = 0.0, model.head_weight.device
    for tokens_BT, targets_BT, _ in evaluation_windows(split, block_size=model.block_size, batch_size=1):
        logits_NV = (model(tokens_BT.to(device)) @ model.head_weight.T).float().flatten(0, 1)
        targets_N = targets_BT.to(device).flatten()
        nll += float(F.cross_entropy(logits_NV, targets_N, ignore_index=UNSCORED, reduction="sum"))
    return nll / (len(ids) - 1)
