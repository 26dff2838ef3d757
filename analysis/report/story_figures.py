"""Figures of the perplexity of each story: for each loss, and differences between two."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.figures import INK, PANEL, Figure, finish, panels, series, style
from analysis.report.stories import file_name

if TYPE_CHECKING:
    from matplotlib.axis import Axis

BINS = 40
HIGHEST = 300.0  # nats a token that an axis has room for
DRAWN = 800  # stories as points of a scatter; more make the page heavy and nothing clearer
ROW = 0.62  # inches of a loss


def distributions(nats: Mapping[str, NDArray[np.float64]], order: Sequence[str]) -> Figure:
    """Return histograms of the perplexity of each story, with a row for each label.

    nats: (n_stories,) a token of each label. order: of the labels among the series of the page.
    """
    perplexity = [np.exp(np.minimum(each, HIGHEST)) for each in nats.values()]
    low, high = (float(bound(np.concatenate(perplexity))) for bound in (np.min, np.max))
    edges = np.geomspace(low, max(high, low * 1.01), BINS + 1)
    with style():
        width = PANEL[0] * 1.5
        drawing, (axes,) = panels(size=(width, 0.9 + ROW * len(nats)))
        for row, (label, values) in enumerate(zip(nats, perplexity, strict=True)):
            counts, _ = np.histogram(values, edges)
            colour = series(order.index(label))["color"]
            axes.stairs(-row + 0.85 * counts / counts.max(), edges, baseline=-row, fill=True, color=colour, alpha=0.45)
            axes.stairs(-row + 0.85 * counts / counts.max(), edges, baseline=-row, color=colour, linewidth=1)
            axes.plot([np.median(values)] * 2, [-row, -row + 0.9], color=INK, linewidth=1.4)
        axes.set(xscale="log", xlabel="perplexity of a test story", ylim=(-len(nats) + 0.9, 1.05))
        axes.set_yticks([-row for row in range(len(nats))], list(nats))
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        _plain_ticks(axes.xaxis)
        caption = "Perplexity of each test story, mean over seeds of its nats a token; the line is the median."
        return finish(drawing, "stories-perplexity", caption)


def differences(
    labels: tuple[str, str], nats: tuple[NDArray[np.float64], NDArray[np.float64]], number: int = 1
) -> Figure:
    """Return a figure of two losses on the same stories: perplexities, and sorted differences in nats per token.

    nats: (n_stories,) a token of each. number: of the second among the series of the page.
    """
    (a, b), (nats_a, nats_b) = labels, nats
    difference = np.sort(nats_b - nats_a)
    n = len(difference)
    share_b, share_a = float((difference < 0).mean()), float((difference > 0).mean())
    with style():
        drawing, (scatter, sorted_axes) = panels(2)
        drawn = np.linspace(0, n - 1, min(n, DRAWN)).astype(int)
        x, y = (np.exp(np.minimum(each, HIGHEST))[drawn] for each in (nats_a, nats_b))
        bounds = float(min(x.min(), y.min())) * 0.97, float(max(x.max(), y.max())) * 1.03
        scatter.plot(bounds, bounds, color=INK, linewidth=1)
        scatter.plot(x, y, "o", color=series(number)["color"], markersize=3, alpha=0.5, markeredgewidth=0)
        scatter.set(xscale="log", yscale="log", xlim=bounds, ylim=bounds)
        scatter.set(xlabel=f"perplexity, {a}", ylabel=f"perplexity, {b}", title="Each test story; line: equal")
        for axis in (scatter.xaxis, scatter.yaxis):
            _plain_ticks(axis)

        shares = (np.arange(n) + 0.5) / n * 100
        kept = np.unique(np.linspace(0, n - 1, min(n, DRAWN)).astype(int))
        sorted_axes.fill_between(
            shares[kept], difference[kept], 0, color=series(number)["color"], alpha=0.25, linewidth=0
        )
        sorted_axes.plot(shares[kept], difference[kept], color=series(number)["color"])
        sorted_axes.axhline(0, color=INK, linewidth=1)
        told = (f"{label} better: {100 * share:.1f} % of stories" for label, share in ((a, share_a), (b, share_b)))
        bottom, top = min(float(difference[0]), 0.0), max(float(difference[-1]), 0.0)
        span = (top - bottom) or 1.0
        sorted_axes.set(xlim=(0, 100), ylim=(bottom - 0.08 * span, top + 0.3 * span))
        sorted_axes.set(xlabel="share of test stories, %", ylabel="nats a token", title="Difference, sorted")
        sorted_axes.text(0.03, 0.97, "\n".join(told), transform=sorted_axes.transAxes, va="top")
        some = f" Left, {len(drawn):,} of the {n:,} stories." if len(drawn) < n else ""
        caption = f"{b} against {a} on each test story. Right, {b} less {a}: below zero {b} is better.{some}"
        return finish(drawing, f"stories-{file_name(b)}-{file_name(a)}", caption)


def _plain_ticks(axis: "Axis") -> None:
    """Label perplexities with plain numbers on a logarithmic axis that may span one power of ten or none."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    axis.set_major_locator(
        MaxNLocator(5, steps=(1, 2, 5, 10)) if decades < 1 else LogLocator(subs=(1, 2, 5) if decades < 3 else (1,))
    )
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,g}")
