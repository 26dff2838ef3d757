"""How many runs of a sweep are trained at the same time."""

import math
from pathlib import Path
from typing import Any

import joblib
import pytest

from analysis.configuration import compose
from nanosq import signals
from nanosq.errors import InputError
from nanosq.sweeps import parallel
from nanosq.sweeps.parallel import FLOPS_OF_A_THREAD, Machine, MachineShare, RunSize
from tests.commandline import SMALL, command, runs

GIB = 2.0**30
SMALL_SIZE, LARGE_SIZE = RunSize(FLOPS_OF_A_THREAD / 10, GIB), RunSize(FLOPS_OF_A_THREAD * 3, GIB)


@pytest.mark.parametrize(
    ("machine", "sizes", "n_runs", "expected"),
    [
        (Machine(2), [SMALL_SIZE], 27, MachineShare(2, 1)),
        (Machine(8), [SMALL_SIZE], 27, MachineShare(8, 1)),
        (Machine(8), [SMALL_SIZE], 3, MachineShare(3, 2)),
        (Machine(8), [SMALL_SIZE], 1, MachineShare(1, 8)),
        (Machine(1), [SMALL_SIZE], 27, MachineShare(1, 1)),
        (Machine(2), [LARGE_SIZE], 27, MachineShare(1, 2)),
        (Machine(8), [SMALL_SIZE, LARGE_SIZE], 27, MachineShare(2, 4)),  # the largest run needs three threads
        (Machine(8, free_bytes=3.9 * GIB), [SMALL_SIZE], 27, MachineShare(3, 2)),
        (Machine(8, free_bytes=GIB / 2), [SMALL_SIZE], 27, MachineShare(1, 8)),
        (Machine(8), [RunSize(math.inf, math.inf)], 27, MachineShare(1, 8)),
        (Machine(8, n_gpus=4), [LARGE_SIZE], 27, MachineShare(4, 2)),
        (Machine(8, n_gpus=1), [SMALL_SIZE], 27, MachineShare(1, 8)),
    ],
)
def test_runs_share_the_machine(machine: Machine, sizes: list[RunSize], n_runs: int, expected: MachineShare) -> None:
    assert parallel.share(machine, sizes, n_runs) == expected


@pytest.mark.parametrize(("n_threads", "n_jobs"), [(1, 8), (2, 4), (3, 2), (16, 1)])
def test_given_threads_leave_cores_for_fewer_runs(n_threads: int, n_jobs: int) -> None:
    assert parallel.share(Machine(8), [SMALL_SIZE], 27, n_threads=n_threads) == MachineShare(n_jobs, n_threads)


def test_large_runs_need_all_threads() -> None:
    """The grids of the student report, of its own size and of the size of a GPT-2."""
    vocabulary = ["data.tokenizer.vocabulary=full", "data.tokenizer.pad_to=50304"]
    grid = ["optimizer=adamw", "train.batch_size=4", "model.n_layer=16", *vocabulary]
    small, large = (RunSize.of(compose([*grid, *others])) for others in ([], ["model=gpt2"]))
    assert small.flops < FLOPS_OF_A_THREAD
    assert large.flops > 10 * FLOPS_OF_A_THREAD
    assert RunSize.of(compose([])).n_bytes < GIB
    assert RunSize.of(compose(["model.n_embd=256"])).flops < FLOPS_OF_A_THREAD  # the stories have few tokens
    # 4.5 GiB were measured for 124M parameters without dropout
    gpt2 = ["model=gpt2", "train.batch_size=4", "data.tokenizer.vocabulary=full"]
    assert 4 * GIB < RunSize.of(compose(gpt2)).n_bytes < 8 * GIB
    assert RunSize.of(compose(["~model.n_embd"])) == RunSize(math.inf, math.inf)  # a model of the user


@pytest.mark.parametrize(("variable", "n_cores"), [("", 6), ("1", 1), ("4", 4), ("9", 6), ("4,2", 6), ("0", 6)])
def test_the_threads_of_the_user_limit_the_cores(variable: str, n_cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda only_physical_cores: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    machine = Machine.here("cpu")
    assert (machine.n_cores, machine.n_gpus) == (n_cores, 0)
    assert machine.free_bytes > 0


def test_a_device_with_a_name_is_shared() -> None:
    assert Machine.here("cuda:1").n_gpus == 1


def test_an_explicit_number_of_runs_is_kept() -> None:
    arguments: dict[str, Any] = {"n_jobs": 4}
    assert parallel.choose(arguments, [compose([])], 27) == 4
    assert arguments == {"n_jobs": 4, "batch_size": 1}
    assert parallel.choose(arguments, [compose([])], 3) == 3


def test_a_number_without_meaning_is_refused() -> None:
    with pytest.raises(InputError, match="n_jobs=0"):
        parallel.check({"n_jobs": 0})


def test_workers_have_numbers() -> None:
    numbers = joblib.Parallel(n_jobs=2, initializer=signals.Workers().start)([joblib.delayed(signals.worker_number)()])
    assert [type(number) for number in numbers] == [int]
    assert signals.worker_number() is None


@pytest.mark.slow
@pytest.mark.skipif(joblib.cpu_count() < 2, reason="there is a single core")
def test_runs_are_the_same_side_by_side(tmp_path: Path) -> None:
    """Two workers with a thread each, by default, and one run after the other with one thread."""
    values = []
    for n_threads in ("2", "1"):
        folder = tmp_path / n_threads
        folder.mkdir()
        sweep = ["-m", *SMALL, "model.dropout=0.1,0.2", "seed=1,2", "samples.count=0"]
        result = command(*sweep, cwd=folder, check=True, warm=False, OMP_NUM_THREADS=n_threads)
        assert ("2 runs at a time, with 1 thread each" in result.stderr.splitlines()) == (n_threads == "2")
        values.append(
            {
                (run.data.params["model.dropout"], run.data.params["seed"]): {
                    key: value for key, value in run.data.metrics.items() if key.startswith(("val/", "test/"))
                }
                for run in runs(folder)
            }
        )
    assert len(values[0]) == 4
    assert values[0] == values[1]
