"""Take the tracking store away while runs train, and check that no point is lost and none is recorded twice.

python -m tests.stress.outage                   all outages (10 minutes)
python -m tests.stress.outage server locked     some of them

server   an MLflow server is killed and restarted during a run, and killed during the last step of another one
sweep    it is killed and restarted during a sweep of ten trials
locked   another process locks the database for 75 seconds
deleted  mlflow.db is deleted

The program compares all points of all metrics, and the names of all files, with those of undisturbed runs. It prints
the time of training beside that of the undisturbed run. The exit status is 1 after a fault.
"""

import argparse
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import mlflow

from tests.commandline import ROOT, environment
from tests.mlflow_server import serve

RUN = [
    *["data.source.n_train=1000", "data.source.n_val=10", "data.source.n_test=10", "device=cpu", "samples.length=8"],
    *["model.n_layer=1", "model.n_embd=32", "model.n_head=1", "model.block_size=64", "train.log_every=5"],
    *["train.max_steps=1500", "train.eval_every=100", "train.checkpoint_every=50"],
]
SWEEP = ["-m", *RUN, "train.max_steps=200", "seed=1,2,3,4,5,6,7,8,9,10", "hydra.launcher.n_jobs=1"]
NOT_RECORDED = 3  # exit status
LOCK_SECONDS = 75.0


@dataclass(frozen=True)
class Recorded:
    """The part of a run that a store has."""

    points: dict[str, list[int]]  # the steps of every metric
    files: set[str]
    seconds: float  # of training


