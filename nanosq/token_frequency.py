"""The nll of a split by how frequent its tokens are in the training split.

The entries of the vocabulary are sorted by their number in the training split, the largest first, and equal numbers by
their id. An entry is

    frequent  if the entries before it make up less than 80 % of the tokens
    medium    if it is not frequent and the entries before it make up less than 95 %
    rare      otherwise, and always if the training split does not have it

so the frequent entries are the fewest that make up 80 %, and with the medium ones they are the fewest for 95 %.
"""

import numpy as np
from numpy.typing import NDArray

PERCENT = {"frequent": 80, "medium": 95, "rare": 100}
CHUNK = 2**22  # tokens that are counted at a time: np.bincount copies them to int64


def count_tokens(tokens: NDArray[np.unsignedinteger], vocab_size: int) -> NDArray[np.int64]:
    """Return how often each entry of the vocabulary is predicted in a split: the first token is not."""
    counts_V = np.zeros(vocab_size, np.int64)
    for begin in range(1, len(tokens), CHUNK):
        counts_V += np.bincount(tokens[begin : begin + CHUNK], minlength=vocab_size)
    return counts_V


def bands(counts_V: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return the band of each entry of the vocabulary: frequent, medium or rare."""
    order = np.argsort(-counts_V, kind="stable")
    before = np.empty_like(counts_V)
    before[order] = np.cumsum(counts_V[order]) - counts_V[order]
    frequent, medium = (100 * before < PERCENT[name] * counts_V.sum() for name in ("frequent", "medium"))
    return np.select([counts_V == 0, frequent, medium], ["rare", "frequent", "medium"], "rare")


def nll_by_band(target_nll_2V: NDArray[np.float64], bands_V: NDArray[np.str_]) -> dict[str, float]:
    """Return the mean nll of the targets in each band that has targets: `{"nll_frequent": ...}`.

    The argument `target_nll_2V` is the number of targets and the summed nll of each entry of the vocabulary.
    """
    sums = {name: target_nll_2V[:, bands_V == name].sum(axis=1) for name in PERCENT}
    return {f"nll_{name}": float(nll / n) for name, (n, nll) in sums.items() if n > 0}
