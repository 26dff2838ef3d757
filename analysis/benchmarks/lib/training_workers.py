"""Processes that each train one contender, a step whenever they are told to.

Each has its own memory, and they can take turns. Between turns a process waits for its pipe; the threads of OpenMP
spin for some milliseconds after a product and sleep then.
"""

import contextlib
import gc
import time
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from analysis.benchmarks.lib.memory import is_out_of_memory, limit_memory, memory_meter, synchronize
from analysis.benchmarks.lib.nanogpt import Checkout
from analysis.benchmarks.lib.training_steps import SHAPES, Contender, Shape, batches, build_step


class Measured(NamedTuple):
    seconds: float  # of the step
    peak_bytes: int  # so far, beyond what the process had before the model was built


class Worker:
    """`with Worker(...) as worker: worker.step()`; MemoryError where the machine cannot hold the contender."""

    def __init__(self, contender: Contender, shape: Shape, folder: Path) -> None:
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, contender, shape, folder))
        self._process.start()
        other.close()
        self._name = str(contender)

    def step(self) -> Measured:
        try:
            self._pipe.send(None)
            answer = self._pipe.recv()
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(f"the process that trains {self._name} has ended") from error
        if answer is None:
            raise MemoryError(self._name)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()  # which ends it
        self._process.join()


def _serve(pipe: Connection, contender: Contender, shape: Shape, folder: Path) -> None:
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        checkout, device = Checkout(folder), contender.hardware.device
        if device.type == "cpu":
            limit_memory()
        # Loads libraries. Compiled it would be one version more of what is compiled for the shape.
        plain = contender._replace(hardware=replace(contender.hardware, compile=False, compile_loss=False))
        small = replace(SHAPES["tiny"], batch_size=1, block_size=32)
        build_step(plain, small, checkout)(*batches(small, 1, device=device)[0])
        gc.collect()
        peak = memory_meter(device)
        try:
            step = build_step(contender, shape, checkout)
            (batch,) = batches(shape, 1, device=device)
            while True:
                pipe.recv()
                begin = time.perf_counter()
                step(*batch)
                synchronize(device)
                pipe.send(Measured(time.perf_counter() - begin, peak()))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            pipe.send(None)
