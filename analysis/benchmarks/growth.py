"""Measure how time and memory of nanosq's training step grow with the sizes of model and batch.

One size changes, the others stay. A step is forward, backward, clipping and AdamW. Times are medians over rounds in
which all sizes take turns. An exponent is the slope of log time against log size: 1 is linear, 2 quadratic. It is
printed beside that of the floating-point operations, which says what to expect, and with the fixed part of the time.

python -m analysis.benchmarks.growth                        depth, width, vocabulary, block size and batch size
python -m analysis.benchmarks.growth --axes width --loss squentropy
python -m analysis.benchmarks.loss --growth                 the same for the head alone, and for other losses
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from analysis.benchmarks.lib.growth import show_curves
from analysis.benchmarks.lib.loss_methods import LOSSES
from analysis.benchmarks.lib.measure import describe_machine, save
from analysis.benchmarks.lib.memory import MIB
from analysis.benchmarks.lib.shapes import Shape
from analysis.benchmarks.lib.training_steps import MeasuredTrainer
from analysis.benchmarks.lib.workers import Measured, Worker, measure
from nanosq import command, option, terminal
from nanosq.hardware import Hardware

BASE = Shape(n_layer=4, n_head=4, n_embd=256, vocab_size=8192, batch_size=8, block_size=256)


@dataclass(frozen=True)
class Axis:
    """A size that changes, and why the time of a step may not be linear in it."""

    name: str
    reason: str
    shapes: dict[int, Shape]


AXES = [
    Axis(
        "depth",
        "Embedding, head and loss do not depend on the depth.",
        {n: replace(BASE, n_layer=n) for n in (1, 2, 4, 8, 16)},
    ),
    Axis(
        "width",
        "Matrix products of the layers are quadratic in the width, head and attention linear, the loss is independent "
        "of it. Products of small matrices are slower for each operation.",
        {n: replace(BASE, n_embd=n, n_head=n // 64) for n in (64, 128, 256, 512, 1024)},
    ),
    Axis(
        "vocabulary",
        "The layers do not depend on the vocabulary.",
        {n: replace(BASE, vocab_size=n) for n in (2048, 8192, 32_768, 131_072)},
    ),
    Axis(
        "block size",
        "The number of tokens is the same: attention is linear in the block size, nothing else depends on it.",
        {n: replace(BASE, block_size=n, batch_size=BASE.tokens // n) for n in (128, 256, 512, 1024, 2048)},
    ),
    Axis(
        "batch size",
        "The optimizer does not depend on the batch.",
        {n: replace(BASE, batch_size=n) for n in (1, 2, 4, 8, 16, 32)},
    ),
]
NAMES = {axis.name.replace(" ", "_"): axis for axis in AXES}


def grow(axis: Axis, loss: str, hardware: Hardware, rounds: int) -> pd.DataFrame:
    """Return time, peak memory and operations of a step for each size; nan where the memory is too small."""
    contender = MeasuredTrainer("nanosq", loss, hardware)
    found = measure({size: Worker(contender, shape) for size, shape in axis.shapes.items()}, rounds)
    missing = Measured(math.nan, math.nan)
    costs = {size: found.get(size, missing) for size in axis.shapes}
    return pd.DataFrame(
        {
            "ms": {size: 1000 * cost.seconds for size, cost in costs.items()},
            "MiB": {size: cost.peak_bytes / MIB for size, cost in costs.items()},
            "GFLOP": {size: shape.flops / 1e9 for size, shape in axis.shapes.items()},
        }
    ).rename_axis("size")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    names = ", ".join(NAMES)
    parser = terminal.parser("analysis.benchmarks.growth", __doc__)
    parser.add_argument("--axes", nargs="+", choices=NAMES, default=[*NAMES], metavar="AXIS", help=names)
    parser.add_argument("--loss", default="cross_entropy", choices=LOSSES, metavar="LOSS")
    parser.add_argument("--rounds", type=option.integer(1), default=5, help="default: %(default)s")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["fp32", "bf16", "auto"])
    parser.add_argument("--out", type=option.folder, default="benchmarks", help="folder of the CSV file")
    return command.run(lambda: work(parser.parse_args(arguments)))


def work(options: argparse.Namespace) -> None:
    """Print a table for each size that changes, and write them to a CSV file."""
    hardware = Hardware.pick(device=options.device, precision=options.precision, compile=False)
    print(f"{BASE}; {options.loss}, {hardware}, {describe_machine(hardware)}; one size changes at a time\n")
    tables = {}
    for name in options.axes:
        axis = NAMES[name]
        table = tables[name] = grow(axis, options.loss, hardware, options.rounds)
        show_curves(axis.name, [*table.index], {column: [*table[column]] for column in table})
        print(terminal.fit(f"{axis.reason}\n", sys.stdout), flush=True)
        save(pd.concat(tables, names=["axis"]), options.out / "growth.csv")


if __name__ == "__main__":
    sys.exit(main())
