"""Training programs that are run as they are, and read while they run."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

WARMUP_STEPS = 5  # not timed


@dataclass(frozen=True)
class Program:
    """A command that tells its steps on lines of their own."""

    command: list[str]
    folder: Path
    begin: str  # pattern of the line after which it trains
    step: str  # pattern of a line that names, as its group, how many steps were taken


def train(program: Program, steps: int, *, log: Path) -> tuple[float, str]:
    """Run it to its end: seconds from the line where training begins to that of its last step, and what it printed."""
    begin = end = time.monotonic()
    text = []
    bar = tqdm(total=steps, unit="step", desc=log.stem, disable=not sys.stderr.isatty())
    with bar, closing(lines(program, log=log)) as read:
        for line in read:
            text.append(line)
            if re.match(program.begin, line):
                begin = time.monotonic()
            if found := re.match(program.step, line):
                end = time.monotonic()
                bar.update(int(found[1]) - bar.n)
    return end - begin, "".join(text)


def seconds_per_step(program: Program, *, seconds: float, log: Path) -> float:
    """Run it for some time, then end it."""
    first: tuple[int, float] | None = None
    with closing(lines(program, log=log)) as read:
        for line in read:
            found = re.match(program.step, line)
            if found is None or int(found[1]) < WARMUP_STEPS:
                continue
            step, now = int(found[1]), time.monotonic()
            if first is None:
                first = step, now
            elif now - first[1] >= seconds:
                return (now - first[1]) / (step - first[0])
    raise RuntimeError(f"it ended before {seconds:.0f} seconds of its steps could be timed: {log}")


def lines(program: Program, *, log: Path) -> Generator[str]:
    """What it prints, as it does; ended where this is closed. RuntimeError where it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        program.command,
        cwd=program.folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
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
            raise RuntimeError(f"{' '.join(program.command)} failed: {log}")
    finally:
        process.terminate()
        process.stdout.close()
        process.wait()
