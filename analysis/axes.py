"""The scales and ticks of axes: ticks lie where the data lie, and their texts are plain numbers."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
Side = Literal["x", "y"]
SIDES: tuple[Side, Side] = ("x", "y")

WIDE = 5.0  # an axis is logarithmic if the highest value is more than this many times the lowest
NARROW = 3.0  # up to this ratio, a logarithmic axis has evenly spaced ticks
EQUAL = 1e-8  # values whose relative difference is smaller need one tick only
MIN_TICKS = 4
BULK = (0.05, 0.95)  # quantiles of the values between which ticks are wanted
ROUND = ((1,), (2, 5), (3,), (1.5, 7), (1.2, 2.5, 4, 6, 8))  # factors of powers of ten, the roundest numbers first
# Room between ticks, as shares of an axis: on a vertical one, and on a horizontal one without and for a character.
LINE, GAP, CHARACTER = 0.08, 0.03, 0.032


def is_wide(values: Sequence[float] | Array) -> bool:
    """Return whether a logarithmic scale is needed to tell the lower ones of some values apart."""
    return len(values) > 0 and min(values) > 0 and max(values) > WIDE * min(values)


def fit_scale(
    axes: "Axes",
    which: Side,
    values: Sequence[float] | Array,
    *,
    is_log: bool | None = None,
    is_integer: bool = False,
    least: int = MIN_TICKS,
) -> None:
    """Choose the scale of an axis and its ticks, which lie where the values lie.

    Args:
        axes: The axes.
        which: The axis.
        values: All that the axis shows. A logarithmic axis ignores values that are not positive.
        is_log: True for a logarithmic axis; by default, it is one if the values span a wide range.
        is_integer: True for ticks at whole numbers only.
        least: Number of ticks; a long axis may have more.
    """
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    shown = np.asarray(values, dtype=float)
    is_log = is_wide(shown) if is_log is None else is_log
    shown = shown[np.isfinite(shown) & ((shown > 0) | (not is_log))]
    if not len(shown):
        return
    if is_log:
        axes.set(**{f"{which}scale": "log"})
    if is_log and max(shown) > NARROW * min(shown):
        places = log_ticks(shown, is_vertical=which == "y", least=least)
    else:
        places = ticks(min(shown), max(shown), is_integer=is_integer, least=least)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FixedFormatter(tick_texts(places)))
    axis.set_minor_locator(NullLocator())


def ticks(low: float, high: float, *, is_integer: bool = False, least: int = MIN_TICKS) -> list[float]:
    """Return the places of evenly spaced ticks between two values: at least `least`, if the values differ."""
    if high - low <= EQUAL * max(abs(low), abs(high)):
        return [low]
    exponent = math.ceil(math.log10(high - low))
    steps = [factor * 10.0**power for power in (exponent, exponent - 1) for factor in (1, 0.5, 0.25, 0.2)]
    if is_integer:
        steps = [step for step in steps if step.is_integer()] or [1.0]
    places = [_multiples(step, low, high) for step in steps]
    return next((multiples for multiples in places if len(multiples) >= least), places[-1])


def log_ticks(values: Sequence[float] | Array, *, is_vertical: bool = False, least: int = MIN_TICKS) -> list[float]:
    """Return the places of ticks of a logarithmic axis.

    The roundest numbers come first, and less round ones follow where there is room, until there are `least` ticks and
    almost as many of them where most of the values lie.
    """
    low, high = float(min(values)), float(max(values))
    first, last = np.quantile(values, BULK)
    widths: dict[float, int] = {}  # characters of the ticks
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ROUND:
        for place in (float(f"{factor}e{decade}") for decade in decades for factor in factors):
            if low <= place <= high:
                width = len(tick_texts([place])[0])
                room = {
                    other: LINE if is_vertical else GAP + CHARACTER * (width + widths[other]) / 2 for other in widths
                }
                if all(abs(math.log(place / other)) > room[other] * math.log(high / low) for other in widths):
                    widths[place] = width
        if len(widths) >= least and sum(first <= place <= last for place in widths) >= least - 1:
            break
    return sorted(widths)


def tick_texts(places: Sequence[float]) -> list[str]:
    """Return the texts of ticks: plain numbers, with k, M or B where they are large."""
    least = {"B": 1e9, "M": 1e6, "k": 1e3 if max(map(abs, places), default=0) >= 1e4 else 1e4}
    unit = {"B": 1e9, "M": 1e6, "k": 1e3, "": 1.0}

    def text(value: float) -> str:
        suffix = next((name for name, limit in least.items() if limit <= abs(value) < 1e12), "")
        number = f"{value / unit[suffix]:,.10g}"
        return re.sub(r"^-", "\N{MINUS SIGN}", re.sub(r"e\+?(-?)0*", r"e\1", number)) + suffix

    return [text(place) for place in places]


def _multiples(step: float, low: float, high: float) -> list[float]:
    """Return the multiples of a step that lie between two values."""
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def span(values: Sequence[float]) -> str:
    """Return the lowest and the highest of some whole numbers as text; a single number if they are equal."""
    low, high = min(values), max(values)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
