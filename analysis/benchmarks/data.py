"""How fast text becomes a corpus, and in how much memory.

python -m analysis.benchmarks.data --nanogpt DIR                    the embedded stories, repeated and shuffled to 500 MB
python -m analysis.benchmarks.data --nanogpt DIR --stories FILE     stories of your own, e.g. TinyStories

Each in a process of its own, in turn, from the same parquet file:
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

from joblib import cpu_count
from tqdm import tqdm

from analysis.benchmarks.lib.memory import peak_memory
from nanosq.data import bpe, corpus, files, tokenizers
from nanosq.data.sources import tinystories
from nanosq.data.stories import stories

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
    encoding = bpe.encoding()
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
    setattr(tiktoken, "get_encoding", lambda _: bpe.encoding())  # noqa: B010
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--stories", help="a file of stories, as data=text takes them")
    parser.add_argument("--megabytes", type=float, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = Path(place, "text")
        folder.mkdir()
        write_text(folder, arguments.megabytes, arguments.stories)
        compare(folder, arguments.nanogpt.resolve(), arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
