"""Threads of a run: their number, and how they wait for each other beside other programs."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosq.threads import BUSY, FREE, MAX_SLEEP, MIN_SLEEP, SOON, SleepDecision, seconds_without_core
from tests.commandline import environment

SCRIPT = """
import os, time, torch
from nanosq.threads import Waiting, seconds_without_core, use
assert use(2) == 2
def n_threads(): return len(os.listdir("/proc/self/task"))
x = torch.ones(2**20)
with Waiting() as waiting:
    x.mul_(1.0)
    before, end = n_threads(), time.monotonic() + 60
    while not waiting.decision.asleep and time.monotonic() < end:
        x.mul_(1.0)
    time.sleep(0.1)
    print("asleep", waiting.decision.asleep, "more threads", n_threads() > before)
print("sum", float(x.sum()), "threads as before", n_threads() < before)
"""


def test_threads_sleep_beside_busy_programs() -> None:
    """There are then more of them than cores, as the OpenMP runtime wants it, and afterwards none is left."""
    if not any(seconds_without_core().values()):
        pytest.skip("the kernel does not count how long threads wait for a core")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        run = [sys.executable, "-c", SCRIPT]
        env = environment() | {"OMP_NUM_THREADS": "2"}
        output = subprocess.run(run, env=env, capture_output=True, text=True, check=True, timeout=120).stdout
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert output.splitlines() == ["asleep True more threads True", f"sum {2.0**20} threads as before True"]


def test_threads_spin_while_the_cores_are_free() -> None:
    decision = SleepDecision()
    assert not any(decision.update(0.02, now=float(now)) for now in range(100))
    assert decision.update(0.9, now=100.0)
    assert decision.update(0.02, now=100.1), "it has just changed"
    assert decision.update(0.17, now=200.0), "neither free nor busy"
    assert not decision.update(0.02, now=201.0)
    assert not decision.update(0.17, now=202.0)


def test_attempts_to_spin_become_rare_beside_a_program_that_pauses() -> None:
    decision, now, slept = SleepDecision(), 0.0, []
    for _ in range(12):
        assert decision.update(2 * BUSY, now)
        begin = now
        while decision.update(FREE / 2, now):
            now += 0.01
        slept.append(now - begin)
        now += SOON / 2
    assert slept[0] == pytest.approx(MIN_SLEEP, abs=0.02)
    assert slept[1] == pytest.approx(2 * MIN_SLEEP, abs=0.02)
    assert slept[-1] == pytest.approx(MAX_SLEEP, abs=0.02)
    assert decision.update(2 * BUSY, now + 2 * SOON)
    assert decision.min_sleep == MIN_SLEEP, "the machine was free for a while"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_the_number_of_threads_of_a_run() -> None:
    """It is bounded by the cores that the process may use, unless the user sets it."""
    script = "from nanosq import threads; print(threads.use(3), threads.use(None))"
    env = environment()
    del env["OMP_NUM_THREADS"]
    run = [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}}); {script}"]
    for variables, expected in (({}, "3 1"), ({"OMP_NUM_THREADS": "2"}, "3 2")):
        output = subprocess.run(run, env=env | variables, capture_output=True, text=True, check=True).stdout
        assert output.split() == expected.split()


@given(st.lists(st.tuples(st.floats(-1, 10), st.floats(0.001, 100)), max_size=50))
def test_the_decision_changes_only_where_it_has_a_reason(looks: list[tuple[float, float]]) -> None:
    decision, now = SleepDecision(), 0.0
    for share, seconds in looks:
        now += seconds
        before = decision.asleep
        after = decision.update(share, now)
        assert after if share > BUSY else True
        assert before == after or (share > BUSY if after else share < FREE)
        assert MIN_SLEEP <= decision.min_sleep <= MAX_SLEEP
