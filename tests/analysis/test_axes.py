"""The ticks of axes: for every range there are enough of them, where the data lie, and their texts do not overlap."""

import itertools

import numpy as np
import pytest
from matplotlib import pyplot as plt

from analysis import axes, figures

LOWS = [10.0**exponent * factor for exponent in range(-7, 8) for factor in (1, 1.1, 3.3, 5.7, 9.9)]
RATIOS = [1.0001, 1.01, 1.3, 2, 2.9, 3.1, 4, 7, 13, 40, 99, 1e3, 1e5, 1e9, 1e14]


@pytest.mark.parametrize("is_log", [False, True])
def test_every_range_has_at_least_three_ticks_within_it(is_log: bool) -> None:
    for low, ratio in itertools.product(LOWS, RATIOS):
        high = low * ratio
        places = axes.log_ticks([low, high]) if is_log and ratio > axes.NARROW else axes.ticks(low, high)
        assert 3 <= len(places) <= 12, (low, high, places)
        rounding = 1e-8 * (high - low)
        assert low - rounding <= places[0] <= places[-1] <= high + rounding, (low, high, places)
        assert sorted({*places}) == places
        assert len({*axes.tick_texts(places)}) == len(places), (low, high, axes.tick_texts(places))


def test_ticks_lie_where_most_of_the_values_lie() -> None:
    """A few hard stories may not take the ticks away from all others."""
    for high in (10.0, 100.0):
        values = np.append(np.geomspace(1.1, 2, 300), high)
        assert min(axes.log_ticks(values)) <= 1.5
    values = np.append(np.geomspace(1.1, 4, 300), 40)
    assert len([place for place in axes.log_ticks(values) if place < 4]) == 3


@pytest.mark.parametrize(("low", "high"), [(1, 2), (0, 3), (5, 7), (0, 11), (3, 1000)])
def test_ticks_of_counts_are_whole_numbers(low: int, high: int) -> None:
    places = axes.ticks(low, high, is_integer=True)
    assert len(places) >= min(3, high - low + 1)
    assert all(place.is_integer() for place in places)


def test_axes_around_zero_and_without_a_range() -> None:
    assert axes.ticks(-1.0, 1.0) == [-1, -0.5, 0, 0.5, 1]
    assert axes.ticks(3.0, 3.0) == [3]


@pytest.mark.parametrize(
    ("places", "texts"),
    [
        ([0, 500, 1000, 1500], ["0", "500", "1,000", "1,500"]),
        ([0, 5e3, 1e4], ["0", "5k", "10k"]),
        ([5e5, 1e6, 1.5e6], ["500k", "1M", "1.5M"]),
        ([6e-6, 0.0006, 0.06], ["6e-6", "0.0006", "0.06"]),
        ([-0.5, 1e15], ["\N{MINUS SIGN}0.5", "1e15"]),
    ],
)
def test_texts_are_plain_numbers(places: list[float], texts: list[str]) -> None:
    assert axes.tick_texts(places) == texts


@figures.style()
def test_texts_of_a_drawn_axis_do_not_overlap() -> None:
    drawing, (panel,) = figures.panels()
    for (low, ratio), which in itertools.product(itertools.product((0.00031, 0.02, 1.1, 970.0), (2, 30, 1e6)), "xy"):
        values = np.geomspace(low, low * ratio, 20)
        panel.set(xscale="linear", yscale="linear")
        axes.fit_scale(panel, which, values)
        panel.set(xlim=(values[0], values[-1]), ylim=(values[0], values[-1]))
        drawing.draw_without_rendering()
        axis = panel.xaxis if which == "x" else panel.yaxis
        boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes)), (values[0], values[-1], which)
    plt.close(drawing)
