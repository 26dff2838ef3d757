"""The figures of the study."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis import figures, labels
from analysis.axes import fit_scale
from analysis.report.bootstrap import Difference
from analysis.study import further, results
from analysis.study.contrasts import BASELINE, EQUAL
from analysis.study.tables import of_part

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_DENSITY = 1e-4  # of logits that the figure shows
NATS = "Test nll minus that of cross_entropy\n(nats per token; right of 0: worse)"
BITS = "Bits per byte minus that of cross_entropy\n(right of 0: worse)"


@figures.style()
def contrasts(parts: Mapping[str, str]) -> figures.Figure:
    """Draw the contrasts with their 95 % intervals, a panel for each part, with its label."""
    drawing, panels = figures.panels(len(parts), size=(figures.PANEL[0], 2.6))
    for (part, label), axes in zip(parts.items(), panels, strict=True):
        _forest(axes, [(contrast.arm, contrast.arm, contrast.difference) for contrast in of_part(part)])
        axes.axvspan(-EQUAL, EQUAL, color=figures.FAINT, alpha=0.25, linewidth=0)
        axes.set(title=label[0].upper() + label[1:], xlabel=NATS)
    limits = [limit for axes in panels for limit in axes.get_xlim()]
    for axes in panels:
        axes.set_xlim(min(limits), max(limits))
    caption = "Each arm minus cross-entropy, with 95 % confidence intervals. The gray band is the margin of ±0.01."
    return figures.finish(drawing, "contrasts", caption)


def _forest(axes: "Axes", differences: Sequence[tuple[str, str, Difference]]) -> None:
    """Draw differences below each other, each with its label and in the color of its arm."""
    axes.axvline(0, color=figures.FAINT, linewidth=0.8)
    for place, (_, arm, difference) in enumerate(differences):
        half = [[difference.effect - difference.low], [difference.high - difference.effect]]
        look = figures.series(results.ARMS.index(arm)) | {"linestyle": "none"}
        axes.errorbar([difference.effect], [place], xerr=half, **look, capsize=3)
    axes.set_yticks(range(len(differences)), [label for label, _, _ in differences])
    axes.set_ylim(len(differences) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=5)


@figures.style()
def tuning(parts: Mapping[str, str]) -> figures.Figure:
    """Draw the best validation nll of each learning rate, a line for each arm and a panel for each part.

    The scale is that of the learning rates which all arms have tried.
    """
    drawing, panels = figures.panels(len(parts))
    for (part, label), axes in zip(parts.items(), panels, strict=True):
        best = {arm: results.tuning(part, arm).groupby("lr")["val/nll"].min() for arm in results.finals(part)}
        for arm, nll in best.items():
            axes.plot(nll.index, nll, **figures.series(results.ARMS.index(arm)), label=arm)
        rates = sorted({rate for nll in best.values() for rate in nll.index})
        common = [rate for rate in rates if all(rate in nll.index for nll in best.values())]
        shown = [nll[rate] for nll in best.values() for rate in common]
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.set_xticks([], minor=True)
        fit_scale(axes, "y", shown)
        low, high = min(shown), max(shown)
        axes.set_ylim(low - 0.05 * (high - low), high + 0.25 * (high - low))  # a line may leave the picture
        axes.set(title=label[0].upper() + label[1:], xlabel="Learning rate", ylabel="Validation nll (tuning)")
        labels.legend(axes)
    return figures.finish(drawing, "tuning", "Validation nll over the learning rate; the better dropout of each.")


@figures.style()
def logits() -> figures.Figure:
    """Draw the distribution of the logits of wrong classes of each arm."""
    import pandas as pd

    frame = pd.read_csv(results.FOLDER / "logit_histogram.csv")
    drawing, (axes,) = figures.panels()
    width = float(np.diff(frame["from"].unique()[:2])[0])
    for arm, part in frame.groupby("arm", sort=False):
        number = results.ARMS.index(str(arm))
        look = figures.series(number) | {"markevery": (2 * number, 2 * len(results.ARMS))}  # one line may hide another
        axes.plot(part["from"] + width / 2, part["share"] / width, **look, label=arm)
    used = frame[frame["share"] > LEAST_DENSITY * width]["from"]
    axes.set_xlim(used.min(), used.max() + width)
    axes.set(title="Logits of the wrong classes", xlabel="Logit minus the mean of its token", yscale="log")
    axes.set_ylabel(f"Density (from {LEAST_DENSITY:g})")
    axes.set_ylim(bottom=LEAST_DENSITY)
    labels.legend(axes)
    return figures.finish(
        drawing, "logits", "Distribution of the logits of wrong classes for tokens of the first test stories."
    )


@figures.style()
def effects(name: str, parts: Mapping[str, str], *, bits: bool = False) -> figures.Figure:
    """Draw the effects in several parts, by their labels: a panel for each arm, a row for each part."""
    drawing, panels = figures.panels(len(further.ARMS), size=(figures.PANEL[0], 2.2))
    for arm, axes in zip(further.ARMS, panels, strict=True):
        _forest(axes, [(label, arm, further.effect(part, arm, bits=bits)) for part, label in parts.items()])
        axes.set(title=arm, xlabel=BITS if bits else NATS)
    return figures.finish(drawing, name, f"Difference from {BASELINE}, with 95 % confidence intervals.")
