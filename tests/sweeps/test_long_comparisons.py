"""Long comparisons: trials side by side, and two processes, also with a PostgreSQL server and a kill.

A comparison that is killed again and again is tests/stress/kill_comparison.py.
"""

import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import optuna
import pytest

from tests import test_postgres
from tests.commandline import SMALL, command, start
from tests.stress.kill_comparison import verdict

N_TRIALS, SEEDS = 3, 2
# The draws depend on the number of the trial only.
COMPARISON = [
    *["-m", "hydra/sweeper=compare", "loss=cross_entropy,squentropy", "hydra.sweeper.study_name=losses"],
    *[f"hydra.sweeper.n_trials={N_TRIALS}", f"hydra.sweeper.seeds={SEEDS}", "hydra/sweeper/pruner=none"],
    *["hydra.sweeper.tune_steps=3", "samples.count=0", *SMALL],
]
server = test_postgres.server


class Outcome(NamedTuple):
    """The verdict, trials and runs of a finished comparison."""

    verdict: str
    trials: dict[str, list[Any]]
    runs: Counter[str]  # the number of runs by the hash of their setting


def outcome(output: str, studies: str, tracking: str) -> Outcome:
    """Return the outcome of a comparison. Check that all runs have finished and belong to its trials."""
    trials, linked = {}, set()
    for name in optuna.get_all_study_names(studies):
        found = optuna.load_study(study_name=name, storage=studies).trials
        linked |= {trial.user_attrs["mlflow_run_id"] for trial in found}
        trials[name] = sorted(([t.state.name, t.params, t.values] for t in found), key=str)
    client = mlflow.MlflowClient(tracking)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.info.run_id for run in runs} == linked
    return Outcome(verdict(output), trials, Counter(run.data.tags["config_hash"] for run in runs))


def in_folder(folder: Path, *settings: str) -> Outcome:
    """Run a comparison in an empty folder."""
    result = command(*COMPARISON, *settings, cwd=folder, check=True, warm=False)
    return outcome(result.stdout, f"sqlite:///{folder}/optuna.db", f"sqlite:///{folder}/mlflow.db")


@pytest.fixture(scope="module")
def sequential(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    found = in_folder(tmp_path_factory.mktemp("sequential"))
    assert [len(trials) for trials in found.trials.values()] == [N_TRIALS, N_TRIALS, 2 * SEEDS]
    assert {*found.runs.values()} == {1}
    assert found.runs.total() == 2 * N_TRIALS + 2 * SEEDS
    return found


@pytest.mark.slow
def test_trials_side_by_side(sequential: Outcome, tmp_path: Path) -> None:
    assert in_folder(tmp_path, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2") == sequential


@pytest.mark.slow
def test_two_processes_share_a_comparison(sequential: Outcome, server: str, tmp_path: Path) -> None:
    studies, tracking = test_postgres.create(server, "optuna"), test_postgres.create(server, "mlflow")
    hosts = [tmp_path / "one", tmp_path / "another"]
    processes = []
    for host in hosts:
        host.mkdir()
        settings = [*COMPARISON, f"hydra.sweeper.storage={studies}"]
        processes.append(start(*settings, cwd=host, MLFLOW_TRACKING_URI=tracking))
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert [outcome(output, studies, tracking) for output in outputs] == [sequential] * 2
    assert all(_trained(output) for output in outputs), "one process has run all trials"


@pytest.mark.slow
def test_a_process_takes_over_the_run_of_a_killed_one(sequential: Outcome, tmp_path: Path) -> None:
    """The other process does everything else, waits for this trial, and goes on with it."""
    first = start(*COMPARISON, cwd=tmp_path)
    _wait_for(r"squentropy seed 1339: \S+=", first)
    first.send_signal(signal.SIGSTOP)
    second = start(*COMPARISON, cwd=tmp_path)
    _wait_for(r"study losses/squentropy in ", second)
    time.sleep(5)
    assert second.poll() is None
    first.kill()
    first.communicate()
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0, output
    assert outcome(output, f"sqlite:///{tmp_path}/optuna.db", f"sqlite:///{tmp_path}/mlflow.db") == sequential


def _wait_for(pattern: str, process: subprocess.Popen[str]) -> None:
    """Read the output of a process until a line matches a pattern."""
    assert process.stdout is not None
    while not re.search(pattern, line := process.stdout.readline()):
        assert line, "the process has ended"


def _trained(output: str) -> Sequence[str]:
    return [line for line in output.splitlines() if ": val perplexity" in line]
