"""The tracking store of a sweep: checked once before its runs, and given at its end what it could not receive."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nanosq import config
from nanosq.tracking import Store


def checked_store(cfg: Any) -> Store:
    """Return the tracking store of a configuration.

    Raises:
        ValueError: It cannot be used.
    """
    store: Store = config.build("tracking", cfg.tracking)
    store.check()
    return store


def deliver(store: Store | None, journals: Sequence[str]) -> list[str]:
    """Deliver journals that runs have left. Return those that are left then: all, if the store is not known."""
    if store is None or not journals:
        return [*journals]
    from nanosq import sync

    left = [*journals]
    try:
        while left:
            sync.deliver(Path(left[0]), store)
            left.pop(0)
    except ValueError:  # the runs have said why
        pass
    return left
