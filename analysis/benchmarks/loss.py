"""Measure time, peak memory and error of every loss through nanosq's head, and of other ways to compute it.

All numbers are of one forward and backward pass. Times are medians over rounds. Peak memory is what a pass takes beyond
its inputs, gradients included, in a process of its own. Errors are relative to float64 with all logits at once.

Other ways are F.cross_entropy of all logits, F.linear_cross_entropy, and on a GPU Liger and cut-cross-entropy (pip
install -e '.[gpu-benchmarks]'), which leaves out small gradients. Their inputs are cast to bf16, which is timed, too.

python -m analysis.benchmarks.loss                     every loss of conf/loss, at the size of GPT-2
python -m analysis.benchmarks.loss --losses squentropy squentropy_listing cross_entropy
python -m analysis.benchmarks.loss --growth            how time and memory grow with tokens and vocabulary
python -m analysis.benchmarks.loss --growth --axes tokens --losses squentropy
python -m analysis.benchmarks.loss --losses cross_entropy squentropy --tokens 16384          on a GPU
python -m analysis.benchmarks.loss --sizes             other chunk and tile sizes than those in nanosq/head.py
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from unittest import mock

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from analysis.benchmarks.lib.growth import show_curves
from analysis.benchmarks.lib.loss_methods import (
    LOSSES,
    Case,
    Problem,
    all_logits,
    measure_alone,
    methods,
    pass_seconds,
    run_pass,
)
from analysis.benchmarks.lib.measure import median_seconds, save, show
from analysis.benchmarks.lib.memory import MIB
from nanosq import command, head, option, terminal
from nanosq.hardware import PRECISIONS, Hardware, keep_freed_memory

BASELINE = Case("cross_entropy", "head")
ERROR_TOKENS = 1024  # two chunks; more would need too much memory for the float64 logits
GROWTH = [
    Case("squentropy", "head"),
    BASELINE,
    Case("cross_entropy", "all logits"),
    Case("cross_entropy", "F.linear_cross_entropy, chunked"),
    Case("squentropy_listing", "Listing A.2"),
]
SIZES = {"tokens": [1024, 2048, 4096, 8192, 16_384], "vocabulary": [2048, 8192, 32_768, 131_072]}
REASONS = {
    "tokens": "The gradient of the weight (V x D) has the same size for any number of tokens. The head keeps the "
    "logits of one chunk only; methods with all logits keep N x V of them.",
    "vocabulary": "The gradient of the hidden states (N x D) has the same size for any vocabulary.",
}


def exact(loss: str, problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Return the objective and the gradients of hidden states and weight in float64."""
    hidden_ND, weight_VD, targets_N = problem.inputs(torch.float64)
    objective = all_logits(LOSSES[loss], hidden_ND, weight_VD, targets_N)
    grad_ND, grad_VD = torch.autograd.grad(objective, (hidden_ND, weight_VD))
    return objective.detach(), grad_ND, grad_VD


def errors(case: Case, problem: Problem, reference: tuple[Tensor, Tensor, Tensor]) -> list[float]:
    """Return the relative errors, in the Euclidean norm, of the objective and of the two gradients."""
    inputs = problem.inputs()
    results = (run_pass(case, problem, inputs), inputs[0].grad, inputs[1].grad)
    pairs = zip(results, reference, strict=True)
    return [float((result.double() - right).norm() / right.norm()) for result, right in pairs if result is not None]


def compare(problem: Problem, cases: Sequence[Case], rounds: int) -> pd.DataFrame:
    """Return a row for each case that fits into the memory."""
    small = replace(problem, tokens=min(ERROR_TOKENS, problem.tokens))
    inputs = problem.inputs()
    rows = []
    for loss in tqdm(dict.fromkeys(case.loss for case in cases), desc="losses", disable=not sys.stderr.isatty()):
        measured = {case: measure_alone(case, problem) for case in cases if case.loss == loss}
        n_bytes = {case: result[0] for case, result in measured.items() if result is not None}
        torch.compiler.reset()  # PyTorch compiles a function for a few losses only
        reference = exact(loss, small)
        relative_errors = {case: errors(case, small, reference) for case in n_bytes}
        timed = {case: partial(pass_seconds, case, problem, inputs) for case in [BASELINE, *n_bytes]}
        times = median_seconds(timed, rounds)
        rows += [
            (*case, times[case], times[case] / times[BASELINE], n_bytes[case] / MIB, *relative_errors[case])
            for case in n_bytes
        ]
    columns = ["loss", "method", "seconds", "ratio", "peak_MiB", "error", "error_hidden", "error_weight"]
    return pd.DataFrame(rows, columns=columns).set_index(["loss", "method"])


def summary(table: pd.DataFrame) -> list[str]:
    """Return a sentence for each loss about nanosq's head and its best peers, from the result of `compare`."""
    times = table["seconds"]
    own = times[table.index.get_level_values("method").str.startswith("head")].groupby("loss").min()
    peers = times.drop([case for case in table.index if case[1].startswith("head")])
    lines = []
    for loss, seconds in own.items():
        words = [f"{loss}: nanosq's head takes {1000 * seconds:.3g} ms"]
        for peer in dict.fromkeys([loss, BASELINE.loss]):
            if peer in peers.index.get_level_values("loss"):
                best = peers[peer].idxmin()
                words.append(f"{seconds / peers[peer].min():.2f} x the time of {peer} by {best}")
        if BASELINE.loss in own and loss != BASELINE.loss:
            words.append(f"{seconds / own[BASELINE.loss]:.2f} x that of {BASELINE.loss} through the head")
        lines.append(", ".join(words))
    return lines


