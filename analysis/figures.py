"""Style of the figures, and their files: SVG for the light and the dark page, and SVG and PNG files.

A figure is drawn in the colours of a light page. In the page's SVG each of them is a CSS variable, so that the same
figure is legible on a dark one. Series differ in marker and dash as well as in colour.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

INK, FAINT, PAPER = "#1b1b1f", "#8a8a93", "#fdfdfc"
# Name of the CSS variable: colour on a light page, on a dark one. Series after Okabe and Ito 2008.
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
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.constrained_layout.use": True,
    "image.cmap": "cividis",
    "svg.fonttype": "path",  # the same on every machine, whatever its fonts
}
INCH = 96  # CSS pixels
PANEL = (4.2, 3.0)  # inches: whole on a telephone


@dataclass(frozen=True)
class Figure:
    """A finished figure."""

    name: str  # of its files
    caption: str
    svg: str  # in the colours of a light page
    png: bytes
    width: int  # CSS pixels

    def inline(self) -> str:
        """Return the SVG element for a page that defines the variables of THEME."""
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{self.name}-", svg)  # ids are those of the page now
        for name, (light, _) in THEME.items():
            svg = svg.replace(light, f"var(--{name})")
        return svg

    def save(self, folder: Path) -> None:
        """Write the SVG and the PNG file."""
        (folder / f"{self.name}.svg").write_text(self.svg, encoding="utf-8")
        (folder / f"{self.name}.png").write_bytes(self.png)


def series(number: int) -> dict[str, Any]:
    """Return color, dash and marker of a series as keywords of `Axes.plot`."""
    at = number % len(SERIES)
    return {"color": SERIES[at], "linestyle": DASHES[at], "marker": MARKERS[at]}


@contextmanager
def style() -> Iterator[None]:
    """Set the style of the figures in matplotlib, which needs no display."""
    import matplotlib

    matplotlib.use("agg")
    with matplotlib.rc_context(STYLE):
        yield


def panels(n_columns: int = 1, n_rows: int = 1, *, size: tuple[float, float] = PANEL) -> "tuple[Drawing, list[Axes]]":
    """Return a drawing with panels of this size in inches, row by row. Use it inside of `style()`."""
    from matplotlib import pyplot as plt

    width, height = size
    drawing, axes = plt.subplots(n_rows, n_columns, figsize=(width * n_columns, height * n_rows), squeeze=False)
    return drawing, list(axes.flat)


def finish(drawing: "Drawing", name: str, caption: str) -> Figure:
    """Render a drawing and close it. Use it inside of `style()`."""
    import matplotlib
    from matplotlib import pyplot as plt

    with matplotlib.rc_context({"svg.hashsalt": name}):  # names of parts that no other figure of the page has
        vector, raster = io.StringIO(), io.BytesIO()
        drawing.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
        drawing.savefig(raster, format="png", dpi=150, facecolor=PAPER)
    width = round(drawing.get_figwidth() * INCH)
    plt.close(drawing)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", vector.getvalue(), count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return Figure(name, caption, svg, raster.getvalue(), width)
