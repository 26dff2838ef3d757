"""Sweeps on several machines that share a PostgreSQL server. The tests start a server if PostgreSQL is installed."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import mlflow
import optuna
import psycopg
import pytest
from optuna.trial import TrialState

from nanosq.filesystem import database_lock
from tests.commandline import ROOT, environment, start

PASSWORD = "PLANTED"  # the server asks for none
ACCOUNT = "postgres"  # Debian's account for the server, which refuses to run as root
INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))


def program(name: str) -> str | None:
    """Return the path of a program of the server, which Debian keeps out of PATH."""
    return shutil.which(name) or (str(INSTALLED[-1].with_name(name)) if INSTALLED else None)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Start an empty server. Return its URL without the name of a database."""
    if program("initdb") is None or program("pg_ctl") is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="nanosq-postgres-"))
    account: dict[str, str] = {}
    if os.getuid() == 0:
        shutil.chown(folder, ACCOUNT)
        account = {"user": ACCOUNT}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(*command: str | None) -> None:
        subprocess.run(command, check=True, capture_output=True, cwd="/", **account)

    data = str(folder / "data")
    call(program("initdb"), "-D", data, "--auth=trust", "--no-sync", "-U", "nanosq")
    settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    with (folder / "log").open("w") as log:  # not a pipe: the server keeps it open
        command = [program("pg_ctl"), "-D", data, "-w", "-o", settings, "start"]
        subprocess.run(command, check=True, stdout=log, stderr=log, cwd="/", **account)
    try:
        yield f"postgresql://nanosq:{PASSWORD}@127.0.0.1:{port}"
    finally:
        call(program("pg_ctl"), "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def create(server: str, database: str) -> str:
    """Create a database and return its URL."""
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}")
    return f"{server}/{database}"


@pytest.mark.slow
def test_two_sweeps_share_a_study(server: str, tmp_path: Path) -> None:
    """They run 10 different trials in total. The study and the runs are on the same server."""
    study_url, runs_url = create(server, "optuna"), create(server, "mlflow")
    settings = [
        *["-m", "hydra/sweeper=optuna", f"hydra.sweeper.storage={study_url}", "hydra.sweeper.n_trials=10"],
        *["train.max_steps=4", "train.eval_every=2", "device=cpu"],
        *["data.source.n_train=150", "data.source.n_val=10", "data.source.n_test=10"],
        *["model.n_embd=16", "model.n_head=1", "model.block_size=64"],
    ]
    hosts = [tmp_path / "one", tmp_path / "another"]
    sweeps = []
    for host in hosts:
        host.mkdir()
        sweeps.append(start(*settings, cwd=host, MLFLOW_TRACKING_URI=runs_url))
    outputs = [sweep.communicate()[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], "\n".join(outputs)
    written = [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in (*outputs, *written) if PASSWORD in text]

    study = optuna.load_study(study_name="cross_entropy-tiny-stories", storage=study_url)
    assert len(study.trials) == 10
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({str(trial.params) for trial in study.trials}) == 10
    client = mlflow.MlflowClient(runs_url)
    runs = client.search_runs([client.get_experiment_by_name("nanosq").experiment_id])
    assert Counter(run.info.status for run in runs) == {"FINISHED": 10}
    assert {run.info.run_id for run in runs} == {trial.user_attrs["mlflow_run_id"] for trial in study.trials}
    checkpoints = Counter(run.data.tags["checkpoints"].split("/")[-3] for run in runs)
    assert set(checkpoints) == {"one", "another"}, "one sweep has run all trials"


@pytest.mark.slow
def test_a_lock_is_released_when_its_process_is_killed(server: str) -> None:
    url = create(server, "locks")
    script = f"""
from nanosq.filesystem import database_lock
with database_lock({url!r}, "a"):
    print("locked", flush=True)
    input()
"""
    command = [sys.executable, "-c", script]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), cwd=ROOT)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    with database_lock(url, "b", wait=False), pytest.raises(TimeoutError), database_lock(url, "a", wait=False):
        pass
    holder.kill()
    with database_lock(url, "a"):  # PostgreSQL takes a moment to notice
        pass
