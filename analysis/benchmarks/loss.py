"""Time, peak memory and error of every loss through the head, beside whatever else computes it.

python -m analysis.benchmarks.loss                     a table of every conf/loss, at the size of GPT-2
python -m analysis.benchmarks.loss --losses squentropy squentropy_listing cross_entropy
python -m analysis.benchmarks.loss --growth            how time and memory grow with tokens and vocabulary, as a plot
python -m analysis.benchmarks.loss --sizes             the sizes set in nanosq/head.py, and others

Every figure is of one forward and backward pass. Times of the table are medians over rounds in which each case runs
once, so that a busy moment of the machine hits all alike. Peak memory is what a pass takes beyond its inputs,
gradients included: on a CPU each case has a process of its own. Errors are relative to float64 with all logits.
"""

import argparse
import sys
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from analysis.benchmarks.lib.loss_growth import growth
from analysis.benchmarks.lib.loss_methods import LOSSES, all_logits, methods
from analysis.benchmarks.lib.loss_passes import Case, Problem, alone, run_pass, seconds
from analysis.benchmarks.lib.memory import MIB, write
from nanosq import head
from nanosq.hardware import PRECISIONS, Hardware, keep_freed_memory

ERROR_TOKENS = 1024  # two chunks, of which the float64 logits, 8 bytes each and several times over, fit any machine


def errors(case: Case, problem: Problem, reference: tuple[Tensor, Tensor, Tensor]) -> list[float]:
    """Relative errors, in the Euclidean norm, of the objective and of the gradients of hidden states and weight."""
    inputs = problem.inputs()
    results = (run_pass(case, problem, inputs), inputs[0].grad, inputs[1].grad)
    pairs = zip(results, reference, strict=True)
    return [float((ours.double() - exact).norm() / exact.norm()) for ours, exact in pairs if ours is not None]


def exact(loss: str, problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Objective and gradients in float64."""
    hidden_ND, weight_VD, targets_N = problem.inputs(torch.float64)
    objective = all_logits(LOSSES[loss], hidden_ND, weight_VD, targets_N)
    grad_ND, grad_VD = torch.autograd.grad(objective, (hidden_ND, weight_VD))
    return objective.detach(), grad_ND, grad_VD


def table(problem: Problem, cases: list[Case], rounds: int, out: Path) -> None:
    with tqdm(cases, desc="memory", disable=not sys.stderr.isatty()) as bar:
        memories = {case: alone(case, problem) for case in bar}
    cases = [case for case in cases if memories[case] is not None]
    few = replace(problem, tokens=min(ERROR_TOKENS, problem.tokens))
    wrong: dict[Case, list[float]] = {}
    losses = dict.fromkeys(case.loss for case in cases)
    for loss in tqdm(losses, desc="errors", disable=not sys.stderr.isatty()):
        reference = exact(loss, few)
        wrong |= {case: errors(case, few, reference) for case in cases if case.loss == loss}
    inputs = problem.inputs()
    times = dict(zip(cases, seconds([partial(run_pass, case, problem, inputs) for case in cases], rounds), strict=True))

    baseline = times.get(Case("cross_entropy", "head"))
    print(f"{problem}; medians of {rounds} rounds; errors from {few.tokens} tokens\n")
    print(f"{'loss':19} {'method':31} {'time':>7} {'ratio':>6} {'peak MiB':>9}   relative error: value, two gradients")
    rows = []
    for case in cases:
        bytes_, time_ = memories[case][0], times[case]  # type: ignore[index]
        ratio = f"{time_ / baseline:.2f}" if baseline else ""
        error_text = "  ".join(f"{error:.0e}" for error in wrong[case])
        print(f"{case.loss:19} {case.method:31} {time_:6.3f}s {ratio:>6} {bytes_ / MIB:9.0f}   {error_text}")
        rows.append([*case, time_, bytes_, *wrong[case]])
    if baseline:
        print("\nratio: to the time of cross_entropy through the head")
    write(
        out / "loss.csv",
        ["loss", "method", "seconds", "peak_bytes", *("error_" + e for e in ["value", "hidden", "weight"])],
        rows,
    )


def sizes(problem: Problem, rounds: int) -> None:
    """Time of cross_entropy and squentropy through the head with other sizes than those set there, one at a time."""
    inputs = problem.inputs()
    default = (head.CHUNK_LOGITS, head.TILE_LOGITS, head.PRODUCT_ELEMENTS)
    settings = {
        (name, f"2^{size.bit_length() - 1}"): tuple(size if i == at else value for i, value in enumerate(default))
        for at, name in enumerate(("CHUNK_LOGITS", "TILE_LOGITS", "PRODUCT_ELEMENTS"))
        for size in (default[at] // 8, default[at] // 2, default[at], default[at] * 2, default[at] * 8)
    }

    def with_sizes(setting: tuple[int, ...], case: Case) -> None:
        head.CHUNK_LOGITS, head.TILE_LOGITS, head.PRODUCT_ELEMENTS = setting
        run_pass(case, problem, inputs)

    cases = [Case("cross_entropy", "head"), Case("squentropy", "head")]
    work = list(product(settings, cases))
    times = seconds([partial(with_sizes, settings[key], case) for key, case in work], rounds)
    print(f"{problem}; medians of {rounds} rounds\n")
    for ((name, size), case), time_ in zip(work, times, strict=True):
        print(f"{name:17} {size:5} {case.loss:14} {time_:.3f}s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES), metavar="LOSS")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="by the names in the table; all where not given")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--vocabulary", type=int, default=50_257)
    parser.add_argument("--precision", default="bf16", choices=PRECISIONS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of the CSV files and the plot")
    options = parser.parse_args()
    torch._dynamo.config.recompile_limit = 8 * len(LOSSES)  # all are compiled in one process
    try:
        hardware = Hardware.pick(device=options.device, precision=options.precision, compile=False)
    except ValueError as error:
        parser.error(str(error))
    problem = Problem(options.tokens, options.width, options.vocabulary, hardware)
    if hardware.device.type == "cpu":
        keep_freed_memory()  # as a run does; all methods gain by it
    if options.growth:
        growth(problem, options.rounds, options.out)
    elif options.sizes:
        sizes(problem, options.rounds)
    else:
        cases = [Case(loss, method) for loss in options.losses for method in methods(loss, hardware.device.type)]
        if options.methods is not None:
            cases = [case for case in cases if case.method in options.methods]
        table(problem, cases, options.rounds, options.out)


if __name__ == "__main__":
    main()
