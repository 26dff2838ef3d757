"""Style of the figures, and their files: SVG for the light and the dark page, and SVG and PNG files.

A figure is drawn in the colors of a light page. The SVG of the page replaces every color by a CSS variable, so that
the figure is also legible on a dark page. Series differ in marker and dash as well as in color.

The page shows the panels of a figure one by one: side by side, or below each other on a narrow screen. A panel is never
wider than PANEL, so that its text has a size of at least 9 points on a screen of 400 pixels. The files show all panels.
"""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

INK, FAINT, PAPER = "#1b1b1f", "#8a8a93", "#fdfdfc"
# CSS variable: color on a light page, color on a dark page. Series after Okabe and Ito 2008.
THEME = {
    "ink": (INK, "#e6e6ea"),
    "faint": (FAINT, "#85858f"),
    "paper": (PAPER, "#17171b"),
    "series-1": ("#0072b2", "#4fb0e8"),
    "series-2": ("#d55e00", "#ff8f45"),
    "series-3": ("#00825f", "#35cfa2"),
    "series-4": ("#b0568a", "#e79fca"),
    "series-5": ("#a97400", "#f2bd45"),
    "series-6": ("#5b5bd6", "#a9a9ff"),
}
SERIES = [light for name, (light, _) in THEME.items() if name.startswith("series")]
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (7, 2, 1, 2)), (0, (3, 1.5)), (0, (9, 3)))
STYLE: Any = {
    **dict.fromkeys(("axes.labelcolor", "axes.titlecolor", "text.color", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), FAINT),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow", "figure.constrained_layout.use"), True),
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize", "figure.labelsize"), 10),
    **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 10),
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.alpha": 0.25,
    "legend.handlelength": 3,  # a dashed line has more than one dash
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "svg.fonttype": "path",  # the same on every machine, whatever its fonts
}
INCH = 96  # CSS pixels
PANEL = (4.3, 3.2)  # inches; the width is the greatest that a panel may have
N_COLUMNS = 3  # of panels in a file


@dataclass(frozen=True)
class Figure:
    """A finished figure, which is also written as files of the same name."""

    name: str
    caption: str
    svg: str  # of all panels, in the colors of a light page
    png: bytes
    panels: Sequence[tuple[str, int]]  # SVG and width in CSS pixels

    def inline(self) -> list[tuple[str, int]]:
        """Return the SVG elements of the panels, with their widths, for a page that defines the variables of THEME."""
        return [(_inline(svg, f"{self.name}-{i}"), width) for i, (svg, width) in enumerate(self.panels)]

    def save(self, folder: Path) -> list[Path]:
        """Write the PNG and the SVG file and return their paths."""
        paths = [folder / f"{self.name}.{ending}" for ending in ("png", "svg")]
        paths[0].write_bytes(self.png)
        paths[1].write_text(self.svg, encoding="utf-8")
        return paths


def series(number: int) -> dict[str, Any]:
    """Return color, dash and marker of a series as keywords of `Axes.plot`."""
    turn, i = divmod(number, len(SERIES))
    return {"color": SERIES[i], "linestyle": DASHES[(i + turn) % len(DASHES)], "marker": MARKERS[i]}


@contextmanager
def style() -> Iterator[None]:
    """Set the style of the figures in matplotlib, without a display. Functions that draw have it as a decorator."""
    import matplotlib

    matplotlib.use("agg")
    with matplotlib.rc_context(STYLE):
        yield


def sheet(n: int, *, size: tuple[float, float] = PANEL) -> "Drawing":
    """Return a drawing with n empty subfigures of this size in inches, row by row. Use it inside of `style()`."""
    from matplotlib import pyplot as plt

    width, height = size
    assert width <= PANEL[0], f"a panel of {width} inches is too wide for a narrow screen"
    n_columns = min(n, N_COLUMNS)
    n_rows = math.ceil(n / n_columns)
    drawing = plt.figure(figsize=(width * n_columns, height * n_rows))
    grid = drawing.add_gridspec(n_rows, n_columns, wspace=0, hspace=0)
    for i in range(n):
        drawing.add_subfigure(grid[i])
    return drawing


def panels(n: int = 1, *, size: tuple[float, float] = PANEL) -> "tuple[Drawing, list[Axes]]":
    """Return a drawing with n panels of this size in inches, row by row. Use it inside of `style()`."""
    drawing = sheet(n, size=size)
    return drawing, [part.subplots() for part in drawing.subfigs]


def finish(drawing: "Drawing", name: str, caption: str) -> Figure:
    """Render a drawing and close it. Use it inside of `style()`."""
    import matplotlib
    from matplotlib import pyplot as plt

    drawing.draw_without_rendering()  # arranges the panels, which then stay where they are
    drawing.set_layout_engine("none")
    parts = drawing.subfigs
    with matplotlib.rc_context({"svg.hashsalt": name}):  # ids that no other figure of the page has
        raster = io.BytesIO()
        drawing.savefig(raster, format="png", dpi=150, facecolor=PAPER)
        whole = _svg(drawing)
        panels = []
        for part in parts:
            for other in parts:
                other.set_visible(other is part)
            area = part.bbox.transformed(drawing.dpi_scale_trans.inverted())
            panels.append((_svg(drawing, bbox_inches=area), round(area.width * INCH)))
    plt.close(drawing)
    return Figure(name, caption, whole, raster.getvalue(), panels)


def _svg(drawing: "Drawing", **options: Any) -> str:
    """Return a drawing, or an area of it, as SVG that fills the width of what holds it."""
    vector = io.StringIO()
    drawing.savefig(vector, format="svg", metadata={"Date": None, "Creator": None}, **options)
    return re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", vector.getvalue(), count=1)


def _inline(svg: str, prefix: str) -> str:
    """Return the element of an SVG file, with CSS variables for its colors and ids that are unique in the page."""
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{prefix}-", svg[svg.index("<svg") :])
    for name, (light, _) in THEME.items():
        svg = svg.replace(light, f"var(--{name})")
    return svg
