"""The memory that a run needs at least, from its configuration, and the memory that there is.

Linux lends memory that it does not have, and ends a program that uses it, without a message. So a run is refused if it
cannot fit. The estimate is a lower bound, so that nothing that fits is refused; the README has the usual amount. Where
the estimate is too low, a limit on the memory of the process makes the allocation fail, which is an error that a
program can report.
"""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from nanosq.errors import InputError

GIB = 2**30

# Lower bounds, in bytes.

# A weight and its gradient in float32. An optimizer adds 0 (SGD) to 8 (Adam).
LEAST_OF_A_PARAMETER = 8

# For each token, layer and element of the width: the inputs of the matrix products, which every backward pass reads, in
# half precision. They are 10 numbers: the normalized ones of attention and MLP, query, key, value, mixture, and four of
# the hidden layer.
LEAST_OF_AN_ACTIVATION = 20
LEAST_OF_A_TOKEN = 32  # in a batch, as int64: its place in the text, itself and, once more, as input and as target

LEAST_OF_A_LAYER = 16 * 2**10  # of Python objects
SMALLEST_VOCABULARY = 257


@dataclass(frozen=True)
class Need:
    """Something that needs memory."""

    n_bytes: float
    advice: str  # what to do about it


def needs(
    *, n_layer: int, n_embd: int, block_size: int, n_windows: int, vocab_size: int | None, available: float
) -> list[Need]:
    """Return what the training of a GPT needs at least.

    Args:
        n_layer: Layers.
        n_embd: Width.
        block_size: Tokens of a window.
        n_windows: Windows of a batch.
        vocab_size: Size of the vocabulary. None: the smallest one.
        available: Bytes of memory, for the advice.
    """
    L, D, T, B = n_layer, n_embd, block_size, n_windows
    blocks = L * (12 * D**2 * LEAST_OF_A_PARAMETER + LEAST_OF_A_LAYER)
    embedding, positions = (n * D * LEAST_OF_A_PARAMETER for n in (vocab_size or SMALLEST_VOCABULARY, T))
    window = T * (L * D * LEAST_OF_AN_ACTIVATION + LEAST_OF_A_TOKEN)
    fitting = int((available - blocks - embedding - positions) // window)
    advice = (
        f"lower train.batch_size to {fitting:,} or less, where a larger train.accumulate keeps the number of tokens in "
        "a step, or lower model.block_size"
        if fitting > 0
        else "lower model.block_size, model.n_embd or model.n_layer"
    )
    return [
        Need(blocks, "lower model.n_embd or model.n_layer"),
        Need(embedding, "lower data.tokenizer.pad_to or model.n_embd"),
        Need(positions, "lower model.block_size or model.n_embd"),
        Need(B * window, advice),
    ]


def check(needs: list[Need], available: float) -> None:
    """Refuse what needs more memory than there is.

    Raises:
        InputError: The message has both amounts, and what to lower: it is about the first need that does not fit
            beside those before it.
    """
    sums = [*accumulate(need.n_bytes for need in needs)]
    for need, n_bytes in zip(needs, sums, strict=True):
        if n_bytes > available:
            amounts = f"{sums[-1] / GIB:,.1f} GiB of memory are needed, and there are {available / GIB:,.1f} GiB"
            raise InputError(f"at least {amounts}: {need.advice}")


def total() -> float:
    """Return the bytes of memory and swap that this process may use; infinite on systems that do not tell."""
    known = [*_limits_of_groups()]
    with suppress(AttributeError, ValueError, OSError):  # Windows
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + _meminfo().get("SwapTotal", 0))
    with suppress(ImportError):
        import resource

        hard = [resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
        known += [limit for limit in hard if limit != resource.RLIM_INFINITY]
    return min(known, default=math.inf)


def free() -> float:
    """Return the bytes of memory that nothing uses, within the limit of a container; infinite where it is unknown."""
    return min([_meminfo().get("MemAvailable", math.inf), *_limits_of_groups()])


def limit_to_free() -> None:
    """Make an allocation on a CPU that is larger than the free memory fail. Systems other than Linux ignore this."""
    status = _kibibytes(Path("/proc/self/status"))
    if "VmData" not in status:
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = int(status["VmData"] + free() + _meminfo().get("SwapFree", 0))
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _meminfo() -> dict[str, int]:
    return _kibibytes(Path("/proc/meminfo"))


def _kibibytes(file: Path) -> dict[str, int]:
    """Return the amounts of a file of Linux's /proc in bytes, by their name; nothing on other systems."""
    found = {}
    with suppress(OSError):
        for line in file.read_text().splitlines():
            name, *value = line.split()
            if value[1:] == ["kB"]:
                found[name.removesuffix(":")] = 1024 * int(value[0])
    return found


def _limits_of_groups() -> Iterator[int]:
    """Yield the memory limits of the control groups of this process, as of a container or a job: cgroups(7)."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            root = Path("/sys/fs/cgroup", controllers)
            name = "memory.limit_in_bytes" if controllers else "memory.max"  # version 1 or 2
            group = root / path.lstrip("/")
            for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(root))):
                with suppress(OSError, ValueError):  # "max": no limit
                    yield int((folder / name).read_text())
