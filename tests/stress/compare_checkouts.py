"""Run the same commands with two checkouts of nanosq and compare every number that they record.

python -m tests.stress.compare_checkouts ../before                    this checkout and another one: 25 minutes
python -m tests.stress.compare_checkouts ../before --scratch DIR      keep what is finished there, and reuse it

The commands are a single run, six runs with three seeds, the grid of 27, a search of 12 trials and the report. They use
one thread, because the number of threads changes rounding. Metrics, their curves, the artifacts of runs and the tables
of the report must be equal to the last digit. Times and ids are not compared.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow

from nanosq.tracking.parameters import readable

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "run": ["loss=squentropy"],
    "seeds": ["-m", "loss=cross_entropy,squentropy", "seeds=3", "train.max_steps=200", "train.eval_every=50"],
    "grid": ["-m", "hydra/sweeper=grid"],
    "search": [
        *["-m", "hydra/sweeper=optuna", "loss=squentropy", "hydra.sweeper.n_trials=12"],
        "hydra.sweeper.sampler.seed=0",
    ],
}
TIMES = ("train/seconds", "train/tokens_per_second", "train/mfu", "last/val_seconds")
ARTIFACTS = ("samples.txt", "stories.csv", "calibration.csv")


def environment() -> dict[str, str]:
    """Return this environment with one thread and without what MLflow and Hydra have set in it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "HYDRA_", "PYTHON"))}
    return {**kept, "OMP_NUM_THREADS": "1"}


def train(checkout: Path, folder: Path) -> None:
    """Run all commands with a checkout in a folder, and the report on what they record."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, arguments in COMMANDS.items():
        if not (folder / f"{name}.log").exists():
            command = [sys.executable, str(checkout / "run.py"), *arguments]
            result = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
            assert result.returncode == 0, f"{checkout} {arguments}: {result.stdout}{result.stderr}"
            (folder / f"{name}.log").write_text(result.stdout + result.stderr)
            print(f"{checkout.name}: {name} finished", flush=True)
    store = ["--tracking-uri", f"sqlite:///{folder}/mlflow.db", "--storage", f"sqlite:///{folder}/optuna.db"]
    command = [sys.executable, "-m", "analysis.report", *store, "--out", str(folder / "report")]
    subprocess.run(command, cwd=checkout, env=environment(), check=True, capture_output=True)


def recorded(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what each run of a folder's store has recorded, by the sweep, the trial and the seed of the run."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'nanosq'")
    results = {}
    for run in client.search_runs([experiment.experiment_id]):
        sweep = run.data.tags.get("sweep", "single").split("-")[0]
        loss = readable(run.data.params)["loss"]
        key = f"{sweep} {loss} {run.data.tags.get('trial')} seed {run.data.params['seed']}"
        result: dict[str, Any] = {"status": run.info.status, "pruned": run.data.tags["pruned"]}
        for metric in set(run.data.metrics) - set(TIMES):
            history = client.get_metric_history(run.info.run_id, metric)
            result[metric] = sorted((point.step, point.value) for point in history)
        artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
        result |= {name: (artifacts / name).read_text() for name in ARTIFACTS if (artifacts / name).exists()}
        assert key not in results, f"two runs are {key}"
        results[key] = result
    return results


def numbers(table: Path) -> list[float]:
    """Return the numbers of a table of the report, sorted, without the columns of times and of run ids."""
    with table.open() as file:
        rows = [
            {key: value for key, value in row.items() if "second" not in key and "run" not in key}
            for row in csv.DictReader(file)
        ]
    values = []
    for cell in (cell for row in rows for cell in row.values() if isinstance(cell, str)):
        try:
            values.append(float(cell))
        except ValueError:
            continue
    return sorted(values)


def compare(old: Path, new: Path) -> list[str]:
    """Return one line for each difference between two folders."""
    before, after = recorded(old), recorded(new)
    differences = [f"run {key} is in one of them only" for key in before.keys() ^ after.keys()]
    for key in before.keys() & after.keys():
        names = before[key].keys() | after[key].keys()
        unequal = [name for name in sorted(names) if before[key].get(name) != after[key].get(name)]
        differences += [f"run {key}: {name} differs" for name in unequal]
    tables = {path.name for path in (old / "report").glob("*.csv")}
    differences += [f"table {name} is missing" for name in tables if not (new / "report" / name).exists()]
    for name in sorted(tables):
        path = new / "report" / name
        if path.exists() and numbers(old / "report" / name) != numbers(path):
            differences.append(f"table {name} differs")
    print(f"{len(before)} and {len(after)} runs, {len(tables)} tables")
    return differences


def main() -> int:
    """Compare two checkouts; the exit status is 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="another checkout of nanosq")
    parser.add_argument("--scratch", type=Path, help="folder for the results; a new one by default")
    options = parser.parse_args()
    scratch = (options.scratch or Path(tempfile.mkdtemp(prefix="nanosq-"))).resolve()
    checkouts = {scratch / "before": options.before.resolve(), scratch / "after": ROOT}
    with ThreadPoolExecutor() as threads:
        list(threads.map(train, checkouts.values(), checkouts))
    differences = compare(*checkouts)
    print("\n".join(differences) or "no difference")
    return int(bool(differences))


if __name__ == "__main__":
    sys.exit(main())
