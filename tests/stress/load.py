"""Run sweeps of many tiny trials in one process, and check that memory, handles and the time of a trial stay constant.

python -m tests.stress.load                        a grid and a search of 1,000 trials each (20 minutes of one core)
python -m tests.stress.load grid --trials 200
python -m tests.stress.load grid --folder FOLDER   in this folder; a sweep that was interrupted continues

Each time a trial ends, the process of the sweep is read from outside: resident memory, open files and threads. The
first trials load libraries and fill caches, and do not count.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.commandline import ROOT, environment

TINY = [
    *["data.source.n_train=100", "data.source.n_val=5", "data.source.n_test=5", "device=cpu", "hydra/launcher=basic"],
    *["model.n_layer=1", "model.n_embd=16", "model.n_head=1", "model.block_size=16", "samples.count=0"],
    *["train.max_steps=2", "train.batch_size=2", "train.eval_every=1"],
]
WARM_UP = 50  # trials
COMPARED = 100  # trials at the beginning and at the end whose times are compared
MAX_SLOPE = 0.05  # MiB of resident memory for each trial
MAX_RATIO = 1.25  # of the times of the last trials to those of the first ones


@dataclass(frozen=True)
class Sample:
    """The process of a sweep at the end of a trial."""

    seconds: float  # time
    mebibytes: float  # resident memory
    files: int
    threads: int


def settings(kind: str, n_trials: int) -> list[str]:
    """Return the overrides of a sweep of this kind: "grid" or "search"."""
    if kind == "grid":
        values = ",".join(f"{1e-4 * (1 + number / n_trials):.9f}" for number in range(n_trials))
        return ["hydra/sweeper=grid", "loss=cross_entropy", "model.dropout=0", f"optimizer.lr={values}"]
    return ["hydra/sweeper=optuna", f"hydra.sweeper.n_trials={n_trials}"]


def sample(pid: int) -> Sample:
    """Read the present state of a process."""
    process = Path("/proc", str(pid))
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    memory, threads = int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"])
    return Sample(time.monotonic(), memory, len([*(process / "fd").iterdir()]), threads)


def run(kind: str, n_trials: int, folder: Path) -> Iterator[Sample]:
    """Run a sweep and yield a sample each time a trial ends."""
    with (folder / f"{kind}.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), "-m", *settings(kind, n_trials), *TINY],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            if line.startswith("#") and "; " in line:
                yield sample(process.pid)
        assert process.wait() == 0, f"the sweep has failed: see {log.name}"


def check(kind: str, samples: list[Sample]) -> bool:
    """Print how memory, handles and the time of a trial have developed, and return whether they are constant."""
    numbers = range(len(samples))
    slope = statistics.linear_regression(numbers, [sample.mebibytes for sample in samples]).slope
    seconds = [after.seconds - before.seconds for before, after in pairwise(samples)]
    first, last = (statistics.median(part) for part in (seconds[:COMPARED], seconds[-COMPARED:]))
    is_constant = {
        f"{slope:.3f} MiB a trial": slope <= MAX_SLOPE,
        **_handles("open files", [sample.files for sample in samples]),
        **_handles("threads", [sample.threads for sample in samples]),
        f"{first:.3f} s for one of the first, {last:.3f} s for one of the last": last <= MAX_RATIO * first,
    }
    begin, end = (round(sample.mebibytes) for sample in (samples[0], samples[-1]))
    print(f"{kind}: {len(samples)} trials after {WARM_UP} others, {begin} to {end} MiB")
    for fact, is_right in is_constant.items():
        print(f"  {fact}{'' if is_right else ': NOT CONSTANT'}", flush=True)
    return all(is_constant.values())


def _handles(name: str, numbers: list[int]) -> dict[str, bool]:
    """Return whether the last trials have at some time no more than the first ones have at most, by the fact as text.

    A sample may be taken while the next trial has opened some.
    """
    first, last = max(numbers[:COMPARED]), min(numbers[-COMPARED:])
    text = f"{first} {name} at most in the first trials, {last} at least in the last; {max(numbers)} at most"
    return {text: last <= first}


def main() -> int:
    """Run the sweeps. The status is 1 if something grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="grid or search; default: both")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where the sweeps write; default: a temporary folder")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="nanosq-load-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"folder: {folder}", flush=True)
    kinds = options.kinds or ["grid", "search"]
    results = [check(kind, [*run(kind, options.trials, folder)][WARM_UP:]) for kind in kinds]
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
