"""Scores of a model on a whole split. They do not depend on the training loss.

Shape suffixes: B batch, T time, N scored tokens, S documents (the stories of a split).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from nanosq import distributed
from nanosq.data.batches import evaluation_windows
from nanosq.data.corpus import Split
from nanosq.hardware import Hardware
from nanosq.head import TokenScores, token_scores
from nanosq.losses import Loss
from nanosq.model import GPT

ECE_BINS = 15  # as Guo et al. 2017 and the squentropy paper


@dataclass(frozen=True)
class Score:
    """Means over all tokens of a split, summed in float64."""

    loss: float  # training objective, in a unit of its own
    nll: float  # nats per token
    perplexity: float  # exp(nll)
    bits_per_byte: float  # nll of all tokens in bits / UTF-8 bytes of the text; end-of-text tokens have no bytes
    accuracy: float
    ece: float  # expected calibration error of the most likely token, 15 bins: Guo et al. 2017, arXiv 1706.04599
    floor_nll: float  # nats per token that no model can beat on average, the entropy of the text; nan if unknown
    excess_nll: float  # nll - floor_nll

    def metrics(self, split: str) -> dict[str, float]:
        """Return the known values under the names of their metrics: `{"val/nll": ...}`."""
        known = {name: value for name, value in asdict(self).items() if not math.isnan(value)}
        return {f"{split}/{name}": value for name, value in known.items()}


class Evaluation(NamedTuple):
    """The score of a split, and what the report needs besides."""

    score: Score
    document_nll: Tensor  # (n_documents,) float64, nats summed over each document
    bins: Tensor  # (3, ECE_BINS) float64, for equal intervals of confidence: tokens, correct tokens, summed confidence


def evaluate_split(
    model: GPT,
    loss: Loss,
    split: Split,
    *,
    batch_size: int,
    hardware: Hardware,
    before_batch: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score every token of a split once. Several processes share the windows, and each returns the score of all.

    Args:
        model: The model.
        loss: The training loss, for `Score.loss`.
        split: The split.
        batch_size: Windows in a batch.
        hardware: Device and precision.
        before_batch: Called before every batch; it may raise an exception to stop. Several processes do not call it,
            because they have unequal numbers of batches.
    """

    def windows() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        batches = evaluation_windows(split, block_size=model.block_size, batch_size=batch_size)
        for batch in islice(batches, distributed.rank(), None, distributed.world_size()):
            if distributed.world_size() == 1:
                before_batch()
            yield batch

    return evaluate(
        model,
        loss,
        windows(),
        n_documents=len(split.document_bytes),
        n_bytes=split.n_bytes,
        log_probability=split.log_probability,
        hardware=hardware,
    )


def evaluate(
    model: GPT,
    loss: Loss,
    windows: Iterable[tuple[Tensor, Tensor, Tensor]],
    *,
    n_documents: int,
    n_bytes: int,
    log_probability: float = math.nan,
    hardware: Hardware,
) -> Evaluation:
    """Score a model on windows in which every token of a text is a target once.

    Args:
        model: The model.
        loss: The training loss, for `Score.loss`.
        windows: Batches (tokens_BT, targets_BT, document_B), where document_B is the document of each window.
        n_documents: Number of documents.
        n_bytes: Length of the text in UTF-8 bytes.
        log_probability: Logarithm of the probability of the text, in nats, if its distribution is known.
        hardware: Device and precision.
    """
    # Sums are computed on the CPU, because not every device has float64.
    sums = torch.zeros(2, dtype=torch.float64)
    document_nll_S = torch.zeros(n_documents, dtype=torch.float64)
    bins = torch.zeros(3, ECE_BINS, dtype=torch.float64)
    was_training = model.training
    model.eval()
    with torch.no_grad(), hardware.autocast():
        for tokens_BT, targets_BT, document_B in windows:
            document_N = document_B[(targets_BT >= 0).nonzero()[:, 0]]
            hidden_BTD = model(tokens_BT.to(hardware.device))
            targets_BT = targets_BT.to(hardware.device)
            scores = token_scores(loss, hidden_BTD, model.head_weight, targets_BT, compile=hardware.compile_loss)
            scores = TokenScores(*(score.cpu() for score in scores))
            sums += torch.stack([scores.loss.double().sum(), scores.correct.double().sum()])
            document_nll_S.index_add_(0, document_N, scores.nll.double())
            bins += _calibration(scores)
    model.train(was_training)
    sums, document_nll_S, bins = map(distributed.all_reduce, (sums, document_nll_S, bins))
    n = int(bins[0].sum())
    loss_sum, correct_sum = sums.tolist()
    nll_sum = float(document_nll_S.sum())
    nll = nll_sum / n
    score = Score(
        loss=loss_sum / n,
        nll=nll,
        perplexity=_exp(nll),
        bits_per_byte=nll_sum / (math.log(2) * n_bytes),
        accuracy=correct_sum / n,
        ece=float((bins[1] - bins[2]).abs().sum()) / n,
        floor_nll=-log_probability / n,
        excess_nll=nll + log_probability / n,
    )
    return Evaluation(score, document_nll_S, bins)


def _calibration(scores: TokenScores) -> Tensor:
    """Return the number of tokens, correct tokens and summed confidence of each bin, shape (3, bins)."""
    edges = torch.linspace(0, 1, ECE_BINS + 1)[1:-1]
    bin_N = torch.bucketize(scores.confidence, edges)
    rows = (torch.ones_like(bin_N), scores.correct, scores.confidence)
    return torch.stack([torch.bincount(bin_N, weights=row.double(), minlength=ECE_BINS) for row in rows])


def _exp(nll: float) -> float:
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf
