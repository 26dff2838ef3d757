"""Windows of tokens for training and evaluation, and prefetching."""

import threading
from contextlib import closing
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from analysis.configuration import compose
from nanosq import config
from nanosq.data import batches, corpus, tokenizers
from nanosq.data.batches import TrainingBatches, prefetched
from nanosq.data.corpus import Split
from nanosq.data.sources import Document

END = 60_000


def split_of(lengths: list[int]) -> Split:
    """Return documents of these lengths, without END. All tokens but END are different, so they tell positions."""
    starts = np.concatenate([[0], np.cumsum(np.array(lengths) + 1)])
    tokens = np.arange(starts[-1] + 1, dtype=np.uint16)
    tokens[starts] = END
    return Split(tokens, starts, np.array(lengths), sum(lengths), float("nan"))


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@given(lengths, st.integers(1, 20), st.integers(1, 5))
def test_every_prediction_is_scored_once_with_its_context(lengths, block_size, batch_size):
    split = split_of(lengths)
    counted = np.zeros(len(split.tokens), dtype=int)
    begins = split.starts[:-1]
    plan = batches.plan(split, block_size=block_size)
    row = 0
    for tokens_BT, targets_BT, document_B in batches.evaluation_windows(
        split, block_size=block_size, batch_size=batch_size
    ):
        assert tokens_BT.dtype == targets_BT.dtype == torch.int64
        assert tokens_BT.shape == targets_BT.shape
        assert len(tokens_BT) == min(batch_size, len(plan.begin) - row)
        assert document_B.tolist() == plan.document[row : row + len(tokens_BT)].tolist()
        assert 1 <= tokens_BT.shape[1] <= block_size
        for tokens, targets in zip(tokens_BT.tolist(), targets_BT.tolist(), strict=True):
            document, begin = plan.document[row], plan.begin[row]
            first, stop = begins[document], split.starts[document + 1]
            for t, target in enumerate(targets):
                if target == -1:
                    continue
                position = begin + t + 1  # of the target
                assert first < position <= stop
                assert target == split.tokens[position]
                assert tokens[: t + 1] == split.tokens[begin:position].tolist()
                # From the beginning of the document, or with half a block of context.
                assert begin == first or position - begin > block_size // 2
                if stop - first <= block_size:
                    assert begin == first
                counted[position] += 1
            row += 1
    assert row == len(plan.begin)
    assert counted[0] == 0
    assert (counted[1:] == 1).all()


