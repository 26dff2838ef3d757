"""Measure what is not training: the time of a run of one step, and of a further trial of a sweep.

The run is the whole command `python run.py`, from its start to its end, on a prepared corpus and with a store that
exists. A tiny model takes one step, and 20 stories are evaluated. Trials run one after the other in one process: a
further trial is a sixth of the time by which a sweep of seven is longer than a sweep of one. The times are medians over
the rounds. Then two profiles show where the time is: the imports of a run, and the phases of a further trial.

python -m analysis.benchmarks.startup                    five rounds, 3 minutes
python -m analysis.benchmarks.startup --against DIR      also another checkout of nanosq, in turns
"""

import argparse
import pstats
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.benchmarks.lib.measure import describe_machine, median_seconds
from analysis.benchmarks.lib.processes import RUN, checkout_of_nanosq
from nanosq import command, option, terminal
from nanosq.hardware import Hardware

TINY = [
    *["data.source.n_val=10", "data.source.n_test=10", "device=cpu", "samples.count=0", "resume=never"],
    *["model.n_layer=1", "model.n_embd=16", "model.n_head=1", "model.block_size=64", "train.max_steps=1"],
]
SWEEP = [
    *["-m", "hydra/sweeper=grid", "hydra/launcher=basic"],  # basic: one trial after the other
    *["optimizer.lr=1e-3", "model.dropout=0", "train.eval_every=1"],  # instead of the axes of the grid
]
FURTHER = 6  # trials
LIBRARIES = ("torch", "mlflow", "sqlalchemy", "alembic", "pandas", "sympy", "hydra", "nanosq")
# Beginnings of files and functions whose time in a trial is shown. The function above calls one that is indented.
PHASES = {
    "composition": ("config_loader", "load_sweep_config"),
    "run": ("main.py", "run"),
    "  check": ("experiment.py", "check"),
    "  corpus": ("training_run.py", "prepare"),
    "  recorded?": ("training_run.py", "recorded"),
    "  build": ("training_run.py", "build"),
    "    start in the store": ("mlflow_store.py", "start"),
    "  train": ("train.py", "train"),
    "  final score": ("final_score.py", "score_and_record"),
    "  end in the store": ("mlflow_run.py", "__exit__"),
}


def sweep(n_trials: int) -> list[str]:
    """Return the arguments of a sweep of this number of trials, of which none is recorded."""
    return [*SWEEP, *TINY, f"train.warmup=range({n_trials})"]


def seconds(run: Path, arguments: list[str], folder: Path, *options: str) -> float:
    """Return the time of `python OPTIONS run.py ARGUMENTS` in a folder, from its start to its end."""
    command = [sys.executable, *options, str(run), *arguments, f"cache_dir={folder.parent / 'cache'}"]
    begin = time.monotonic()
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"failed: {' '.join(command)}\n{result.stderr[-2000:]}")
    (folder / "stderr.txt").write_text(result.stderr)
    return time.monotonic() - begin


def imports(run: Path, folder: Path) -> Counter[str]:
    """Return the seconds of the imports of a run, by library. Python's own modules count as "other"."""
    seconds(run, TINY, folder, "-X", "importtime")
    lines = re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", (folder / "stderr.txt").read_text())
    times: Counter[str] = Counter()
    for microseconds, module in lines:
        library = next((name for name in LIBRARIES if f"{module}.".startswith(f"{name}.")), "other")
        times[library] += int(microseconds) / 1e6  # type: ignore[assignment]
    return times


def phases(run: Path, folder: Path) -> dict[str, float]:
    """Return the seconds of the phases of a further trial in a profile, which makes Python twice as slow."""
    totals = []
    for n in (1, 1 + FURTHER):
        file = folder / "profile"
        seconds(run, sweep(n), folder, "-m", "cProfile", "-o", str(file))
        totals.append(_cumulative(pstats.Stats(str(file))))
    return {phase: (totals[1][phase] - totals[0][phase]) / FURTHER for phase in PHASES}


def _cumulative(profile: pstats.Stats) -> Counter[str]:
    """Return the seconds of each phase in a profile."""
    times: Counter[str] = Counter()
    for (file, _, function), (_, _, _, total, _) in profile.stats.items():  # type: ignore[attr-defined]
        for phase, place in PHASES.items():
            if Path(file).name.startswith(place[0]) and function == place[1]:
                times[phase] += total
    return times


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = terminal.parser("analysis.benchmarks.startup", __doc__)
    parser.add_argument("--against", type=checkout_of_nanosq, metavar="DIR", help="another checkout of nanosq")
    parser.add_argument("--rounds", type=option.integer(1), default=5)
    return command.run(lambda: work(parser.parse_args(arguments)))


def work(options: argparse.Namespace) -> None:
    """Print the table and the two profiles."""
    runs = {"nanosq": RUN} | ({"against": options.against.resolve() / "run.py"} if options.against else {})
    print(describe_machine(Hardware.pick(device="cpu", precision="auto", compile=False)), flush=True)
    with TemporaryDirectory() as root:
        folders = {name: Path(root, name) for name in runs}
        cases = {}
        for name, run in runs.items():
            folders[name].mkdir()
            seconds(run, TINY, folders[name])  # prepares the corpus and the store
            for case, arguments in {"run": TINY, "one": sweep(1), "all": sweep(1 + FURTHER)}.items():
                cases[name, case] = partial(seconds, run, arguments, folders[name])
        times = median_seconds(cases, options.rounds, warmup=0)
        rows = {name: (times[name, "run"], (times[name, "all"] - times[name, "one"]) / FURTHER) for name in runs}
        for number, what in enumerate(("run", "further trial")):
            cells = ", ".join(f"{name} {row[number]:.2f} s" for name, row in rows.items())
            ratio = f", ratio {rows['nanosq'][number] / rows['against'][number]:.2f}" if options.against else ""
            print(f"{what:14} {cells}{ratio}", flush=True)
        print("\nimports of a run")
        for library, value in imports(RUN, folders["nanosq"]).most_common():
            print(f"  {library:22} {value:6.2f} s")
        print("\nphases of a further trial, in a profile")
        for phase, cost in phases(RUN, folders["nanosq"]).items():
            print(f"  {phase:22} {cost * 1000:6.0f} ms")


if __name__ == "__main__":
    sys.exit(main())
