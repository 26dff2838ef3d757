"""What it costs a training step to read its batches from a file of TinyStories' size.

Steps with such batches, in turn with steps that have the same batch out of memory again and again.

python -m analysis.benchmarks.reading
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import Tensor
from tqdm import tqdm

from analysis.benchmarks.lib.memory import synchronize
from analysis.benchmarks.lib.training_steps import SHAPES, Contender, nanosq_step
from nanosq.data import batches, corpus
from nanosq.hardware import Hardware
from nanosq.model import GPT

N_TOKENS = 475_000_000  # of TinyStories
DOCUMENT = 225  # tokens
STEPS = 50  # between changes of side


def compare(folder: Path, rounds: int) -> None:
    """Steps of the smallest model, whose batches come out of a file of TinyStories' size, beside batches in memory."""
    hardware = Hardware.pick(device="auto", precision="auto", compile="auto")
    shape = SHAPES["tiny"]
    step = nanosq_step(GPT(**shape.sizes).to(hardware.device), Contender("nanosq", "cross_entropy", hardware))
    split = _file_of_tokens(folder, shape.vocab_size)

    def window(index: int) -> tuple[Tensor, Tensor]:
        return batches.random_windows(
            split, block_size=shape.block_size, batch_size=shape.batch_size, seed=0, step=index, start="document"
        )

    fixed = window(0)
    sides: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {"memory": lambda _: fixed, "file": window}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    index = 0
    for _ in tqdm(range(rounds), desc="rounds"):
        for name, batch in sides.items():
            begin = time.perf_counter()
            for tokens_BT, targets_BT in batches.prefetched(batch, range(index, index + STEPS), hardware.device):
                step(tokens_BT, targets_BT)
            synchronize(hardware.device)
            seconds[name].append((time.perf_counter() - begin) / STEPS)
            index += STEPS
    begin = time.perf_counter()
    for i in range(1000):
        window(index + i)
    alone = (time.perf_counter() - begin) / 1000
    file, memory = (statistics.median(seconds[name]) for name in ("file", "memory"))
    print(f"{shape}; {N_TOKENS:,} tokens in the file; {hardware}")
    print(f"a step with batches from the file takes {file / memory:.3f} times as long as with the same one again")
    print(f"making a batch takes {alone / memory:.4f} of a step, beside it")


def _file_of_tokens(folder: Path, vocab_size: int) -> corpus.Split:
    rng = np.random.default_rng(0)
    with (folder / "tokens").open("wb") as file:
        for begin in range(0, N_TOKENS, 1 << 24):
            n = min(1 << 24, N_TOKENS - begin)
            rng.integers(vocab_size, size=n, dtype=np.uint16).tofile(file)
    tokens = np.memmap(folder / "tokens", dtype=np.uint16, mode="r")
    starts = np.arange(0, N_TOKENS, DOCUMENT)
    return corpus.Split(tokens, starts, np.full(len(starts) - 1, 4 * DOCUMENT), N_TOKENS * 4, float("nan"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        compare(Path(folder), arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
