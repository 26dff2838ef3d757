"""How a quantity grows with a size: the exponent, and words for it."""

import math
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.benchmarks.lib.measure import show
from nanosq import terminal

TOLERANCE = 0.1  # of an exponent that counts as 0, 1 or 2
NAMES = {0: "independent of", 1: "linear in", 2: "quadratic in"}


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of log value against log size, by least squares; nan for fewer than two sizes."""
    if len(sizes) < 2:
        return math.nan
    return float(np.polyfit(np.log(np.array(sizes)), np.log(np.array(values)), 1)[0])


def in_words(axis: str, power: float) -> str:
    """Return for example "linear in tokens"."""
    nearest = min(NAMES, key=lambda whole: abs(power - whole))
    if abs(power - nearest) <= TOLERANCE:
        return f"{NAMES[nearest]} {axis}"
    if power < 0:
        return f"falling with {axis}"
    if power < 1:
        return f"less than linear in {axis}"
    return f"more than {'linear' if power < 2 else 'quadratic'} in {axis}"


def slope(axis: str, sizes: Sequence[int], values: Sequence[float]) -> str:
    """Return the growth in words, with the exponent over all sizes and that from the second largest to the largest.

    Where values grow more slowly than sizes, a + b size is fitted, by least squares of relative errors. Values that are
    nan are left out.
    """
    known = [(size, value) for size, value in zip(sizes, values, strict=True) if not math.isnan(value)]
    if len(known) < 3:
        return "too few values"
    sizes, values = zip(*known, strict=True)
    power = exponent(sizes, values)
    text = f"{in_words(axis, power)}: exponent {power:.2f}"
    if abs(power - round(power)) <= TOLERANCE:
        return text
    text += f", {exponent(sizes[-2:], values[-2:]):.2f} from {sizes[-2]:,} to {sizes[-1]:,}"
    if not 0 < power < 1:
        return text
    b, a = np.polyfit(np.array(sizes), np.array(values), 1, w=1 / np.array(values))
    return f"{text}; about {a:.3g} + {b:.3g} x {axis}"


def show_curves(axis: str, sizes: Sequence[int], curves: Mapping[str, Sequence[float]]) -> None:
    """Print a row for each curve with a column for each size, and the growth of each curve in words."""
    rows = {name: [_short(value) for value in values] for name, values in curves.items()}
    columns = [f"{size:,}" for size in sizes]
    show(pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis(axis), {})
    for name, values in curves.items():
        print(terminal.fit(f"{name}: {slope(axis, sizes, values)}", sys.stdout))


def _short(value: float) -> str:
    """Return a positive number with three digits or more, and a dash for nan."""
    if math.isnan(value):
        return "\N{EN DASH}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
