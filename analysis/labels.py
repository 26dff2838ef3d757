"""The names of lines in a panel: beside their ends, or in a legend below the panel. They never cover data."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.figures import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHARACTERS = 14  # of a line of a name
MAX_NAMES = 8  # beside the ends of lines; more are listed in a legend
LINE_HEIGHT = 1.25 * STYLE["font.size"] / 72  # inches


def legend(axes: "Axes") -> None:
    """Put a legend below a panel."""
    handles, names = axes.get_legend_handles_labels()
    n_columns = max(1, min(len(names), 60 // (10 + max(map(len, names), default=0))))
    axes.figure.legend(handles, names, loc="outside lower left", ncols=n_columns)


def name_ends(axes: "Axes") -> None:
    """Write the label of each line to the right of its last point. Labels that would overlap are moved apart."""
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    points = [np.asarray(line.get_xydata(), dtype=float) for line in lines]
    ends = [finite[-1] for xy in points if len(finite := xy[np.isfinite(xy).all(axis=1)])]
    if len(ends) < len(lines) or len(lines) > MAX_NAMES:
        legend(axes)
        return
    drawing = axes.get_figure(root=True)
    assert drawing is not None
    drawing.draw_without_rendering()  # arranges the panel, so that its height is known
    places = [axes.transAxes.inverted().transform(axes.transData.transform(end))[1] for end in ends]
    texts = [textwrap.fill(str(line.get_label()), CHARACTERS, break_long_words=False) for line in lines]
    heights = [LINE_HEIGHT * drawing.dpi / axes.bbox.height * (text.count("\n") + 1) for text in texts]
    order = sorted(range(len(lines)), key=lambda i: places[i])
    moved = spread([places[i] for i in order], [heights[i] for i in order])
    for i, place in zip(order, moved, strict=True):
        color = lines[i].get_color()
        arrow: Any = {"arrowstyle": "-", "color": color, "linewidth": 0.8, "relpos": (0, 0.5)}
        look: Any = {"color": color, "va": "center", "linespacing": 1, "arrowprops": arrow}
        axes.annotate(texts[i], ends[i], (1.05, place), textcoords="axes fraction", **look)


def spread(places: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Move texts apart that would overlap, and keep them between 0 and 1 if they fit.

    Args:
        places: Where the middles of the texts should be, in ascending order.
        heights: The heights of the texts.
    """
    result = [*places]
    for i in range(len(result)):
        least = result[i - 1] + (heights[i - 1] + heights[i]) / 2 if i else heights[0] / 2
        result[i] = max(result[i], least)
    for i in reversed(range(len(result))):
        last = i == len(result) - 1
        most = 1 - heights[i] / 2 if last else result[i + 1] - (heights[i] + heights[i + 1]) / 2
        result[i] = min(result[i], most)
    return result
