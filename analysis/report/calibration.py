"""Reliability diagrams: whether the confidence of a model agrees with its accuracy, from the artifact calibration.csv.

A model is calibrated if 70 % of the tokens that it predicts with probability 0.7 are right. The expected calibration
error (ece) is the mean distance from that over all tokens: Guo et al. 2017, arXiv 1706.04599.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from analysis import figures
from analysis.axes import SIDES, fit_scale
from analysis.page import Block, Cell, Row, Section, Table, Text, number
from analysis.recorded_run import RecordedRun
from analysis.runs import TRAIN, RecordedSetting

FILE = "calibration.csv"
TOLERANCE = 1e-6  # between the ece of the bins and the ece of the run
CAPTION = (
    "Accuracy over confidence for the tokens of the test split, in bins of equal width, over all seeds. Above the "
    "diagonal a model is underconfident, below it overconfident. Bars: share of the tokens in each bin."
)
Bins = NDArray[np.float64]  # (n_bins, 3): tokens, correct tokens, summed confidence


def section(best: Mapping[str, RecordedSetting]) -> Section:
    """Return a diagram and a row of a table for each loss whose runs have bins."""
    bins: dict[str, list[Bins]] = {}
    notes: list[Block] = []
    for loss, setting in best.items():
        for run in setting.runs:
            try:
                bins.setdefault(loss, []).append(read(run))
            except ValueError as error:
                notes.append(Text(f"Left out: {error}.", "note"))
    bins = {loss: seeds for loss, seeds in bins.items() if seeds}
    if not bins:
        notes.append(Text(f"No finished run has {FILE}, the tokens by their confidence. Train again: {TRAIN}", "note"))
        return Section("Calibration", notes)
    return Section("Calibration", [_diagram(bins, list(best)), _table(bins), *notes])


def read(run: RecordedRun) -> Bins:
    """Return the bins of a run. Raise ValueError if they are missing, damaged or do not give the ece of the run."""
    bins = run.numbers(FILE, ("tokens", "correct", "confidence"))
    if not (bins[:, 0].sum() > 0 and abs(ece(bins) - run.metric("test/ece")) < TOLERANCE):
        raise ValueError(f"the bins of {run.label} do not give its test/ece: train it again")
    return bins


def ece(bins: Bins) -> float:
    """Return the mean distance between accuracy and mean confidence of the bins, weighted by tokens."""
    return float(np.abs(bins[:, 1] - bins[:, 2]).sum() / bins[:, 0].sum())


@figures.style()
def _diagram(bins: Mapping[str, list[Bins]], order: list[str]) -> figures.Figure:
    drawing, panels = figures.panels(len(bins), size=(figures.PANEL[0], 4.2))
    for axes, (loss, seeds) in zip(panels, bins.items(), strict=True):
        tokens, correct, confidence = np.sum(seeds, axis=0).T
        edges = np.linspace(0, 1, len(tokens) + 1)
        axes.stairs(tokens / tokens.sum(), edges, fill=True, color=figures.FAINT, alpha=0.45)
        axes.plot([0, 1], [0, 1], color=figures.INK, linewidth=1)
        used = tokens > 0
        x, y = confidence[used] / tokens[used], correct[used] / tokens[used]
        axes.plot(x, y, **figures.series(order.index(loss)), clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set(xlabel="Mean confidence in a bin", ylabel="Accuracy; bars: share of the tokens")
        for which in SIDES:
            fit_scale(axes, which, [0, 1])
        axes.text(0.04, 0.96, "underconfident", va="top")
        axes.text(0.93, 0.55, "overconfident", ha="right")
        axes.set_title(f"{loss}: ece {100 * np.mean([ece(seed) for seed in seeds]):.2f} %", pad=9, wrap=True)
    return figures.finish(drawing, "calibration", CAPTION)


def _table(bins: Mapping[str, list[Bins]]) -> Table:
    rows: list[Row] = []
    for loss, seeds in bins.items():
        eces = [ece(seed) for seed in seeds]
        tokens, correct, confidence = np.sum(seeds, axis=(0, 1)).tolist()
        span = f"{100 * min(eces):.2f} to {100 * max(eces):.2f}"
        shares = _percent(confidence / tokens), _percent(correct / tokens)
        rows.append([loss, _percent(float(np.mean(eces))), span, len(seeds), number(int(tokens)), *shares])
    header = ["loss", "mean ece, %", "range over seeds, %", "seeds", "tokens", "mean confidence, %", "accuracy, %"]
    return Table("calibration", header, rows, "Calibration on the test split, with the tokens of all seeds")


def _percent(share: float) -> Cell:
    return Cell(f"{100 * share:.2f}", 100 * share)
