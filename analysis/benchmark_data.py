"""How fast text becomes a corpus, in how much memory, and what reading it costs a training step.

python -m analysis.benchmark_data --nanogpt DIR                    the embedded stories, repeated and shuffled to 500 MB
python -m analysis.benchmark_data --nanogpt DIR --stories FILE     stories of your own, e.g. TinyStories
python -m analysis.benchmark_data --reading                        windows of a training step beside the step itself

Preparing, each in a process of its own, in turn, from the same parquet file:
  tiktoken   encode_ordinary for each story, one thread; nothing is read or written
  nanoGPT    its data/openwebtext/prepare.py with a process for each core, from the split to the last byte (what it does
             before, a copy of the text in Hugging Face's cache, is not timed)
  nanosq     the whole of it, data=tinystories with the full vocabulary, as nanoGPT has; and with the 10,000 most common
"""

import argparse
import random
import resource
import runpy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from joblib import cpu_count
from torch import Tensor
from tqdm import tqdm

from analysis.measure import peak_memory, synchronize
from analysis.training_steps import SHAPES, Contender, nanosq_step
from nanosq.data import batches, corpus, files, tokenizers
from nanosq.data.sources import tinystories
from nanosq.data.stories import stories
from nanosq.hardware import Hardware
from nanosq.model import GPT

PUBLISHED = 1.9e9  # bytes of TinyStories' training split
CHANGED = {
    "num_proc = 8": f"num_proc = {cpu_count()}",
    "total_batches = 1024": "total_batches = min(1024, len(dset))",  # it would fail on a smaller split
}
TIKTOKEN_BYTES = 50e6  # its speed does not depend on how much it has to do


class Run(NamedTuple):
    seconds: float
    n_bytes: float  # of text
    peak_bytes: int  # of the largest process
    disk_bytes: int


def write_text(folder: Path, megabytes: float, source: str | None) -> None:
    """TinyStories as its repository has it: a training split of this size, and a small validation split."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    texts = (
        [text for text, _ in files.read(Path(source), "<|endoftext|>", "text")]
        if source
        else [document.text for document in stories("train")]
    )
    held_out, texts = texts[: len(texts) // 20], texts[len(texts) // 20 :]
    rng = random.Random(0)
    schema = pa.schema({"text": pa.string()})
    pa.parquet.write_table(pa.table({"text": held_out}, schema), folder / "validation-00000-of-00001.parquet")
    size = 0.0
    with pa.parquet.ParquetWriter(folder / "train-00000-of-00001.parquet", schema) as writer:
        while size < megabytes * 1e6:
            rng.shuffle(texts)
            writer.write_table(pa.table({"text": texts}, schema))
            size += sum(len(text.encode()) for text in texts)


def training_texts(folder: Path) -> Iterator[str]:
    return (text for text, _ in files.read(folder / "train-00000-of-00001.parquet", "", "text"))


def with_tiktoken(folder: Path, work: Path) -> Run:
    encoding = tokenizers._encoding()
    texts, size = [], 0
    for text in training_texts(folder):
        texts.append(text)
        size += len(text.encode())
        if size >= TIKTOKEN_BYTES:
            break
    encoding.encode_ordinary(texts[0])
    begin = time.perf_counter()
    for text in texts:
        encoding.encode_ordinary(text)
    return Run(time.perf_counter() - begin, size, 0, 0)


def with_nanogpt(folder: Path, work: Path, *, checkout: Path) -> Run:
    """Its script, but for the text that it loads, where GPT-2's files are from, and two numbers (`CHANGED`)."""
    import datasets
    import tiktoken

    script = (checkout / "data" / "openwebtext" / "prepare.py").read_text()
    for line, instead in CHANGED.items():
        if line not in script:
            raise ValueError(f"{checkout}: data/openwebtext/prepare.py has no line {line!r}")
        script = script.replace(line, instead)
    (work / "prepare.py").write_text(script)
    train = str(folder / "train-00000-of-00001.parquet")
    loaded = datasets.load_dataset("parquet", data_files={"train": train}, cache_dir=str(work / "loaded"))
    begin: list[float] = []

    def load_dataset(*_: Any, **__: Any) -> Any:
        begin.append(time.perf_counter())
        return loaded

    setattr(datasets, "load_dataset", load_dataset)  # noqa: B010
    setattr(tiktoken, "get_encoding", lambda _: tokenizers._encoding())  # noqa: B010
    with redirect_stderr(StringIO()):
        runpy.run_path(str(work / "prepare.py"), run_name="__main__")
    seconds = time.perf_counter() - begin[0]
    return Run(seconds, sum(len(text.encode()) for text in training_texts(folder)), peak(), disk(work))


