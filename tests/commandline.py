"""The command line as a user types it, in subprocesses, and what it records."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow

ROOT = Path(__file__).parents[1]
SMALL = [
    *["data.source.n_train=150", "data.source.n_val=10", "data.source.n_test=10"],
    *["model.n_layer=1", "model.n_embd=16", "model.n_head=1", "model.block_size=64"],
    *["train.max_steps=6", "train.batch_size=4", "train.eval_every=3", "samples.length=8", "device=cpu"],
]
# Models of this size gain nothing from a second thread, and a busy machine makes it slow.
ENVIRONMENT = {"NANOSQ_CACHE": "cache", "OMP_NUM_THREADS": "1"}


def environment() -> dict[str, str]:
    """Return the environment of this process without the variables that MLflow and Hydra have set in it."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "HYDRA_"))} | ENVIRONMENT


def start(*arguments: str, cwd: Path, **variables: str) -> subprocess.Popen[str]:
    """Start `python run.py ...`. Its stdout holds stderr too."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        cwd=cwd,
        env=environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def command(*arguments: str, cwd: Path, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `python run.py ...` in a folder, which then holds everything it writes."""
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=check,
        timeout=300,
    )


def runs(folder: Path) -> list[mlflow.entities.Run]:
    """Return all runs of the store of a folder."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def printed_perplexity(result: subprocess.CompletedProcess[str]) -> float:
    """Return the validation perplexity that a run has printed."""
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("validation perplexity"))
    return float(line.split()[-1])
