"""Measure how much longer a training step takes if its batches are read from a file of TinyStories' size.

Steps that read new batches alternate with steps that use the same batch in memory again.

python -m analysis.benchmarks.reading
python -m analysis.benchmarks.reading --rounds 5 --tokens 10000000
"""

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import Tensor

from analysis.benchmarks.lib.measure import describe_machine, median_seconds, seconds, synchronize
from analysis.benchmarks.lib.training_steps import SHAPES, Contender, nanosq_step
from nanosq.data import batches, corpus
from nanosq.hardware import Hardware
from nanosq.model import GPT

DOCUMENT = 225  # tokens
STEPS = 50  # between two changes of side

Batch = Callable[[int], tuple[Tensor, Tensor]]


def compare(folder: Path, n_tokens: int, rounds: int) -> None:
    """Time steps of the smallest model with batches from a file, and with a batch in memory."""
    hardware = Hardware.pick(device="auto", precision="auto", compile="auto")
    shape = SHAPES["tiny"]
    step = nanosq_step(GPT(**shape.sizes).to(hardware.device), Contender("nanosq", "cross_entropy", hardware))
    split = random_split(folder, n_tokens, shape.vocab_size)
    starts = itertools.count(step=STEPS)

    def from_file(index: int) -> tuple[Tensor, Tensor]:
        return batches.random_windows(
            split, block_size=shape.block_size, batch_size=shape.batch_size, seed=0, step=index, start="document"
        )

    def train(batch: Batch) -> None:
        start = next(starts)
        for tokens_BT, targets_BT in batches.prefetched(batch, range(start, start + STEPS), hardware.device):
            step(tokens_BT, targets_BT)
        synchronize(hardware.device)

    fixed = from_file(0)
    sources: dict[str, Batch] = {"memory": lambda _: fixed, "file": from_file}
    times = median_seconds({name: partial(seconds, partial(train, batch)) for name, batch in sources.items()}, rounds)
    start = next(starts)
    read = seconds(lambda: [from_file(start + i) for i in range(1000)]) / 1000
    print(f"{shape}; {n_tokens:,} tokens in the file; {hardware}, {describe_machine(hardware)}")
    print(f"A step with batches from the file takes {times['file'] / times['memory']:.3f} times as long as in memory.")
    print(f"Reading a batch takes {read / (times['memory'] / STEPS):.4f} of the time of a step, in parallel to it.")


def random_split(folder: Path, n_tokens: int, vocab_size: int) -> corpus.Split:
    """Write random tokens to a file and return them as a split."""
    rng = np.random.default_rng(0)
    with (folder / "tokens").open("wb") as file:
        for begin in range(0, n_tokens, 1 << 24):
            rng.integers(vocab_size, size=min(1 << 24, n_tokens - begin), dtype=np.uint16).tofile(file)
    tokens = np.memmap(folder / "tokens", dtype=np.uint16, mode="r")
    starts = np.arange(0, n_tokens, DOCUMENT)
    return corpus.Split(tokens, starts, np.full(len(starts) - 1, 4 * DOCUMENT), n_tokens * 4, float("nan"))


def main() -> None:
    """Print two ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=475_000_000, help="in the file; default: as in TinyStories")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        compare(Path(folder), arguments.tokens, arguments.rounds)


if __name__ == "__main__":
    main()
