"""Work that threads do ahead of its use."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


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
