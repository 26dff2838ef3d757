"""Figures of the perplexity of the test stories: its distribution, and the difference between two losses."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis import figures
from analysis.axes import plain_ticks
from analysis.report.stories import file_name

Nats = NDArray[np.float64]  # (n_stories,) nats per token
BINS = 40
MAX_NATS = 300.0  # nats per token that an axis can show
MAX_POINTS = 800  # stories in a scatter plot; more make the page heavy but not clearer
ROW = 0.62  # inches


@figures.style()
def distributions(nats: Mapping[str, Nats], order: Sequence[str]) -> figures.Figure:
    """Draw a histogram of the perplexity of the stories for each label. `order` gives the labels their colors."""
    perplexity = [np.exp(np.minimum(values, MAX_NATS)) for values in nats.values()]
    low, high = min(values.min() for values in perplexity), max(values.max() for values in perplexity)
    edges = np.geomspace(low, max(high, low * 1.01), BINS + 1)
    drawing, (axes,) = figures.panels(size=(figures.PANEL[0] * 1.5, 0.9 + ROW * len(nats)))
    for row, (label, values) in enumerate(zip(nats, perplexity, strict=True)):
        counts, _ = np.histogram(values, edges)
        color = figures.series(order.index(label))["color"]
        heights = -row + 0.85 * counts / counts.max()
        axes.stairs(heights, edges, baseline=-row, fill=True, color=color, alpha=0.45)
        axes.stairs(heights, edges, baseline=-row, color=color, linewidth=1)
        axes.plot([np.median(values)] * 2, [-row, -row + 0.9], color=figures.INK, linewidth=1.4)
    axes.set(xscale="log", xlabel="perplexity of a test story", ylim=(-len(nats) + 0.9, 1.05))
    axes.set_yticks([-row for row in range(len(nats))], list(nats))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    plain_ticks(axes.xaxis, high / low)
    caption = "Perplexity of the test stories, from the mean of their nats per token over the seeds. Line: median."
    return figures.finish(drawing, "stories-perplexity", caption)


@figures.style()
def differences(labels: tuple[str, str], nats: tuple[Nats, Nats], series: int = 1) -> figures.Figure:
    """Draw two losses on the same stories: their perplexities, and their sorted difference in nats per token.

    Args:
        labels: Names of the two losses.
        nats: Nats per token of each story for the two losses.
        series: Number of the second loss among the series of the page.
    """
    (a, b), (nats_a, nats_b) = labels, nats
    difference = np.sort(nats_b - nats_a)
    n = len(difference)
    kept = np.unique(np.linspace(0, n - 1, min(n, MAX_POINTS)).astype(int))
    color = figures.series(series)["color"]
    drawing, (scatter, curve) = figures.panels(2)
    x, y = (np.exp(np.minimum(values, MAX_NATS))[kept] for values in (nats_a, nats_b))
    low, high = float(min(x.min(), y.min())) * 0.97, float(max(x.max(), y.max())) * 1.03
    scatter.plot([low, high], [low, high], color=figures.INK, linewidth=1)
    scatter.plot(x, y, "o", color=color, markersize=3, alpha=0.5, markeredgewidth=0)
    scatter.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    scatter.set(xlabel=f"perplexity, {a}", ylabel=f"perplexity, {b}", title="Test stories; line: equal")
    for axis in (scatter.xaxis, scatter.yaxis):
        plain_ticks(axis, high / low)

    shares = (np.arange(n) + 0.5) / n * 100
    curve.fill_between(shares[kept], difference[kept], 0, color=color, alpha=0.25, linewidth=0)
    curve.plot(shares[kept], difference[kept], color=color)
    curve.axhline(0, color=figures.INK, linewidth=1)
    bottom, top = min(float(difference[0]), 0.0), max(float(difference[-1]), 0.0)
    span = (top - bottom) or 1.0
    curve.set(xlim=(0, 100), ylim=(bottom - 0.08 * span, top + 0.3 * span))
    curve.set(xlabel="share of test stories, %", ylabel="nats per token", title="Difference, sorted")
    wins = f"{a} better: {100 * (difference > 0).mean():.1f} % of stories\n"
    wins += f"{b} better: {100 * (difference < 0).mean():.1f} % of stories"
    curve.text(0.03, 0.97, wins, transform=curve.transAxes, va="top")
    caption = f"{b} against {a} on the test stories. Right: {b} minus {a}; below zero, {b} is better."
    caption += f" Left: {len(kept):,} of the {n:,} stories." if len(kept) < n else ""
    return figures.finish(drawing, f"stories-{file_name(b)}-{file_name(a)}", caption)
