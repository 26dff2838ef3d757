"""The tracking store of a sweep: checked once before its runs, and given at its end what it could not receive."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from nanosq import config, errors
from nanosq.sweeps.checks import ON_THIS_MACHINE
from nanosq.tracking import Store


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

    def end(self) -> None:
        """Deliver what the store has not received from this sweep and earlier ones.

        A run that another process is about to end is left to that process.

        Raises:
            NotRecordedError: It cannot be reached.
        """
        from nanosq import checkpoint, sync
        from nanosq.tracking import journal

        left = [str(each.folder) for each in journal.left(self._folder) if each.status == "FINISHED"]
        while left:
            try:
                with suppress(checkpoint.HeldError):
                    sync.deliver(Path(left[0]), self._store)
            except ValueError as error:  # the runs have said why
                raise errors.NotRecordedError(left) from error
            left.pop(0)