class Server:
    """An MLflow server that keeps its port when it is started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._port, self._running = folder, 0, ExitStack()
        self.start()

    def start(self) -> None:
        self._port = self._running.enter_context(serve(self._folder, port=self._port))

    def kill(self) -> None:
        self._running.close()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"


class Command:
    """A command in a folder of its own, to which it writes its output. The folder has an experiment of its own."""

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        folder.mkdir()
        self.folder, self.uri = folder, uri or f"sqlite:///{folder}/mlflow.db"
        self._variables = {
            **{"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_EXPERIMENT_NAME": folder.name, "PYTHONPATH": str(ROOT)},
            **{"NANOSQ_CACHE": str(folder.parent / "cache")},
        }

    def start(self, *arguments: str, program: str = "run.py") -> None:
        self._process = subprocess.Popen(
            [sys.executable, *([str(ROOT / program)] if program == "run.py" else ["-m", program]), *arguments],
            cwd=self.folder,
            env=environment() | self._variables,
            stdout=(self.folder / "output").open("a"),
            stderr=subprocess.STDOUT,
        )

    def wait_until(self, condition: Callable[[], bool]) -> None:
        while self._process.poll() is None and not condition():
            time.sleep(0.02)

    def finish(self, *statuses: int) -> int:
        """Wait for the end. Check the exit status, and that there is no traceback."""
        status = self._process.wait(timeout=600)
        assert status in (statuses or (0,)), (status, self.output[-3000:])
        assert "Traceback" not in self.output, self.output[-5000:]
        return status

    def run(self, *arguments: str, program: str = "run.py", status: int = 0) -> None:
        self.start(*arguments, program=program)
        self.finish(status)

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    @property
    def has_checkpoint(self) -> bool:
        return bool([*self.folder.glob("checkpoints/*/last.pt")])

    def recorded(self) -> dict[str, Recorded]:
        """Return what the store has of all runs, by their seed."""
        client, by_seed = mlflow.MlflowClient(self.uri), {}
        experiment = client.get_experiment_by_name(self.folder.name)
        for run in client.search_runs([experiment.experiment_id]):
            assert run.info.status == "FINISHED", run.info.status
            seed, run_id = run.data.params["seed"], run.info.run_id
            assert seed not in by_seed, f"the run with seed {seed} is recorded twice"
            histories = {key: client.get_metric_history(run_id, key) for key in run.data.metrics}
            points = {key: sorted(point.step for point in history) for key, history in histories.items()}
            files = {file.path for path in (None, "checkpoint") for file in client.list_artifacts(run_id, path)}
            by_seed[seed] = Recorded(points, files, run.data.metrics["train/seconds"])
            models = client.search_logged_models([experiment.experiment_id], f"source_run_id = '{run_id}'")
            assert len(models) == len(run.outputs.model_outputs) == 1
        return by_seed

    def check(self, what: str, expected: dict[str, Recorded]) -> None:
        """Check that the store has what undisturbed runs have recorded, and that nothing is left to deliver."""
        found = self.recorded()
        assert found.keys() == expected.keys(), f"{what}: {len(found)} runs of {len(expected)}"
        for seed, run in found.items():
            other = {key for key in run.points if run.points[key] != expected[seed].points.get(key)}
            assert not other, f"{what}: other points of {other}"
            assert run.points.keys() == expected[seed].points.keys(), f"{what}: other metrics"
            assert run.files == expected[seed].files, f"{what}: other files"
        left = [str(path) for path in self.folder.glob("checkpoints/*")]
        assert not left, f"{what}: {left} are left"
        seconds, usual = (sum(run.seconds for run in runs.values()) for runs in (found, expected))
        print(f"{what}: all points, none twice; training took {seconds:.1f} s, undisturbed {usual:.1f} s", flush=True)


def undisturbed(scratch: Path, name: str, arguments: list[str], uri: str | None = None) -> dict[str, Recorded]:
    command = Command(scratch / name, uri)
    command.run(*arguments)
    return command.recorded()


def check_server(scratch: Path) -> None:
    server = Server(scratch / "server")
    expected = undisturbed(scratch, "server-whole", RUN, server.uri)
    command = Command(scratch / "server-restarted", server.uri)
    command.start(*RUN)
    command.wait_until(lambda: command.has_checkpoint)
    server.kill()
    time.sleep(6)
    server.start()
    command.finish(0)
    command.check("server killed and restarted during a run", expected)
    command = Command(scratch / "server-dead", server.uri)
    command.start(*RUN)
    command.wait_until(lambda: command.has_checkpoint)
    server.kill()
    command.finish(NOT_RECORDED)
    assert "validation perplexity" in command.output
    command.run(*RUN, status=2)  # one line
    server.start()
    command.run(*RUN)
    command.check("server dead until after the run, then the same command", expected)
    command = Command(scratch / "server-end", server.uri)
    command.start(*RUN)
    command.wait_until(lambda: "step 1500/1500" in command.output)
    server.kill()
    command.finish(NOT_RECORDED, 0)
    server.start()
    command.run(program="nanosq.sync")
    command.check("server killed at the very end of a run, then nanosq.sync", expected)
    server.kill()


def check_sweep(scratch: Path) -> None:
    server = Server(scratch / "server")
    expected = undisturbed(scratch, "sweep-whole", SWEEP, server.uri)
    command = Command(scratch / "sweep-restarted", server.uri)
    command.start(*SWEEP)
    command.wait_until(lambda: "3 of 10" in command.output)
    server.kill()
    command.wait_until(lambda: "6 of 10" in command.output)
    server.start()
    command.finish(0)
    command.check("server killed and restarted during a sweep of 10", expected)
    command = Command(scratch / "sweep-dead", server.uri)
    command.start(*SWEEP)
    command.wait_until(lambda: "7 of 10" in command.output)
    server.kill()
    command.finish(NOT_RECORDED)
    assert "all trials: " in command.output
    server.start()
    command.run(*SWEEP)
    command.check("server dead at the end of a sweep of 10, then the same command", expected)
    server.kill()


def check_locked(scratch: Path) -> None:
    expected = undisturbed(scratch, "locked-whole", RUN)
    command = Command(scratch / "locked")
    command.start(*RUN)
    command.wait_until(lambda: command.has_checkpoint)
    with closing(sqlite3.connect(command.folder / "mlflow.db", isolation_level=None, timeout=60)) as other:
        other.execute("BEGIN EXCLUSIVE")
        begin = time.monotonic()
        status = command.finish(NOT_RECORDED, 0)
        command.run(*RUN, "seed=2", status=2)  # one line
        time.sleep(max(0.0, LOCK_SECONDS - (time.monotonic() - begin)))
    assert status == NOT_RECORDED
    command.run(*RUN)
    command.check(f"database locked for {LOCK_SECONDS:.0f} s", expected)


def check_deleted(scratch: Path) -> None:
    expected = undisturbed(scratch, "deleted-whole", RUN)
    command = Command(scratch / "deleted")
    command.start(*RUN)
    command.wait_until(lambda: command.has_checkpoint)
    (command.folder / "mlflow.db").unlink()
    if command.finish(NOT_RECORDED, 0):
        command.run(*RUN)
    command.check("mlflow.db deleted during a run", expected)


CHECKS = {"server": check_server, "sweep": check_sweep, "locked": check_locked, "deleted": check_deleted}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outages", nargs="*", metavar="OUTAGE", help=f"{', '.join(CHECKS)}; default: all of them")
    n_faults = 0
    for name in parser.parse_args().outages or CHECKS:
        try:
            CHECKS[name](Path(tempfile.mkdtemp(prefix=f"nanosq-{name}-")))
        except AssertionError as fault:
            n_faults += 1
            print(f"{name}: FAULT: {fault}", flush=True)
    return int(n_faults > 0)


if __name__ == "__main__":
    sys.exit(main())
