"""Exploratory: what a squared penalty costs a model that could give any logits to any token.

python -m analysis.study.bias TEST     TEST is the file of test stories; reads text/, writes results/bias.csv

If the next token has the distribution q, cross-entropy is lowest at logits z whose softmax p is q. The expected penalty
over targets from q is the sum of a z^2 over the C classes, which moves the lowest point to p = q - 2 a z:

    squentropy      a = weight * (1 - q) / (C - 1)
    logit_penalty   a = weight / C

The cost is the increase of the expected nll there, the sum of q log(q / p). The distributions of the cross-entropy
model of the primary text serve as q. A trained model may lose more or less than that, because it cannot give any
logits. z-loss costs nothing: a constant added to all logits makes it 0 and does not change p.

Shape suffixes: N tokens, V vocabulary.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.study import logits, results
from analysis.study.contrasts import BASELINE
from nanosq import command, option, terminal

if TYPE_CHECKING:
    from torch import Tensor

SEED = 1  # of the model
EVERY = 10  # one of so many tokens of `logits` is used
MAX_STEPS = 200
TOLERANCE = 1e-10  # of the derivative
ROUNDING = 1e-12
ENOUGH = 1e-4  # share of the decrease that a step promises (Armijo's rule)

# The factors a of z^2 for the weight 1.
SQUARED: dict[str, Callable[["Tensor"], "Tensor"]] = {
    "squentropy": lambda q_NV: (1 - q_NV) / (q_NV.shape[1] - 1),
    "logit_penalty": lambda q_NV: q_NV.new_full(q_NV.shape, 1 / q_NV.shape[1]),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table and return the exit status."""
    parser = terminal.parser("analysis.study.bias", __doc__, "TEST")
    parser.add_argument("test", type=option.existing, metavar="TEST", help="the file of test stories")
    return command.run(lambda: write(parser.parse_args(arguments).test))


def write(test: Path) -> None:
    """Write results/bias.csv: a row for each arm with its cost in nats per token."""
    import pandas as pd

    frame = results.finals(results.PRIMARY)[BASELINE]
    (run_id,) = frame[frame["seed"] == SEED]["run_id"]
    q_NV = logits.logits(run_id, test)[0][::EVERY].double().softmax(dim=1)
    rows = [
        {"arm": arm, "run_id": run_id, "bias": cost(q_NV, arm)}
        for arm in results.ARMS
        if arm.startswith(tuple(SQUARED))
    ]
    pd.DataFrame(rows).to_csv(results.FOLDER / "bias.csv", index=False)


def cost(q_NV: "Tensor", arm: str) -> float:
    """Return the mean increase of the expected nll over the tokens, at the logits with the lowest expected loss."""
    import torch

    name, _, weight = arm.rpartition("_")
    log_p_NV = lowest_point(q_NV, SQUARED[name](q_NV) * float(weight)).log_softmax(dim=1)
    return float((torch.special.xlogy(q_NV, q_NV) - q_NV * log_p_NV).sum(dim=1).mean())


def lowest_point(q_NV: "Tensor", a_NV: "Tensor") -> "Tensor":
    """Return the logits (N, V) with the lowest expected loss, by Newton's method.

    The second derivative is a diagonal matrix minus the product p p^T, so a step takes a time linear in V.
    """
    import torch

    z_NV = torch.zeros_like(q_NV)
    for _ in range(MAX_STEPS):
        p_NV = z_NV.softmax(dim=1)
        slope_NV, diagonal_NV = p_NV - q_NV + 2 * a_NV * z_NV, p_NV + 2 * a_NV
        if float(slope_NV.abs().max()) < TOLERANCE:
            return z_NV
        rest_N = (2 * a_NV * p_NV / diagonal_NV).sum(dim=1)
        inner_N = (p_NV * slope_NV / diagonal_NV).sum(dim=1)
        step_NV = (slope_NV + p_NV * (inner_N / rest_N)[:, None]) / diagonal_NV
        promised_N = (slope_NV * step_NV).sum(dim=1)
        now_N, size_N = expected_loss(z_NV, q_NV, a_NV), torch.ones_like(promised_N)
        while True:
            new_NV = z_NV - size_N[:, None] * step_NV
            is_worse_N = expected_loss(new_NV, q_NV, a_NV) > now_N - ENOUGH * size_N * promised_N + ROUNDING
            if not is_worse_N.any():
                break
            size_N[is_worse_N] /= 2
        z_NV = new_NV
    raise ArithmeticError(f"the lowest point was not found in {MAX_STEPS} steps")


def expected_loss(z_NV: "Tensor", q_NV: "Tensor", a_NV: "Tensor") -> "Tensor":
    """Return the expected losses (N,) of logits, over targets from q."""
    return z_NV.logsumexp(dim=1) - (q_NV * z_NV).sum(dim=1) + (a_NV * z_NV.square()).sum(dim=1)


if __name__ == "__main__":
    sys.exit(main())
