"""Threads of a run on a CPU: their number, and how they wait for each other beside other programs.

PyTorch divides an operation among OpenMP threads, which wait for each other at its end: about 500 times in a step of
the default model. A waiting thread spins: it asks again and again whether the others have finished, because to sleep
and to wake up takes longer than most operations. Beside a program that uses the same cores, spinning is the worst
choice: a thread that spins uses the core that the thread it waits for needs, and two runs at once take fifty times as
long. `Waiting` lets the threads spin while the cores are free, and sleep while they are not. The number of threads does
not change during a run, because the rounding of sums depends on it.
"""

import ctypes
import math
import os
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Self

import joblib
import torch
from threadpoolctl import threadpool_info

INTERVAL = 0.2  # seconds between two looks at the machine
# Seconds in a second for which a thread was ready and had no core: of the thread that has waited longest, because the
# others wait for it. Alone they are 0.02, whether threads spin or sleep.
BUSY, FREE = 0.3, 0.1
SOON = 5.0  # seconds; if the machine is busy again within this time, the next attempt to spin comes later
MIN_SLEEP, MAX_SLEEP = 0.4, 30.0  # seconds for which threads sleep before such an attempt
MAX_EXTRA_THREADS = 64  # more of them may exceed what a container allows
OMP_PAUSE_SOFT = 1  # from omp.h


@cache
def available() -> int:
    """Return the number of threads for a run: OMP_NUM_THREADS, or one for each core that this process may use.

    The affinity of the process and the quota of its container limit the cores.
    """
    n_threads = torch.get_num_threads()
    return n_threads if "OMP_NUM_THREADS" in os.environ else min(n_threads, int(joblib.cpu_count()))


def use(n_threads: int | None) -> int:
    """Let PyTorch use this number of threads, or those that are available. Return the number."""
    most = available()  # before it changes
    torch.set_num_threads(n_threads or most)
    return torch.get_num_threads()


@dataclass
class SleepDecision:
    """The choice between sleeping and spinning, repeated every INTERVAL."""

    asleep: bool = False
    changed: float = -math.inf  # time of the last change
    min_sleep: float = MIN_SLEEP

    def update(self, waited: float, now: float) -> bool:
        """Decide from the seconds without a core in each second since the last look, and return whether to sleep."""
        since = now - self.changed
        if not self.asleep and waited > BUSY:
            self.min_sleep = min(2 * self.min_sleep, MAX_SLEEP) if since < SOON else MIN_SLEEP
            self.asleep, self.changed = True, now
        elif self.asleep and waited < FREE and since >= self.min_sleep:
            self.asleep, self.changed = False, now
        return self.asleep


class Waiting(AbstractContextManager["Waiting"]):
    """Let the OpenMP threads of this process spin while the cores are free, and sleep while other programs use them.

    GCC's runtime for OpenMP, which PyTorch uses on Linux, has no function for this. But its threads sleep if the
    process has more of them than there are cores (GOMP_SPINCOUNT in its manual), so a thread of this class starts as
    many that do nothing, and ends them later. The kernel counts how long a thread was ready and had no core
    (schedstat in proc(5)). On other systems nothing changes.
    """

    def __init__(self) -> None:
        self.decision = SleepDecision()
        libraries = [ctypes.CDLL(pool["filepath"]) for pool in threadpool_info() if pool["prefix"] == "libgomp"]
        self._runtimes = [library for library in libraries if hasattr(library, "omp_pause_resource_all")]
        self._end = Event()
        self._thread = Thread(target=self._watch, name="waiting", daemon=True)

    def __enter__(self) -> Self:
        is_possible = self._runtimes and any(seconds_without_core().values())
        if torch.get_num_threads() > 1 and is_possible and _n_extra_threads() <= MAX_EXTRA_THREADS:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        then, before = time.monotonic(), seconds_without_core()
        while not self._end.wait(INTERVAL):
            now, after = time.monotonic(), seconds_without_core()
            waited = max(seconds - before.get(thread, 0.0) for thread, seconds in after.items()) / (now - then)
            was_asleep, asleep = self.decision.asleep, self.decision.update(waited, now)
            if asleep and not was_asleep:
                self._sleep()
            elif was_asleep and not asleep:
                self._spin()
            then, before = now, after
        self._spin()

    def _sleep(self) -> None:
        """Start more threads than there are cores. They belong to the thread that runs this method."""
        nothing = ctypes.CDLL(None).free  # free(NULL) has no effect
        for runtime in self._runtimes:
            runtime.GOMP_parallel(nothing, None, _n_extra_threads(), 0)

    def _spin(self) -> None:
        """End the threads that `_sleep` has started, if there are any."""
        for runtime in self._runtimes:
            runtime.omp_pause_resource_all(OMP_PAUSE_SOFT)


def _n_extra_threads() -> int:
    """Return how many threads are one more than there are cores, together with those of PyTorch."""
    return max(2, len(os.sched_getaffinity(0)) + 2 - torch.get_num_threads())


def seconds_without_core() -> dict[str, float]:
    """Return the time for which each thread of this process was ready and had no core, if the kernel counts it."""
    seconds: dict[str, float] = {}
    with suppress(FileNotFoundError):  # no /proc here
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # the thread has ended, or the kernel does not count
                seconds[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
    return seconds
