"""Measure what an outage of the tracking store costs a training: not more than 5 percent of its time.

python -m tests.stress.outage_time              three rounds with each store (8 minutes)
python -m tests.stress.outage_time database     with a database only

In each round, runs train one after the other: with a server that answers, with one that is killed at the first
checkpoint, with one that is replaced by a program that accepts connections and never answers, with a database, and with
one that another process locks. The program prints the seconds of training and the CPU seconds of the process, and
compares their medians with those of the undisturbed runs. The exit status is 1 if both are more than 5 percent higher.
"""

import argparse
import resource
import socket
import sqlite3
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from nanosq.tracking import journal
from tests.stress.outage import NOT_RECORDED, RUN, Command, Server

LIMIT = 1.05


@contextmanager
def dead(server: Server) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextmanager
def silent(server: Server) -> Iterator[None]:
    server.kill()
    with socket.create_server(("127.0.0.1", int(server.uri.rpartition(":")[2]))):
        yield
    server.start()


@contextmanager
def locked(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None, timeout=60)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


def cpu_seconds() -> float:
    """Return the CPU time of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def train(command: Command, outage: Callable[[], AbstractContextManager[None]] | None = None) -> tuple[float, float]:
    """Train, and return the seconds of training and the CPU seconds of the process."""
    before = cpu_seconds()
    command.start(*RUN)
    command.wait_until(lambda: command.has_checkpoint)
    with nullcontext() if outage is None else outage():
        command.finish(0 if outage is None else NOT_RECORDED)
        used = cpu_seconds() - before
    left = journal.undelivered(command.folder)
    if left:
        return left[0].metrics["train/seconds"], used
    (run,) = command.recorded().values()
    return run.seconds, used


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", metavar="STORE", help="server or database; default: both")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    options = parser.parse_args()
    stores = options.stores or ["server", "database"]
    scratch = Path(tempfile.mkdtemp(prefix="nanosq-outage-time-"))
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    server = Server(scratch / "server") if "server" in stores else None
    for number in range(options.rounds):
        if server is not None:
            for name, outage in (("server", None), ("server dead", dead), ("server silent", silent)):
                command = Command(scratch / f"{name}-{number}", server.uri)
                times[name].append(train(command, outage and partial(outage, server)))
        if "database" in stores:
            for name, is_locked in (("database", False), ("database locked", True)):
                command = Command(scratch / f"{name}-{number}")
                times[name].append(train(command, partial(locked, command.folder / "mlflow.db") if is_locked else None))
        print({name: [f"{wall:.1f}/{cpu:.1f}" for wall, cpu in each] for name, each in times.items()}, flush=True)
    if server is not None:
        server.kill()
    n_slow = 0
    for name, each in times.items():
        usual = times[name.split()[0]]
        medians = [statistics.median(column) for column in zip(*each, strict=True)]
        ratios = [
            value / statistics.median(column) for value, column in zip(medians, zip(*usual, strict=True), strict=True)
        ]
        print(
            f"{name}: training {medians[0]:.1f} s ({ratios[0] - 1:+.1%}), CPU {medians[1]:.1f} s ({ratios[1] - 1:+.1%})"
        )
        n_slow += min(ratios) > LIMIT
    return int(n_slow > 0)


if __name__ == "__main__":
    sys.exit(main())
