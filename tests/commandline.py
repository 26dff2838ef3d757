"""The command line as a user types it, in subprocesses, and what it records."""

import multiprocessing
import os
import pty
import runpy
import select
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import mlflow
from filelock import FileLock

from analysis.configuration import compose
from nanosq import identity
from nanosq.tracking.connection import create_database

ROOT = Path(__file__).parents[1]
SMALL = [
    *["data.source.n_train=150", "data.source.n_val=10", "data.source.n_test=10"],
    *["model.n_layer=1", "model.n_embd=16", "model.n_head=1", "model.block_size=64"],
    *["train.max_steps=6", "train.batch_size=4", "train.eval_every=3", "samples.length=8", "device=cpu"],
]
# Models of this size gain nothing from a second thread, and a busy machine makes it slow.
ENVIRONMENT = {"NANOSQ_CACHE": "cache", "OMP_NUM_THREADS": "1"}
TEMPLATE = Path(tempfile.gettempdir(), "nanosq-store")  # tests/conftest.py sets another folder
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(["tests.warm_imports"])


def environment() -> dict[str, str]:
    """Return the environment of this process without the variables that MLflow and Hydra have set in it."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "HYDRA_"))} | ENVIRONMENT


def provide_store(folder: Path) -> str:
    """Return the URI of the MLflow store of a folder.

    If the folder has none, it gets a copy of an empty one: MLflow takes more than a second to create one.
    """
    file = folder / "mlflow.db"
    if not file.exists():
        TEMPLATE.mkdir(exist_ok=True)
        with FileLock(TEMPLATE / "lock"):
            create_database(f"sqlite:///{TEMPLATE}/mlflow.db")  # if it does not exist
        shutil.copyfile(TEMPLATE / "mlflow.db", file)
        with closing(sqlite3.connect(file)) as store, store:
            store.execute("UPDATE experiments SET artifact_location = ?", [f"{folder.resolve()}/mlruns/0"])
    return f"sqlite:///{file}"


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


def command(
    *arguments: str,
    cwd: Path,
    program: str = "run.py",
    check: bool = False,
    warm: bool = True,
    store: bool = True,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run `python run.py ...` in a folder, which then holds everything it writes.

    Args:
        arguments: Arguments of the program.
        cwd: The folder.
        program: "run.py" or the name of a module, which is run in a forked process.
        check: Whether to fail if the exit status is not 0. The folder then gets an empty MLflow store, if it has none.
        warm: Whether to fork the process from one that has imported the libraries already (tests/warm_imports.py). A
            launcher that starts processes of its own needs a new process.
        variables: Environment variables.
    """
    env = environment() | variables
    if check and "tracking=none" not in arguments and "MLFLOW_TRACKING_URI" not in env:
        provide_store(cwd)
    if warm:
        result = _forked(arguments, cwd, env, program)
    else:
        run = [sys.executable, str(ROOT / "run.py"), *arguments]
        result = subprocess.run(run, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=600)
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


def _forked(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str], program: str
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        streams = Path(folder, "stdout"), Path(folder, "stderr")
        process = WARM.Process(target=_run, args=(arguments, cwd, env, *streams, program))
        process.start()
        process.join(timeout=300)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(list(arguments), 300)
        assert process.exitcode is not None
        return subprocess.CompletedProcess(arguments, process.exitcode, *(path.read_text() for path in streams))


def _run(
    arguments: Sequence[str],
    cwd: Path,
    variables: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    program: str = "run.py",
) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    for path, number in ((stdout, 1), (stderr, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = [str(ROOT / "run.py"), *arguments]
    sys.path.insert(0, str(ROOT))
    if program == "run.py":
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def on_terminal(program: str, *arguments: str, cwd: Path, **variables: str) -> tuple[int, str]:
    """Run a program on a terminal of 80 columns and 24 lines. Return its exit status, and what it has written.

    Args:
        program: "run.py" or the name of a module.
        arguments: Its arguments.
        cwd: The folder to run it in.
        variables: Environment variables.
    """
    env = {k: v for k, v in environment().items() if k not in ("COLUMNS", "LINES", "NO_COLOR")} | {"TERM": "xterm"}
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    terminal = Path(os.ttyname(theirs))
    process = WARM.Process(target=_run, args=(arguments, cwd, env | variables, terminal, terminal, program))
    process.start()
    written = b""
    while process.is_alive() or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.1)[0]:
            written += os.read(ours, 100_000)
    os.close(theirs)
    os.close(ours)
    assert process.exitcode is not None
    return process.exitcode, written.decode().replace("\r\n", "\n")


@contextmanager
def running(program: str, *arguments: str, cwd: Path, stdout: Path, stderr: Path) -> Iterator[BaseProcess]:
    """Run a module while the block is executed, and wait for its end. `stdout` may be a terminal or a named pipe."""
    process = WARM.Process(target=_run, args=(arguments, cwd, environment(), stdout, stderr, program))
    process.start()
    yield process
    process.join(timeout=60)


def runs(folder: Path) -> list[mlflow.entities.Run]:
    """Return all runs of the store of a folder."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def check_names_and_commands(runs: Sequence[mlflow.entities.Run]) -> None:
    """Check that the names of runs are unique and tell their place, and that their commands have their identity."""
    by_name = {run.info.run_name: run for run in runs}
    assert len(by_name) == len(runs)
    for name, run in by_name.items():
        tags = run.data.tags
        place = f"{tags['sweep']} #{tags['trial']}" if "sweep" in tags else run.info.run_id[:6]
        assert name.startswith(f"{run.data.params['loss']} ")
        assert name.endswith(f" seed={run.data.params['seed']} · {place}")
        cfg = compose(shlex.split(tags["command"])[2:])
        assert identity.config_hash(cfg) == tags["config_hash"]


def printed_perplexity(result: subprocess.CompletedProcess[str]) -> float:
    """Return the validation perplexity that a run has printed."""
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("validation perplexity"))
    return float(line.split()[-1])
