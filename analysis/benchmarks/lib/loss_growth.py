"""How time and memory of a loss grow with tokens and vocabulary: `python -m analysis.benchmarks.loss --growth`."""

import sys
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from analysis.benchmarks.lib.loss_methods import methods
from analysis.benchmarks.lib.loss_passes import Case, Problem, alone
from analysis.benchmarks.lib.memory import write

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
