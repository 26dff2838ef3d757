"""Ctrl-C and SIGTERM, held back until a moment at which a run can be left and taken up again."""

import signal
import sys
import threading
from types import FrameType
from typing import NoReturn, Self


class Interruption:
    """While it is entered, a first signal is only `received`; a second one ends the program where it stands."""

    def __init__(self) -> None:
        self._number: int | None = None

    def __enter__(self) -> Self:
        # Python delivers signals to the main thread, and lets no other set a handler.
        held = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        self._handlers = {number: signal.signal(number, self._receive) for number in held}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @property
    def received(self) -> bool:
        return self._number is not None

    def end(self) -> NoReturn:
        """What the signal would have done: KeyboardInterrupt, or SystemExit with the status a shell reports, 143.

        Of several processes that stop together, those that it has not reached end as if by SIGTERM.
        """
        if self._number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + signal.SIGTERM)

    def _receive(self, number: int, _: FrameType | None) -> None:
        second = self.received
        self._number = number
        if second:
            self.end()
