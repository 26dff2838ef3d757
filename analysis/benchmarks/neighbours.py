"""Measure training beside other programs: a run alone, beside a busy program, and two runs at once.

The times are of the whole command `python run.py train.max_steps=N`, with steps of 4 x 256 tokens, prepared text and
no store, from its start to its end. In each round, each case runs once. The table has the medians over the rounds, and
their ratio to a run alone. The busy program is a loop that uses one core.

python -m analysis.benchmarks.neighbours                     five rounds of 300 steps, 10 minutes
python -m analysis.benchmarks.neighbours --against DIR       also a run alone of another checkout of nanosq
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from subprocess import DEVNULL
from tempfile import TemporaryDirectory

import pandas as pd

from analysis.benchmarks.lib.measure import describe_machine, median_seconds, save, show
from analysis.benchmarks.lib.nanogpt import prepare_corpus
from analysis.benchmarks.lib.processes import RUN, checkout_of_nanosq
from analysis.configuration import compose
from nanosq import command, option, terminal
from nanosq.hardware import Hardware

ALONE = "alone"


def command_seconds(n_runs: int, *, run: Path, overrides: Sequence[str]) -> float:
    """Start this number of runs at the same time, and return the time until the last one has ended."""
    command = [sys.executable, str(run), *overrides]
    with TemporaryDirectory() as folder:
        begin = time.monotonic()
        outputs = [f"checkpoint_dir={folder}/{number}" for number in range(n_runs)]
        processes = [subprocess.Popen([*command, output], stdout=DEVNULL, stderr=DEVNULL) for output in outputs]
        statuses = [process.wait() for process in processes]
        if any(statuses):
            raise RuntimeError(f"failed; try it by hand: {' '.join(command)}")
        return time.monotonic() - begin


@contextmanager
def busy_program() -> Iterator[None]:
    """Let a program use one core."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def beside_busy_program(measure: Callable[[int], float]) -> float:
    """Return the time of a run beside a busy program."""
    with busy_program():
        return measure(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = terminal.parser("analysis.benchmarks.neighbours", __doc__)
    parser.add_argument("--steps", type=option.integer(1), default=300, help="of each run; default: %(default)s")
    parser.add_argument("--rounds", type=option.integer(1), default=5, help="default: %(default)s")
    parser.add_argument("--against", type=checkout_of_nanosq, metavar="DIR", help="another checkout of nanosq")
    parser.add_argument("--out", type=option.folder, default="benchmarks", help="folder of the CSV file")
    return command.run(lambda: work(parser.parse_args(arguments)))


def work(options: argparse.Namespace) -> None:
    """Print the table and write it to a CSV file."""
    table = measure(options)
    show(table, {"seconds": ".1f", "ratio": ".2f"})
    save(table, options.out / "neighbours.csv")


def measure(options: argparse.Namespace) -> pd.DataFrame:
    """Return the median time of each case, and its ratio to that of a run alone."""
    print(describe_machine(Hardware.pick(device="cpu", precision="auto", compile=False)))
    size = ["train.batch_size=4", "model.block_size=256"]  # small steps suffer most
    overrides = [f"train.max_steps={options.steps}", *size, "tracking=none", "device=cpu"]
    prepare_corpus(compose(overrides))
    ours = partial(command_seconds, run=RUN, overrides=overrides)
    cases = {
        ALONE: partial(ours, 1),
        "beside a busy program": partial(beside_busy_program, ours),
        "each of two runs at once": partial(ours, 2),
    }
    if options.against is not None:
        cases[f"alone, {options.against}"] = partial(ours, 1, run=options.against / "run.py")
    times = median_seconds(cases, options.rounds)
    rows = [(case, seconds, seconds / times[ALONE]) for case, seconds in times.items()]
    return pd.DataFrame(rows, columns=["case", "seconds", "ratio"]).set_index("case")


if __name__ == "__main__":
    sys.exit(main())
