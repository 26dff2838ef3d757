"""Kill a sweep at random moments, start it again, and check that no trial is lost or trained twice.

python -m tests.stress.kill_sweeps                      kill a grid of 27 and a search of 30, 5 times each (6 minutes)
python -m tests.stress.kill_sweeps --launcher joblib    with several trials at the same time
python -m tests.stress.kill_sweeps --kills 20 --seed 3

All processes of a sweep are killed at once (SIGKILL), so none of them can clean up. The sweeps are compared with
undisturbed ones. A search whose trials run at the same time draws by the order in which they end: there, Optuna is
compared with MLflow only.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import mlflow
import optuna
from optuna.trial import FrozenTrial, TrialState

from tests.commandline import ROOT, environment, runs

SMALL = [
    *["data.source.n_train=200", "data.source.n_val=10", "data.source.n_test=10", "device=cpu"],
    *["model.n_embd=16", "model.n_head=1", "model.block_size=64", "train.checkpoint_every=10", "train.log_every=5"],
]
GRID = ["hydra/sweeper=grid", "train.max_steps=40"]
SEARCH = [
    *["hydra/sweeper=optuna", "loss=squentropy", "train.max_steps=60", "train.eval_every=20"],
    *["hydra.sweeper.sampler.seed=1", "hydra.sweeper.enqueue=[current,{optimizer.lr:2e-3,model.n_layer:1}]"],
    "hydra.sweeper.constraints={parameters:36e3}",  # of four layers
]


def start(settings: list[str], folder: Path, cache: Path) -> subprocess.Popen[str]:
    """Start a sweep in its own process group."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), "-m", *settings, *SMALL],
        cwd=folder,
        env={**environment(), "NANOSQ_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(settings: list[str], folder: Path, cache: Path) -> None:
    """Run a sweep to its end."""
    process = start(settings, folder, cache)
    output, _ = process.communicate()
    assert process.returncode == 0, output


def disturb(settings: list[str], folder: Path, cache: Path, *, kills: int, trials: int, moments: random.Random) -> None:
    """Start a sweep of `trials` trials and kill it `kills` times, at random moments. Then start it and let it finish.

    A moment is a number of trials that have begun, and a delay that is shorter than a trial, because a sweep may be
    twice as fast as the one before.
    """
    left = trials
    for kills_left in range(kills, 0, -1):
        process = start(settings, folder, cache)
        begun = moments.randint(0, max(1, left // kills_left - 1))
        wait_for_trials(process, begun)
        time.sleep(moments.uniform(0, 0.5 if begun else 3.0))
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
        left -= max(0, begun - 1)
        states = Counter(run.info.status for run in runs(folder)) if (folder / "mlflow.db").exists() else {}
        print(f"killed when {begun} trials had begun: {dict(states)}", flush=True)
    finish(settings, folder, cache)


def wait_for_trials(process: subprocess.Popen[str], number: int) -> None:
    """Wait until a sweep has begun this number of trials."""
    assert process.stdout is not None
    while number > 0:
        line = process.stdout.readline()
        assert line, "the sweep has ended"
        number -= bool(re.match(r"#\d+: (\S+=|not trained)", line))


def values(folder: Path) -> dict[str, float]:
    """Return the validation perplexity of every configuration. Check that each has one finished run."""
    all_runs = runs(folder)
    assert {run.info.status for run in all_runs} == {"FINISHED"}, Counter(run.info.status for run in all_runs)
    by_hash = {run.data.tags["config_hash"]: run.data.metrics["val/perplexity"] for run in all_runs}
    assert len(by_hash) == len(all_runs), f"{len(all_runs)} runs of {len(by_hash)} configurations"
    remaining = [path.name for path in (folder / "checkpoints").iterdir()]
    assert not remaining, f"files remain in checkpoints/: {remaining}"
    return by_hash


def check_grid(settings: list[str], scratch: Path, *, kills: int, trials: int, moments: random.Random) -> None:
    """Check that a grid that is killed and started again has the values of an undisturbed one."""
    cache, whole, killed = scratch / "cache", scratch / "grid", scratch / "grid_killed"
    whole.mkdir()
    killed.mkdir()
    finish([*GRID, *settings], whole, cache)
    expected = values(whole)
    assert len(expected) == trials
    disturb([*GRID, *settings], killed, cache, kills=kills, trials=trials, moments=moments)
    actual = values(killed)
    assert actual == expected, {key: (actual.get(key), expected[key]) for key in expected}
    print(f"grid: killed {kills} times, {len(actual)} finished runs with the values of the undisturbed grid")


def check_study(settings: list[str], scratch: Path, *, kills: int, trials: int, moments: random.Random) -> None:
    """Check that a search that is killed and started again is consistent, and has the trials of an undisturbed one."""
    cache, whole, killed = scratch / "cache", scratch / "study", scratch / "study_killed"
    whole.mkdir()
    killed.mkdir()
    settings = [*SEARCH, f"hydra.sweeper.n_trials={trials}", *settings]
    finish(settings, whole, cache)
    expected = check_consistency(whole, trials=trials)
    disturb(settings, killed, cache, kills=kills, trials=trials, moments=moments)
    actual = check_consistency(killed, trials=trials)
    if "hydra/launcher=joblib" not in settings:
        assert [summary(trial) for trial in actual] == [summary(trial) for trial in expected]
    print(f"search: killed {kills} times, {trials} trials: {dict(Counter(trial.state.name for trial in actual))}")


def summary(trial: FrozenTrial) -> tuple[Any, ...]:
    """Return what does not depend on when a trial was killed."""
    return trial.params, trial.state, trial.value, trial.intermediate_values, trial.constraints


def check_consistency(folder: Path, *, trials: int) -> list[FrozenTrial]:
    """Check that a study has `trials` trials, and that MLflow has the same ones. Return them."""
    study = optuna.load_study(study_name="squentropy-tiny-stories", storage=f"sqlite:///{folder}/optuna.db")
    assert len(study.trials) == trials, len(study.trials)
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    linked = set()
    for trial in study.trials:
        assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED), trial
        if trial.constraints["parameters"] > 0:
            assert "mlflow_run_id" not in trial.user_attrs
            continue
        run = client.get_run(trial.user_attrs["mlflow_run_id"])
        linked.add(run.info.run_id)
        assert run.info.status == "FINISHED"
        assert (run.data.tags["pruned"] == "true") == (trial.state is TrialState.PRUNED), trial
        assert run.data.tags["sweep"] == study.study_name
        assert run.data.tags["trial"] == str(trial.number)
        if trial.state is TrialState.COMPLETE:
            assert trial.value == run.data.metrics["val/perplexity"]
    assert {run.info.run_id for run in runs(folder)} == linked, "MLflow has runs that belong to no trial"
    return study.trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5, help="number of kills of each sweep (default: 5)")
    parser.add_argument("--launcher", choices=["basic", "joblib"], default="basic", help="default: basic")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills (default: 0)")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="nanosq-"))
    print(scratch)
    settings = [f"hydra/launcher={options.launcher}"]
    moments = random.Random(options.seed)
    check_grid(settings, scratch, kills=options.kills, trials=27, moments=moments)
    check_study(settings, scratch, kills=options.kills, trials=30, moments=moments)


if __name__ == "__main__":
    main()
