"""Kill a run at random moments, start it again, and compare its results with those of an undisturbed run.

python -m tests.stress.kill_and_resume                            20 runs with SIGKILL, 5 with SIGTERM (6 minutes)
python -m tests.stress.kill_and_resume --kill 25 --terminate 0    25 runs with SIGKILL
python -m tests.stress.kill_and_resume --kill 2 --terminate 1     as in the tests

The program compares the last weights, the samples, and all points of all metrics in MLflow, bit for bit. It compares
everything except times.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mlflow
import torch
from tqdm import tqdm

from tests.commandline import ROOT, environment

COMMAND = [
    *[sys.executable, str(ROOT / "run.py")],
    *["data.source.n_train=1000", "data.source.n_val=10", "data.source.n_test=10", "device=cpu", "samples.length=8"],
    *["model.n_layer=1", "model.n_embd=16", "model.n_head=1", "model.block_size=64", "model.dropout=0.1"],
    *["train.max_steps=150", "train.accumulate=2", "train.eval_every=25", "train.checkpoint_every=10"],
    *["train.log_every=3", "optimizer.lr=5e-4"],
]
TIMES = ("train/seconds", "train/tokens_per_second", "train/mfu", "last/val_seconds")


def start(folder: Path, cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        COMMAND,
        cwd=folder,
        env={**environment(), "NANOSQ_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def result(folder: Path, *, has_failed: bool = False) -> dict[str, Any]:
    """Return the results of the run in a folder, without times. Check that nothing else is left there.

    Args:
        folder: The folder.
        has_failed: Whether there may be a run too that failed, and has left no checkpoint to resume from.
    """
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'nanosq'")
    runs = client.search_runs([experiment.experiment_id])
    runs = [run for run in runs if not (has_failed and run.info.status == "FAILED")]
    assert {run.info.status for run in runs} == {"FINISHED"}, [run.info.status for run in runs]
    # If the process was killed after the run had finished, the second command has started another run.
    assert len(runs) <= 2, f"{len(runs)} runs"
    results = [result_of(client, run) for run in runs]
    assert all(same(other, results[0]) for other in results), "the second run has other results"
    remaining = [path.name for path in (folder / "checkpoints").iterdir()]
    assert not remaining, f"files remain in checkpoints/: {remaining}"
    return results[0]


def result_of(client: mlflow.MlflowClient, run: mlflow.entities.Run) -> dict[str, Any]:
    """Return the metrics, files and weights of a run by their name."""
    results: dict[str, Any] = {}
    for key in run.data.metrics:
        points = client.get_metric_history(run.info.run_id, key)
        results[key] = {(point.step, 0.0 if key in TIMES else point.value) for point in points}
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    rows = [row.split(",") for row in (artifacts / "curves.csv").read_text().splitlines()]
    results["curves.csv"] = sorted(row for row in rows if row[1] not in TIMES)
    results["samples.txt"] = (artifacts / "samples.txt").read_text()
    # The last step of this run is its best step, so best.pt has the last weights.
    assert run.data.metrics["best/val_perplexity"] == run.data.metrics["last/val_perplexity"]
    return results | torch.load(artifacts / "checkpoint/best.pt", weights_only=True)["model"]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        for key, value in one.items()
    )


def interrupt(number: signal.Signals, after: float, folder: Path, cache: Path) -> bool:
    """Start a run, send it a signal after `after` seconds, and start it again. Return False if it had ended before."""
    process = start(folder, cache)
    time.sleep(after)
    process.send_signal(number)
    process.communicate()
    assert process.returncode in {0, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM}, process.returncode
    if process.returncode == 0:
        return False
    finish(start(folder, cache))
    return True


def check(kill: int, terminate: int, *, seed: int, scratch: Path) -> None:
    """Check that runs that are interrupted and resumed have the results of an undisturbed run.

    Args:
        kill: Number of runs to interrupt with SIGKILL.
        terminate: Number of runs to interrupt with SIGTERM.
        seed: Seed of the moments of interruption.
        scratch: An empty folder.
    """
    cache = scratch / "cache"
    whole = scratch / "whole"
    whole.mkdir()
    finish(start(whole, cache))
    expected = result(whole)
    begin = time.perf_counter()
    repeated = scratch / "repeated"
    repeated.mkdir()
    finish(start(repeated, cache))
    seconds = time.perf_counter() - begin
    assert same(result(repeated), expected), "two undisturbed runs differ"

    moments = random.Random(seed)
    signals = [signal.SIGKILL] * kill + [signal.SIGTERM] * terminate
    for number, signal_sent in enumerate(tqdm(signals, unit="kill", disable=not sys.stderr.isatty())):
        interrupted, attempt = False, 0
        while not interrupted:
            folder = scratch / f"{signal_sent.name}-{number}-{attempt}"
            folder.mkdir()
            after = moments.uniform(0.1, seconds)
            interrupted = interrupt(signal_sent, after, folder, cache)
            attempt += 1
        assert same(result(folder), expected), f"{signal_sent.name} after {after:.3f} s: see {folder}"
        tqdm.write(f"{signal_sent.name} after {after:5.2f} s of {seconds:.2f}: the same")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kill", type=int, default=20, help="number of runs to interrupt with SIGKILL (default: 20)")
    parser.add_argument(
        "--terminate", type=int, default=5, help="number of runs to interrupt with SIGTERM (default: 5)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of interruption (default: 0)")
    options = parser.parse_args()
    check(options.kill, options.terminate, seed=options.seed, scratch=Path(tempfile.mkdtemp(prefix="nanosq-")))
    print(f"{options.kill} killed and {options.terminate} terminated runs: all have the results of the undisturbed run")


if __name__ == "__main__":
    main()
