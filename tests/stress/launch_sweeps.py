"""Run sweeps with each launcher in an empty folder, and check that no run and no point is lost.

python -m tests.stress.launch_sweeps            joblib with 4 workers, a local Ray cluster, submitit's local executor
python -m tests.stress.launch_sweeps joblib     one of them
python -m tests.stress.launch_sweeps together   eight commands at once: four of one search, two grids and two runs

First the grid of 27 runs undisturbed. Then two trials side by side receive the signals with which users and clusters
end a program. Last, eight commands share an MLflow store and a database of Optuna, both SQLite.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import mlflow
import optuna

from tests.commandline import ROOT, command, environment, runs, start

LAUNCHERS = {
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4"],
    "ray": ["hydra/launcher=ray"],
    "submitit_local": ["hydra/launcher=submitit_local"],
}
STEPS, EVAL_EVERY = 20, 10
N_TRIALS = 24  # of the search that four commands share
SMALL = [
    *["data.source.n_train=200", "data.source.n_val=10", "data.source.n_test=10", "device=cpu"],
    *["model.n_embd=16", "model.n_head=1", "model.block_size=64"],
    *[f"train.max_steps={STEPS}", f"train.eval_every={EVAL_EVERY}", "train.log_every=1"],
]

# Who receives which signals, and the exit status of the sweep. The group is what Ctrl-C in a terminal reaches.
SIGNALS = {
    "joblib": [
        ("parent", ["SIGTERM"], 143),
        ("parent", ["SIGINT"], 130),
        ("group", ["SIGTERM"], 143),
        ("group", ["SIGINT", "SIGINT"], 130),
        ("worker", ["SIGTERM"], 143),
        ("parent", ["SIGKILL"], -signal.SIGKILL),
    ],
    "submitit_local": [  # a cluster ends jobs, and the sweep launches them again
        ("worker", ["SIGUSR2"], 0),
        ("worker", ["SIGTERM", "SIGUSR2"], 0),
        ("worker", ["SIGTERM"], 0),
    ],
}
WORKERS = {"joblib": "popen_loky", "submitit_local": "submitit.core._submit"}
LONG_STEPS = 300
LONG = [
    *[setting for setting in SMALL if not setting.startswith("train.")],
    *[f"train.max_steps={LONG_STEPS}", "train.batch_size=2", "train.checkpoint_every=10", "model.n_layer=1"],
]


def check(launcher: str, folder: Path, *, trials: int, axes: Iterable[str] = ()) -> None:
    """Check that the grid succeeds and that every trial has one run with every point of every metric."""
    result = command("-m", "hydra/sweeper=grid", *LAUNCHERS[launcher], *axes, *SMALL, cwd=folder, warm=False)
    assert result.returncode == 0, result.stdout + result.stderr
    all_runs = runs(folder)
    assert Counter(run.info.status for run in all_runs) == {"FINISHED": trials}
    assert {int(run.data.tags["trial"]) for run in all_runs} == {*range(trials)}
    check_points(all_runs, folder)
    assert len([path for path in (folder / "cache").iterdir() if path.is_dir()]) == 1
    assert not list((folder / "checkpoints").iterdir())


def check_points(all_runs: Sequence[mlflow.entities.Run], folder: Path) -> None:
    """Check that each run has every point of every metric once."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    for run in all_runs:
        for key in run.data.metrics:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, key)]
            if key.startswith("val/") and steps.count(STEPS) == 2:  # the model is of an earlier step
                steps.remove(STEPS)
            at_end = key.startswith(("test/", "last/")) or key.endswith(("/tokens", "/temperature", "_calibrated"))
            every = STEPS if at_end else 1 if key.startswith("train/") else EVAL_EVERY
            assert sorted(steps) == [*range(every, STEPS + 1, every)], (run.info.run_id, key, steps)


