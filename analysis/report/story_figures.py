"""Figures of the perplexity of the test stories: its distribution, and the difference between two losses."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis import figures
from analysis.axes import SIDES, fit_scale
from analysis.report.stories import file_name

Nats = NDArray[np.float64]  # (n_stories,) nats per token
MIN_BINS, MAX_BINS = 10, 40
MAX_NATS = 300.0  # nats per token that an axis can show
MAX_POINTS = 800  # stories in a scatter plot; more make the page heavy but not clearer
ROW = 1.3  # inches
LABEL = 36  # characters of a line of a label
HEADROOM = 1.35  # highest value of the axis of counts over the highest count: there is room for the median


@figures.style()
def distributions(nats: Mapping[str, Nats], order: Sequence[str]) -> figures.Figure:
    """Draw a histogram of the perplexity of the stories for each label. `order` gives the labels their colors."""
    perplexity = {label: np.exp(np.minimum(values, MAX_NATS)) for label, values in nats.items()}
    everything = np.concatenate([*perplexity.values()])
    low, high = everything.min(), everything.max()
    n = len(next(iter(nats.values())))
    n_bins = min(MAX_BINS, max(MIN_BINS, round(1.5 * math.sqrt(n))))  # with fewer stories, wider bins
    edges = np.geomspace(low, max(high, low * 1.01), n_bins + 1)
    counts = {label: np.histogram(values, edges)[0] for label, values in perplexity.items()}
    highest = max(values.max() for values in counts.values())
    drawing = figures.sheet(1, size=(figures.PANEL[0], 0.7 + ROW * len(nats)))
    (part,) = drawing.subfigs
    rows = part.subplots(len(nats), 1, sharex=True, sharey=True, squeeze=False).flat
    for axes, (label, values) in zip(rows, perplexity.items(), strict=True):
        color = figures.series(order.index(label))["color"]
        axes.stairs(counts[label], edges, fill=True, color=color, alpha=0.45)
        axes.stairs(counts[label], edges, color=color, linewidth=1)
        median = float(np.median(values))
        axes.axvline(median, color=figures.INK, linewidth=1.4)
        on_right = math.log(median / low) < math.log(high / low) / 2
        shift, align = (5, "left") if on_right else (-5, "right")
        look: Any = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "ha": align, "va": "top"}
        axes.annotate(f"median {median:.3g}", (median, 0.97), (shift, 0), **look)
        axes.set_title(label)
        fit_scale(axes, "y", [0, highest], is_log=False, is_integer=True, least=3)
        axes.set_ylim(0, HEADROOM * highest)
    fit_scale(axes, "x", everything, is_log=True)
    part.supylabel("Number of test stories")
    part.supxlabel("Perplexity of a test story")
    caption = (
        f"The perplexities of the {n:,} test stories, from the mean of their nats per token over the seeds. Bins have "
        "the same width on the logarithmic axis."
    )
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
    drawing, (scatter, curve) = figures.panels(2, size=(figures.PANEL[0], 3.6))
    x, y = (np.exp(np.minimum(values, MAX_NATS))[kept] for values in (nats_a, nats_b))
    both = np.concatenate([x, y])
    low, high = both.min() * 0.97, both.max() * 1.03
    scatter.plot([low, high], [low, high], color=figures.INK, linewidth=1)
    scatter.plot(x, y, "o", color=color, markersize=3, alpha=0.5, markeredgewidth=0)
    for which in SIDES:
        fit_scale(scatter, which, both, is_log=True)
    scatter.set(xlim=(low, high), ylim=(low, high), aspect="equal", title="Perplexity of each test story")
    scatter.set(xlabel=fill(f"perplexity, {a}", LABEL), ylabel=fill(f"perplexity, {b}", LABEL))

    shares = (np.arange(n) + 0.5) / n * 100
    curve.fill_between(shares[kept], difference[kept], 0, color=color, alpha=0.25, linewidth=0)
    curve.plot(shares[kept], difference[kept], color=color)
    curve.axhline(0, color=figures.INK, linewidth=1)
    bottom, top = min(float(difference[0]), 0.0), max(float(difference[-1]), 0.0)
    span = (top - bottom) or 1.0
    curve.set(xlim=(0, 100), ylim=(bottom - 0.25 * span, top + 0.25 * span), title="Difference, sorted")
    curve.set(xlabel="Share of test stories (%)", ylabel="Difference (nats per token)")
    fit_scale(curve, "x", [0, 100])
    fit_scale(curve, "y", [bottom, top])
    for better, wins, height, va in ((a, difference > 0, 0.97, "top"), (b, difference < 0, 0.03, "bottom")):
        text = fill(f"{better} is better: {100 * wins.mean():.1f} % of stories", LABEL + 4)
        curve.text(0.03, height, text, transform=curve.transAxes, va=va)
    caption = f"{b} against {a} on the test stories. A point is a story: above the line, {a} is better. "
    caption += f"Difference: {b} minus {a}; below zero, {b} is better."
    caption += f" Points: {len(kept):,} of the {n:,} stories." if len(kept) < n else ""
    return figures.finish(drawing, f"stories-{file_name(b)}-{file_name(a)}", caption)
