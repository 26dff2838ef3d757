"""The protocol of the student report: the mean nll of random windows of a text.

The report took its perplexities from 10 batches of 4 windows of 256 tokens (Listing A.1, with the counts of its
repository). It draws windows as get_batch in nanoGPT's train.py, of which estimate_loss returns the mean: anywhere in
the tokens of all documents, each with an end of text behind it. Every position is scored, whatever its context is: the
first one of a window has a single token.
"""

import math
from dataclasses import dataclass, replace

import torch

from nanosq.data.batches import random_windows
from nanosq.data.corpus import Split
from nanosq.evaluation import Evaluator, evaluating
from nanosq.token_scores import token_scores

BATCH_SIZE, WINDOW_SIZE = 4, 256  # of the student report


@dataclass(frozen=True)
class RandomScore:
    """The mean over random windows."""

    windows: int
    window_size: int  # tokens scored in each window
    nll: float  # nats per token
    standard_error: float  # of the nll, from the differences between windows
    perplexity: float  # exp(nll)


def score_random_windows(
    evaluator: Evaluator, split: Split, *, n_windows: int, window_size: int | None = None, seed: int
) -> RandomScore:
    """Return the mean nll of random windows, which depend on the seed.

    Args:
        evaluator: Evaluator of the model.
        split: The text.
        n_windows: Number of windows.
        window_size: Tokens scored in a window. None: `WINDOW_SIZE`, or the block size of a model with a smaller one.
        seed: Seed of the random numbers.

    Raises:
        ValueError: There are fewer than two windows, or they do not fit the model or the text.
    """
    model, hardware = evaluator.model, evaluator.hardware
    size = min(WINDOW_SIZE, model.block_size) if window_size is None else window_size
    if n_windows < 2:
        raise ValueError(f"{n_windows} windows have no standard error: give at least 2")
    if not 1 <= size <= model.block_size:
        raise ValueError(f"windows of {size:,} tokens do not fit the model: give 1 to {model.block_size:,}")
    stream = replace(split, tokens=split.tokens[1:])  # nanoGPT's has no end of text before the first document
    if len(stream.tokens) <= size:
        n_tokens = f"the text has {len(stream.tokens):,} tokens"
        raise ValueError(f"{n_tokens}, and a window takes {size + 1:,}: give more text or smaller windows")
    means: list[torch.Tensor] = []
    with evaluating(model, hardware):
        for step, begin in enumerate(range(0, n_windows, BATCH_SIZE)):
            n = min(BATCH_SIZE, n_windows - begin)
            windows = random_windows(stream, block_size=size, batch_size=n, seed=seed, step=step, start="anywhere")
            tokens_BT, targets_BT = (each.to(hardware.device) for each in windows)
            hidden_BTD = model(tokens_BT).to(hardware.matmul_dtype)
            scores = token_scores(evaluator.loss, hidden_BTD, model.head_weight, targets_BT)
            means.append(scores.nll.view(n, size).cpu().double().mean(dim=1))
    nll_N = torch.cat(means)
    nll, error = nll_N.mean(), nll_N.std() / math.sqrt(n_windows)
    return RandomScore(n_windows, size, float(nll), float(error), float(nll.exp()))
