"""Sweeps of several hosts that share a PostgreSQL server: each test starts one of its own, if it is installed."""

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
from tests.commandline import environment, start

ACCOUNT = "postgres"  # Debian's; the server refuses to run as root
INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))


def program(name: str) -> str | None:
    """Debian keeps the server's programs out of the path."""
    return shutil.which(name) or (str(INSTALLED[-1].with_name(name)) if INSTALLED else None)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server with nothing in it, without the name of a database."""
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
    with (folder / "log").open("w") as log:  # which the server keeps open: a pipe would never end
        command = [program("pg_ctl"), "-D", data, "-w", "-o", settings, "start"]
        subprocess.run(command, check=True, stdout=log, stderr=log, cwd="/", **account)
    try:
        yield f"postgresql://nanosq@127.0.0.1:{port}"
    finally:
        call(program("pg_ctl"), "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def create(server: str, database: str) -> str:
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}")
    return f"{server}/{database}"


def test_two_sweeps_share_a_study(server: str, tmp_path: Path) -> None:
    """20 trials in total, none of them twice, with study and runs on the same server."""
    study_url, runs_url = create(server, "optuna"), create(server, "mlflow")
    settings = [
        *["-m", "hydra/sweeper=optuna", f"hydra.sweeper.storage={study_url}", "hydra.sweeper.n_trials=20"],
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

    study = optuna.load_study(study_name="cross_entropy-tiny-stories", storage=study_url)
    assert len(study.trials) == 20
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({str(trial.params) for trial in study.trials}) == 20
    client = mlflow.MlflowClient(runs_url)
    runs = client.search_runs([client.get_experiment_by_name("nanosq").experiment_id])
    assert Counter(run.info.status for run in runs) == {"FINISHED": 20}
    assert {run.info.run_id for run in runs} == {trial.user_attrs["mlflow_run_id"] for trial in study.trials}
    checkpoints = Counter(run.data.tags["checkpoints"].split("/")[-3] for run in runs)
    assert set(checkpoints) == {"one", "another"}, "one of them has done it all"


def test_a_lock_is_free_when_its_process_is_gone(server: str) -> None:
    url = create(server, "locks")
    script = f"from nanosq.filesystem import database_lock\nwith database_lock({url!r}, 'a'): print('held', flush=True); input()"
    command = [sys.executable, "-c", script]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with database_lock(url, "b", wait=False), pytest.raises(TimeoutError), database_lock(url, "a", wait=False):
        pass
    holder.kill()
    with database_lock(url, "a"):  # PostgreSQL takes a moment to notice
        pass
