"""Compare nanosq with karpathy/nanoGPT and with Hugging Face's GPT-2: the same training, its speed and its memory.

python -m analysis.benchmarks.training --nanogpt DIR                      parity and speed
python -m analysis.benchmarks.training --nanogpt DIR --parity --shapes gpt2-small
python -m analysis.benchmarks.training --nanogpt DIR --speed --shapes wide gpt2
python -m analysis.benchmarks.training --nanogpt DIR --speed --shapes gpt2-batch16                          on a GPU
python -m analysis.benchmarks.training --profile --shapes wide            where the time of a step of nanosq goes

DIR is a checkout of nanoGPT, whose model, optimizer and schedule run unchanged.

Parity: both start from the same weights and see the same batches, in float32, with nanoGPT's learning rates; the table
has the losses of every step and their difference. Training is chaotic: with --warmup 5 the learning rate is high at
once, and differences of 1e-6 grow a thousandfold. --float64 shows whether a difference is more than rounding.

Speed: nanosq as in a long run, bf16 if the machine is fast with it. Its peers are nanoGPT in fp32, as its train.py
computes on a CPU, nanoGPT in bf16 by autocast, the same compiled, as train.py does on a GPU, and a plain training loop
with GPT2LMHeadModel of transformers in bf16 (pip install -e '.[benchmarks]'). For squentropy, nanoGPT has Listing A.2
of the student report. A step is forward, backward, clipping and AdamW. All contenders are alive at the same time, each
in a process of its own, and take turns: times are medians over the rounds. The rows are sorted by time.

The speedup of a row is its time divided by that of nanosq, and its memory the peak memory of nanosq divided by its own.
Peak memory is what the process takes beyond what it had before the model was built. MFU is the speed as a share of that
of a large matrix product in the same precision. Its operations are counted as in PaLM, appendix B: attention with all
T x T pairs, although half are masked.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch

from analysis.benchmarks.lib.measure import describe_machine, save, show
from analysis.benchmarks.lib.memory import MIB
from analysis.benchmarks.lib.nanogpt import Checkout
from analysis.benchmarks.lib.parity import parity
from analysis.benchmarks.lib.shapes import SHAPES, Shape
from analysis.benchmarks.lib.training_profile import time_shares
from analysis.benchmarks.lib.training_steps import MeasuredTrainer
from analysis.benchmarks.lib.workers import Measured, Worker, measure
from nanosq import command, option, terminal
from nanosq.hardware import Hardware

LOSSES = ("cross_entropy", "squentropy")
WARMUP = 2000  # nanoGPT's default
FORMATS = {
    "ms/step": ".1f",
    "tokens/s": ",.0f",
    "MFU": ".1%",
    "speedup": ".2f",
    "peak MiB": ",.0f",
    "memory": ".2f",
}


def contenders(loss: str, hardware: Hardware) -> list[MeasuredTrainer]:
    """Return nanosq, which comes first, and its peers."""
    plain = Hardware(hardware.device, hardware.precision)
    places = [plain, replace(plain, compile=True)]
    if hardware.device.type != "cuda":
        places.insert(0, Hardware(hardware.device))  # fp32
    peers = [MeasuredTrainer("nanoGPT", loss, place) for place in dict.fromkeys(places)]
    if loss == "cross_entropy" and find_spec("transformers"):
        peers.append(MeasuredTrainer("transformers", loss, plain))
    # nanosq keeps its memory: it comes first, so that the others, which need more, are told what is left.
    return [MeasuredTrainer("nanosq", loss, hardware), *peers]


def comparison(shape: Shape, costs: Mapping[MeasuredTrainer, Measured]) -> pd.DataFrame:
    """Return a row for each contender of one loss, the fastest first, beside nanosq."""
    own = next((cost for name, cost in costs.items() if name.project == "nanosq"), Measured(math.nan, 0))
    rows = [
        (
            contender.name,
            1000 * cost.seconds,
            shape.tokens / cost.seconds,
            shape.flops / cost.seconds / contender.hardware.peak_flops,
            cost.seconds / own.seconds,
            cost.peak_bytes / MIB,
            own.peak_bytes / cost.peak_bytes,
        )
        for contender, cost in costs.items()
    ]
    return pd.DataFrame(rows, columns=["contender", *FORMATS]).set_index("contender").sort_values("ms/step")


def summary(table: pd.DataFrame) -> str:
    """Return a sentence about nanosq and its best peer, from the result of `comparison`."""
    own = table[table.index.str.startswith("nanosq ")]
    peers = table.drop(own.index)
    if own.empty or peers.empty:
        return "nothing to compare"
    speedup, memory = peers[["speedup", "memory"]].iloc[0]
    return (
        f"nanosq takes {own['ms/step'].iloc[0]:,.0f} ms a step, {speedup:.2f} x as fast as the best peer, "
        f"{peers.index[0]}, with {memory:.2f} x of its memory"
    )


def speed(nanogpt: Path, shape: Shape, losses: Sequence[str], hardware: Hardware, rounds: int) -> pd.DataFrame:
    """Return time and memory of all contenders for each loss, and print them."""
    tables = {}
    for loss in losses:
        workers = {contender: Worker(contender, shape, nanogpt) for contender in contenders(loss, hardware)}
        tables[loss] = comparison(shape, measure(workers, rounds))
        print(f"{loss}{'; nanoGPT with Listing A.2' if loss == 'squentropy' else ''}")
        show(tables[loss], FORMATS)
    return pd.concat(tables, names=["loss"])


def profile(shape: Shape, hardware: Hardware) -> pd.DataFrame:
    """Return the shares of a step of squentropy, and print the time that its matrix products need at least."""
    contender = MeasuredTrainer("nanosq", "squentropy", replace(hardware, compile=False, compile_loss=False))
    peak = hardware.peak_flops
    milliseconds = 1000 * shape.matrix_flops / peak
    print(f"{contender}: at least {milliseconds:.1f} ms, 6 N tokens at {peak / 1e12:.2f} TFLOP/s of a large product")
    return pd.DataFrame({"share": pd.Series(time_shares(contender, shape))})


def parser() -> option.Parser:
    """Return the parser of the command."""
    result = terminal.parser("analysis.benchmarks.training", __doc__)
    result.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of karpathy/nanoGPT")
    result.add_argument("--parity", action="store_true", help="compare the losses of every step")
    result.add_argument("--speed", action="store_true", help="compare time and memory of a step")
    result.add_argument("--profile", action="store_true", help="show where the time of a step of nanosq goes")
    shapes = ", ".join(SHAPES)
    result.add_argument("--shapes", nargs="+", choices=SHAPES, default=["wide"], metavar="SHAPE", help=shapes)
    result.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES, help="of speed; default: both")
    result.add_argument("--steps", type=option.integer(1), default=50, help="steps of parity; default: %(default)s")
    result.add_argument(
        "--warmup", type=option.integer(1), default=WARMUP, help="of parity's schedule; default: %(default)s steps"
    )
    result.add_argument("--float64", action="store_true", help="parity in double precision")
    result.add_argument("--rounds", type=option.integer(1), default=5, help="rounds of speed; default: %(default)s")
    result.add_argument("--device", default="auto")
    result.add_argument("--precision", choices=["fp32", "bf16", "auto"], default="auto", help="of nanosq and its peers")
    result.add_argument("--compile", action=argparse.BooleanOptionalAction, help="nanosq; default: as in a long run")
    result.add_argument("--out", type=option.folder, default="benchmarks", help="folder of the CSV files")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    return command.run(lambda: work(parser().parse_args(arguments)))


def work(options: argparse.Namespace) -> None:
    """Print tables for each shape and write them to CSV files."""
    if not (options.parity or options.speed or options.profile):
        options.parity = options.speed = True
    if options.nanogpt is None and (options.parity or options.speed):
        raise ValueError("--nanogpt DIR is needed, a checkout of karpathy/nanoGPT")
    checkout = Checkout(options.nanogpt) if options.parity or options.speed else None
    compile = "auto" if options.compile is None else options.compile
    hardware = Hardware.pick(
        device=options.device, precision=options.precision, compile=compile, n_flops=math.inf, n_logits=math.inf
    )
    torch.compiler.reset()  # `pick` has compiled a loss of eight classes; the benchmark has another size
    if options.speed and not find_spec("transformers"):
        print("transformers is not installed, and left out: pip install -e '.[benchmarks]'")
    sentences = []
    for name in options.shapes:
        shape = SHAPES[name]
        print(f"{name}: {shape}, {describe_machine(hardware)}\n", flush=True)
        if checkout and options.parity:
            dtype = torch.float64 if options.float64 else torch.float32
            table = parity(checkout, shape, options.steps, hardware.device, warmup=options.warmup, dtype=dtype)
            show(table.iloc[:: max(1, options.steps // 50)], {"difference": "+.1e"})
            print(f"largest difference in {options.steps} steps: {table['difference'].abs().max():.1e}\n")
            save(table, options.out / f"training_parity_{name}.csv")
        if checkout and options.speed:
            table = speed(checkout.folder, shape, options.losses, hardware, options.rounds)
            save(table, options.out / f"training_{name}.csv")
            sentences += [f"{name}, {loss}: {summary(table.loc[loss])}" for loss in options.losses]
        if options.profile:
            table = profile(shape, hardware)
            show(table, {"share": ".1%"})
            save(table, options.out / f"training_profile_{name}.csv")
    print(terminal.fit("\n".join(sentences), sys.stdout))


if __name__ == "__main__":
    sys.exit(main())