@given(lengths, st.integers(1, 20))
def test_windows_are_sorted_and_few(lengths, block_size):
    split = split_of(lengths)
    plan = batches.plan(split, block_size=block_size)
    assert (np.diff(plan.length) <= 0).all()
    fitting = [length for length in lengths if length + 1 <= block_size]
    assert sum(plan.length < block_size) == sum(length + 1 < block_size for length in fitting)
    for document, length in enumerate(lengths):
        n = sum(plan.document == document)
        assert n == 1 if length + 1 <= block_size else (n - 1) * -(-block_size // 2) < length + 1


def test_evaluation_windows_of_a_small_split():
    split = split_of([2, 9, 1])  # END 1 2 END 4 ... 12 END 14 END
    first, second = batches.evaluation_windows(split, block_size=4, batch_size=4)
    assert first[0].tolist() == [[END, 4, 5, 6], [5, 6, 7, 8], [7, 8, 9, 10], [9, 10, 11, 12]]
    assert first[1].tolist() == [[4, 5, 6, 7], [-1, -1, 8, 9], [-1, -1, 10, 11], [-1, -1, 12, END]]
    assert second[0].tolist() == [[END, 1, 2], [END, 14, END]]
    assert second[1].tolist() == [[1, 2, END], [14, END, -1]]


@given(
    lengths, st.integers(1, 20), st.integers(0, 2**31), st.integers(0, 2**31), st.sampled_from(["anywhere", "document"])
)
def test_random_windows_are_windows_of_the_split(lengths, block_size, seed, step, start):
    split = split_of([*lengths, block_size])
    draw = partial(batches.random_windows, split, block_size=block_size, batch_size=7, start=start)
    tokens_BT, targets_BT = draw(seed=seed, step=step)
    assert tokens_BT.shape == targets_BT.shape == (7, block_size)
    assert tokens_BT.dtype == targets_BT.dtype == torch.int64
    flat = split.tokens.astype(int).tolist()
    for tokens, targets in zip(tokens_BT.tolist(), targets_BT.tolist(), strict=True):
        begins = split.starts[:-1].tolist() if start == "document" else range(len(flat) - block_size)
        assert any([*tokens, targets[-1]] == flat[begin : begin + block_size + 1] for begin in begins)
        assert targets[:-1] == tokens[1:]
    again = draw(seed=seed, step=step)
    assert torch.equal(again[0], tokens_BT)
    assert torch.equal(again[1], targets_BT)


def test_windows_depend_on_seed_and_step_but_not_on_the_order_of_calls():
    split = split_of([30_000])
    draw = partial(batches.random_windows, split, block_size=8, batch_size=4, start="anywhere")
    keys = [(seed, step) for seed in (0, 1, 2, -1, 2**40) for step in (0, 1, 2)]
    drawn = {key: draw(seed=key[0], step=key[1])[0] for key in keys}
    assert len({tuple(tokens.flatten().tolist()) for tokens in drawn.values()}) == len(keys)
    for key in reversed(keys):
        assert torch.equal(draw(seed=key[0], step=key[1])[0], drawn[key])


def test_windows_are_drawn_uniformly_and_to_the_end():
    split = split_of([3, 1, 2, 4, 1])  # starts 0 4 6 9 14, the last END at 16
    draw = partial(batches.random_windows, split, block_size=4, batch_size=20_000, seed=0, step=0)
    tokens_BT, targets_BT = draw(start="anywhere")
    windows, counts = torch.cat([tokens_BT, targets_BT[:, -1:]], dim=1).unique(dim=0, return_counts=True)
    assert len(windows) == 17 - 4
    assert counts.min() > 0.85 * 20_000 / 13
    assert counts.max() < 1.15 * 20_000 / 13
    tokens_BT, _ = draw(start="document")
    windows, counts = tokens_BT.unique(dim=0, return_counts=True)
    assert windows[:, 1].tolist() == [1, 5, 7, 10]  # from the document at 14 there is no full window
    assert counts.min() > 0.9 * 20_000 / 4


def test_a_window_may_be_the_whole_split():
    split = split_of([7])
    for start in ("anywhere", "document"):
        tokens_BT, targets_BT = batches.random_windows(split, block_size=8, batch_size=1, seed=0, step=0, start=start)
        assert tokens_BT.tolist() == [[END, 1, 2, 3, 4, 5, 6, 7]]
        assert targets_BT.tolist() == [[1, 2, 3, 4, 5, 6, 7, END]]


def test_a_very_long_run_has_no_list_of_its_steps():
    """10^15 numbers would need more memory than any machine has."""
    settings = config.settings(compose(["train.max_steps=1000000000000000", "train.accumulate=3"]).train)
    training = TrainingBatches(split_of([100]), 8, settings, 0, "anywhere", torch.device("cpu"))
    with closing(training.micro_batches(10**14, settings.max_steps)) as micro_batches:
        first, second = next(micro_batches), next(micro_batches)
    assert first.seed != second.seed
    assert first.tokens_BT.shape == (settings.batch_size, 8)


def tiny(split):
    yield Document(f"{split} of eleven"[:11])


def test_a_block_size_beyond_the_training_split_is_an_error(tmp_path):
    prepared = corpus.prepare(tiny, tokenizers.byte_level(), cache_dir=tmp_path)
    assert len(prepared.train.tokens) == 13
    batches.check_block_size(prepared, 12)
    message = r"has 13 tokens, and a window takes model.block_size \+ 1 = 14: lower model.block_size to 12"
    with pytest.raises(ValueError, match=message):
        batches.check_block_size(prepared, 13)
    for tokens_BT, targets_BT, _ in batches.evaluation_windows(prepared.val, block_size=1024, batch_size=8):
        assert tokens_BT.shape == targets_BT.shape == (1, len(prepared.val.tokens) - 1)


def test_prefetched_batches_are_in_order() -> None:
    def batch(index: int) -> tuple[Tensor, Tensor]:
        indices.append(index)
        return torch.full((2, 3), index), torch.full((2, 3), -index)

    indices: list[int] = []
    loader = prefetched(batch, range(5, 9), torch.device("cpu"))
    tokens_BT, targets_BT = next(loader)
    assert (tokens_BT[0, 0], targets_BT[0, 0]) == (5, -5)
    assert [int(tokens_BT[0, 0]) for tokens_BT, _ in loader] == [6, 7, 8]
    assert indices == [5, 6, 7, 8]


def test_an_error_in_a_prefetched_batch_is_raised_at_that_batch() -> None:
    def batch(index: int) -> tuple[Tensor, Tensor]:
        if index == 1:
            raise OSError("the disk is gone")
        return torch.zeros(1, 1), torch.zeros(1, 1)

    loader = prefetched(batch, range(3), torch.device("cpu"))
    next(loader)
    with pytest.raises(OSError, match="gone"):
        next(loader)


def test_a_batch_is_made_while_the_last_one_is_in_use() -> None:
    def batch(index: int) -> tuple[Tensor, Tensor]:
        is_made[index].set()
        return torch.zeros(1, 1), torch.zeros(1, 1)

    is_made = [threading.Event() for _ in range(3)]
    loader = prefetched(batch, range(3), torch.device("cpu"))
    next(loader)
    assert is_made[1].wait(timeout=20)
    loader.close()


def test_only_one_batch_is_prefetched() -> None:
    def batch(index: int) -> tuple[Tensor, Tensor]:
        indices.append(index)
        return torch.zeros(1, 1), torch.zeros(1, 1)

    indices: list[int] = []
    loader = prefetched(batch, range(9), torch.device("cpu"))
    next(loader)
    loader.close()
    assert len(indices) <= 2


def test_micro_batches_are_numbered_through_all_steps() -> None:
    split, device = split_of([30, 40]), torch.device("cpu")
    settings: Any = SimpleNamespace(accumulate=3, batch_size=2)
    ours = batches.TrainingBatches(split, block_size=8, settings=settings, seed=5, start="anywhere", device=device)
    assert ours.n_micro_batches == 3
    later = [*ours.micro_batches(2, 4)]
    assert len(later) == 6
    for number, batch in enumerate(later, start=6):
        tokens_BT, targets_BT = batches.random_windows(
            split, block_size=8, batch_size=2, seed=5, step=number, start="anywhere"
        )
        assert torch.equal(batch.tokens_BT, tokens_BT)
        assert torch.equal(batch.targets_BT, targets_BT)
    seeds = [batch.seed for batch in ours.micro_batches(0, 4)]
    assert len({*seeds}) == 12
    assert seeds[6:] == [batch.seed for batch in later]  # the same after an interruption
