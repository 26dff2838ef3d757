"""Training programs in processes of their own, which take turns: time and memory of a step of each."""

import gc
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from analysis.benchmarks.lib.measure import median_seconds, seconds, synchronize
from analysis.benchmarks.lib.memory import limit_memory, memory_meter
from analysis.benchmarks.lib.shapes import SHAPES, Shape, batches
from analysis.benchmarks.lib.training_steps import MeasuredTrainer, build_step
from nanosq.errors import is_out_of_memory

K = TypeVar("K", bound=Hashable)

# A turn takes as many steps as fit, at least one: threads of the contender before are still awake in the first
# milliseconds, and a GPU is fast only while further steps are waiting for it.
TURN_SECONDS = 0.5


class Measured(NamedTuple):
    """The time of one step, and the peak memory so far beyond what the process had before the model was built."""

    seconds: float
    peak_bytes: float


class Worker:
    """A process that trains one contender and takes a turn when it is asked to; RuntimeError if memory is too small."""

    def __init__(self, contender: MeasuredTrainer, shape: Shape, nanogpt: Path | None = None) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        self._arguments = contender, shape, nanogpt

    def turn(self) -> Measured:
        """Take the steps of a turn; the first one builds the model."""
        self._prepared.result()
        return self._pool.submit(_measure_turn, *self._arguments).result()

    def __enter__(self) -> Self:
        """Start the process, without waiting until it has loaded its libraries."""
        contender, _, nanogpt = self._arguments
        self._prepared = self._pool.submit(_load_libraries, contender, nanogpt)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def measure(workers: Mapping[K, Worker], rounds: int) -> dict[K, Measured]:
    """Measure programs that take turns: the median time and the peak memory. Leave out those that need too much memory.

    The first turn touches new memory and compiles, and is not timed.
    """
    peaks: dict[K, float] = {}

    def timer(name: K, worker: Worker) -> Callable[[], float]:
        def turn() -> float:
            seconds, peaks[name] = worker.turn()
            return seconds

        return turn

    with ExitStack() as stack:
        turns = {name: timer(name, stack.enter_context(worker)) for name, worker in workers.items()}
        timers = {}
        for name, turn in turns.items():
            try:
                turn()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                print(f"{name}: does not fit into the memory of this machine", flush=True)
            else:
                timers[name] = turn
        times = median_seconds(timers, rounds, warmup=0)
    return {name: Measured(time, peaks[name]) for name, time in times.items()}


_built: list[Callable[[], Measured]] = []  # in a worker's process: its turn, once the model is built


def _measure_turn(contender: MeasuredTrainer, shape: Shape, nanogpt: Path | None) -> Measured:
    if not _built:
        _built.append(_build(contender, shape, nanogpt))
    return _built[0]()


def _load_libraries(contender: MeasuredTrainer, nanogpt: Path | None) -> None:
    """Take a step of a small model. It is not compiled: that would be one more version for another shape."""
    plain = contender._replace(hardware=replace(contender.hardware, compile=False, compile_loss=False))
    small = replace(SHAPES["tiny"], batch_size=1, block_size=32)
    build_step(plain, small, nanogpt)(*batches(small, 1, device=contender.hardware.device)[0])


def _build(contender: MeasuredTrainer, shape: Shape, nanogpt: Path | None) -> Callable[[], Measured]:
    device = contender.hardware.device
    if device.type == "cpu":
        limit_memory()
    gc.collect()
    peak = memory_meter(device)
    step = build_step(contender, shape, nanogpt)
    (batch,) = batches(shape, 1, device=device)
    n_steps = 1

    def run() -> None:
        for _ in range(n_steps):
            step(*batch)
        synchronize(device)

    def turn() -> Measured:
        nonlocal n_steps
        time = seconds(run) / n_steps
        n_steps = max(1, int(TURN_SECONDS / time))
        return Measured(time, peak())

    return turn