def growth(problem: Problem, cases: Sequence[Case], axes: Sequence[str], rounds: int) -> pd.DataFrame:
    """Measure time and peak memory for other numbers of tokens and other vocabularies, and print how they grow."""
    rows = []
    for axis in axes:
        work = list(product(cases, SIZES[axis]))
        found = {}
        for case, size in tqdm(work, desc=axis, disable=not sys.stderr.isatty()):
            larger = replace(problem, tokens=size) if axis == "tokens" else replace(problem, vocabulary=size)
            found[case, size] = measure_alone(case, larger, rounds) or (math.nan, math.nan)
        for number, (quantity, unit) in enumerate([("peak_MiB", MIB), ("ms", 1e-3)]):
            curves = {case: [found[case, size][number] / unit for size in SIZES[axis]] for case in cases}
            print(f"{quantity} of a forward and backward pass")
            show_curves(axis, SIZES[axis], {f"{case.loss}, {case.method}": curve for case, curve in curves.items()})
            print()
            rows += [
                (axis, *case, quantity, size, value)
                for case, curve in curves.items()
                for size, value in zip(SIZES[axis], curve, strict=True)
            ]
        print(terminal.fit(f"{REASONS[axis]}\n", sys.stdout))
    columns = ["axis", "loss", "method", "quantity", "size", "value"]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:5])


def sizes(problem: Problem, rounds: int) -> pd.DataFrame:
    """Return the times of two losses with other sizes than those set in nanosq/head.py, one size changed at a time."""
    inputs = problem.inputs()

    def run(name: str, size: int, loss: str) -> float:
        with mock.patch.object(head, name, size):
            return pass_seconds(Case(loss, "head"), problem, inputs)

    names = ("CHUNK_LOGITS", "TILE_LOGITS", "PRODUCT_ELEMENTS")
    variants = [(name, int(getattr(head, name) * factor)) for name in names for factor in (1 / 8, 1 / 2, 1, 2, 8)]
    work = [(*variant, loss) for variant in variants for loss in ("cross_entropy", "squentropy")]
    times = median_seconds({case: partial(run, *case) for case in work}, rounds)
    columns = ["constant", "size", "loss", "seconds"]
    return pd.DataFrame([(*case, time) for case, time in times.items()], columns=columns).set_index(columns[:3])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = terminal.parser("analysis.benchmarks.loss", __doc__)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES), metavar="LOSS")
    parser.add_argument("--growth", action="store_true", help="measure other numbers of tokens and other vocabularies")
    parser.add_argument("--axes", nargs="+", choices=SIZES, default=list(SIZES), help="of --growth; default: both")
    parser.add_argument("--sizes", action="store_true", help="measure other sizes of chunks and tiles")
    parser.add_argument("--tokens", type=option.integer(1), default=4096)
    parser.add_argument("--width", type=option.integer(1), default=768)
    parser.add_argument("--vocabulary", type=option.integer(1), default=50_257)
    parser.add_argument("--precision", default="bf16", choices=PRECISIONS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=option.integer(1), default=5, help="passes of each case; default: %(default)s")
    parser.add_argument("--out", type=option.folder, default="benchmarks", help="folder of the CSV files")
    return command.run(lambda: work(parser.parse_args(arguments)))


def work(options: argparse.Namespace) -> None:
    """Print a table and write it to a CSV file."""
    hardware = Hardware.pick(device=options.device, precision=options.precision, compile=False)
    problem = Problem(options.tokens, options.width, options.vocabulary, hardware)
    device = hardware.device.type
    if device == "cpu":
        keep_freed_memory()  # as a run does; all methods gain from it
    print(f"{problem}; medians of {options.rounds} rounds\n")
    if options.growth:
        cases = [case for case in GROWTH if case.loss in options.losses and case.method in methods(case.loss, device)]
        save(growth(problem, cases, options.axes, options.rounds), options.out / "loss_growth.csv")
        return
    if options.sizes:
        name, table = "loss_sizes", sizes(problem, options.rounds)
    else:
        cases = [Case(loss, method) for loss in options.losses for method in methods(loss, device)]
        name, table = "loss", compare(problem, cases, options.rounds)
        print(f"ratio: to the time of {' through the '.join(BASELINE)}; errors from {ERROR_TOKENS} tokens at most")
    error_formats = {column: ".0e" for column in table.columns if column.startswith("error")}
    formats = {"seconds": ".3f", "ratio": ".2f", "peak_MiB": ".0f", **error_formats}
    show(table, {column: form for column, form in formats.items() if column in table})
    if name == "loss":
        print(terminal.fit("\n".join(summary(table)), sys.stdout))
    save(table, options.out / f"{name}.csv")


if __name__ == "__main__":
    sys.exit(main())