def with_nanosq(folder: Path, work: Path, *, vocabulary: str | int) -> Run:
    begin = time.perf_counter()
    source = partial(tinystories, path=str(folder))
    prepared = corpus.prepare(source, tokenizers.gpt2(vocabulary=vocabulary), cache_dir=work)
    seconds = time.perf_counter() - begin
    n_bytes = sum(split.n_bytes for split in (prepared.train, prepared.val, prepared.test))
    return Run(seconds, n_bytes, peak(), disk(work))


def peak() -> int:
    """Of the largest process. ru_maxrss of this one would begin with what its parent had."""
    return max(peak_memory(), 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def apart(side: Callable[[Path, Path], Run], folder: Path) -> Run:
    """Run a side in a process and a directory of its own."""
    with (
        TemporaryDirectory(dir=folder.parent) as work,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,
    ):
        return process.submit(side, folder, Path(work)).result()


def compare(folder: Path, checkout: Path, rounds: int) -> None:
    sides: dict[str, Callable[[Path, Path], Run]] = {
        "tiktoken, one thread": with_tiktoken,
        "nanoGPT's prepare.py": partial(with_nanogpt, checkout=checkout),
        "nanosq": partial(with_nanosq, vocabulary="full"),
        "nanosq, 10,000 tokens": partial(with_nanosq, vocabulary=10_000),
    }
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    for _ in tqdm(range(rounds), desc="rounds"):
        for name, side in sides.items():
            runs[name].append(apart(side, folder))
    print(f"{'':24}{'MB/s':>8}{'ratio':>8}{'peak MB':>9}{'disk MB':>9}{'1.9 GB takes':>14}")
    speeds = {name: statistics.median(run.n_bytes / run.seconds for run in each) for name, each in runs.items()}
    for name, each in runs.items():
        memory = max(run.peak_bytes for run in each) / 1e6
        ratio = speeds["nanosq"] / speeds[name]
        print(
            f"{name:24}{speeds[name] / 1e6:8.1f}{ratio:8.2f}{memory or float('nan'):9.0f}"
            f"{each[0].disk_bytes / 1e6:9.0f}{PUBLISHED / speeds[name]:12.0f} s"
        )
    print("ratio: how many times as fast nanosq is, medians")


READ_TOKENS = 475_000_000  # of TinyStories
DOCUMENT = 225  # tokens
STEPS = 50  # between changes of side


def reading(folder: Path, rounds: int) -> None:
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
    print(f"{shape}; {READ_TOKENS:,} tokens in the file; {hardware}")
    print(f"a step with batches from the file takes {file / memory:.3f} times as long as with the same one again")
    print(f"making a batch takes {alone / memory:.4f} of a step, beside it")


def _file_of_tokens(folder: Path, vocab_size: int) -> corpus.Split:
    rng = np.random.default_rng(0)
    with (folder / "tokens").open("wb") as file:
        for begin in range(0, READ_TOKENS, 1 << 24):
            n = min(1 << 24, READ_TOKENS - begin)
            rng.integers(vocab_size, size=n, dtype=np.uint16).tofile(file)
    tokens = np.memmap(folder / "tokens", dtype=np.uint16, mode="r")
    starts = np.arange(0, READ_TOKENS, DOCUMENT)
    return corpus.Split(tokens, starts, np.full(len(starts) - 1, 4 * DOCUMENT), READ_TOKENS * 4, float("nan"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--nanogpt", type=Path, help="a checkout of karpathy/nanoGPT")
    kind.add_argument("--reading", action="store_true")
    parser.add_argument("--stories", help="a file of stories, as data=text takes them")
    parser.add_argument("--megabytes", type=float, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = Path(place, "text")
        folder.mkdir()
        if arguments.reading:
            reading(folder, 10 * arguments.rounds)
            return 0
        write_text(folder, arguments.megabytes, arguments.stories)
        compare(folder, arguments.nanogpt.resolve(), arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
