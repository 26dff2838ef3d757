"""Temperature scaling: the number T > 0 with which softmax(f / T) has the lowest nll on a split; f are the logits.

    T = argmin of the mean over tokens of -log softmax(f / T)_y

Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2, arXiv 1706.04599. T changes the scale of the
logits and nothing else: the order of the classes stays, and with it the accuracy.

The mean nll is a convex function of the scale b = 1 / T. With p = softmax(b f), its derivatives are

    slope      the mean of sum over j of p_j f_j - f_y
    curvature  the mean of the variance of f under p

so Newton's method needs few passes over the split.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from nanosq import calibration, distributed
from nanosq.calibration import ECE_BINS
from nanosq.evaluation import Batches, Evaluator, ScoredTokens, evaluating
from nanosq.token_scores import scaled_scores

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
TOLERANCE = 1e-6  # of the scale, relative
MAX_PASSES = 50  # where rounding errors are larger than the tolerance
PART = 8  # the first passes take every eighth batch


@dataclass(frozen=True)
class CalibratedScore:
    """The score of a split if the logits are divided by a temperature."""

    temperature: float
    nll: float  # nats per token
    ece: float

    def metrics(self, split: str) -> dict[str, float]:
        """Return the values under the names of their metrics: `{"val/nll_calibrated": ...}`."""
        return {f"{split}/nll_calibrated": self.nll, f"{split}/ece_calibrated": self.ece}


class Pass(NamedTuple):
    """The scores from a pass over a split, and the derivatives of the mean nll with respect to the scale."""

    nll: float
    ece: float
    slope: float
    curvature: float


def fit_temperature(evaluator: Evaluator, batches: Batches) -> CalibratedScore:
    """Return the best temperature for a split, given by its batches, and the score of the split with it.

    A part of the split gives the scale from which the passes over all of it start. Several processes share the batches
    and return the same.
    """

    def pass_at(scale: float, *, every: int = 1) -> Pass:
        return _pass(evaluator, batches(every=every), scale)

    start, _ = minimize(partial(pass_at, every=PART))
    scale, last = minimize(pass_at, start)
    return CalibratedScore(1 / scale, last.nll, last.ece)


def score_at(temperature: float, evaluator: Evaluator, batches: Iterable[ScoredTokens]) -> CalibratedScore:
    """Return the score of a split, given by its batches, with a temperature."""
    scores = _pass(evaluator, batches, 1 / temperature)
    return CalibratedScore(temperature, scores.nll, scores.ece)


def _pass(evaluator: Evaluator, batches: Iterable[ScoredTokens], scale: float) -> Pass:
    bins = torch.zeros(6, ECE_BINS, dtype=torch.float64)
    with evaluating(evaluator.model, evaluator.hardware):
        for hidden_ND, targets_N, _ in batches:
            nll_N, slope_N, curvature_N, confidence_N, correct_N = (
                values_N.cpu() for values_N in scaled_scores(scale, hidden_ND, evaluator.model.head_weight, targets_N)
            )
            bins += calibration.sum_bins(confidence_N, correct_N, nll_N, slope_N, curvature_N)
    bins = distributed.all_reduce(bins)
    n, _, _, nll, slope, curvature = bins.sum(dim=1).tolist()
    return Pass(nll / n, calibration.ece(bins), slope / n, curvature / n)


def minimize(pass_at: Callable[[float], Pass], start: float = 1.0) -> tuple[float, Pass]:
    """Return the scale with the lowest nll between the limits of the temperature, and the last pass.

    If the nll has no minimum between them, the result is a limit: the lowest temperature if all tokens are right, for
    example. If it does not depend on the scale, or is not a number, the result is `start`. The scale of the last pass
    differs from the result by at most TOLERANCE.
    """
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE  # the best scale is between them
    scale, slope, tried = start, math.inf, set[float]()
    while True:
        tried.add(scale)
        previous, last = slope, pass_at(scale)
        slope, curvature = last.slope, last.curvature
        if slope == 0 or not math.isfinite(slope):
            return scale, last
        low, high = (scale, high) if slope < 0 else (low, scale)
        step = -slope / curvature if curvature > 0 else -math.copysign(math.inf, slope)
        new = min(max(scale + step, low), high)
        if abs(new - scale) <= TOLERANCE * scale or len(tried) == MAX_PASSES:
            return new, last
        # If the slope falls exponentially, so that there may be no minimum, a step of Newton's method divides it by
        # less than e = 2.7.
        if new in tried or slope / previous > 1 / 3:
            end = high if slope < 0 else low
            new = math.sqrt(low * high) if end in tried else end
        scale = new
