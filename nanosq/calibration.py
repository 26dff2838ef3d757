"""Calibration: whether the confidence of a model, its largest probability, agrees with its accuracy.

The expected calibration error (ece) is the mean distance between the two, over tokens in bins of equal confidence:
Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599.
"""

import torch
from torch import Tensor

ECE_BINS = 15  # as Guo et al. 2017 and the squentropy paper


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
