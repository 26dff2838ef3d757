"""Benchmark of corpus preparation: speed and memory.

python -m analysis.benchmarks.data                    the embedded stories, repeated and shuffled to 500 MB
python -m analysis.benchmarks.data --stories FILE     your own stories, e.g. TinyStories
python -m analysis.benchmarks.data --nanogpt DIR      also nanoGPT, from a checkout

The sides take turns, each in its own process, and read the same parquet file:
  tiktoken   encode_ordinary for every story in one thread; nothing is read or written
  nanoGPT    its data/openwebtext/prepare.py with one process per core, from the split to the last byte. Its earlier
             step, a copy of the text in Hugging Face's cache, is not timed
  nanosq     all of data=tinystories, with the full vocabulary as in nanoGPT, and with the 10,000 most common tokens
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

from analysis.benchmarks.lib.proc import peak_memory
from nanosq.data import bpe, corpus, readers, tokenizers
from nanosq.data.sources import tinystories
from nanosq.data.stories import stories

PUBLISHED = 1.9e9  # bytes of TinyStories' training split
CHANGED = {
    "num_proc = 8": f"num_proc = {cpu_count()}",
    "total_batches = 1024": "total_batches = min(1024, len(dset))",  # the original fails on a smaller split
}
TIKTOKEN_BYTES = 50e6  # the speed of tiktoken does not depend on the amount of text


class Measurement(NamedTuple):
    """What one side took to prepare a text."""

    seconds: float
    n_bytes: float  # of text
    peak_bytes: int  # of the largest process
    disk_bytes: int


def write_text(folder: Path, megabytes: float, source: str | None) -> None:
    """Write a training split of this size and a small validation split, as in the repository of TinyStories."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    texts = (
        list(readers.read(Path(source), "<|endoftext|>", "text"))
        if source
        else [document.text for document in stories("train")]
    )
    n_validation = len(texts) // 20
    validation, texts = texts[:n_validation], texts[n_validation:]
    rng = random.Random(0)
    schema = pa.schema({"text": pa.string()})
    pa.parquet.write_table(pa.table({"text": validation}, schema), folder / "validation-00000-of-00001.parquet")
    size = 0.0
    with pa.parquet.ParquetWriter(folder / "train-00000-of-00001.parquet", schema) as writer:
        while size < megabytes * 1e6:
            rng.shuffle(texts)
            writer.write_table(pa.table({"text": texts}, schema))
            size += sum(len(text.encode()) for text in texts)


def training_texts(folder: Path) -> Iterator[str]:
    """Yield the stories of the training split."""
    return readers.read(folder / "train-00000-of-00001.parquet", "", "text")


def with_tiktoken(folder: Path, work: Path) -> Measurement:
    """Encode a part of the stories, one at a time."""
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
    return Measurement(time.perf_counter() - begin, size, 0, 0)


def with_nanogpt(folder: Path, work: Path, *, checkout: Path) -> Measurement:
    """Run nanoGPT's script, with our text, our copy of GPT-2's vocabulary, and the changes in `CHANGED`."""
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
    return Measurement(seconds, sum(len(text.encode()) for text in training_texts(folder)), peak(), disk(work))


def with_nanosq(folder: Path, work: Path, *, vocabulary: str | int) -> Measurement:
    """Prepare a corpus in an empty cache directory."""
    begin = time.perf_counter()
    source = partial(tinystories, path=str(folder))
    prepared = corpus.prepare(source, tokenizers.gpt2(vocabulary=vocabulary), cache_dir=work)
    seconds = time.perf_counter() - begin
    n_bytes = sum(split.n_bytes for split in (prepared.train, prepared.val, prepared.test))
    return Measurement(seconds, n_bytes, peak(), disk(work))


def peak() -> int:
    """Return the peak memory of the largest process. ru_maxrss of this process would include that of its parent."""
    return max(peak_memory(), 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def disk(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(side: Callable[[Path, Path], Measurement], folder: Path) -> Measurement:
    """Run a side in its own process and directory."""
    with (
        TemporaryDirectory(dir=folder.parent) as work,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,
    ):
        return process.submit(side, folder, Path(work)).result()


def compare(folder: Path, checkout: Path | None, rounds: int) -> None:
    """Measure all sides in turn and print their medians."""
    sides: dict[str, Callable[[Path, Path], Measurement]] = {"tiktoken, one thread": with_tiktoken}
    if checkout:
        sides["nanoGPT's prepare.py"] = partial(with_nanogpt, checkout=checkout)
    sides["nanosq"] = partial(with_nanosq, vocabulary="full")
    sides["nanosq, 10,000 tokens"] = partial(with_nanosq, vocabulary=10_000)
    measurements: dict[str, list[Measurement]] = {name: [] for name in sides}
    for _ in tqdm(range(rounds), desc="rounds"):
        for name, side in sides.items():
            measurements[name].append(measure(side, folder))
    print(f"{'':24}{'MB/s':>8}{'ratio':>8}{'peak MB':>9}{'disk MB':>9}{'1.9 GB takes':>14}")
    speeds = {name: statistics.median(one.n_bytes / one.seconds for one in some) for name, some in measurements.items()}
    for name, some in measurements.items():
        memory = max(one.peak_bytes for one in some) / 1e6
        ratio = speeds["nanosq"] / speeds[name]
        print(
            f"{name:24}{speeds[name] / 1e6:8.1f}{ratio:8.2f}{memory or float('nan'):9.0f}"
            f"{some[0].disk_bytes / 1e6:9.0f}{PUBLISHED / speeds[name]:12.0f} s"
        )
    print("ratio: the speed of nanosq divided by this speed; all speeds are medians")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--stories", metavar="FILE", help="a file of stories, in a format of data=text")
    parser.add_argument("--megabytes", type=float, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = Path(place, "text")
        folder.mkdir()
        write_text(folder, arguments.megabytes, arguments.stories)
        compare(folder, arguments.nanogpt and arguments.nanogpt.resolve(), arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
