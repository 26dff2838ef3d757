"""Time, peak memory and error of every loss through the head, beside whatever else computes it.

python -m analysis.benchmark_loss                     a table of every conf/loss, at the size of GPT-2
python -m analysis.benchmark_loss --losses squentropy squentropy_listing cross_entropy
python -m analysis.benchmark_loss --growth            how time and memory grow with tokens and vocabulary, as a plot
python -m analysis.benchmark_loss --sizes             the sizes set in nanosq/head.py, and others

Every figure is of one forward and backward pass. Times of the table are medians over rounds in which each case runs
once, so that a busy moment of the machine hits all alike. Peak memory is what a pass takes beyond its inputs,
gradients included: on a CPU each case has a process of its own. Errors are relative to float64 with all logits.
"""

import argparse
import csv
import ctypes
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from analysis.loss_methods import LOSSES, all_logits, methods
from nanosq import head
from nanosq.hardware import PRECISIONS, Hardware

ERROR_TOKENS = 1024  # two chunks, of which the float64 logits, 8 bytes each and several times over, fit any machine
MIB = 2**20


class Case(NamedTuple):
    loss: str
    method: str


@dataclass(frozen=True)
class Problem:
    tokens: int
    width: int
    vocabulary: int
    hardware: Hardware

    def __str__(self) -> str:
        place = (
            torch.cuda.get_device_name()
            if self.hardware.device.type == "cuda"
            else f"{torch.get_num_threads()} threads"
        )
        return (
            f"N={self.tokens:,} tokens, D={self.width}, V={self.vocabulary:,}, {self.hardware}, {place}, "
            f"torch {torch.__version__}"
        )

    def inputs(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
        """hidden_ND as a final layer norm leaves it, weight_VD as GPT-2 is initialised, targets_N."""
        generator = torch.Generator().manual_seed(0)
        hidden_ND = F.layer_norm(torch.randn(self.tokens, self.width, generator=generator), (self.width,))
        weight_VD = torch.randn(self.vocabulary, self.width, generator=generator) * 0.02
        targets_N = torch.randint(self.vocabulary, (self.tokens,), generator=generator)
        place = self.hardware.device
        leaves = (t.to(place, dtype).requires_grad_() for t in (hidden_ND, weight_VD))
        return (*leaves, targets_N.to(place))  # type: ignore[return-value]

    def synchronize(self) -> None:
        if self.hardware.device.type == "cuda":
            torch.cuda.synchronize()


def run_pass(case: Case, problem: Problem, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The objective; gradients are left in the inputs."""
    hidden_ND, weight_VD, targets_N = inputs
    hidden_ND.grad = weight_VD.grad = None
    method = methods(case.loss, problem.hardware.device.type)[case.method]
    with problem.hardware.autocast():
        objective = method(LOSSES[case.loss], hidden_ND, weight_VD, targets_N)
    objective.backward()
    problem.synchronize()
    return objective.detach()


def seconds(cases: Iterable[Callable[[], object]], rounds: int) -> list[float]:
    """Median time of each case, after a round that is not counted."""
    cases = list(cases)
    times: list[list[float]] = [[] for _ in cases]
    for _ in tqdm(range(rounds + 1), desc="timing", unit="round", disable=not sys.stderr.isatty()):
        for case, its_times in zip(cases, times, strict=True):
            begin = time.perf_counter()
            case()
            its_times.append(time.perf_counter() - begin)
    return [statistics.median(its_times[1:]) for its_times in times]


def memory_and_time(case: Case, problem: Problem, rounds: int = 0) -> tuple[int, float]:
    """Bytes that a pass takes at its peak beyond what was there, and median seconds; for a process of its own."""
    on_cpu = problem.hardware.device.type == "cpu"
    if on_cpu:  # an allocation that the machine cannot hold fails, and nothing is killed
        limit = _kibibytes("self/status", "VmSize") + _kibibytes("meminfo", "MemAvailable")
        resource.setrlimit(resource.RLIMIT_AS, (1024 * limit, resource.RLIM_INFINITY))
    small = replace(problem, tokens=64)
    run_pass(case, small, small.inputs())  # loads libraries, compiles
    inputs = problem.inputs()
    if on_cpu:
        ctypes.CDLL(None).malloc_trim(0)  # what the small pass left in the heap would be used again, and not counted
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on: proc(5)
        before = 1024 * _kibibytes("self/status", "VmRSS")
        run_pass(case, problem, inputs)
        peak = 1024 * _kibibytes("self/status", "VmHWM")
    else:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run_pass(case, problem, inputs)
        peak = torch.cuda.max_memory_allocated()
    return peak - before, seconds([partial(run_pass, case, problem, inputs)], rounds)[0] if rounds else 0.0


def alone(case: Case, problem: Problem, rounds: int = 0) -> tuple[int, float] | None:
    """`memory_and_time` in a fresh process; None where the machine's memory does not suffice."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(memory_and_time, case, problem, rounds).result()
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
                return None
            raise


def _kibibytes(file: str, key: str) -> int:
    lines = Path("/proc", file).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


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


GROWTH = [
    Case("squentropy", "head"),
    Case("cross_entropy", "head"),
    Case("cross_entropy", "all logits"),
    Case("cross_entropy", "F.linear_cross_entropy, chunked"),
    Case("squentropy_listing", "Listing A.2"),
]


def growth(problem: Problem, rounds: int, out: Path) -> None:
    """Time and peak memory over N, 1k to 32k, and over V, 1k to 128k."""
    sweeps = {
        "tokens": [replace(problem, tokens=1024 * 2**i) for i in range(6)],
        "vocabulary": [replace(problem, vocabulary=1024 * 2**i) for i in range(8)],
    }
    cases = [case for case in GROWTH if case.method in methods(case.loss, problem.hardware.device.type)]
    rows: list[list[object]] = []
    work = [(name, each, case) for name, problems in sweeps.items() for each in problems for case in cases]
    for name, each, case in tqdm(work, desc="growth", disable=not sys.stderr.isatty()):
        measured = alone(case, each, rounds)
        rows.append([name, getattr(each, name), *case, *(measured or ("", ""))])
    header = ["sweep", "size", "loss", "method", "peak_bytes", "seconds"]
    write(out / "loss_growth.csv", header, rows)
    plot(rows, problem, out / "loss_growth.png")


def plot(rows: list[list[object]], problem: Problem, path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    labels = {"tokens": "tokens N", "vocabulary": "vocabulary V"}
    for column, (sweep, label) in enumerate(labels.items()):
        for row, (unit, scale) in enumerate({"seconds": 1, "peak memory, GiB": 2**30}.items()):
            axis = axes[row][column]
            for case, marker in zip(GROWTH, "osD^v", strict=True):
                mine = [r for r in rows if (r[0], r[2], r[3]) == (sweep, *case) and r[4] != ""]
                values = [float(r[5 - row]) / scale for r in mine]  # type: ignore[arg-type]
                axis.plot([r[1] for r in mine], values, marker=marker, label=f"{case.loss}: {case.method}")
            axis.set(xscale="log", yscale="log", xlabel=label, ylabel=unit)
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1024:g}k")
            axis.grid(alpha=0.3)
    figure.suptitle(
        f"Forward and backward, D={problem.width}, {problem.hardware}; V={problem.vocabulary:,} left, "
        f"N={problem.tokens:,} right; a line ends where memory does"
    )
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=150)
    print(path)


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


def write(path: Path, header: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


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
