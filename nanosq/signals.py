"""Ctrl-C and SIGTERM, delayed until a moment from which the run can be resumed."""

import signal
import sys
import threading
from types import FrameType
from typing import NoReturn, Self


class Interruption:
    """Record the first signal inside the `with` block. A second signal ends the program at once."""

    def __init__(self) -> None:
        self._number: int | None = None

    def __enter__(self) -> Self:
        # Python delivers signals to the main thread and lets no other thread set a handler.
        is_main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
        self._handlers = {number: signal.signal(number, self._receive) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @property
    def is_requested(self) -> bool:
        """True after a signal was received."""
        return self._number is not None

    def end(self) -> NoReturn:
        """End the program as the signal would have: KeyboardInterrupt, or SystemExit with status 143.

        Where several processes stop together, those that received no signal end as if by SIGTERM.
        """
        if self._number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + signal.SIGTERM)

    def _receive(self, number: int, _: FrameType | None) -> None:
        is_second = self.is_requested
        self._number = number
        if is_second:
            self.end()
