"""Scores of a model on a whole split. They do not depend on the training loss.

Shape suffixes: B batch, T time, N scored tokens, D model width, S documents (the stories of a split), V vocabulary.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from nanosq import calibration, distributed
from nanosq.calibration import ECE_BINS
from nanosq.data.batches import evaluation_windows
from nanosq.data.corpus import Split
from nanosq.hardware import Hardware
from nanosq.losses import Loss
from nanosq.model import GPT
from nanosq.token_scores import token_scores

WindowBatch = tuple[Tensor, Tensor, Tensor]  # tokens_BT, targets_BT, document_B: the document of each window
KEPT_BYTES = 2**28  # largest size of hidden states that are kept for further passes


@dataclass(frozen=True)
class Score:
    """Means over all tokens of a split, summed in float64."""

    loss: float  # training objective, in a unit of its own
    nll: float  # nats per token
    perplexity: float  # exp(nll)
    bits_per_byte: float  # nll of all tokens in bits / UTF-8 bytes of the text; end-of-text tokens have no bytes
    accuracy: float
    ece: float  # expected calibration error of the most likely token, 15 bins
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
    document_correct: Tensor  # (n_documents,) float64, number of correct tokens of each document
    bins: Tensor  # (3, ECE_BINS) float64, for equal intervals of confidence: tokens, correct tokens, summed confidence
    target_nll: Tensor  # (2, V) float64, for each entry of the vocabulary: its number as a target, nats summed over it


class ScoredTokens(NamedTuple):
    """The scored tokens of a batch, before the output layer."""

    hidden_ND: Tensor  # in the type in which the output layer multiplies
    targets_N: Tensor
    document_N: Tensor  # the document of each token, on the CPU


@dataclass(frozen=True)
class Evaluator:
    """Score the present weights of a model on splits. Several processes share the windows.

    Args:
        model: The model.
        loss: The training loss, for `Score.loss`.
        hardware: Device and precision.
        batch_size: Windows in a batch.
        before_batch: Function that is called before every batch; it may raise an exception to stop. Several processes
            do not call it, because they have unequal numbers of batches.
    """

    model: GPT
    loss: Loss
    hardware: Hardware
    batch_size: int
    before_batch: Callable[[], None] = lambda: None

    def score(self, split: Split, batches: Iterable[ScoredTokens] | None = None) -> Evaluation:
        """Score every token of a split once. Each of several processes returns the score of all.

        Args:
            split: The split.
            batches: Its batches, if they have been computed for several passes.
        """
        # Sums are computed on the CPU, because not every device has float64.
        model, hardware, V = self.model, self.hardware, len(self.model.head_weight)
        loss_sum = torch.zeros((), dtype=torch.float64)
        document_nll_S, document_correct_S = torch.zeros(2, len(split.document_bytes), dtype=torch.float64)
        target_nll_2V = torch.zeros(2, V, dtype=torch.float64)
        bins = torch.zeros(3, ECE_BINS, dtype=torch.float64)
        with evaluating(model, hardware):
            for hidden_ND, targets_N, document_N in self.batches(split) if batches is None else batches:
                scores = token_scores(self.loss, hidden_ND, model.head_weight, targets_N, compile=hardware.compile_loss)
                loss_N, nll_N, confidence_N, correct_N = (values_N.cpu() for values_N in scores)
                nll_N = nll_N.double()
                loss_sum += loss_N.double().sum()
                document_nll_S.index_add_(0, document_N, nll_N)
                document_correct_S.index_add_(0, document_N, correct_N.double())
                for row, weights_N in enumerate((None, nll_N)):
                    target_nll_2V[row] += torch.bincount(targets_N.cpu(), weights_N, minlength=V)
                bins += calibration.sum_bins(confidence_N, correct_N)
        all_sums = loss_sum, document_nll_S, document_correct_S, target_nll_2V, bins
        loss_sum, document_nll_S, document_correct_S, target_nll_2V, bins = map(distributed.all_reduce, all_sums)
        n = int(bins[0].sum())
        nll_sum = float(document_nll_S.sum())
        nll = nll_sum / n
        score = Score(
            loss=float(loss_sum) / n,
            nll=nll,
            perplexity=_exp(nll),
            bits_per_byte=nll_sum / (math.log(2) * split.n_bytes),
            accuracy=float(document_correct_S.sum()) / n,
            ece=calibration.ece(bins),
            floor_nll=-split.log_probability / n,
            excess_nll=nll + split.log_probability / n,
        )
        return Evaluation(score, document_nll_S, document_correct_S, bins, target_nll_2V)

    def batches(self, split: Split, *, every: int = 1) -> Iterator[ScoredTokens]:
        """Yield the batches of this process, or one of `every` batches. Iterate inside of `evaluating`."""
        device, dtype = self.hardware.device, self.hardware.matmul_dtype
        for tokens_BT, targets_BT, document_B in self.windows(split, every=every):
            hidden_BTD, scored_BT = self.model(tokens_BT.to(device)), targets_BT >= 0
            document_N, scored_on_device_BT = document_B[scored_BT.nonzero()[:, 0]], scored_BT.to(device)
            yield ScoredTokens(hidden_BTD[scored_on_device_BT].to(dtype), targets_BT[scored_BT].to(device), document_N)

    def windows(self, split: Split, *, every: int) -> Iterator[WindowBatch]:
        """Yield the windows of `batches`. Call `before_batch` before each batch."""
        all_windows = evaluation_windows(split, block_size=self.model.block_size, batch_size=self.batch_size)
        for windows in islice(all_windows, distributed.rank(), None, every * distributed.world_size()):
            self.call_before_batch()
            yield windows

    def call_before_batch(self) -> None:
        """Call `before_batch`, unless there are several processes."""
        if distributed.world_size() == 1:
            self.before_batch()


class Batches:
    """The batches of a split for several passes. If the hidden states are small, the model computes them once.

    Args:
        evaluator: Evaluator of the model, whose weights do not change after the first pass.
        split: The split.
    """

    def __init__(self, evaluator: Evaluator, split: Split) -> None:
        self._evaluator, self._split = evaluator, split
        size = len(split.tokens) * evaluator.model.head_weight.shape[1] * evaluator.hardware.matmul_dtype.itemsize
        self._kept: list[ScoredTokens] | None = [] if size <= KEPT_BYTES else None

    def __call__(self, *, every: int = 1) -> Iterator[ScoredTokens]:
        """Yield the batches, or one of `every` batches. Iterate inside of `evaluating`."""
        if self._kept is None:
            yield from self._evaluator.batches(self._split, every=every)
            return
        if not self._kept:
            self._kept.extend(self._evaluator.batches(self._split))
        for batch in self._kept[::every]:
            self._evaluator.call_before_batch()
            yield batch


@contextmanager
def evaluating(model: GPT, hardware: Hardware) -> Iterator[None]:
    """Compute without dropout, without gradients and in the precision of the run."""
    was_training = model.training
    model.eval()
    with torch.no_grad(), hardware.autocast():
        yield
    model.train(was_training)


def _exp(nll: float) -> float:
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf
