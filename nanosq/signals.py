"""Signals that ask the program to end, delayed until a moment from which the run can be resumed."""

import math
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn, Self

# Ctrl-C; a system that shuts down; a closed terminal; Slurm and submitit before a time limit or a preemption. Each of
# them would end the process. Windows has the first two.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2") if hasattr(signal, name)]
STOP = SIGNALS[-1]  # what a worker process sends to the process that has launched it; never a repeated request

# A program that passes a signal on, such as torchrun, sends it twice where the terminal has sent it to both.
SECONDS_OF_ONE_REQUEST = 1.0

# submitit requeues a job that receives the signal before a time limit. Slurm may send SIGTERM first when it preempts a
# job. It also sends SIGTERM when a user cancels the job, which must not be requeued.
SECONDS_UNTIL_REQUEUED = 5.0

Handlers = dict[int, Any]


class Interrupted(Exception):  # noqa: N818  (as KeyboardInterrupt)
    """A worker process was asked to end: what its job returns to the process that has launched it."""


class Terminated(SystemExit):
    """SIGTERM has ended the program."""


class OutOfTime(BaseException):
    """The time of a sweep is over, and a run of it was interrupted."""


class Interruption:
    """Record the first signal inside the `with` block. A second one, a second later, ends the program at once.

    Args:
        on_request: What to do when the first signal is received.
        deadline: Unix time from which on the program acts as if it had received a signal.
    """

    def __init__(self, on_request: Callable[[], None] = lambda: None, *, deadline: float | None = None) -> None:
        self._on_request = on_request
        self._deadline = math.inf if deadline is None else deadline
        self._number: int | None = None
        self._time = 0.0

    def __enter__(self) -> Self:
        self._handlers = _handle(self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        _restore(self._handlers)

    @property
    def is_requested(self) -> bool:
        """True after a signal was received, in a worker process without parent, and from the deadline on."""
        return self.is_signaled or self.is_late

    @property
    def is_signaled(self) -> bool:
        """True after a signal was received, and in a worker process without parent."""
        return self._number is not None or (_worker is not None and _worker.is_ending)

    @property
    def is_late(self) -> bool:
        """True from the deadline on."""
        return time.time() >= self._deadline

    def end(self) -> NoReturn:
        """End the program as the signal would have without this object: with KeyboardInterrupt, or SystemExit 143.

        For the signal before a time limit, submitit requeues the job before it exits. Where several processes stop
        together, those that received no signal end as if by SIGTERM.

        Raises:
            OutOfTime: There was no signal, and the deadline has passed.
        """
        if self.is_late and not self.is_signaled:
            raise OutOfTime
        number = self._number or signal.SIGTERM
        requeue: Any = self._handlers.get(STOP)
        if _requeues(requeue):
            signal.signal(STOP, requeue)
            if number == STOP:
                requeue(number, None)
        _end(number)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self._number is None:
            self._number, self._time = number, time.monotonic()
            self._on_request()
        elif number == STOP and _requeues(self._handlers[STOP]):
            self._number = number
        elif number != STOP and time.monotonic() - self._time > SECONDS_OF_ONE_REQUEST:
            self._number = number
            self.end()


@dataclass
class Workers:
    """The worker processes of a joblib launcher. A process that starts receives a copy of this object.

    joblib kills all its workers, also those that write a checkpoint, when it is interrupted or when one of them exits.
    Therefore the launching process passes a signal on and waits, and a worker that is asked to end ends no more than
    its jobs.
    """

    parent: int = field(default_factory=os.getpid)
    is_stopped: bool = False

    @property
    def is_ending(self) -> bool:
        """In a worker: whether it was asked to end, or has lost its parent."""
        return self.is_stopped or os.getppid() != self.parent

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Launch jobs inside the block. A signal ends them, and then this process."""
        with Interruption(self._stop) as interruption:
            try:
                yield
            finally:
                if interruption.is_requested:
                    interruption.end()

    def _stop(self) -> None:
        self.is_stopped = True  # for workers that start later
        for worker in multiprocessing.active_children():
            if worker.pid is not None:
                os.kill(worker.pid, STOP)

    def start(self) -> None:
        """In a worker: make signals stop it between its jobs. joblib calls this method when the process starts."""
        global _worker
        _worker = self
        _handle(lambda *_: None)

    def receive(self, number: int) -> None:
        """In a worker: run no further job, and make the launching process stop the other workers."""
        if number != STOP and not self.is_ending:
            os.kill(self.parent, STOP)
        self.is_stopped = True


_worker: Workers | None = None  # in a worker process


def worker_number() -> int | None:
    """Return the number of this worker process among the children of its parent, or None in other processes."""
    number = re.search(r"\d+$", multiprocessing.current_process().name)  # the default name ends with it
    return int(number[0]) - 1 if _worker is not None and number else None


def end_by_exception() -> Handlers:
    """Make a signal raise KeyboardInterrupt or SystemExit, so that files are closed. Return the handlers before.

    A handler of submitit, which requeues a job before its time limit, stays.
    """
    handlers = _handle(_end)
    if _requeues(requeue := handlers.get(STOP)):
        signal.signal(STOP, requeue)
    return handlers


@contextmanager
def job() -> Iterator[None]:
    """Let a signal end a job inside the block, at once where no `Interruption` delays it.

    Raises:
        Interrupted: This is a worker process, and it was asked to end, or nobody reads its output.
    """
    handlers = end_by_exception()
    try:
        if _worker is not None and _worker.is_ending:
            raise Interrupted("not started: the sweep was interrupted")
        yield
    except (KeyboardInterrupt, SystemExit):
        if _worker is None:
            raise
        raise Interrupted("interrupted") from None
    except BrokenPipeError:
        if _worker is None:
            raise
        _worker.receive(signal.SIGTERM)
        raise Interrupted("nobody reads the output") from None
    finally:
        _restore(handlers)


def _end(number: int, _: FrameType | None = None) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if _requeues(signal.getsignal(STOP)):
        time.sleep(SECONDS_UNTIL_REQUEUED)  # the handler ends the program
    raise Terminated(128 + signal.SIGTERM)


def _requeues(handler: Any) -> bool:
    """Return whether a handler belongs to another program: to submitit."""
    return callable(handler) and handler.__module__ != __name__


def _handle(handler: Callable[[int, FrameType | None], None]) -> Handlers:
    """Set the handler of all signals that are not ignored, as by nohup. Return the handlers before."""

    def receive(number: int, frame: FrameType | None) -> None:
        if _worker is not None:
            _worker.receive(number)
        handler(number, frame)

    if threading.current_thread() is not threading.main_thread():  # where Python lets nobody set a handler
        return {}
    before = {number: signal.getsignal(number) for number in SIGNALS}
    return {number: signal.signal(number, receive) for number, old in before.items() if old != signal.SIG_IGN}


def _restore(handlers: Handlers) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
