"""Benchmark of corpus preparation: speed and memory.

python -m analysis.benchmarks.data                    the embedded stories, repeated and shuffled to 500 MB
python -m analysis.benchmarks.data --stories FILE     your own stories, e.g. TinyStories
python -m analysis.benchmarks.data --nanogpt DIR      also nanoGPT, from a checkout

The programs run in turn, each in a process of its own, and read the same parquet file:
  tiktoken   encode_ordinary for every story in one thread; nothing is read or written
  nanoGPT    data/openwebtext/prepare.py with one process per core, from the split to the last byte. Its earlier
             step, a copy of the text in Hugging Face's cache, is not timed
  nanosq     all of data=tinystories, with the full vocabulary as in nanoGPT, and with the 10,000 most common tokens

The exit status is 1 if nanosq with the full vocabulary is slower, or takes more memory, than the limits below. They
apply to 500 MB or more: the imports take about 2 s, which is most of the time for a small text.
"""

import argparse
import random
import resource
import runpy
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
from nanosq import command, option, terminal
from nanosq.data import bpe, corpus, readers, tokenizers
from nanosq.data.sources import tinystories
from nanosq.data.stories import stories

MIN_SPEED = 30e6  # bytes of text per second, on two cores
MAX_MEMORY = 600e6  # bytes
PUBLISHED = 1.9e9  # bytes of TinyStories' training split
CHANGES = {
    "num_proc = 8": f"num_proc = {cpu_count()}",
    "total_batches = 1024": "total_batches = min(1024, len(dset))",  # the original fails on a smaller split
}
TIKTOKEN_BYTES = 50e6  # the speed of tiktoken does not depend on the amount of text


class Measurement(NamedTuple):
    """The time, memory and disk space in which a program prepared a text."""

    seconds: float
    n_bytes: float  # of text
    peak_bytes: int  # of the largest process
    disk_bytes: int


Program = Callable[[Path, Path], Measurement]  # the arguments: the folder of the text, an empty working directory


def write_text(folder: Path, megabytes: float, source: Path | None) -> None:
    """Write a training split of this size and a small validation split, as in the repository of TinyStories."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    texts = (
        list(readers.read(source, "<|endoftext|>", "text"))
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
    """Encode the first stories, one at a time."""
    encoding = bpe.gpt2().exact
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


def nanogpt_script(checkout: Path) -> str:
    """Return nanoGPT's script with the changes in `CHANGES`; ValueError if this is not possible."""
    path = checkout / "data" / "openwebtext" / "prepare.py"
    if not path.is_file():
        raise ValueError(f"--nanogpt: {checkout} is not a checkout of karpathy/nanoGPT: there is no {path}")
    script = path.read_text()
    for line, replacement in CHANGES.items():
        if line not in script:
            raise ValueError(f"{path} has no line {line!r}")
        script = script.replace(line, replacement)
    return script


def with_nanogpt(folder: Path, work: Path, *, script: str) -> Measurement:
    """Run nanoGPT's script, with our text and our copy of GPT-2's vocabulary."""
    import datasets
    import tiktoken

    (work / "prepare.py").write_text(script)
    train = str(folder / "train-00000-of-00001.parquet")
    loaded = datasets.load_dataset("parquet", data_files={"train": train}, cache_dir=str(work / "loaded"))
    begin: list[float] = []

    def load_dataset(*_: Any, **__: Any) -> Any:
        begin.append(time.perf_counter())
        return loaded

    setattr(datasets, "load_dataset", load_dataset)  # noqa: B010
    setattr(tiktoken, "get_encoding", lambda _: bpe.gpt2().exact)  # noqa: B010
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


def measure(program: Program, folder: Path) -> Measurement:
    """Run a program in a new process with an empty working directory."""
    with (
        TemporaryDirectory(dir=folder.parent) as work,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,
    ):
        return process.submit(program, folder, Path(work)).result()


def compare(folder: Path, script: str | None, rounds: int) -> bool:
    """Measure all programs in turn and print a table. Return whether nanosq keeps its limits.

    Args:
        folder: The text.
        script: The script of nanoGPT, if it is one of the programs.
        rounds: How often each program runs.
    """
    programs: dict[str, Program] = {"tiktoken, one thread": with_tiktoken}
    if script:
        programs["nanoGPT's prepare.py"] = partial(with_nanogpt, script=script)
    programs["nanosq"] = partial(with_nanosq, vocabulary="full")
    programs["nanosq, 10,000 tokens"] = partial(with_nanosq, vocabulary=10_000)
    measurements: dict[str, list[Measurement]] = {name: [] for name in programs}
    for _ in tqdm(range(rounds), desc="rounds"):
        for name, program in programs.items():
            measurements[name].append(measure(program, folder))

    speeds = {name: statistics.median(run.n_bytes / run.seconds for run in runs) for name, runs in measurements.items()}
    peaks = {name: max(run.peak_bytes for run in runs) for name, runs in measurements.items()}
    print(f"{'':24}{'MB/s':>8}{'ratio':>8}{'peak MB':>9}{'disk MB':>9}{'1.9 GB takes':>14}")
    for name, runs in measurements.items():
        print(
            f"{name:24}{speeds[name] / 1e6:8.1f}{speeds['nanosq'] / speeds[name]:8.2f}"
            f"{peaks[name] / 1e6 or float('nan'):9.0f}{runs[0].disk_bytes / 1e6:9.0f}{PUBLISHED / speeds[name]:12.0f} s"
        )
    print("ratio: the speed of nanosq divided by this speed; all speeds are medians")
    is_within_limits = speeds["nanosq"] >= MIN_SPEED and peaks["nanosq"] <= MAX_MEMORY
    print(
        f"limits of nanosq: at least {MIN_SPEED / 1e6:.0f} MB/s, at most {MAX_MEMORY / 1e6:.0f} MB: "
        f"{'kept' if is_within_limits else 'NOT kept'}"
    )
    return is_within_limits


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = terminal.parser("analysis.benchmarks.data", __doc__)
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of karpathy/nanoGPT")
    parser.add_argument(
        "--stories", type=option.existing, metavar="FILE", help="a file of stories, in a format of data=text"
    )
    parser.add_argument("--megabytes", type=option.positive, default=500)
    parser.add_argument("--rounds", type=option.integer(1), default=3)
    return command.run(lambda: work(parser.parse_args(arguments)))


def work(options: argparse.Namespace) -> int:
    """Run the command. Return 1 if nanosq exceeds its limits."""
    script = nanogpt_script(options.nanogpt) if options.nanogpt else None
    with TemporaryDirectory() as place:
        folder = Path(place, "text")
        folder.mkdir()
        write_text(folder, options.megabytes, options.stories)
        return int(not compare(folder, script, options.rounds))


if __name__ == "__main__":
    sys.exit(main())
