"""How many runs of a sweep this machine trains at the same time, and with how many threads each.

A small model does not keep the cores busy: its operations end before all threads have begun. Several runs with a thread
each do. A large model uses all threads well, and several of them would need more memory and gain no time.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Self

from omegaconf import DictConfig, OmegaConf

from nanosq import memory
from nanosq.errors import InputError, first_line

AUTOMATIC = -1  # hydra.launcher.n_jobs

# Operations of a batch above which another thread makes a sweep as much faster as another run. On two cores, two runs
# with a thread each are 1.5 times as fast as one with two threads for the default model (4e9), and 1.1 times for 2e11.
FLOPS_OF_A_THREAD = 1e11

# Settings that decide how much memory a run needs.
SIZES = ("model.n_layer", "model.n_embd", "model.block_size", "train.batch_size")

# The usual amount, the formula in "GPUs and memory" of the README, with dropout. nanosq/memory.py has the lower bound.
USUAL_OF_PROGRAM, USUAL_OF_A_PARAMETER, USUAL_OF_AN_ACTIVATION = 0.4 * 2**30, 16, 125  # bytes
USABLE_MEMORY = 0.8  # fraction of the free memory, because the formula is within 20 % of the truth

VOCABULARY = {"full": 50_257, "used": 10_000}  # tokens; few texts of a small model use more


@dataclass(frozen=True)
class Machine:
    """The cores, GPUs and memory that the runs of a sweep share."""

    n_cores: int
    n_gpus: int = 0
    free_bytes: float = math.inf  # of memory

    @classmethod
    def here(cls, device: str) -> Self:
        """Return the part of this machine that this command may use: affinity, CPU quota and OMP_NUM_THREADS limit it.

        Args:
            device: The device of the runs. One that has a name is shared by all of them, as a single GPU.
        """
        from joblib import cpu_count

        text = os.environ.get("OMP_NUM_THREADS", "")
        n_cores = cpu_count(only_physical_cores=True)
        n_cores = min(n_cores, int(text)) if text.isdecimal() and int(text) > 0 else n_cores
        n_gpus = {"auto": _count_gpus, "cpu": lambda: 0}.get(device, lambda: 1)()
        return cls(n_cores, n_gpus, memory.free())


@dataclass(frozen=True)
class RunSize:
    """The needs of a run; infinite for a model without the settings of GPT-2, or with those of init_from."""

    flops: float  # of a batch, forward and backward pass
    n_bytes: float  # of memory

    @classmethod
    def of(cls, cfg: DictConfig) -> Self:
        """Estimate the size of a run from its configuration, with a usual vocabulary if that depends on the text."""
        sizes = [OmegaConf.select(cfg, name) for name in SIZES]
        if not all(isinstance(size, int) for size in sizes):
            return cls(math.inf, math.inf)
        L, D, T, B = sizes
        known = [OmegaConf.select(cfg, f"data.tokenizer.{name}") for name in ("pad_to", "vocabulary")]
        V = next((size for size in known if isinstance(size, int)), VOCABULARY.get(known[1], VOCABULARY["full"]))
        n_weights = 12 * L * D**2 + V * D
        activations = USUAL_OF_AN_ACTIVATION * L * D * B * T
        return cls(6 * n_weights * B * T, USUAL_OF_PROGRAM + USUAL_OF_A_PARAMETER * (n_weights + T * D) + activations)


@dataclass(frozen=True)
class MachineShare:
    """The runs at the same time, and the threads of each."""

    n_jobs: int
    n_threads: int


def share(machine: Machine, sizes: Iterable[RunSize], n_runs: int, *, n_threads: int | None = None) -> MachineShare:
    """Return how many of `n_runs` runs to train at the same time.

    With GPUs this is one for each. Otherwise it depends on the cores, on the free memory, and on the largest size.

    Args:
        machine: The machine.
        sizes: The sizes of the runs.
        n_runs: The number of runs.
        n_threads: The threads of a run, if they are given.
    """
    sizes = [*sizes]
    if machine.n_gpus:
        n_jobs: float = machine.n_gpus
    else:
        wanted = n_threads or max(size.flops for size in sizes) / FLOPS_OF_A_THREAD
        n_fitting = USABLE_MEMORY * machine.free_bytes / max(size.n_bytes for size in sizes)
        n_jobs = min(machine.n_cores / max(1, wanted), n_fitting)
    n_jobs = max(1, min(n_runs, int(n_jobs)))
    return MachineShare(n_jobs, n_threads or max(1, machine.n_cores // n_jobs))


def check(joblib: dict[str, Any]) -> None:
    """Check the arguments of joblib.Parallel, the node hydra.launcher.

    Raises:
        InputError: A value has no meaning, or is known to fail.
    """
    from joblib import Parallel

    if joblib.get("backend") == "multiprocessing":
        raise InputError("hydra.launcher.backend=multiprocessing hangs when it is interrupted: use the default, loky")
    if joblib["n_jobs"] == 0:
        raise InputError("hydra.launcher.n_jobs=0: give a number of runs, or -1 for as many as make the sweep faster")
    if (n_threads := joblib.get("inner_max_num_threads")) is not None and n_threads < 1:
        raise InputError(f"hydra.launcher.inner_max_num_threads={n_threads}: must be at least 1")
    try:
        Parallel(**{key: value for key, value in joblib.items() if key in ("n_jobs", "backend", "prefer", "require")})
    except ValueError as error:
        raise InputError(f"hydra.launcher: {first_line(error)}") from error


def choose(joblib: dict[str, Any], examples: Iterable[DictConfig], n_runs: int, *, most: int | None = None) -> int:
    """Return how many of `n_runs` runs joblib has at the same time.

    Args:
        joblib: The arguments of joblib.Parallel: the node hydra.launcher. Afterwards it has those that were chosen.
        examples: Configurations of runs. The largest one decides.
        n_runs: The number of runs.
        most: The largest number that is chosen.
    """
    from joblib import effective_n_jobs

    # Otherwise joblib gives many jobs at once to a worker whose jobs end quickly, because their runs are recorded, and
    # other workers have none.
    joblib["batch_size"] = 1
    if joblib["n_jobs"] == AUTOMATIC:
        configurations = [*examples]
        machine = Machine.here(configurations[0].device)
        limit = min(n_runs, most or n_runs)
        chosen = share(machine, map(RunSize.of, configurations), limit, n_threads=joblib.get("inner_max_num_threads"))
        joblib |= {"n_jobs": chosen.n_jobs, "inner_max_num_threads": chosen.n_threads}
    joblib["n_jobs"] = min(n_runs, int(effective_n_jobs(joblib["n_jobs"])))
    return int(joblib["n_jobs"])


def sentence(joblib: dict[str, Any]) -> str:
    """Return how many runs joblib has at the same time, for the user."""
    n_threads = joblib.get("inner_max_num_threads")
    threads = f", with {n_threads} thread{'s' * (n_threads > 1)} each" if n_threads else ""
    return f"{joblib['n_jobs']} runs at a time{threads}"


def _count_gpus() -> int:
    if version("torch").endswith("+cpu"):  # saves a second: often this process does not need PyTorch
        return 0
    import torch

    return torch.cuda.device_count() or int(torch.backends.mps.is_available())
