"""Windows of tokens: random ones for training, and every token once for evaluation.

Shapes: B windows in a batch, T tokens in a window.
"""

import itertools
import random
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nanosq import distributed
from nanosq.data.ahead import map_ahead
from nanosq.data.corpus import Corpus, Split
from nanosq.settings import TrainSettings

WINDOW_STARTS = ("anywhere", "document")
UNSCORED = -1  # target of a position at which nothing is predicted


def check_block_size(corpus: Corpus, block_size: int) -> None:
    """Raise ValueError if the training split is too short for a single window."""
    n = len(corpus.train.tokens)
    if n < block_size + 1:
        raise ValueError(
            f"the training split has {n:,} tokens, and a window takes model.block_size + 1 = {block_size + 1:,}: "
            f"lower model.block_size to {n - 1:,} or give more text"
        )


def random_windows(
    split: Split, *, block_size: int, batch_size: int, seed: int, step: int, start: str
) -> tuple[Tensor, Tensor]:
    """Return tokens and targets (B, T) int64 of a training step, which depend only on `seed` and `step`.

    Windows begin "anywhere", or at the end of text before a "document". They continue into the documents that follow.
    All windows are full, so none begins where less than a window is left of the split. With "document", the text of a
    document beyond block_size is only seen in windows that began at the previous document.
    """
    last = len(split.tokens) - block_size - 1
    assert last >= 0, "check_block_size comes first"
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, step], dtype=np.int64).view(np.uint64)))
    if start == "anywhere":
        begins_B = rng.integers(last + 1, size=batch_size)
    else:
        assert start == "document"
        n = np.searchsorted(split.starts, last, side="right")
        begins_B = split.starts[rng.integers(n, size=batch_size)]
    windows = torch.from_numpy(split.tokens[begins_B[:, None] + np.arange(block_size + 1)].astype(np.int64))
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def prefetched(
    batch: Callable[[int], tuple[Tensor, Tensor]], indices: Iterable[int], device: torch.device
) -> Generator[tuple[Tensor, Tensor]]:
    """Yield `batch(index)` on the device for each index. A thread makes the next batch while one is in use."""

    def make(index: int) -> tuple[Tensor, Tensor]:
        tokens_BT, targets_BT = batch(index)
        if device.type == "cuda":  # from pinned memory the copy does not wait for the GPU
            tokens_BT, targets_BT = tokens_BT.pin_memory(), targets_BT.pin_memory()
        return tokens_BT.to(device, non_blocking=True), targets_BT.to(device, non_blocking=True)

    return map_ahead(make, indices, workers=1, ahead=1)


class Windows(NamedTuple):
    """The windows of an evaluation, the longest first. Each array has one element per window."""

    document: np.ndarray  # index of its document in the split
    begin: np.ndarray  # position of its first token in the split
    length: np.ndarray  # number of tokens
    scored: np.ndarray  # index in the window of the first prediction that earlier windows do not make


def plan(split: Split, *, block_size: int) -> Windows:
    """Return windows that make each prediction of a split once, with half a block of context or more if it exists.

    A document of at most block_size predictions is one window. A longer one is cut into full windows that overlap by
    half a block. The last window overlaps by more, so that it ends where the document does.
    """
    stride = block_size - block_size // 2
    lengths = np.diff(split.starts)
    n_windows = 1 + np.maximum(0, -(-(lengths - block_size) // stride))
    document = np.repeat(np.arange(len(lengths)), n_windows)
    number = np.arange(len(document)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)  # within the document
    length = np.minimum(lengths, block_size)[document]
    offset = np.minimum(number * stride, lengths[document] - length)
    n_predicted = np.where(number > 0, (number - 1) * stride + block_size, 0)  # by the earlier windows
    order = np.argsort(-length, kind="stable")
    columns = (document, split.starts[document] + offset, length, n_predicted - offset)
    return Windows(*(column[order] for column in columns))


def evaluation_windows(split: Split, *, block_size: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield tokens and targets (B, T) int64, and documents (B,), of all windows of `plan` in its order.

    T is the length of the longest window in the batch. Targets are -1 for predictions that another window makes, and
    for the padding. The padding is on the right, where causal attention keeps it from all predictions.
    """
    document, begin, length, scored = plan(split, block_size=block_size)
    for first in range(0, len(begin), batch_size):
        rows = slice(first, first + batch_size)
        column_T = np.arange(length[rows].max())
        inside_BT = column_T < length[rows, None]
        scored_BT = inside_BT & (column_T >= scored[rows, None])
        position_BT = np.where(inside_BT, begin[rows, None] + column_T, 0)  # tokens[0] is an end of text
        tokens_BT = split.tokens[position_BT].astype(np.int64)
        targets_BT = np.where(scored_BT, split.tokens[position_BT + 1].astype(np.int64), UNSCORED)
        yield torch.from_numpy(tokens_BT), torch.from_numpy(targets_BT), torch.from_numpy(document[rows])


class MicroBatch(NamedTuple):
    """One micro-batch of a step, on the device."""

    tokens_BT: Tensor
    targets_BT: Tensor
    seed: int  # of the random numbers of its forward pass, as those of dropout

    def seed_everything(self) -> None:
        """Make random numbers the same after an interruption, and on whichever process computes the micro-batch."""
        torch.manual_seed(self.seed)
        np.random.seed(self.seed)
        random.seed(self.seed)


@dataclass(frozen=True)
class TrainingBatches:
    """The micro-batches of a run. Of several processes, each takes an equal share of every step.

    Args:
        split: The training split.
        block_size: Tokens in a window.
        settings: Batch size, and micro-batches in a step.
        seed: Seed of the run.
        start: Where windows begin, as for `random_windows`.
        device: Device of the batches.
    """

    split: Split
    block_size: int
    settings: TrainSettings
    seed: int
    start: str
    device: torch.device

    @property
    def n_micro_batches(self) -> int:
        """Number of micro-batches of a step that this process computes."""
        return len(range(self.settings.accumulate)[self._share[0]])

    def micro_batches(self, first_step: int, max_steps: int) -> Generator[MicroBatch]:
        """Yield the micro-batches of this process, step after step. A thread makes the next one ahead of its use."""
        accumulate = self.settings.accumulate
        steps, share = range(first_step, max_steps), range(accumulate)[self._share[0]]
        # Not a list, which would need more memory than the model in a very long run.
        indices, ahead = itertools.tee(step * accumulate + i for step in steps for i in share)
        for index, (tokens_BT, targets_BT) in zip(indices, prefetched(self._make, ahead, self.device), strict=True):
            yield MicroBatch(tokens_BT, targets_BT, self._random_seed(index))

    @property
    def _share(self) -> tuple[slice, slice]:
        return distributed.share_of_step(self.settings.accumulate, self.settings.batch_size)

    def _make(self, index: int) -> tuple[Tensor, Tensor]:
        tokens_BT, targets_BT = random_windows(
            self.split,
            block_size=self.block_size,
            batch_size=self.settings.batch_size,
            seed=self.seed,
            step=index,
            start=self.start,
        )
        rows = self._share[1]
        return tokens_BT[rows], targets_BT[rows]

    def _random_seed(self, index: int) -> int:
        entropy = [abs(self.seed), self._share[1].start or 0, index]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])
