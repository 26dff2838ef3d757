"""The tracking store of a sweep: checked once before its runs, and given at its end what it could not receive."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nanosq import config, errors
from nanosq.sweeps.checks import ON_THIS_MACHINE
from nanosq.tracking import Store

logger = logging.getLogger(__name__)


class SweepRecording:
    """The record of a sweep in a tracking store. From now on, trials go on if the store cannot be reached.

    Args:
        cfg: The configuration of a job.

    Raises:
        ValueError: Runs cannot be recorded.
    """

    def __init__(self, cfg: Any) -> None:
        self._store: Store = config.build("tracking", cfg.tracking)
        self._folder = Path(cfg.checkpoint_dir)
        if cfg.hydra.runtime.choices["hydra/launcher"] in ON_THIS_MACHINE:
            self._store.check()

    @contextmanager
    def delivered(self) -> Iterator[bool]:
        """Deliver what the store has not received before a block that ends the sweep. Yield whether it has all now.

        An error of the block comes first: what is not recorded is then only logged.

        Raises:
            NotRecordedError: After the block, if something is not recorded.
        """
        failed = self._deliver()
        error = errors.NotRecordedError(failed) if failed else None
        try:
            yield error is None
        except Exception:
            if error is not None:
                logger.error("%s", error)
            raise
        if error is not None:
            raise error

    def _deliver(self) -> list[str]:
        """Deliver the journals of finished runs. Return the folders of those that the store does not receive.

        The sweep may use runs of others, so that all journals for its store count.
        """
        finished = [journal for journal in self._store.undelivered(self._folder) if journal.status == "FINISHED"]
        if not finished:
            return []
        from nanosq import sync

        return [str(outcome.journal.folder) for outcome in sync.deliver(finished, self._store) if outcome.error]
