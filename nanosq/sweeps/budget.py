"""The budget of a sweep: its time, and what fits into it."""

import math
from typing import Any

from nanosq.errors import InputError


def parse_seconds(timeout: Any) -> float | None:
    """Return a time in seconds: a number of seconds, or a text as "90s", "10m" or "1h30m". None stays None.

    Raises:
        InputError: It is neither, or not positive.
    """
    if timeout is None:
        return None
    import pandas as pd

    try:
        seconds = float(timeout) if isinstance(timeout, int | float) else pd.Timedelta(timeout).total_seconds()
    except ValueError:
        seconds = math.nan
    if isinstance(timeout, bool) or not 0 < seconds < math.inf:
        raise InputError(f"hydra.sweeper.timeout={timeout}: give a time such as 90s, 10m or 1h30m")
    return seconds
