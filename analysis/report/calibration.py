"""Calibration: how well the confidence of each loss's models matches their accuracy, from calibration.csv.

A model is calibrated where of the tokens that it predicts with a probability of 0.7, 70 % are right. The expected
calibration error (ece) is the mean distance from that, over the tokens: Guo et al. 2017, arXiv 1706.04599.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from analysis.figures import FAINT, INK, Figure, finish, panels, series, style
from analysis.page import Block, Cell, Section, Table, Text
from analysis.recorded_run import RecordedRun
from analysis.runs import TRAIN, RecordedSetting

FILE = "calibration.csv"
TOLERANCE = 1e-6  # of an ece from that of the run
Bins = NDArray[np.float64]  # (n_bins, 3): tokens, correct ones, summed confidence


def section(chosen: Mapping[str, RecordedSetting]) -> Section:
    """Return a diagram and a table with a row for each loss that has bins."""
    bins: dict[str, list[Bins]] = {}
    blocks: list[Block] = []
    for loss, setting in chosen.items():
        for run in setting.runs:
            try:
                bins.setdefault(loss, []).append(read(run))
            except ValueError as error:
                blocks.append(Text(f"Left out: {error}.", "note"))
    bins = {loss: each for loss, each in bins.items() if each}
    if not bins:
        blocks.append(Text(f"No finished run has {FILE}, the tokens by their confidence: train with {TRAIN}", "note"))
        return Section("Calibration", blocks)
    order = {loss: number for number, loss in enumerate(chosen)}
    return Section("Calibration", [_diagram(bins, order), _table(bins), *blocks])


def read(run: RecordedRun) -> Bins:
    """Return the bins of a run. Raise ValueError if it has none or they do not match its ece."""
    rows = run.rows(FILE)
    if not rows:
        raise ValueError(f"{run.name} ({run.id[:8]}) has no {FILE}: train it again")
    try:
        bins = np.array([[float(row[key]) for key in ("tokens", "correct", "confidence")] for row in rows])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{FILE} of {run.name} ({run.id[:8]}) is damaged: train it again") from error
    if not (bins[:, 0].sum() > 0 and abs(ece(bins) - run.metric("test/ece")) < TOLERANCE):
        raise ValueError(f"the bins of {run.name} ({run.id[:8]}) do not give its test/ece: train it again")
    return bins


def ece(bins: Bins) -> float:
    """Return the mean over tokens of the distance between accuracy and mean confidence of their bin."""
    return float(np.abs(bins[:, 1] - bins[:, 2]).sum() / bins[:, 0].sum())


def _diagram(bins: Mapping[str, list[Bins]], order: Mapping[str, int]) -> Figure:
    with style():
        n_columns = min(2, len(bins))
        drawing, axes = panels(n_columns, -(-len(bins) // n_columns), size=(4.2, 3.7))
        for panel, (loss, each) in zip(axes, bins.items(), strict=False):
            tokens, correct, confidence = np.sum(each, axis=0).T
            some = tokens > 0
            edges = np.linspace(0, 1, len(tokens) + 1)
            panel.stairs(tokens / tokens.sum(), edges, fill=True, color=FAINT, alpha=0.45)
            panel.plot([0, 1], [0, 1], color=INK, linewidth=1)
            panel.plot(
                confidence[some] / tokens[some], correct[some] / tokens[some], **series(order[loss]), clip_on=False
            )
            panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
            panel.set(xlabel="mean confidence in a bin", ylabel="accuracy (bars: share of the tokens)")
            panel.set_title(f"{loss}: ece {100 * np.mean([ece(one) for one in each]):.2f} %", pad=9)
        for panel in axes[len(bins) :]:
            panel.set_visible(False)
        caption = (
            "Accuracy of the test tokens by the confidence of the prediction, in bins of equal width, over all seeds. "
            "Above the diagonal a model is too cautious, below it too sure. Bars: share of the tokens in each bin."
        )
        return finish(drawing, "calibration", caption)


def _table(bins: Mapping[str, list[Bins]]) -> Table:
    rows = []
    for loss, each in bins.items():
        eces = [ece(one) for one in each]
        tokens, correct, confidence = np.sum(each, axis=(0, 1)).tolist()
        rows.append(
            [
                Cell(loss),
                _percent(float(np.mean(eces))),
                Cell(f"{100 * min(eces):.2f} to {100 * max(eces):.2f}"),
                Cell(f"{len(each)}", len(each)),
                Cell(f"{tokens:,.0f}", int(tokens)),
                _percent(confidence / tokens),
                _percent(correct / tokens),
            ]
        )
    header = ["loss", "mean ece, %", "range over seeds, %", "seeds", "tokens", "mean confidence, %", "accuracy, %"]
    return Table("calibration", header, rows, "Calibration on the test split; tokens are those of all seeds")


def _percent(share: float) -> Cell:
    return Cell(f"{100 * share:.2f}", 100 * share)
