"""Signals that end the program, in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.commandline import ROOT, SMALL, runs
from tests.patched import patched

START = """
import os, signal, sys, threading, time
from nanosq import signals
def send(name):
    os.kill(os.getpid(), getattr(signal, name))
signals.end_by_exception()
"""
INTERRUPTED = """
with signals.job(), signals.Interruption() as interruption:
    {}
    assert interruption.is_requested
    print("checkpoint")
    interruption.end()
"""
# What submitit does: it requeues the job, and exits with a status of its own. The signal comes late for the last test.
SUBMITIT = """
def requeue(number, frame):
    print("requeued")
    sys.exit(99)
def bypass(number, frame):
    print("bypassed")
requeue.__module__ = bypass.__module__ = "submitit"
signal.signal(signal.SIGUSR2, requeue)
signal.signal(signal.SIGTERM, bypass)
signals.SECONDS_UNTIL_REQUEUED = 0.3
"""


def run(*script: str) -> tuple[int, str]:
    """Run a script. Return its exit status and what it has printed."""
    result = subprocess.run(
        [sys.executable, "-c", START + "\n".join(script)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return result.returncode, result.stdout


@pytest.mark.parametrize(
    ("name", "status"), [("SIGTERM", 143), ("SIGHUP", 143), ("SIGUSR2", 143), ("SIGINT", -signal.SIGINT)]
)
def test_a_signal_is_delayed_and_ends_the_program(name: str, status: int) -> None:
    assert run(INTERRUPTED.format(f"send('{name}')")) == (status, "checkpoint\n")


def test_two_signals_within_a_second_are_one_request() -> None:
    """A program that passes Ctrl-C on sends a second one. A user who presses it again wants an end at once."""
    assert run(INTERRUPTED.format("send('SIGTERM'); send('SIGTERM'); send('SIGHUP')")) == (143, "checkpoint\n")
    assert run(INTERRUPTED.format("send('SIGTERM'); time.sleep(1.1); send('SIGTERM')")) == (143, "")


def test_an_ignored_signal_stays_ignored() -> None:
    """The program nohup ignores SIGHUP, and a shell without job control ignores SIGINT in the background."""
    ignored = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    training = INTERRUPTED.format("send('SIGHUP'); print('trains'); send('SIGTERM')")
    assert run(ignored, "signals.end_by_exception()", training) == (143, "trains\ncheckpoint\n")


@pytest.mark.parametrize(
    ("sent", "status", "output"),
    [
        ("send('SIGUSR2')", 99, "checkpoint\nrequeued\n"),
        ("threading.Timer(0.1, send, ['SIGUSR2']).start(); send('SIGTERM')", 99, "checkpoint\nrequeued\n"),
        ("send('SIGTERM')", 143, "checkpoint\n"),
    ],
)
def test_a_job_of_submitit_writes_a_checkpoint_before_it_is_requeued(sent: str, status: int, output: str) -> None:
    """Slurm sends SIGTERM before SIGUSR2 when it preempts a job, and SIGTERM alone when a user cancels it."""
    assert run(SUBMITIT, INTERRUPTED.format(sent)) == (status, output)
    before_training = f"with signals.job():\n    {sent}\n    time.sleep(1)"
    assert run(SUBMITIT, before_training) == (status, output.removeprefix("checkpoint\n"))


def test_submitit_requeues_a_job_that_receives_both_signals_before_its_checkpoint() -> None:
    both = INTERRUPTED.format("send('SIGTERM'); send('SIGUSR2')")
    assert run(SUBMITIT, both) == (99, "checkpoint\nrequeued\n")


# Two jobs on three workers of joblib: one worker is idle.
PARALLEL = """
import joblib, os, time
from pathlib import Path
from nanosq import signals
def job(number):
    try:
        with signals.job(), signals.Interruption() as interruption:
            Path(f"{number}.pid").write_text(str(os.getpid()))
            while not interruption.is_requested:
                time.sleep(0.01)
            time.sleep(0.3)
            Path(f"{number}.pt").write_text("checkpoint")
            interruption.end()
    except signals.Interrupted:
        return "interrupted"
def start(workers):
    workers.start()
    Path(f"{os.getpid()}.started").write_text("started")
if __name__ == "__main__":
    signals.end_by_exception()
    workers = signals.Workers()
    jobs = [joblib.delayed(job)(number) for number in range(2)]
    with workers.wait():
        joblib.Parallel(n_jobs=3, initializer=start, initargs=[workers])(jobs)
    print("the sweep continues")
"""


@pytest.mark.parametrize(
    ("target", "sent", "status"),
    [
        ("parent", [signal.SIGTERM], 143),
        ("parent", [signal.SIGINT], -signal.SIGINT),
        ("group", [signal.SIGTERM], 143),
        ("group", [signal.SIGINT, signal.SIGINT], -signal.SIGINT),
        ("worker", [signal.SIGTERM], 143),
        ("parent", [signal.SIGKILL], -signal.SIGKILL),
    ],
)
def test_workers_of_joblib_write_their_checkpoints(
    target: str, sent: list[signal.Signals], status: int, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PARALLEL)
    process = subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=(tmp_path / "output").open("w"),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(tmp_path, "*.started", 3)
    wait_for(tmp_path, "*.pid", 2)
    for number in sent:
        if target == "group":
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid if target == "parent" else int((tmp_path / "0.pid").read_text()), number)
    assert process.wait(timeout=60) == status
    assert not (tmp_path / "output").read_text()
    wait_for(tmp_path, "*.pt", 2)  # workers that have lost their parent need some time to notice it
    with suppress(ProcessLookupError):  # idle workers of joblib that have lost it end after minutes
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(folder: Path, pattern: str, n_files: int) -> None:
    deadline = time.monotonic() + 60
    while len([path for path in folder.glob(pattern) if path.read_text()]) < n_files:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_signal_during_preparation_ends_the_program_at_once(tmp_path: Path) -> None:
    """No file is half written, and no run is left RUNNING."""
    patch = """
from nanosq.data import corpus
def prepare(*_, **__):
    os.kill(os.getpid(), signal.SIGHUP)
    raise AssertionError("the preparation continues")
corpus.prepare = prepare
"""
    result = patched(patch, *SMALL, cwd=tmp_path)
    assert result.returncode == 143, result.stderr
    assert result.stderr == ""
    assert not (tmp_path / "mlflow.db").exists() or not runs(tmp_path)
