"""Set the clock back during runs and sweeps, and compare their results with undisturbed ones.

python -m tests.stress.clock_set_back                      one run, one resumed run and one sweep (2 minutes)
python -m tests.stress.clock_set_back --library PATH       of libfaketime (Debian: package faketime)

The library changes the clock of the day only. Nothing may be lost, and no time may be negative.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow

from tests.commandline import ROOT, environment, runs
from tests.stress import kill_and_resume, kill_sweeps

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
DAYS = 2  # by which the clock is set back
RUN = [*kill_sweeps.SMALL, "model.n_layer=1", "train.max_steps=100", "train.eval_every=20", "samples.length=8"]
RUN += ["optimizer.lr=2e-4"]  # the last step is the best one
SWEEP = ["-m", "loss=cross_entropy,squentropy", "seeds=2", "hydra/launcher=basic", *RUN]


class Clock:
    """A clock that can be set back, and the processes that read it."""

    def __init__(self, library: Path, scratch: Path) -> None:
        self.scratch, self._file = scratch, scratch / "clock"
        self._variables = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",  # seconds
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NANOSQ_CACHE": str(scratch / "cache"),
        }

    def start(self, arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
        """Start a run or a sweep."""
        return subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *arguments],
            cwd=folder,
            env=environment() | self._variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def set(self, days: int) -> None:
        """Set the clock to a number of days ago."""
        self._file.write_text(f"-{days}d" if days else "+0")

    def disturbed(self, arguments: Sequence[str], after: float, *, kill: bool = False) -> Path:
        """Return the folder of a command during which the clock is set back, or between its two halves."""
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        self.set(0)
        process = self.start(arguments, folder)
        with suppress(subprocess.TimeoutExpired):
            process.wait(after)
        self.set(DAYS)
        if kill:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            process = self.start(arguments, folder)
        finish(process)
        return folder


def finish(process: subprocess.Popen[str]) -> None:
    """Check the end of a process."""
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors, errors
    assert "-" not in errors.partition("about ")[2][:1], errors


def check_times(folder: Path) -> None:
    """Check that no time of a run is negative, and that its points are in the order of their steps."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    for run in runs(folder):
        assert run.info.end_time >= run.info.start_time, f"{folder}: a run that ends before it starts"
        for key in run.data.metrics:
            points = client.get_metric_history(run.info.run_id, key)
            in_time = sorted(points, key=lambda point: (point.timestamp, point.step))
            assert [point.step for point in in_time] == sorted(point.step for point in points), f"{folder} {key}"
            assert key not in kill_and_resume.TIMES or min(point.value for point in points) >= 0, f"{folder} {key}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, default=LIBRARY, help="libfaketime (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    options = parser.parse_args()
    if not options.library.exists():
        print(f"skipped: there is no {options.library}", file=sys.stderr)
        return 0
    moments = random.Random(options.seed)
    clock = Clock(options.library, Path(tempfile.mkdtemp(prefix="nanosq-")))
    for name, arguments, result in (("run", RUN, kill_and_resume.result), ("sweep", SWEEP, kill_sweeps.values)):
        whole = Path(tempfile.mkdtemp(dir=clock.scratch))
        clock.set(0)
        begin = time.perf_counter()
        finish(clock.start(arguments, whole))
        seconds = time.perf_counter() - begin
        expected: Any = result(whole)
        print(f"{name}: undisturbed in {seconds:.0f} s", flush=True)
        for kill in (False, True):
            folder = clock.disturbed(arguments, moments.uniform(0.3, 0.9) * seconds, kill=kill)
            check_times(folder)
            actual: Any = result(folder)
            same = kill_and_resume.same(actual, expected)
            assert same, f"{name}: other results in {folder}"
            print(f"{name}: the same with a clock set back {'before it resumed' if kill else 'meanwhile'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
