"""Training programs that run in a process of their own, and are timed by the lines that they print."""

import argparse
import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from nanosq.installation import IS_CHECKOUT, PACKAGE

WARMUP_STEPS = 5  # that are not timed
# The script of `python run.py` or `nanosq`.
RUN = PACKAGE.parent / "run.py" if IS_CHECKOUT else Path(sysconfig.get_path("scripts"), "nanosq")


def checkout_of_nanosq(folder: str) -> Path:
    """Check the value of an option: a folder with another version of nanosq."""
    if not Path(folder, "run.py").is_file():
        raise argparse.ArgumentTypeError(f"{folder} is not a checkout of nanosq: it has no run.py")
    return Path(folder)


def nanosq_command(*overrides: str) -> list[str]:
    """Return the command that trains with these overrides."""
    return [sys.executable, "-u", str(RUN), *overrides]


@dataclass(frozen=True)
class Program:
    """A command that prints a line for each step."""

    command: list[str]
    folder: Path  # where it runs
    begin: str  # pattern of the line after which training begins
    step: str  # pattern of a line for a step; its group is the number of steps taken

    def train(self, steps: int, *, log: Path) -> tuple[float, str]:
        """Run the program to its end; return the seconds from the begin of training to its last step, and its output.

        Raises:
            RuntimeError: The program failed.
        """
        begin = end = time.monotonic()
        output = []
        bar = tqdm(total=steps, unit="step", desc=log.stem, disable=not sys.stderr.isatty())
        with bar, closing(self._lines(log)) as lines:
            for line in lines:
                output.append(line)
                if re.match(self.begin, line):
                    begin = time.monotonic()
                if match := re.match(self.step, line):
                    end = time.monotonic()
                    bar.update(int(match[1]) - bar.n)
        return end - begin, "".join(output)

    def seconds_per_step(self, *, seconds: float, log: Path) -> float:
        """Run the program for some seconds of training, end it, and return the time of a step.

        Raises:
            RuntimeError: The program failed or ended earlier.
        """
        first: tuple[int, float] | None = None
        with closing(self._lines(log)) as lines:
            for line in lines:
                match = re.match(self.step, line)
                if match is None or int(match[1]) < WARMUP_STEPS:
                    continue
                step, now = int(match[1]), time.monotonic()
                if first is None:
                    first = step, now
                elif now - first[1] >= seconds:
                    return (now - first[1]) / (step - first[0])
        raise RuntimeError(f"the program ended before {seconds:.0f} seconds of its steps were timed: {log}")

    def _lines(self, log: Path) -> Generator[str]:
        """Start the program and yield the lines that it prints; closing the generator ends it."""
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        try:
            with log.open("w") as file:
                for line in process.stdout:
                    file.write(line)
                    file.flush()
                    yield line
            if process.wait():
                raise RuntimeError(f"{' '.join(self.command)} failed: {log}")
        finally:
            process.terminate()
            process.stdout.close()
            process.wait()