def check_together(folder: Path) -> None:
    """Start eight commands at once in an empty folder, and check that no run, point or trial is lost or doubled."""
    search = [
        "-m",
        "hydra/sweeper=optuna",
        f"hydra.sweeper.n_trials={N_TRIALS}",
        "hydra/sweeper/pruner=none",
        "hydra/launcher=basic",
    ]
    losses = ["squentropy", "brier", "focal", "poly1"]
    grids = [["-m", "hydra/launcher=basic", f"loss={loss}", "optimizer.lr=1e-3,2e-3,3e-3,4e-3"] for loss in losses[:2]]
    commands = [*([search] * 4), *grids, *([f"loss={loss}"] for loss in losses[2:])]
    started = [start(*command, *SMALL, cwd=folder) for command in commands]
    outputs = [process.communicate()[0] for process in started]
    assert not any(process.returncode for process in started), "\n".join(outputs)
    assert not any("Traceback" in output for output in outputs), "\n".join(outputs)
    (study,) = optuna.get_all_study_names(f"sqlite:///{folder}/optuna.db")
    trials = optuna.load_study(study_name=study, storage=f"sqlite:///{folder}/optuna.db").trials
    assert Counter(trial.state.name for trial in trials) == {"COMPLETE": N_TRIALS}
    all_runs = runs(folder)
    by_sweep = Counter(run.data.tags.get("sweep", "") for run in all_runs)
    assert sorted(by_sweep.values()) == [len(losses[2:]), 4, 4, N_TRIALS], by_sweep
    assert {run.info.status for run in all_runs} == {"FINISHED"}
    recorded = {run.info.run_id for run in all_runs if run.data.tags.get("sweep") == study}
    assert recorded == {trial.user_attrs["mlflow_run_id"] for trial in trials}
    assert len({run.data.tags["config_hash"] for run in all_runs}) == len(all_runs)
    check_points(all_runs, folder)


def interrupt(launcher: str, target: str, signals: Iterable[str], folder: Path, *settings: str) -> tuple[int, int]:
    """Start a sweep of two trials, and send signals while both train. Return its exit status and process group."""
    arguments = ["-m", *LAUNCHERS[launcher], *LONG, *(settings or ["loss=squentropy,brier"])]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(ROOT)},  # submitit does not pass the folder of the program on
        stdout=(folder / "output").open("a"),
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and len([*folder.glob("checkpoints/*/last.pt")]) < 2:
        time.sleep(0.05)
    for name in signals:
        number = signal.Signals[name]
        if target == "group":
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid if target == "parent" else workers(process.pid, launcher)[0], number)
    return process.wait(timeout=300), process.pid


def workers(group: int, launcher: str) -> list[int]:
    """Return the worker processes of a process group; those of joblib may be idle."""
    found = subprocess.run(["pgrep", "-g", str(group), "-f", WORKERS[launcher]], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def check_signals(launcher: str, target: str, signals: list[str], status: int, folder: Path) -> None:
    """Check that signals end a sweep with a checkpoint of each trial, and that it resumes and loses no point."""
    actual, group = interrupt(launcher, target, signals, folder)
    if "SIGKILL" in signals:  # the workers notice it a little later, and those of joblib stay idle for minutes
        time.sleep(10)
        os.killpg(group, signal.SIGKILL)
    output = (folder / "output").read_text()
    assert actual == status, output
    logs = "".join(path.read_text() for path in folder.glob("sweeps/.submitit/*/*_log.err"))
    assert (output + logs).count(": interrupted after step") == (2 if launcher == "joblib" else 1), output + logs
    if launcher == "joblib":
        assert "Traceback" not in output
        assert [run.info.status for run in runs(folder)] == ["KILLED"] * 2
        assert len([*folder.glob("checkpoints/*/last.pt")]) == 2
        again, _ = interrupt(launcher, "parent", [], folder)
        assert again == 0, (folder / "output").read_text()
        assert (folder / "output").read_text().count(": resumed after step") == 2
    else:
        assert logs.count(": resumed after step") == 1, logs
        assert ("Requeued job" in logs) == ("SIGUSR2" in signals)
    all_runs = runs(folder)
    assert Counter(run.info.status for run in all_runs) == {"FINISHED": 2}
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    for run in all_runs:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/nll")]
        assert steps == sorted({*steps})
        assert steps[-1] == LONG_STEPS
    assert not list((folder / "checkpoints").iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "launchers", nargs="*", metavar="LAUNCHER", help=f"{', '.join(LAUNCHERS)}, together; default: all of them"
    )
    options = parser.parse_args()
    for launcher in options.launchers or [*LAUNCHERS, "together"]:
        begin = time.monotonic()
        if launcher == "together":
            check_together(Path(tempfile.mkdtemp(prefix="nanosq-together-")))
            print(f"eight commands at once: nothing lost or doubled, {time.monotonic() - begin:.0f} s", flush=True)
            continue
        check(launcher, Path(tempfile.mkdtemp(prefix=f"nanosq-{launcher}-")), trials=27)
        print(f"{launcher}: 27 complete runs in {time.monotonic() - begin:.0f} s", flush=True)
        for target, signals, status in SIGNALS.get(launcher, []):
            folder = Path(tempfile.mkdtemp(prefix=f"nanosq-{launcher}-"))
            check_signals(launcher, target, signals, status, folder)
            print(f"{launcher}: {' and '.join(signals)} to the {target}: resumed", flush=True)


if __name__ == "__main__":
    main()
