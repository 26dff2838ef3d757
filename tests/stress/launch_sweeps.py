"""Run the grid of 27 in parallel with each launcher, in an empty folder, and check that no run and no point is lost.

python -m tests.stress.launch_sweeps            joblib with 4 workers, a local Ray cluster, submitit's local executor
python -m tests.stress.launch_sweeps joblib     one of them
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import mlflow

from tests.commandline import command, runs

LAUNCHERS = {
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4"],
    "ray": ["hydra/launcher=ray"],
    "submitit_local": ["hydra/launcher=submitit_local"],
}
STEPS, EVAL_EVERY = 20, 10
SMALL = [
    *["data.source.n_train=200", "data.source.n_val=10", "data.source.n_test=10", "device=cpu"],
    *["model.n_embd=16", "model.n_head=1", "model.block_size=64"],
    *[f"train.max_steps={STEPS}", f"train.eval_every={EVAL_EVERY}", "train.log_every=1"],
]


def check(launcher: str, folder: Path, *, trials: int, axes: Iterable[str] = ()) -> None:
    """Check that the grid succeeds and that every trial has one run with every point of every metric."""
    result = command("-m", "hydra/sweeper=grid", *LAUNCHERS[launcher], *axes, *SMALL, cwd=folder, warm=False)
    assert result.returncode == 0, result.stdout + result.stderr
    all_runs = runs(folder)
    assert Counter(run.info.status for run in all_runs) == {"FINISHED": trials}
    assert {int(run.data.tags["trial"]) for run in all_runs} == {*range(trials)}
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    for run in all_runs:
        for key in run.data.metrics:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, key)]
            at_end = key.startswith("test/") or key == "train/tokens"
            every = STEPS if at_end else 1 if key.startswith("train/") else EVAL_EVERY
            assert sorted(steps) == [*range(every, STEPS + 1, every)], (run.info.run_id, key, steps)
    assert len([path for path in (folder / "cache").iterdir() if path.is_dir()]) == 1
    assert not list((folder / "checkpoints").iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "launchers", nargs="*", metavar="LAUNCHER", help=f"{', '.join(LAUNCHERS)}; default: all of them"
    )
    options = parser.parse_args()
    for launcher in options.launchers or LAUNCHERS:
        begin = time.monotonic()
        check(launcher, Path(tempfile.mkdtemp(prefix=f"nanosq-{launcher}-")), trials=27)
        print(f"{launcher}: 27 complete runs in {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
