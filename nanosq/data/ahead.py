"""Work that threads do ahead of its use."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")
MAX_THREADS = 16  # a single thread that makes the items keeps no more of them busy


def map_ahead(
    function: Callable[[Item], Value], items: Iterable[Item], *, workers: int, ahead: int
) -> Generator[Value]:
    """Yield `function(item)` for each item, in order.

    Args:
        function: Called in `workers` threads.
        items: Iterated in the calling thread.
        workers: Number of threads.
        ahead: Largest number of results that are computed or kept while the caller uses one.
    """
    pending: deque[Future[Value]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        for item in items:
            pending.append(threads.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def map_on_all_cores(function: Callable[[Item], Value], items: Iterable[Item]) -> Generator[Value]:
    """Yield `function(item)` for each item, in order, computed in a thread for each core."""
    from joblib import cpu_count  # knows the CPU limits of containers

    n_threads = min(cpu_count(), MAX_THREADS)
    return map_ahead(function, items, workers=n_threads, ahead=2 * n_threads)
