"""Exploratory: what a penalty does to the logits. Where they lie, and what a map of all logits can undo.

python -m analysis.study.logits TEST     TEST is the file of test stories; reads text/, writes results/logits*.csv

The models are the final ones of the primary text. Two maps of the logits z of a token are fitted, one value for the
whole model, on a quarter of the tokens, and scored on the rest:

    temperature   z / T
    power         sign(z - m) |z - m|^p / T, where m is the mean of the logits of the token

Both keep the order of the classes. What they do not undo is what a model does not know.

Shape suffixes: N tokens, V vocabulary.
"""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.study import results
from nanosq import command, option, terminal

if TYPE_CHECKING:
    from torch import Tensor

N_STORIES = 500
EVERY = 20  # one of so many tokens is used
FITTED = 4  # one of so many of these is fitted, the others are scored
STEP = 0.1  # first step of the fit, in the logarithms of the parameters
EDGES = np.arange(-30.0, 30.01, 0.5)  # of the histogram; values beyond are counted in the outermost bins
RANKS = (1, 10, 100, 1000)  # the last ranks of the groups of classes, the most probable class first; others are beyond


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables and return the exit status."""
    parser = terminal.parser("analysis.study.logits", __doc__, "TEST")
    parser.add_argument("test", type=option.existing, metavar="TEST", help="the file of test stories")
    return command.run(lambda: write(parser.parse_args(arguments).test))


def write(test: Path) -> None:
    """Write results/logits.csv with a row for each run, and results/logit_histogram.csv with the means of each arm."""
    import pandas as pd

    rows, histograms = [], []
    for arm, frame in results.finals(results.PRIMARY).items():
        shares = []
        for seed, run_id in zip(frame["seed"], frame["run_id"], strict=True):
            logits_NV, targets_N = logits(run_id, test)
            found = describe(logits_NV, targets_N) | ranks(logits_NV, targets_N) | maps(logits_NV, targets_N)
            rows.append({"arm": arm, "seed": seed, "run_id": run_id, **found})
            shares.append(histogram(logits_NV, targets_N))
            print(arm, seed, flush=True)
        for low, share in zip(EDGES[:-1], np.mean(shares, axis=0), strict=True):
            histograms.append({"arm": arm, "from": low, "share": share})
    pd.DataFrame(rows).to_csv(results.FOLDER / "logits.csv", index=False)
    pd.DataFrame(histograms).to_csv(results.FOLDER / "logit_histogram.csv", index=False)


def logits(run_id: str, test: Path) -> "tuple[Tensor, Tensor]":
    """Return the logits (N, V) of a model for tokens of the first stories of a file, and their targets (N,)."""
    import torch

    from nanosq.data import sources, texts
    from nanosq.data.batches import UNSCORED, evaluation_windows

    trained = command.load(run_id, results.store(results.PRIMARY))
    model = trained.build()
    reading = {"separator": "<|endoftext|>", "column": "text", "settings": ""}
    split, _, _ = texts.encode_files(sources.find("test", str(test)), trained.tokenizer, **reading)
    hidden, targets = [], []
    with torch.no_grad():
        for tokens_BT, targets_BT, document_B in evaluation_windows(split, block_size=model.block_size, batch_size=16):
            is_first_B = document_B < N_STORIES  # windows are not in the order of the stories
            is_scored_BT = targets_BT[is_first_B] != UNSCORED
            hidden.append(model(tokens_BT[is_first_B])[is_scored_BT])
            targets.append(targets_BT[is_first_B][is_scored_BT])
        return torch.cat(hidden)[::EVERY] @ model.head_weight.T, torch.cat(targets)[::EVERY]


def wrong(logits_NV: "Tensor", targets_N: "Tensor") -> "Tensor":
    """Return the logits of the wrong classes: (N * (V - 1),)."""
    import torch

    is_wrong_NV = torch.ones_like(logits_NV, dtype=torch.bool)
    is_wrong_NV[torch.arange(len(targets_N)), targets_N] = False
    return logits_NV[is_wrong_NV]


def describe(logits_NV: "Tensor", targets_N: "Tensor") -> dict[str, float]:
    """Return means over the tokens: of the logits of the right and wrong classes, and of the log of the partition.

    `wrong_variance` is the variance of the logits of wrong classes within a token.
    """
    others = wrong(logits_NV, targets_N).double()
    within = others.view(len(targets_N), -1).var(dim=1, correction=0)
    return {
        "right": float(logits_NV.gather(1, targets_N[:, None]).double().mean()),
        "wrong": float(others.mean()),
        "wrong_squared": float(others.square().mean()),
        "wrong_variance": float(within.mean()),
        "log_partition": float(logits_NV.logsumexp(dim=1).double().mean()),
    }


def ranks(logits_NV: "Tensor", targets_N: "Tensor") -> dict[str, float]:
    """Return the mean probability of groups of classes by their rank, and the share of targets that are in them."""
    probabilities_NV = logits_NV.double().softmax(dim=1)
    sorted_NV = probabilities_NV.sort(dim=1, descending=True).values
    rank_N = (probabilities_NV > probabilities_NV.gather(1, targets_N[:, None])).sum(dim=1)
    found = {}
    for first, end in itertools.pairwise((0, *RANKS, logits_NV.shape[1])):
        found[f"probability_{first + 1}"] = float(sorted_NV[:, first:end].sum(dim=1).mean())
        found[f"targets_{first + 1}"] = float(((rank_N >= first) & (rank_N < end)).double().mean())
    return found


def histogram(logits_NV: "Tensor", targets_N: "Tensor") -> NDArray[np.float64]:
    """Return the shares (n_bins,) between EDGES of the logits of wrong classes, minus the mean logit of their token."""
    others = wrong(logits_NV - logits_NV.mean(dim=1, keepdim=True), targets_N).numpy()
    counts, _ = np.histogram(np.clip(others, EDGES[0], EDGES[-1] - 1e-6), EDGES)
    return counts / counts.sum()


def maps(logits_NV: "Tensor", targets_N: "Tensor") -> dict[str, float]:
    """Return the nll without a map, and with the best map of each kind, with their parameters."""
    import torch
    import torch.nn.functional as F
    from scipy import optimize

    centred_NV = logits_NV - logits_NV.mean(dim=1, keepdim=True)
    size_NV, sign_NV = centred_NV.abs(), centred_NV.sign()
    is_fitted_N = torch.arange(len(targets_N)) % FITTED == 0

    def nll(scale: float, power: float, chosen_N: "Tensor") -> float:
        mapped_NV = scale * (size_NV[chosen_N] ** power * sign_NV[chosen_N] if power != 1 else centred_NV[chosen_N])
        return float(F.cross_entropy(mapped_NV.double(), targets_N[chosen_N]))

    def fitted(logarithms: NDArray[np.float64]) -> float:
        scale, power = np.exp([*logarithms, *[0.0] * (2 - len(logarithms))])
        return nll(float(scale), float(power), is_fitted_N)

    def search(start: NDArray[np.float64]) -> NDArray[np.float64]:
        simplex = np.vstack([start, start + STEP * np.eye(len(start))])
        options = {"xatol": 1e-4, "fatol": 1e-7, "initial_simplex": simplex}
        return np.asarray(optimize.minimize(fitted, start, method="Nelder-Mead", options=options).x)

    temperature = search(np.zeros(1))
    power = search(np.array([*temperature, 0.0]))
    (scale,), (power_scale, exponent) = np.exp(temperature).tolist(), np.exp(power).tolist()
    return {
        "nll": nll(1.0, 1.0, ~is_fitted_N),
        "nll_temperature": nll(scale, 1.0, ~is_fitted_N),
        "nll_power": nll(power_scale, exponent, ~is_fitted_N),
        "temperature": 1 / scale,
        "power": exponent,
    }


if __name__ == "__main__":
    sys.exit(main())
