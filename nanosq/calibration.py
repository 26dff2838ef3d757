"""Calibration: whether the confidence of a model, its largest probability, agrees with its accuracy.

The expected calibration error (ece) is the mean distance between the two, over tokens in bins of equal confidence:
Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

ECE_BINS = 15  # as Guo et al. 2017 and the squentropy paper


@dataclass(frozen=True)
class CalibratedScore:
    """The score of a split if the logits are divided by a temperature."""

    temperature: float
    nll: float  # nats per token
    ece: float

    @classmethod
    def from_bins(cls, temperature: float, bins: Tensor) -> Self:
        """Return the score from bins that have the summed nll of their tokens in row 3."""
        return cls(temperature, float(bins[3].sum() / bins[0].sum()), ece(bins))

    def metrics(self, split: str) -> dict[str, float]:
        """Return the values under the names of their metrics: `{"val/nll_calibrated": ...}`."""
        return {f"{split}/nll_calibrated": self.nll, f"{split}/ece_calibrated": self.ece}


def sum_bins(confidence_N: Tensor, correct_N: Tensor, *values_N: Tensor) -> Tensor:
    """Return the number of tokens, and the sums of all arguments, in each bin of confidence.

    The result has a row for the number and for each argument: (n_rows, ECE_BINS) float64.
    """
    edges = torch.linspace(0, 1, ECE_BINS + 1)[1:-1]
    bin_N = torch.bucketize(confidence_N, edges)
    rows = (torch.ones_like(bin_N), correct_N, confidence_N, *values_N)
    return torch.stack([torch.bincount(bin_N, weights=row.double(), minlength=ECE_BINS) for row in rows])


def ece(bins: Tensor) -> float:
    """Return the expected calibration error of the bins of a split."""
    return float((bins[1] - bins[2]).abs().sum()) / int(bins[0].sum())
