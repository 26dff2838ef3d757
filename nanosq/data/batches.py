"""Windows: random for training, every token once for evaluation.

Shapes: B windows in a batch, T tokens in a window.
"""

import random
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nanosq import distributed
from nanosq.data.corpus import Corpus, Split
from nanosq.settings import TrainSettings

WINDOW_STARTS = ("anywhere", "document")
UNSCORED = -1  # the target where nothing is predicted


def check_block_size(corpus: Corpus, block_size: int) -> None:
    """ValueError where the training split is too short for a single window."""
    n = len(corpus.train.tokens)
    if n < block_size + 1:
        raise ValueError(
            f"the training split has {n:,} tokens, and a window takes model.block_size + 1 = {block_size + 1:,}: "
            f"lower model.block_size to {n - 1:,} or give more text"
        )


def random_windows(
    split: Split, *, block_size: int, batch_size: int, seed: int, step: int, start: str
) -> tuple[Tensor, Tensor]:
    """Tokens and targets (B, T) int64 of a training step, which depend on nothing but `seed` and `step`.

    Windows begin "anywhere", or at the end of text before a "document". They run on into the documents that follow,
    and all are full: the last places of the split, where less than a window is left, are no beginnings. From
    "document" the part of a document beyond block_size is seen only where a window began at the one before.
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
    """The batches with these numbers on the device, each made by a thread while the one before it is in use."""

    def make(index: int) -> tuple[Tensor, Tensor]:
        tokens_BT, targets_BT = batch(index)
        if device.type == "cuda":  # from pinned memory the copy does not wait for the GPU
            tokens_BT, targets_BT = tokens_BT.pin_memory(), targets_BT.pin_memory()
        return tokens_BT.to(device, non_blocking=True), targets_BT.to(device, non_blocking=True)

    with ThreadPoolExecutor(max_workers=1) as thread:
        upcoming: deque[Future[tuple[Tensor, Tensor]]] = deque()
        for index in indices:
            upcoming.append(thread.submit(make, index))
            if len(upcoming) > 1:
                yield upcoming.popleft().result()
        while upcoming:
            yield upcoming.popleft().result()


class Windows(NamedTuple):
    """Which windows an evaluation takes, one row of each array a window, the longest first."""

    document: np.ndarray  # its number in the split
    begin: np.ndarray  # position of its first token in the split
    length: np.ndarray  # tokens in it
    scored: np.ndarray  # its first prediction that no window before has made, counted from `begin`


def plan(split: Split, *, block_size: int) -> Windows:
    """Windows that make each prediction of a split once, with at least half a block of context where there is one.

    A document of at most block_size predictions is one window. A longer one is cut into full windows that overlap by
    half a block; the last overlaps by more, so that it ends where the document does.
    """
    stride = block_size - block_size // 2
    lengths = np.diff(split.starts)
    n_windows = 1 + np.maximum(0, -(-(lengths - block_size) // stride))
    document = np.repeat(np.arange(len(lengths)), n_windows)
    number = np.arange(len(document)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    length = np.minimum(lengths, block_size)[document]
    offset = np.minimum(number * stride, lengths[document] - length)
    made = np.where(number > 0, (number - 1) * stride + block_size, 0)  # predictions by the windows before
    order = np.argsort(-length, kind="stable")
    return Windows(*(each[order] for each in (document, split.starts[document] + offset, length, made - offset)))


def evaluation_windows(split: Split, *, block_size: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Tokens and targets (B, T) int64 of every window of `plan`, in its order, and the document of each (B,).

    T is that of the longest in the batch.

    Targets are -1 where nothing is scored: on predictions that another window makes, and on the padding, which is on
    the right, where causal attention keeps it from every prediction.
    """
    document, begin, length, scored = plan(split, block_size=block_size)
    for at in range(0, len(begin), batch_size):
        rows = slice(at, at + batch_size)
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
        steps = range(first_step, max_steps)
        indices = [step * accumulate + i for step in steps for i in range(accumulate)[self._share[0]]]
        for index, (tokens_BT, targets_BT) in zip(indices, prefetched(self._make, indices, self.device), strict=True):
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
